"""Reweighting: its algebra to the last digits, its averages against a crystal solved on paper, its cache."""

import io
import math

import numpy as np
import pytest
import torch
from ase.build import bulk

from conservbench.models.base import Prediction, check_support, gradient_of_energy
from conservbench.models.edip import EDIP
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.models.toy import Field, ToyModel
from conservbench.outcome import Outcome
from conservbench.scheme import Scheme
from conservbench.state import from_atoms
from conservbench.training.reweight import Ensemble, Reweighting, Sampling, effective_number, log_weights
from conservbench.training.route import Objective, of_average
from conservbench.units import BOLTZMANN

GRADIENT = Scheme("gradient")
KELVIN = 300.0
SITES = bulk("Si", "diamond", a=5.431, cubic=True)


class EinsteinCrystal:
    """Independent wells of stiffness k about the sites, k/2 sum |u|^2, with the mean of u at rest; direct with a curl.

    <sum |u|^2> = (3 N - 3) k_B T / k, whose derivative by k is -(3 N - 3) k_B T / k^2.
    """

    differentiable = True
    labelled = True
    elements = None
    device = torch.device("cpu")

    def __init__(self, sites=SITES, *, channels=("gradient", "direct"), has_energy=True, **parameters):
        self.channels = channels
        self.has_energy = has_energy
        self.toy = ToyModel(Field("harmonic", 1.0), sites)
        self.parameters = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in parameters.items()}

    def at(self, parameters):
        other = EinsteinCrystal.__new__(EinsteinCrystal)
        other.__dict__ = {**self.__dict__, "parameters": {**self.parameters, **parameters}}
        return other

    def square(self, state):
        return state.sum(self.toy.displacements(state, state.positions, state.cell).square().sum(1))

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        check_support(self, state, forces)
        stiffness = self.parameters["stiffness"]

        def energy_of(positions, cell):
            return 0.5 * stiffness * state.sum(self.toy.displacements(state, positions, cell).square().sum(1))

        energy, gradient, _ = gradient_of_energy(
            energy_of, state, forces="gradient" in forces, stress=False, graph=graph
        )
        pulls = {} if gradient is None else {"gradient": gradient}
        if "direct" in forces:
            moved = self.toy.displacements(state, state.positions, state.cell)
            axis = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
            pulls["direct"] = -stiffness * moved + self.parameters["curl"] * torch.linalg.cross(axis, moved)
        return Prediction(energy if self.has_energy else None, pulls)


def crystals(n, *, rattle=0.0, seed=0):
    frames = []
    for index in range(n):
        atoms = SITES.copy()
        atoms.rattle(rattle, seed=seed + index)
        frames.append(atoms)
    return from_atoms(frames)


def sampling(**changes):
    settings = {
        "temperature": KELVIN,
        "time_step": 2.0,
        "frames": 6,
        "interval": 20.0,
        "equilibration": 0.1,
        "settling": 0.04,
        "tau": 50.0,
        "seed": 7,
    }
    return Sampling(**{**settings, **changes})


def nearest_distance(model, state):
    """Length of one bond of each system, which depends on no parameter."""
    first = torch.arange(state.n_systems) * 8
    offset = state.positions[first + 1] - state.positions[first]
    return offset.norm(dim=-1)


def energy(model, state):
    return model.evaluate(state, graph=True).energy


def pressure(model, state):
    stress = model.evaluate(state, stress=True, graph=True).stress
    return -stress.diagonal(dim1=-2, dim2=-1).mean(-1)


def below(target):
    return of_average(lambda value: (value - target).square().sum())


# algebra


