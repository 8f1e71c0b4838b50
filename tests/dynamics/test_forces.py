"""What a model is shown, and not shown, while a simulation runs."""

import pytest
import torch

from conservbench.dynamics.forces import REACH, force_of, predict, without_net_force
from conservbench.dynamics.integrator import integrator
from conservbench.models.base import InvalidPredictionError, Prediction
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.temperature import kinetic_energy
from conservbench.scheme import Scheme
from conservbench.units import FEMTOSECOND


def test_forces_are_those_of_the_channel(toy, crystal):
    model, state = toy("two-headed", 0.7), crystal(2)
    for channel in ("gradient", "direct"):
        forces, energy = force_of(model, channel)(state)
        prediction = model.evaluate(state, forces=(channel,))
        # neither has a net force: what is taken from the direct ones is rounding
        assert float((forces - prediction.forces[channel]).abs().max()) < 1e-14
        assert torch.equal(energy, prediction.energy)


@pytest.mark.parametrize("scheme", [Scheme("gradient"), Scheme("direct"), Scheme("mts", 4)], ids=lambda s: s.kind)
def test_a_step_with_its_graph_is_the_same_step(toy, crystal, scheme):
    model, start = toy("two-headed", 0.7), crystal(2)
    positions = start.positions.clone().requires_grad_()
    plain, attached = integrator(model, scheme), integrator(model, scheme, graph=True)
    moved = plain.step(plain.init(start), FEMTOSECOND)
    again = attached.step(attached.init(start.replace(positions=positions)), FEMTOSECOND)
    assert torch.equal(again.positions, moved.positions)
    assert torch.equal(again.momenta, moved.momenta)
    assert not moved.momenta.requires_grad
    # the forces feel no translation, the positions follow it
    for vector, share in ((again.positions, 1.0), (again.momenta, 0.0)):
        (slope,) = torch.autograd.grad(vector[:8, 0].sum(), positions, retain_graph=True)
        expected = torch.tensor([8 * share] + [0.0] * 5, dtype=torch.float64)
        torch.testing.assert_close(start.sum(slope).flatten(), expected, rtol=1e-12, atol=1e-12)


class Windy:
    """A harmonic crystal whose forces are called direct, too, there with the same push for every atom of a system."""

    channels = ("gradient", "direct")
    elements = None
    differentiable = False
    labelled = True
    device = torch.device("cpu")

    def __init__(self, harmonic):
        self.harmonic = harmonic

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        still = self.harmonic.evaluate(state, forces=("gradient",))
        pull = still.forces["gradient"]
        # eV/Å; another for each system
        wind = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64) * (1.0 + state.system)[:, None]
        return Prediction(still.energy, {"gradient": pull, "direct": pull + wind})


@pytest.mark.parametrize("scheme", [Scheme("direct"), Scheme("mts", 4)])
def test_a_net_force_of_the_direct_channel_moves_nothing(toy, crystal, scheme):
    model, state = Windy(toy("harmonic")), crystal(3)
    windy, still = integrator(model, scheme), integrator(model, Scheme("gradient"))
    there, expected = windy.init(state), still.init(state)
    for _ in range(100 // windy.stride):
        there = windy.step(there, FEMTOSECOND)
    for _ in range(100):
        expected = still.step(expected, FEMTOSECOND)
    assert float(there.sum(there.momenta).abs().max()) < 1e-11
    assert float((there.positions - expected.positions).abs().max()) < 1e-11
    change = there.energy + kinetic_energy(there) - expected.energy - kinetic_energy(expected)
    assert float(change.abs().max()) < 1e-10


def test_a_net_force_of_the_gradient_channel_is_left_alone(toy, crystal):
    state = crystal(1)
    windy = Windy(toy("harmonic")).evaluate(state).forces["direct"]
    model = ToldForces({"gradient": windy})
    assert torch.equal(force_of(model, "gradient")(state)[0], windy)


class ToldForces:
    """Says what it is told to say."""

    def __init__(self, forces):
        self.forces = forces

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        return Prediction(None, self.forces)


def test_direct_forces_of_a_wrong_shape_are_named(crystal):
    with pytest.raises(InvalidPredictionError, match=r"direct forces have shape \(7, 3\), expected \(8, 3\)"):
        force_of(ToldForces({"direct": torch.zeros(7, 3)}), "direct")(crystal(1))


def test_a_lost_system_takes_no_other_with_it(crystal):
    forces = torch.ones(24, 3, dtype=torch.float64)
    forces[9, 1] = torch.nan
    assert without_net_force(crystal(3), forces).isnan().any(1).tolist() == [8 <= atom < 16 for atom in range(24)]


@pytest.mark.parametrize("place", [torch.nan, torch.inf, -2 * REACH])
def test_a_system_out_of_range_is_not_shown_to_the_model(crystal, place):
    model, state = StillingerWeber(), crystal(3)
    lost = state.positions.clone()
    lost[9, 1] = place
    prediction = predict(model, state.replace(positions=lost), ("gradient",))
    whole = model.evaluate(state, forces=("gradient",))
    assert bool(prediction.forces["gradient"][8:16].isnan().all())
    assert bool(prediction.energy[1].isnan())
    assert float((prediction.energy - whole.energy)[[0, 2]].abs().max()) < 1e-12
    rest = torch.arange(24) // 8 != 1
    assert float((prediction.forces["gradient"] - whole.forces["gradient"])[rest].abs().max()) < 1e-12


def test_no_model_call_is_made_when_every_system_is_lost(crystal):
    state = crystal(2)
    prediction = predict(None, state.replace(positions=state.positions * torch.nan), ("gradient", "direct"))
    assert bool(prediction.energy.isnan().all())
    assert all(bool(forces.isnan().all()) for forces in prediction.forces.values())
