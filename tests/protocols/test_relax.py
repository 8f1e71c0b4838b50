"""The relaxation protocol end to end: toy fields with answers on paper, silicon, orbits, explosions, no stress."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr
from ase.build import bulk
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.optimize import LBFGS

from conservbench.cards import build, find_protocol
from conservbench.dynamics.coordinates import FixedCell
from conservbench.dynamics.forces import force_of
from conservbench.dynamics.relaxation import OPTIMIZERS, Ending, relax, wandering
from conservbench.models.ase import ASEModel
from conservbench.models.base import InvalidPredictionError, Prediction, UnsupportedError
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.models.toy import Field, ToyModel
from conservbench.outcome import Outcome
from conservbench.protocols.relax import settings as settings_module
from conservbench.protocols.relax.judge import SAME_ENERGY, compare, cost_ratio, judge, unit_of
from conservbench.protocols.relax.measure import measure
from conservbench.protocols.relax.minima import distance, distances, largest_group, unlikeness
from conservbench.protocols.relax.orbit import closed_orbits
from conservbench.protocols.relax.settings import Settings, key_of
from conservbench.protocols.relax.starts import starts_of
from conservbench.scheme import Scheme
from conservbench.scored import gate_of
from conservbench.state import from_atoms
from conservbench.systems import System, find_system

STIFFNESS = 7.4
SETTINGS = Settings(
    optimizers=("lbfgs", "fire"),
    thresholds=(1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
    max_steps=200,
    rattles=(0.05, 0.1),
    rattled=2,
    thermal=2,
    strains=(0.02,),
    strained=1,
    strained_cells=2,
    window=40,
    timed_calls=2,
)
GRADIENT, DIRECT, MTS = Scheme("gradient"), Scheme("direct"), Scheme("mts", 8)


def silent(fraction):
    pass


@pytest.fixture(scope="module")
def crystal():
    """Eight atoms, and two snapshots of them."""
    sites = bulk("Si", cubic=True, a=5.431)
    snapshots = []
    for seed in (5, 6):
        snapshots.append(sites.copy())
        snapshots[-1].rattle(0.1, seed=seed)
    return System("toy-8", 1, "crystal", 500.0, sites, tuple(snapshots), "none", "none")


def toy(crystal, name, curl=0.0):
    return ToyModel(Field(name, STIFFNESS, curl), crystal.sites)


class Wrapped:
    """A model of which something is changed."""

    elements = None
    differentiable = False
    labelled = True
    device = torch.device("cpu")

    def __init__(self, model, change, channels=None):
        self.model, self.change = model, change
        self.channels = channels or model.channels

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        wanted = [channel for channel in forces if channel in self.model.channels]
        return self.change(state, self.model.evaluate(state, forces=wanted, stress=stress))


class Springs(Calculator):
    """Harmonic silicon as an ASE calculator; ``change(calculator)`` is called at the end of each calculation."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, crystal, change=lambda calculator: None):
        super().__init__()
        self.fractions, self.change, self.asked = crystal.sites.get_scaled_positions(), change, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.asked += 1
        away = self.atoms.positions - self.fractions @ self.atoms.cell.array
        away -= away.mean(0)
        tensor = STIFFNESS * away.T @ away / self.atoms.get_volume()
        self.results = {
            "energy": 0.5 * STIFFNESS * (away**2).sum(),
            "forces": -STIFFNESS * away,
            "stress": tensor.ravel()[[0, 4, 8, 5, 2, 1]],
        }
        self.change(self)