def test_weights_and_their_effective_number_are_those_on_paper():
    beta = 1 / (BOLTZMANN * KELVIN)
    reference = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    shift = torch.tensor([[0.0, math.log(2) / beta], [0.0, math.log(2) / beta]], dtype=torch.float64)
    logarithms = log_weights(reference + shift, reference, KELVIN)
    assert torch.allclose(logarithms.exp(), torch.tensor([[2.0, 1.0], [2.0, 1.0]], dtype=torch.float64) / 6)
    # -2 (1/3 ln 1/3 + 1/6 ln 1/6) = 2/3 ln 3 + 1/3 ln 6
    assert effective_number(logarithms) == pytest.approx(3 ** (2 / 3) * 6 ** (1 / 3), rel=1e-14)
    assert effective_number(torch.tensor([0.25] * 4).log()) == pytest.approx(4)
    assert effective_number(torch.tensor([0.5, 0.5, 0.0, 0.0]).log()) == pytest.approx(2)
    assert math.isnan(effective_number(torch.tensor([0.5, math.nan])))


@pytest.mark.parametrize(
    ("potential", "names", "away"),
    [(StillingerWeber, ("epsilon", "lam", "sigma"), 1.02), (EDIP, ("A", "lam", "sigma"), 1.1)],
    ids=["sw", "edip"],
)
@pytest.mark.parametrize("observe", [nearest_distance, energy, pressure])
def test_on_fixed_frames_the_gradient_is_that_of_the_reweighted_loss(observe, potential, names, away):
    route = Reweighting(sampling(frames=4, time_step=1.0), min_effective=0.0, batch=4)
    start, model = crystals(2, rattle=0.05), potential()
    objective = Objective(observe, below(0.1))
    at = {name: model.parameters[name] for name in names}
    assert route(model, GRADIENT, objective, start, at).outcome is Outcome.COMPLETED
    # away from where the frames were made, so that the weights differ
    at = {name: value * away for name, value in at.items()}
    found = route(model, GRADIENT, objective, start, at)
    assert found.record["resampled"] == 0
    assert 0.5 < found.record["effective"] < 0.995
    for name, value in at.items():
        step = 1e-5 * value
        losses = [route(model, GRADIENT, objective, start, {**at, name: value + sign * step}).loss for sign in (1, -1)]
        slope = (losses[0] - losses[1]) / (2 * float(step))
        assert float(found.gradient[name]) == pytest.approx(slope, rel=1e-5)


def test_the_gradient_is_that_of_the_fluctuation_formula():
    route = Reweighting(sampling(frames=5, time_step=1.0), batch=3)
    start, model = crystals(2, rattle=0.05), StillingerWeber()
    objective = Objective(energy, of_average(torch.sum))
    found = route(model, GRADIENT, objective, start, {"lam": model.parameters["lam"]})
    values, slopes = [], []
    for frame in route.ensemble.frames:
        for index in range(2):
            lam = model.parameters["lam"].clone().requires_grad_(True)
            mine = from_atoms(to_bare_atoms(frame, index))
            value = model.at({"lam": lam}).evaluate(mine, graph=True).energy[0]
            values.append(value.item())
            slopes.append(torch.autograd.grad(value, lam)[0].item())
    covariance = np.mean(np.multiply(values, slopes)) - np.mean(values) * np.mean(slopes)
    assert found.loss == pytest.approx(np.mean(values), rel=1e-12)
    expected = np.mean(slopes) - covariance / (BOLTZMANN * KELVIN)
    assert float(found.gradient["lam"]) == pytest.approx(expected, rel=1e-9)


def to_bare_atoms(state, index):
    from conservbench.state import to_atoms

    return to_atoms(state)[index]


def test_gradients_do_not_depend_on_how_many_frames_are_evaluated_at_once():
    start, model = crystals(2, rattle=0.05), StillingerWeber()
    objective = Objective(pressure, below(0.1))
    first = Reweighting(sampling(frames=5, time_step=1.0), batch=1)
    one = first(model, GRADIENT, objective, start, {"lam": model.parameters["lam"]})
    other = Reweighting(first.sampling, batch=7, ensemble=first.ensemble)
    several = other(model, GRADIENT, objective, start, {"lam": model.parameters["lam"]})
    assert several.loss == pytest.approx(one.loss, rel=1e-12)
    assert float(several.gradient["lam"]) == pytest.approx(float(one.gradient["lam"]), rel=1e-9)


