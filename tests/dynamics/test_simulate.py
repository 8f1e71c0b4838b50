"""The driver: records, explosions that end one replica and not the others, and batches."""

import numpy as np
import pytest
import torch

from conservbench.dynamics.integrator import integrator
from conservbench.dynamics.simulate import simulate
from conservbench.models.base import Prediction
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.temperature import cooler_than, kinetic_energy, temperature
from conservbench.scheme import Scheme
from conservbench.units import FEMTOSECOND

OBSERVE = {"temperature": temperature, "energy": lambda md: md.energy + kinetic_energy(md)}


def run(model, state, *, dt=1.0, n_records=10, interval=5, start=None):
    engine = integrator(model, Scheme("gradient"))
    return simulate(
        engine.init(state) if start is None else start,
        lambda md: engine.step(md, dt * FEMTOSECOND),
        n_replicas=state.n_systems,
        n_records=n_records,
        interval=interval,
        observe=OBSERVE,
        healthy=cooler_than(1e4),
    )


class Trap:
    """The harmonic crystal, but a system with an atom more than ``reach`` Å from its site goes wrong in its own way."""

    channels = ("gradient",)
    elements = None
    differentiable = False
    labelled = True
    device = torch.device("cpu")

    def __init__(self, toy, factor, reach=0.6):
        self.toy, self.factor, self.reach = toy, factor, reach

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        assert bool(torch.isfinite(state.positions).all())
        prediction = self.toy.evaluate(state, forces=("gradient",))
        gone = self.toy.displacements(state, state.positions, state.cell).square().sum(1) > self.reach**2
        broken = state.sum(gone.double())[state.system, None] > 0
        pulls = torch.where(broken, self.factor * prediction.forces["gradient"], prediction.forces["gradient"])
        return Prediction(prediction.energy, {"gradient": pulls})


def kicked(state, replica):
    """The batch with one atom of one replica thrown out at 1 Å in 20 fs."""
    momenta = state.momenta.clone()
    momenta[8 * replica, 0] += 28.085 * 1.0 / (20 * FEMTOSECOND)
    return state.replace(momenta=momenta)


def test_records_are_at_their_times(toy, crystal):
    model, state = toy("harmonic"), crystal(2)
    seen = []
    engine = integrator(model, Scheme("gradient"))
    recording = simulate(
        engine.init(state),
        lambda md: engine.step(md, FEMTOSECOND),
        n_replicas=2,
        n_records=3,
        interval=4,
        observe=OBSERVE,
        healthy=cooler_than(1e4),
        report=seen.append,
    )
    md = engine.init(state)
    for record in range(4):
        np.testing.assert_allclose(recording.series["temperature"][:, record], temperature(md).numpy(), rtol=1e-12)
        for _ in range(4):
            md = engine.step(md, FEMTOSECOND)
    assert seen == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert recording.exploded.tolist() == [-1, -1]


@pytest.mark.parametrize("factor", [torch.nan, torch.inf, -1e6, 1e30, 1e300])
def test_a_replica_that_explodes_ends_and_the_others_go_on(toy, crystal, factor):
    state = kicked(crystal(3), replica=1)
    recording = run(Trap(toy("harmonic"), factor), state)
    # it gets 0.6 Å away, slowed down by its spring, within 15 to 20 steps, and every fifth is a record
    assert recording.exploded[1] in (3, 4)
    assert recording.exploded[[0, 2]].tolist() == [-1, -1]
    alone = run(toy("harmonic"), crystal(3))
    for name, series in recording.series.items():
        assert np.isnan(series[1, recording.exploded[1] :]).all()
        assert np.isfinite(series[1, : recording.exploded[1]]).all()
        np.testing.assert_allclose(series[[0, 2]], alone.series[name][[0, 2]], rtol=1e-9)
    assert recording.final.replica == (0, 2)


def test_every_replica_may_explode(toy, crystal):
    recording = run(Trap(toy("harmonic"), torch.nan), kicked(kicked(crystal(2), 0), 1))
    assert (recording.exploded > 0).all()
    assert recording.final is None


def test_a_potential_at_a_wild_time_step_does_not_crash(crystal):
    recording = run(StillingerWeber(), crystal(3), dt=60.0, n_records=40, interval=4)
    assert (recording.exploded >= 0).all()


def test_a_replica_lost_before_has_no_records(toy, crystal):
    model, state = toy("harmonic"), crystal(3)
    start = integrator(model, Scheme("gradient")).init(state).take([0, 2])
    recording = run(model, state, start=start)
    assert recording.exploded.tolist() == [-1, 0, -1]
    assert np.isnan(recording.series["energy"][1]).all()
    whole = run(model, state).series["energy"]
    np.testing.assert_allclose(recording.series["energy"][[0, 2]], whole[[0, 2]], rtol=1e-12)


def test_a_run_of_nobody_is_empty(toy, crystal):
    engine = integrator(toy("harmonic"), Scheme("gradient"))
    recording = simulate(
        None,
        lambda md: engine.step(md, FEMTOSECOND),
        n_replicas=2,
        n_records=2,
        interval=1,
        observe=OBSERVE,
        healthy=cooler_than(1e4),
    )
    assert recording.exploded.tolist() == [0, 0]
    assert np.isnan(recording.series["energy"]).all()
    assert recording.final is None


def test_a_replica_does_not_depend_on_its_batch(crystal):
    state = crystal(4)
    together = run(StillingerWeber(), state)
    engine = integrator(StillingerWeber(), Scheme("gradient"))
    alone = run(StillingerWeber(), state, start=engine.init(state).take([3]))
    np.testing.assert_allclose(alone.series["energy"][3], together.series["energy"][3], rtol=1e-12)


def test_arrays_are_recorded_with_their_shape(toy, crystal):
    model, state = toy("harmonic"), kicked(crystal(3), replica=1)
    engine = integrator(Trap(model, torch.nan), Scheme("gradient"))
    recording = simulate(
        engine.init(state),
        lambda md: engine.step(md, FEMTOSECOND),
        n_replicas=3,
        n_records=6,
        interval=5,
        observe={"positions": lambda md: md.positions.view(-1, 8, 3), "temperature": temperature},
        healthy=cooler_than(1e4),
    )
    positions, gone = recording.series["positions"], recording.exploded[1]
    assert positions.shape == (3, 7, 8, 3)
    assert gone > 0
    np.testing.assert_array_equal(positions[:, 0], state.positions.view(3, 8, 3).numpy())
    np.testing.assert_array_equal(positions[[0, 2], -1], recording.final.positions.view(2, 8, 3).numpy())
    assert np.isnan(positions[1, gone:]).all()
    assert np.isfinite(positions[1, :gone]).all()


def test_an_array_with_one_value_that_is_no_number_ends_its_replica(toy, crystal):
    engine = integrator(toy("harmonic"), Scheme("gradient"))

    def spoilt(md):
        values = torch.zeros(md.n_systems, 4, dtype=torch.float64)
        values[[replica == 1 for replica in md.replica], 2] = torch.nan
        return values

    recording = simulate(
        engine.init(crystal(3)),
        lambda md: engine.step(md, FEMTOSECOND),
        n_replicas=3,
        n_records=2,
        interval=1,
        observe={"values": spoilt},
        healthy=cooler_than(1e4),
    )
    assert recording.exploded.tolist() == [-1, 0, -1]