class Silicon(Calculator):
    """Stillinger-Weber silicon as an ASE calculator."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        prediction = StillingerWeber().evaluate(from_atoms(self.atoms), forces=("gradient",))
        self.results = {"energy": float(prediction.energy), "forces": prediction.forces["gradient"].numpy()}


def findings(data):
    return {finding.metric: finding for finding in judge(data)}


@pytest.fixture(scope="module")
def harmonic(crystal):
    return measure(toy(crystal, "harmonic"), GRADIENT, crystal, SETTINGS, silent)


def test_starts_are_fixed_by_their_seeds(crystal):
    starts, again = starts_of(crystal, SETTINGS), starts_of(crystal, SETTINGS)
    kinds = [(start.kind, start.amplitude, start.variable) for start in starts]
    assert kinds == [
        *[("rattled", 0.05, False)] * 2,
        *[("rattled", 0.1, False)] * 2,
        *[("thermal", 500.0, False)] * 2,
        ("strained", 0.02, False),
        *[("strained", 0.02, True)] * 2,
    ]
    for one, other in zip(starts, again, strict=True):
        np.testing.assert_array_equal(one.atoms.positions, other.atoms.positions)
    moved = [start.atoms.positions - crystal.sites.positions for start in starts]
    # 24 normal numbers scatter by 15 % about their standard deviation: five sigma
    for displacement, width in zip(moved[:4], (0.05, 0.05, 0.1, 0.1), strict=True):
        assert np.sqrt((displacement**2).mean()) == pytest.approx(width, rel=0.75)
        np.testing.assert_allclose(displacement.mean(0), 0, atol=1e-15)
    assert not np.allclose(moved[0], moved[1])
    np.testing.assert_array_equal(moved[4], crystal.snapshots[0].positions - crystal.sites.positions)
    fixed, variable = starts[6].atoms, starts[7].atoms
    np.testing.assert_array_equal(fixed.cell.array, variable.cell.array)
    strain = np.linalg.solve(crystal.sites.cell.array, fixed.cell.array) - np.eye(3)
    np.testing.assert_allclose(strain, strain.T, atol=1e-15)
    assert 0.002 < np.abs(strain).max() < 0.1
    # more starts of one kind leave the others as they are
    more = starts_of(crystal, dataclasses.replace(SETTINGS, rattled=3, thermal=5))
    np.testing.assert_array_equal(more[3].atoms.positions, starts[2].atoms.positions)
    other = starts_of(crystal, dataclasses.replace(SETTINGS, seed=1))
    assert not np.allclose(other[0].atoms.positions, starts[0].atoms.positions)


def test_a_harmonic_crystal_relaxes_to_its_sites(crystal, harmonic):
    found = findings(harmonic)
    for name in ("lbfgs", "fire"):
        for threshold in SETTINGS.thresholds:
            fraction = found[f"{name}_converged_{key_of(threshold)}"]
            assert (fraction.interval.value, fraction.interval.n, fraction.outcome) == (100, 7, Outcome.COMPLETED)
            # Clopper and Pearson for 7 of 7: 0.025^(1/7)
            assert fraction.interval.low == pytest.approx(100 * 0.025 ** (1 / 7))
        floor = found[f"{name}_floor"].interval
        assert (floor.value, floor.low, floor.high, floor.n) == (1e-5, -np.inf, 1e-5, 7)
        assert found[f"{name}_orbits"].interval.value == 0
    assert found["lbfgs_steps_1e-2"].interval.value < found["fire_steps_1e-2"].interval.value
    assert found["same_minimum"].interval.value == 100
    assert found["same_minimum"].interval.n == 6
    # k |u| < 1e-5
    assert found["minimum_rmsd"].interval.value < 2e-5 / STIFFNESS
    # k/2 u^2
    assert found["energy_spread"].interval.value < 1e3 * 1e-10 / (2 * STIFFNESS)
    home = harmonic.positions.values[:, 0] - crystal.sites.positions
    np.testing.assert_allclose(home, 0, atol=1e-5)
    assert harmonic.attrs["outcome"] == "completed"
    assert harmonic.attrs["n_atoms"] == 8
    assert (
        harmonic.calls.sel(channel="gradient", optimizer="fire")[:7] == harmonic.steps.sel(optimizer="fire")[:7] + 1
    ).all()
    assert not harmonic.calls.sel(channel="direct").any()


def test_every_variable_has_units(harmonic):
    for name, variable in {**harmonic.data_vars, **harmonic.coords}.items():
        assert {"units", "long_name"} <= set(variable.attrs), name


def test_a_stressless_harmonic_cell_stays(crystal, harmonic):
    """Its energy does not know the cell, only the atoms' places in it: any volume is at rest once they are home."""
    found = findings(harmonic)
    assert found["cell_converged_1e-3"].interval.value == 100
    assert found["cell_volume"].interval.value == pytest.approx(crystal.sites.get_volume() / 8, rel=0.1)
    assert (harmonic.ending.sel(optimizer="fire")[7:] == "left_out").all()


def test_silicon_finds_its_lattice_constant(crystal):
    data = measure(StillingerWeber(), GRADIENT, crystal, SETTINGS, silent)
    found = findings(data)
    assert data.attrs["outcome"] == "completed"
    assert found["cell_volume"].interval.value == pytest.approx(5.431**3 / 8, rel=1e-4)
    assert found["cell_volume"].interval.n == 2
    energies = data.energy.sel(optimizer="lbfgs").values[7:]
    for series in energies:
        assert series[np.isfinite(series)][-1] == pytest.approx(-277.53728 / 64, abs=1e-6)
    assert found["same_minimum"].interval.value == 100
    assert found["lbfgs_converged_1e-5"].interval.value == 100


def test_a_weak_curl_does_not_keep_optimisers_from_rest(crystal):
    data = measure(toy(crystal, "swirl", 0.15), DIRECT, crystal, SETTINGS, silent)
    found = findings(data)
    assert found["lbfgs_converged_1e-5"].interval.value == found["fire_converged_1e-5"].interval.value == 100
    assert found["same_minimum"].interval.value == 100
    for metric in ("cell_converged_1e-3", "cell_steps_1e-3", "cell_volume"):
        assert (found[metric].interval, found[metric].outcome) == (None, Outcome.UNSUPPORTED)
        assert found[metric].reason == "a direct force has no stress that goes with it"
    assert data.attrs["outcome"] == "completed"
    assert (data.ending[:, 7:] == "left_out").all()