@pytest.mark.parametrize("scheme", [GRADIENT, Scheme("mts", 2)], ids=lambda scheme: scheme.kind)
def test_the_gradient_by_the_weights_of_the_network_equals_finite_differences(silicon_network, scheme):
    model = silicon_network
    route = Reweighting(sampling(frames=3, interval=4.0, time_step=1.0, equilibration=0.0), min_effective=0.0, batch=4)
    start, objective = crystals(2, rattle=0.05), Objective(nearest_distance, below(0.1))
    at = dict(model.parameters)
    found = route(model, scheme, objective, start, at)
    assert found.outcome is Outcome.COMPLETED
    assert set(found.gradient) == set(at)
    generator = torch.Generator().manual_seed(0)
    direction = {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype) * value.abs().mean()
        for name, value in at.items()
    }
    slope = sum(float((found.gradient[name] * direction[name]).sum()) for name in at)
    step = 1e-5
    moved = ({name: value + sign * step * direction[name] for name, value in at.items()} for sign in (1, -1))
    losses = [route(model, scheme, objective, start, there).loss for there in moved]
    assert slope == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-5)
    # the direct head has no part in an energy
    assert all(not gradient.any() for name, gradient in found.gradient.items() if name.startswith("direct."))


# averages

STIFFNESS = 4.0
"""eV/Å^2: w = sqrt(k / m) = 0.037 / fs, a period of 170 fs."""
N_DOF = 21


@pytest.mark.parametrize("scheme", [GRADIENT, Scheme("mts", 2)])
def test_the_gradient_of_an_average_is_the_one_on_paper_within_its_error(scheme):
    start = crystals(64)
    model = EinsteinCrystal(stiffness=STIFFNESS, curl=0.3)
    # critical friction, 1 / tau = 2 w: frames are independent after w t = 5
    settings = sampling(time_step=4.0, frames=16, interval=136.0, equilibration=0.4, tau=13.5)
    route = Reweighting(settings, batch=256)
    objective = Objective(lambda model, state: model.square(state), of_average(torch.sum))
    found = route(model, scheme, objective, start, {"stiffness": model.parameters["stiffness"]})
    assert found.outcome is Outcome.COMPLETED
    quantum = BOLTZMANN * KELVIN
    mean, slope = N_DOF * quantum / STIFFNESS, -N_DOF * quantum / STIFFNESS**2
    n = route.ensemble.size
    # of n independent chi-squared of 21: mean to sqrt(2 / (21 n)), variance, to which the slope is proportional, to
    # sqrt((2 + 12 / 21) / n); the time step adds (w dt)^2 / 4 = 0.6 %. 4 sigma: a false alarm in 16000
    bias = 0.006
    assert found.loss == pytest.approx(mean, rel=4 * math.sqrt(2 / (N_DOF * n)) + bias)
    assert float(found.gradient["stiffness"]) == pytest.approx(slope, rel=4 * math.sqrt(2.6 / n) + 2 * bias)
    assert found.record["temperature"] == pytest.approx(KELVIN, rel=4 * math.sqrt(2 / (N_DOF * n)) + bias)
    # nearby the same frames give the other average
    change = 0.1
    moved = route(model, scheme, objective, start, {"stiffness": torch.tensor(STIFFNESS * (1 + change))})
    assert moved.record["resampled"] == 0
    assert moved.loss == pytest.approx(mean / (1 + change), rel=4 * math.sqrt(2 / (N_DOF * n)) + bias)
    # ln N_eff / N is minus the relative entropy of two Gaussians in N_DOF dimensions, 0.046
    entropy = 0.5 * N_DOF * (1 / (1 + change) - 1 + math.log(1 + change))
    assert math.log(moved.record["effective"]) == pytest.approx(-entropy, rel=0.2)


# the cache