def test_a_strong_curl_catches_lbfgs_in_orbits_and_drives_fire_away():
    """Shortened steps of L-BFGS go round the sites for ever; FIRE always moves with the force, and spirals outwards."""
    system = find_system("si-64")
    settings = dataclasses.replace(
        SETTINGS, max_steps=200, rattles=(0.2,), rattled=4, thermal=0, strained=0, strained_cells=0, window=100
    )
    data = measure(ToyModel(Field("swirl", STIFFNESS, 6.0), system.sites), DIRECT, system, settings, silent)
    found = findings(data)
    lbfgs, fire = (data.sel(optimizer=name) for name in ("lbfgs", "fire"))
    assert (lbfgs.closed_orbit == 1).all()
    assert (lbfgs.ending == "exhausted").all()
    assert not fire.closed_orbit.any()
    assert found["lbfgs_orbits"].interval.value == 100
    assert found["lbfgs_converged_1e-1"].interval.value == 0
    steps = found["lbfgs_steps_1e-3"]
    assert (steps.interval, steps.outcome) == (None, Outcome.NOT_CONVERGED)
    assert steps.reason == "4 of 4 did not converge, 4 in closed orbits"
    assert found["lbfgs_floor"].outcome is Outcome.NOT_CONVERGED
    assert found["lbfgs_floor"].interval.value > 1.0
    assert found["fire_floor"].reason == "4 of 4 did not converge, 4 with greater forces than at the start"
    # FIRE's steps are all as long as they may be
    np.testing.assert_allclose(fire.path.values, 0.2 * 100, rtol=1e-6)
    assert data.attrs["outcome"] == "not_converged"
    assert "lbfgs: 4 of 4 not converged, 4 in closed orbits" in data.attrs["outcome_reason"]
    assert found["same_minimum"].interval is None
    assert found["same_minimum"].outcome is Outcome.NOT_CONVERGED


def test_lbfgs_goes_round_under_a_gradient_where_ases_does():
    """Without a line search L-BFGS overshoots where the energy curves downwards; FIRE comes to rest from there."""
    system = find_system("si-vacancy-63")
    settings = build(Settings, find_protocol("relax").settings("quick"), "quick")
    start = next(start for start in starts_of(system, settings) if start.kind == "strained")
    space = FixedCell(force_of(StillingerWeber(), "gradient"))
    runs = [relax(from_atoms(start.atoms), space, OPTIMIZERS[name], fmax=1e-3, max_steps=[160]) for name in OPTIMIZERS]
    assert [run.ending for run in runs] == [(Ending.EXHAUSTED,), (Ending.CONVERGED,)]
    numbers = (runs[0].path, runs[0].extent, runs[0].recurrence)
    assert closed_orbits(runs[0].fmax, runs[0].steps, *numbers, 100).all()
    atoms = start.atoms.copy()
    atoms.calc = Silicon()
    assert not LBFGS(atoms, logfile=None).run(fmax=1e-3, steps=160)


def test_orbits_are_told_from_descents_and_noise():
    steps, window = 120, 100
    angle = np.linspace(0, 8 * np.pi, steps + 1)
    trails = {
        "orbit": np.stack([np.cos(angle), np.sin(angle)], -1),
        "spiral": np.exp(-angle / 8)[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1),
        "line": np.stack([angle, 0 * angle], -1),
        "noise": np.random.default_rng(0).normal(size=(steps + 1, 60)),
    }

    def found(trail, fmax):
        numbers = [[number] for number in wandering(trail[-window - 1 :].reshape(window + 1, -1, 2))]
        return bool(closed_orbits(fmax[None], [steps], *numbers, window)[0])

    level = np.ones(steps + 1)
    assert found(trails["orbit"], level)
    assert not found(trails["spiral"], np.exp(-angle / 8))
    assert not found(trails["line"], level)
    assert not found(trails["noise"], level)
    # an orbit whose forces fall is on its way
    assert not found(trails["orbit"], np.exp(-angle / 8))
    numbers = [[number] for number in wandering(trails["orbit"].reshape(steps + 1, -1, 2))]
    assert not closed_orbits(level[None], [90], *numbers, window)[0]
    assert not closed_orbits(level[None], [steps], [np.nan], [np.nan], [np.nan], window)[0]


def shifted(crystal, by):
    """The harmonic crystal with a direct channel about sites of which two stand ``by`` Å apart from the gradient's."""
    beside = torch.zeros((8, 3), dtype=torch.float64)
    beside[0, 0], beside[1, 0] = by, -by

    def change(state, prediction):
        gradient = prediction.forces.get("gradient")
        pulls = dict(prediction.forces)
        if gradient is not None:
            pulls["direct"] = gradient + STIFFNESS * beside.repeat(state.n_systems, 1)
        return Prediction(prediction.energy, pulls, prediction.stress)

    class TwoHeaded(Wrapped):
        def evaluate(self, state, *, forces=(), stress=False, graph=False):
            prediction = super().evaluate(state, forces=("gradient",), stress=stress)
            return Prediction(
                prediction.energy, {channel: prediction.forces[channel] for channel in forces}, prediction.stress
            )

    return TwoHeaded(toy(crystal, "harmonic"), change, ("gradient", "direct"))


def test_regret_of_a_force_that_vanishes_elsewhere(crystal):
    """Two atoms at rest 0.04 Å off their sites cost k (0.04 Å)^2, which is 1.48 meV an atom of eight."""
    model = shifted(crystal, 0.04)
    data, twin = (measure(model, scheme, crystal, SETTINGS, silent) for scheme in (DIRECT, GRADIENT))
    regret, speedup = compare(data, twin)
    assert (regret.metric, regret.unit, regret.outcome) == ("regret", "meV/atom", Outcome.COMPLETED)
    assert regret.interval.value == pytest.approx(1e3 * STIFFNESS * 0.04**2 / 8, rel=1e-3)
    assert regret.interval.n == 7
    assert speedup.outcome is Outcome.UNSUPPORTED
    assert findings(data)["same_minimum"].interval.value == 100
    other = twin.copy()
    other["energy"] = twin.energy + 2 * SAME_ENERGY
    assert compare(data, other)[0].reason == "its energy is not that of its twin: they differ at the starts"
    assert compare(data.drop_vars("energy"), twin)[0].outcome is Outcome.UNSUPPORTED
    gone = data.copy(deep=True)
    gone["ending"][:] = "exploded"
    assert compare(gone, twin)[0].outcome is Outcome.EXPLODED


def stuck(data, starts, fmax, ending="exhausted"):
    """Relaxations as they were, but that some starts came no lower than ``fmax``."""
    changed = data.copy(deep=True)
    changed.fmax[:, starts] = data.fmax[:, starts].clip(min=fmax)
    changed.ending[:, starts] = ending
    return changed


def regret_gate(finding):
    return gate_of(find_protocol("relax").metrics["regret"], finding.interval, finding.outcome)


def test_regret_does_not_pass_where_nothing_converged(crystal):
    settings = dataclasses.replace(SETTINGS, max_steps=1)
    model = toy(crystal, "two-headed", 0.1)
    data, twin = (measure(model, scheme, crystal, settings, silent) for scheme in (DIRECT, GRADIENT))
    assert not (twin.ending == "converged").any()
    regret = compare(data, twin)[0]
    assert (regret.interval, regret.outcome, regret_gate(regret)) == (None, Outcome.NOT_CONVERGED, None)
    assert regret.reason == (
        "7 of 7 did not converge; its twin did not converge from 7 of 7 (start 0, 1, 2, 3, 4, 5, 6), left out"
    )
    # against minima of the twin a row that found none can fail, but not pass
    twin = measure(model, GRADIENT, crystal, SETTINGS, silent)
    regret = compare(data, twin)[0]
    assert (regret.outcome, regret.interval.n) == (Outcome.NOT_CONVERGED, 7)
    assert regret.interval.value > 1
    assert regret_gate(regret) != "pass"


def test_what_the_twin_did_not_relax_is_left_out_and_not_blamed_on_the_row(crystal):
    model = shifted(crystal, 0.005)
    data, twin = (measure(model, scheme, crystal, SETTINGS, silent) for scheme in (MTS, GRADIENT))
    assert regret_gate(compare(data, twin)[0]) == "pass"
    regret, speedup = compare(data, stuck(twin, [2, 5], 0.3))
    for finding in (regret, speedup):
        assert (finding.interval.n, finding.outcome) == (5, Outcome.NOT_CONVERGED)
        assert finding.reason.startswith("its twin did not converge from 2 of 7 (start 2, 5), left out")
    assert regret_gate(regret) == "unclear"
    regret, speedup = compare(stuck(data, [1], 0.3), stuck(twin, [2], 0.3))
    assert (regret.interval.n, speedup.interval.n) == (6, 5)
    for finding in (regret, speedup):
        assert finding.reason.startswith("1 of 7 did not converge; its twin did not converge from 1 of 7 (start 2)")
    # low enough for a minimum, not for its cost
    regret, speedup = compare(data, stuck(twin, [2], 5e-3))
    assert (regret.outcome, speedup.outcome) == (Outcome.COMPLETED, Outcome.NOT_CONVERGED)
    everything = list(range(7))
    regret, speedup = compare(data, stuck(twin, everything, 0.3, "exploded"))
    assert (regret.interval, regret.outcome, regret_gate(regret)) == (None, Outcome.NOT_CONVERGED, None)
    assert (speedup.interval, speedup.outcome) == (None, Outcome.NOT_CONVERGED)


def test_a_residual_force_is_that_of_most_starts(harmonic):
    metric = find_protocol("relax").metrics["lbfgs_floor"]

    def floor(starts):
        finding = findings(stuck(harmonic, starts, 1.85))["lbfgs_floor"]
        return finding.interval, finding.outcome, gate_of(metric, finding.interval, finding.outcome)

    # of seven, the interval goes from the lowest to the highest; 1e-5, where relaxations end, bounds what is lower
    interval, outcome, gate = floor([3])
    assert (interval.value, interval.low, interval.high, interval.n) == (1e-5, -np.inf, 1.85, 7)
    assert (outcome, gate) == (Outcome.NOT_CONVERGED, "unclear")
    interval, _, gate = floor([0, 1, 2, 3])
    assert (interval.value, interval.low, gate) == (1.85, -np.inf, "unclear")
    interval, _, gate = floor(list(range(7)))
    assert (interval.value, interval.low, gate) == (1.85, 1.85, "fail")