def test_an_ensemble_is_sampled_again_only_where_too_few_of_its_frames_count():
    start = crystals(4)
    model = EinsteinCrystal(stiffness=STIFFNESS)
    route = Reweighting(sampling(frames=10))
    objective = Objective(nearest_distance, below(2.0))

    def call(stiffness):
        at = {"stiffness": torch.tensor(stiffness, dtype=torch.float64)}
        return route(model, GRADIENT, objective, start, at).record

    first = call(STIFFNESS)
    assert (first["resampled"], first["effective"]) == (1, pytest.approx(1, abs=1e-14))
    assert math.isnan(first["effective_before"])
    ensemble = route.ensemble
    # start, its energy, 50 + 10 x 10 steps, energies and gradients of 10 frames
    assert first["model_calls"] == 2 + 150 + 10 + 10
    again = call(STIFFNESS)
    assert (again["resampled"], again["effective"], again["model_calls"]) == (0, pytest.approx(1, abs=1e-14), 10)
    near = call(1.02 * STIFFNESS)
    assert near["resampled"] == 0
    assert 0.9 < near["effective"] < 1
    assert route.ensemble is ensemble
    far = call(1.5 * STIFFNESS)
    assert far["resampled"] == 1
    assert far["effective_before"] < 0.9
    assert far["effective"] == pytest.approx(1, abs=1e-14)
    assert (ensemble.stage, route.ensemble.stage) == (0, 1)
    # energies of the old frames, then from the last of them: settling, sampling, energies, gradients
    assert far["model_calls"] == 10 + 2 + 20 + 100 + 10 + 10


def test_values_that_depend_on_no_parameter_are_observed_once():
    calls = []

    def observe(model, state):
        calls.append(state.n_systems)
        return nearest_distance(model, state)

    route = Reweighting(sampling(frames=4), min_effective=0.0, batch=4)
    model, start, objective = EinsteinCrystal(stiffness=STIFFNESS), crystals(2), Objective(observe, below(2.0))
    for stiffness in (4.0, 4.1, 4.2):
        route(model, GRADIENT, objective, start, {"stiffness": torch.tensor(stiffness)})
    assert calls == [4, 4]


def test_another_start_or_scheme_gets_its_own_ensemble():
    model, objective = EinsteinCrystal(stiffness=STIFFNESS, curl=0.1), Objective(nearest_distance, below(2.0))
    route = Reweighting(sampling(frames=2))
    at = {"stiffness": torch.tensor(STIFFNESS)}
    for scheme, start in (
        (GRADIENT, crystals(2)),
        (GRADIENT, crystals(2, rattle=0.1)),
        (Scheme("mts", 2), crystals(2)),
    ):
        assert route(model, scheme, objective, start, at).record["resampled"] == 1
        assert route.ensemble.stage == 0
        assert route(model, scheme, objective, start, at).record["resampled"] == 0


def test_a_restored_ensemble_goes_on_bit_for_bit():
    start, objective = crystals(2, rattle=0.05), Objective(pressure, below(0.1))
    first = Reweighting(sampling(frames=3, time_step=1.0))

    def call(route, model, factor):
        return route(model, GRADIENT, objective, start, {"epsilon": factor * model.parameters["epsilon"]})

    model = StillingerWeber()
    call(first, model, 1.0)
    stored = io.BytesIO()
    torch.save(first.ensemble.to_dict(), stored)
    stored.seek(0)
    restored = Ensemble.from_dict(torch.load(stored, weights_only=True))
    second, fresh = Reweighting(first.sampling, ensemble=restored), StillingerWeber()
    # a step that keeps the ensemble, and one that samples it anew
    for factor, resampled in ((1.001, 0), (1.3, 1), (1.301, 0)):
        going_on, resumed = call(first, model, factor), call(second, fresh, factor)
        assert going_on.record["resampled"] == resampled
        assert resumed.loss == going_on.loss
        assert torch.equal(resumed.gradient["epsilon"], going_on.gradient["epsilon"])
        assert resumed.record == going_on.record
    assert torch.equal(second.ensemble.frames[-1].momenta, first.ensemble.frames[-1].momenta)


# the domain, and what breaks