def test_a_handover_counts_what_it_saves(crystal):
    model = shifted(crystal, 0.005)
    data, twin = (measure(model, scheme, crystal, SETTINGS, silent) for scheme in (MTS, GRADIENT))
    main = data.sel(optimizer="fire").isel(start=slice(7))
    assert (main.ending == "converged").all()
    # both forces are asked where one hands over to the other
    assert (main.calls.sel(channel="direct") == main.handover + 1).all()
    assert (main.calls.sel(channel="gradient") == main.steps - main.handover + 1).all()
    for start in range(7):
        series = main.fmax.values[start]
        # the direct force ends the first leg below 0.1 eV/Å; there the gradient still has that of 0.005 Å
        assert series[int(main.handover[start])] < 0.1 + STIFFNESS * 0.005
    regret, speedup = compare(data, twin)
    assert regret.interval.value == pytest.approx(0.0, abs=1e-6)
    assert speedup.outcome is Outcome.COMPLETED
    assert f"a gradient call costs {cost_ratio(data):.2f} direct ones here" in speedup.reason
    # against the sums by hand, with a price of 2
    priced = data.copy(deep=True)
    priced["call_time"] = (("channel", "repeat"), [[2.0, 4.0, 2.0], [1.0, 2.0, 9.0]])
    assert data.channel.values.tolist() == ["gradient", "direct"]
    assert cost_ratio(priced) == 2.0
    ours, theirs = (part.isel(optimizer=0, start=slice(7)) for part in (priced, twin))
    below = (ours.fmax.values < 1e-3) & (ours.step.values >= ours.handover.values[:, None])
    cost = (ours.handover.values + 1) / 2 + below.argmax(1) - ours.handover.values + 1
    alone = (theirs.fmax.values < 1e-3).argmax(1) + 1
    # the jackknife takes a bias off the plain ratio
    assert compare(priced, twin)[1].interval.value == pytest.approx(alone.sum() / cost.sum(), rel=0.02)


def test_mts_counts_the_gradient_alone_as_convergence(crystal):
    """Direct forces vanish 0.1 Å off the sites: below 0.1 eV/Å there, where the gradient has 0.74."""
    model = shifted(crystal, 0.1)
    data = measure(model, MTS, crystal, SETTINGS, silent)
    found = findings(data)
    steps = found["lbfgs_steps_1e-1"].interval.value
    assert steps > data.handover.sel(optimizer="lbfgs")[:7].mean()
    assert found["cell_converged_1e-3"].interval.value == 100


def test_explosions_are_recorded_and_left_out(crystal):
    """From the second call on nothing is a number for systems with an atom beyond 0.2 Å."""
    inner = toy(crystal, "harmonic")
    asked = []

    def change(state, prediction):
        asked.append(state.n_systems)
        far = inner.displacements(state, state.positions, state.cell).norm(dim=1)
        broken = state.sum((far > 0.2).double())[state.system, None] > 0
        broken = broken & (len(asked) > 1)
        pulls = {key: torch.where(broken, torch.nan, force) for key, force in prediction.forces.items()}
        return Prediction(prediction.energy, pulls, prediction.stress)

    data = measure(Wrapped(inner, change), GRADIENT, crystal, SETTINGS, silent)
    lbfgs = data.sel(optimizer="lbfgs").isel(start=slice(7))
    lost = int((lbfgs.ending == "exploded").sum())
    assert 0 < lost < 7
    assert data.attrs["outcome"] == "exploded"
    assert f"lbfgs: {lost} of 9 exploded" in data.attrs["outcome_reason"]
    found = findings(data)
    fraction = found["lbfgs_converged_1e-3"]
    assert fraction.interval.value == pytest.approx(100 * (7 - lost) / 7)
    assert fraction.outcome is Outcome.EXPLODED
    assert fraction.reason == f"{lost} of 7 did not converge, {lost} exploded"
    assert found["lbfgs_steps_1e-3"].outcome is Outcome.EXPLODED
    assert found["lbfgs_steps_1e-3"].interval.n == 7 - lost
    assert found["same_minimum"].outcome is Outcome.EXPLODED


def test_a_model_that_is_broken_from_the_start_is_no_explosion(crystal):
    broken = Wrapped(
        toy(crystal, "harmonic"),
        lambda state, prediction: Prediction(
            prediction.energy,
            {key: force * torch.nan for key, force in prediction.forces.items()},
            prediction.stress,
        ),
    )
    with pytest.raises(InvalidPredictionError, match="not finite"):
        measure(broken, GRADIENT, crystal, SETTINGS, silent)


def test_a_model_without_the_channel_is_unsupported(crystal):
    with pytest.raises(UnsupportedError, match="the model has no direct forces"):
        measure(toy(crystal, "harmonic"), DIRECT, crystal, SETTINGS, silent)


def test_a_model_without_an_energy_has_no_spread(crystal):
    model = Wrapped(toy(crystal, "swirl", 0.1), lambda state, prediction: Prediction(None, prediction.forces))
    data = measure(model, DIRECT, crystal, SETTINGS, silent)
    assert "energy" not in data
    found = findings(data)
    assert found["energy_spread"].outcome is Outcome.UNSUPPORTED
    assert found["same_minimum"].interval.value == 100


def test_a_gradient_model_without_stress_is_unsupported_in_its_cells_alone(crystal):
    class Stressless(Wrapped):
        def evaluate(self, state, *, forces=(), stress=False, graph=False):
            if stress:
                raise UnsupportedError("it has no stress")
            return super().evaluate(state, forces=forces)

    model = Stressless(toy(crystal, "harmonic"), lambda state, prediction: prediction)
    found = findings(measure(model, GRADIENT, crystal, SETTINGS, silent))
    assert (found["cell_volume"].outcome, found["cell_volume"].reason) == (Outcome.UNSUPPORTED, "it has no stress")
    assert found["lbfgs_converged_1e-5"].interval.value == 100


FEW = dataclasses.replace(SETTINGS, rattles=(0.05,), thermal=0)


def no_stress():
    raise PropertyNotImplementedError("stress")


def raising(calculator):
    raise RuntimeError("no stress\ntoday")


@pytest.mark.parametrize(
    ("stress", "outcome", "reason"),
    [
        (lambda: np.full(6, np.nan), Outcome.FAILED, "InvalidPredictionError: stresses of the starts are not finite"),
        (lambda: raising(None), Outcome.FAILED, "RuntimeError: no stress today"),
        (lambda: 1 / 0, Outcome.FAILED, "ZeroDivisionError: division by zero"),
        (lambda: [0.0], Outcome.FAILED, "InvalidPredictionError: Springs, system 0: stress: shape is"),
        (no_stress, Outcome.UNSUPPORTED, "Springs has no stress"),
    ],
)
def test_a_broken_stress_costs_the_variable_cells_alone(crystal, stress, outcome, reason):
    calculator = Springs(crystal)
    calculator.get_stress = lambda atoms: stress()
    data = measure(ASEModel(calculator), GRADIENT, crystal, FEW, silent)
    whole = measure(ASEModel(Springs(crystal)), GRADIENT, crystal, FEW, silent)
    xr.testing.assert_identical(data.isel(start=slice(3)).fmax, whole.isel(start=slice(3)).fmax)
    found = findings(data)
    for metric in ("cell_converged_1e-3", "cell_steps_1e-3", "cell_volume"):
        assert (found[metric].interval, found[metric].outcome) == (None, outcome)
        assert found[metric].reason.startswith(reason)
    for name in FEW.optimizers:
        assert (found[f"{name}_converged_1e-5"].interval.value, found[f"{name}_floor"].outcome) == (100, "completed")
    failed = outcome is Outcome.FAILED
    assert data.attrs["outcome"] == ("failed" if failed else "completed")
    assert data.attrs["outcome_reason"].startswith(f"variable cells: {reason}" if failed else "")
    assert findings(whole)["cell_converged_1e-3"].interval.value == 100


def test_an_interrupt_is_passed_on(crystal):
    def interrupt(atoms):
        raise KeyboardInterrupt

    calculator = Springs(crystal)
    calculator.get_stress = interrupt
    with pytest.raises(KeyboardInterrupt):
        measure(ASEModel(calculator), GRADIENT, crystal, FEW, silent)


def broken_after(calls, change):
    return lambda calculator: change(calculator) if calculator.asked > calls else None


def vanishing(calculator):
    calculator.results["forces"] = calculator.results["forces"] * np.nan


def first_calls(crystal):
    whole = measure(ASEModel(Springs(crystal)), GRADIENT, crystal, FEW, silent)
    return whole, int(whole.calls.sel(channel="gradient", optimizer="lbfgs")[:3].sum())


@pytest.mark.parametrize("later", [0, 10])
def test_a_calculator_that_raises_later_keeps_the_first_optimizer(crystal, later, tmp_path):
    whole, calls = first_calls(crystal)
    calculator = Springs(crystal, broken_after(calls + later, raising))
    data = measure(ASEModel(calculator), GRADIENT, crystal, FEW, silent)
    # L-BFGS needs two steps, which is all that is left of the series
    xr.testing.assert_identical(data.fmax.sel(optimizer="lbfgs")[:3], whole.fmax.sel(optimizer="lbfgs")[:3, :3])
    said = "RuntimeError: no stress today"
    assert data.attrs["outcome"] == "failed"
    assert data.attrs["outcome_reason"] == f"fire: {said}; variable cells: {said}"
    data.to_netcdf(tmp_path / "cell.nc", engine="h5netcdf")
    for each in (data, xr.load_dataset(tmp_path / "cell.nc", engine="h5netcdf")):
        found = findings(each)
        assert list(found) == list(findings(whole))
        assert found["lbfgs_converged_1e-5"] == findings(whole)["lbfgs_converged_1e-5"]
        fire = [finding for metric, finding in found.items() if metric.startswith("fire")]
        assert {(finding.interval, finding.outcome, finding.reason) for finding in fire} == {
            (None, Outcome.FAILED, said)
        }
    with pytest.raises(RuntimeError, match="no stress"):
        measure(ASEModel(Springs(crystal, broken_after(calls - 1, raising))), GRADIENT, crystal, FEW, silent)