def test_direct_forces_and_models_without_energy_are_outside_the_domain():
    route, objective = Reweighting(sampling()), Objective(nearest_distance, below(2.0))
    at = {"stiffness": torch.tensor(STIFFNESS)}
    start = crystals(1)
    direct = route(EinsteinCrystal(stiffness=STIFFNESS, curl=0.0), Scheme("direct"), objective, start, at)
    assert (direct.outcome, direct.gradient) == (Outcome.UNSUPPORTED, {})
    assert "no energy whose Boltzmann weights" in direct.reason
    lacking = EinsteinCrystal(stiffness=STIFFNESS, has_energy=False)
    assert route(lacking, GRADIENT, objective, start, at).outcome is Outcome.UNSUPPORTED
    channels = EinsteinCrystal(stiffness=STIFFNESS, channels=("direct",))
    assert route(channels, GRADIENT, objective, start, at).outcome is Outcome.UNSUPPORTED
    opaque = EinsteinCrystal(stiffness=STIFFNESS)
    opaque.differentiable = False
    assert "not differentiable" in route(opaque, GRADIENT, objective, start, at).reason
    stride = route(EinsteinCrystal(stiffness=STIFFNESS, curl=0.0), Scheme("mts", 3), objective, start, at)
    assert (stride.outcome, stride.reason) == (
        Outcome.UNSUPPORTED,
        "stride 3 x 2 fs does not divide interval = 20 fs",
    )
    strained = crystals(2)
    strained = strained.replace(cell=strained.cell * torch.tensor([1.0, 1.01]).double()[:, None, None])
    for unlike in (strained, from_atoms([SITES, SITES * (2, 1, 1)])):
        different = route(StillingerWeber(), GRADIENT, Objective(energy, below(0.0)), unlike, {})
        assert different.reason == "systems that differ in atoms or cell are not one ensemble"
    assert route.ensemble is None


def test_an_explosion_is_an_outcome_and_the_last_good_ensemble_is_kept():
    start, objective = crystals(3), Objective(nearest_distance, below(2.0))
    model, route = EinsteinCrystal(stiffness=STIFFNESS), Reweighting(sampling(explosion_temperature=2000.0))
    assert route(model, GRADIENT, objective, start, {"stiffness": torch.tensor(STIFFNESS)}).outcome is Outcome.COMPLETED
    kept = route.ensemble
    # w dt = 3: no step of 2 fs follows such a well
    found = route(model, GRADIENT, objective, start, {"stiffness": torch.tensor(2000.0, dtype=torch.float64)})
    assert found.outcome is Outcome.EXPLODED
    assert "3 of 3 replicas exploded within" in found.reason
    assert math.isnan(found.loss)
    assert found.record["exploded"] == 3
    assert found.record["effective_before"] < 0.2
    assert route.ensemble is kept


def test_predictions_that_are_no_numbers_are_an_outcome():
    route, objective = Reweighting(sampling()), Objective(nearest_distance, below(2.0))
    model = EinsteinCrystal(stiffness=STIFFNESS)
    found = route(model, GRADIENT, objective, crystals(1), {"stiffness": torch.tensor(math.nan)})
    assert found.outcome is Outcome.FAILED
    assert found.reason == "forces of the start are not all finite in system 0"
    silent = Objective(lambda model, state: nearest_distance(model, state) * math.nan, below(2.0))
    found = route(model, GRADIENT, silent, crystals(1), {"stiffness": torch.tensor(STIFFNESS)})
    assert (found.outcome, found.reason) == (Outcome.FAILED, "the loss is not finite")


@pytest.mark.parametrize(
    "changes",
    [{"temperature": 0.0}, {"interval": -1.0}, {"frames": 0}, {"settling": -0.1}, {"seed": -1}, {"bath": "ice"}],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        sampling(**changes)


def test_an_unknown_parameter_is_refused():
    with pytest.raises(ValueError, match="gama"):
        Reweighting(sampling())(
            StillingerWeber(), GRADIENT, Objective(energy, below(0.0)), crystals(1), {"gama": torch.tensor(1.0)}
        )