def test_calls_that_cannot_be_timed_cost_the_speedup_alone(crystal, monkeypatch):
    model = toy(crystal, "two-headed", 0.1)
    twin = measure(model, GRADIENT, crystal, FEW, silent)
    inner = model.evaluate
    evaluated = []

    def evaluate(state, *, forces=(), stress=False, graph=False):
        evaluated.append(stress)
        # the calls with a stress are the last but for those that are timed
        if True in evaluated and not stress:
            raising(None)
        return inner(state, forces=forces, stress=stress, graph=graph)

    monkeypatch.setattr(model, "evaluate", evaluate)
    data = measure(model, MTS, crystal, FEW, silent)
    assert data.attrs["outcome_reason"] == "costs: calls could not be timed"
    regret, speedup = compare(data, twin)
    assert regret.outcome is Outcome.COMPLETED
    assert (speedup.interval, speedup.outcome) == (None, Outcome.UNSUPPORTED)
    assert speedup.reason == "calls could not be timed"


def test_a_calculator_that_vanishes_later_keeps_the_first_optimizer(crystal):
    whole, calls = first_calls(crystal)
    data = measure(ASEModel(Springs(crystal, broken_after(calls, vanishing))), GRADIENT, crystal, FEW, silent)
    found = findings(data)
    assert found["lbfgs_converged_1e-5"] == findings(whole)["lbfgs_converged_1e-5"]
    assert (data.ending.sel(optimizer="fire")[:3] == "exploded").all()
    assert (found["fire_floor"].interval, found["fire_floor"].outcome) == (None, Outcome.EXPLODED)
    assert found["fire_floor"].reason == "3 of 3 did not converge, 3 exploded"
    assert found["cell_volume"].outcome is Outcome.FAILED
    assert "forces on atoms and cells of the starts are not finite" in found["cell_volume"].reason


def test_results_are_reproduced_bit_for_bit_and_written(crystal, harmonic, tmp_path):
    again = measure(toy(crystal, "harmonic"), GRADIENT, crystal, SETTINGS, silent)
    xr.testing.assert_identical(again, harmonic)
    harmonic.to_netcdf(tmp_path / "cell.nc", engine="h5netcdf")
    back = xr.load_dataset(tmp_path / "cell.nc", engine="h5netcdf")
    assert judge(back) == judge(harmonic)


def test_progress_goes_from_zero_to_one(crystal):
    seen = []
    measure(toy(crystal, "two-headed", 0.1), MTS, crystal, SETTINGS, seen.append)
    assert seen == sorted(seen)
    assert seen[0] >= 0
    assert seen[-1] == pytest.approx(1.0)


def test_distances_of_structures():
    cell = bulk("Si", cubic=True, a=5.431).cell.array
    sites = bulk("Si", cubic=True, a=5.431).positions
    numbers = np.array([14] * 8)
    moved = sites + np.array([0.3, -0.2, 1.0])
    assert distance(sites, moved, cell, numbers) == pytest.approx(0.0, abs=1e-12)
    # lattice vectors and an exchange of atoms change nothing
    swapped = moved[[1, 0, 2, 3, 4, 5, 7, 6]]
    swapped[3] += cell[0] - cell[2]
    assert distance(sites + np.random.default_rng(0).normal(scale=1e-9, size=(8, 3)), swapped, cell, numbers) < 1e-6
    # one of eight atoms off by d: d sqrt(1/8 - 1/64) without the translation
    off = sites.copy()
    off[2, 1] += 0.2
    assert distance(sites, off, cell, numbers) == pytest.approx(0.2 * np.sqrt(1 / 8 - 1 / 64))
    # unlike atoms are not exchanged
    mixed = np.array([14, 6] + [14] * 6)
    assert distance(sites, sites[[1, 0, 2, 3, 4, 5, 6, 7]], cell, mixed) > 0.5
    apart = distances(np.array([sites, moved, off]), cell, numbers)
    np.testing.assert_allclose(apart, apart.T)
    assert largest_group(apart, 0.05) == 2
    assert largest_group(apart, 0.5) == 3


def test_molecules_are_compared_after_rotation():
    ethanol = find_system("ethanol").sites
    positions, numbers, nowhere = ethanol.positions, ethanol.numbers, np.zeros((3, 3))
    moved = ethanol.copy()
    moved.rotate(20.0, (1.0, 2.0, 3.0))
    moved.translate((1.0, -2.0, 0.5))
    exchanged = np.arange(9)
    exchanged[numbers == 1] = exchanged[numbers == 1][::-1]
    for other in (moved.positions, positions[exchanged]):
        assert distance(positions, other, nowhere, numbers) < 1e-6
    stretched = moved.positions * 1.1
    # a homogeneous stretch by a tenth moves each atom by a tenth of its distance from the centre
    radius = np.sqrt(((positions - positions.mean(0)) ** 2).sum(1).mean())
    assert distance(positions, stretched, nowhere, numbers) == pytest.approx(0.1 * radius, rel=1e-3)
    assert unlikeness(np.stack([positions, moved.positions]), nowhere, numbers).max() < 1e-9
    # atoms in a line, whose rotation is not unique
    line = np.array([[0.0, 0.0, 0.0], [1.2, 0.0, 0.0], [-1.2, 0.0, 0.0]])
    assert distance(line, line[:, [1, 0, 2]], nowhere, np.array([6, 8, 8])) < 1e-9


def test_a_molecule_has_no_cell_to_strain():
    settings = build(Settings, find_protocol("relax").settings("quick"), "quick")
    assert {start.kind for start in starts_of(find_system("ethanol"), settings)} == {"rattled", "thermal"}
    assert not any(start.variable for start in starts_of(find_system("ethanol"), settings))


def test_minima_that_a_symmetry_joins_are_alike():
    """A dimer of two neighbours, turned to another axis of the crystal: far by its atoms, and yet the same."""
    crystal = bulk("Si", cubic=True, a=5.431) * (2, 2, 2)
    cell, numbers = crystal.cell.array, np.array([14] * 64)
    middle = crystal.positions[0]
    bonds = [np.array(bond) for bond in ([1, 1, 1], [1, -1, -1])]
    pulled = []
    for bond in bonds:
        structure = crystal.positions.copy()
        offsets = structure - middle - 5.431 / 4 * bond
        offsets -= np.round(offsets / np.diag(cell)) * np.diag(cell)
        neighbor = np.argmin(np.linalg.norm(offsets, axis=1))
        structure[0] += 0.2 * bond
        structure[neighbor] -= 0.2 * bond
        pulled.append(structure)
    structures = np.array([*pulled, crystal.positions])
    unlike, apart = unlikeness(structures, cell, numbers), distances(structures, cell, numbers)
    assert unlike[0, 1] < 1e-12
    assert apart[0, 1] > 0.05
    assert unlike[0, 2] > 0.02
    assert largest_group(unlike, 0.02) == 2
    # alike by their distances, but not by their elements
    mixed = numbers.copy()
    mixed[0] = 6
    assert unlikeness(structures[:, np.r_[1, 0, 2:64]], cell, mixed)[0, 2] > 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizers": ("bfgs",)}, "optimizers has 'bfgs'; expected some of lbfgs, fire"),
        ({"optimizers": ()}, "optimizers is"),
        ({"thresholds": (1e-3, 1e-2)}, "thresholds is .*; expected one or more, greatest first"),
        ({"thresholds": ()}, "thresholds is"),
        ({"thresholds": (np.nan,)}, "thresholds is .*; expected positive numbers"),
        ({"thresholds": (1e-1, 2e-3)}, "thresholds end at 0.002 eV/Å, where relaxations end; expected 0.001 or less"),
        ({"thresholds": (5e-2, 4.9e-2, 1e-3)}, "thresholds has 0.05 and 0.049; metrics name both 5e-2"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"rattles": ()}, "rattles is"),
        ({"strains": (-0.1,)}, "strains is"),
        ({"max_steps": 0}, "max_steps is 0; expected 1 or more"),
        ({"thermal": -1}, "thermal is -1; expected 0 or more"),
        ({"handover_fmax": 0.0}, "handover_fmax is 0.0"),
        ({"rattled": 0, "thermal": 0, "strained": 0}, "leave no start"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **change)


def test_optimisers_and_endings_are_named_alike():
    assert tuple(OPTIMIZERS) == settings_module.OPTIMIZERS
    assert {Ending.CONVERGED, Ending.EXPLODED} == {"converged", "exploded"}


def test_judging_imports_no_torch():
    modules = "from conservbench.protocols.relax import judge, settings"
    code = f"import sys; {modules}; print({{'torch', 'ase'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_card_names_the_metrics_that_are_judged(harmonic):
    card = find_protocol("relax")
    found = [*judge(harmonic), *compare(harmonic, harmonic)]
    assert {finding.metric: finding.unit for finding in found} == {
        key: metric.unit for key, metric in card.metrics.items()
    }
    assert all(metric.unit == unit_of(key) for key, metric in card.metrics.items())
    assert {key for key, metric in card.metrics.items() if metric.twin} == {"regret", "handover_speedup"}
    assert card.dtype == "float64"
    for tier in ("smoke", "quick", "standard"):
        settings = build(Settings, card.settings(tier), tier)
        starts = starts_of(find_system(card.systems[0]), settings)
        assert any(start.variable for start in starts)
        assert settings.window < settings.max_steps


@pytest.mark.parametrize("name", ["si-64", "si-vacancy-63"])
def test_smoke_tier_of_silicon(name):
    system = find_system(name)
    settings = build(Settings, find_protocol("relax").settings("smoke"), "smoke")
    data = measure(StillingerWeber(), GRADIENT, system, settings, silent)
    found = findings(data)
    assert data.attrs["outcome"] == "completed"
    assert found["lbfgs_converged_1e-5"].interval.value == 100
    assert data.sizes["atom"] == len(from_atoms(system.sites).positions)
