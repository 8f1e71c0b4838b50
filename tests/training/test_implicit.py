"""Implicit differentiation against relaxing again at other parameters, and against minima solved on paper."""

import math

import numpy as np
import pytest
import torch
from ase.build import bulk

from conservbench.cards import find_model
from conservbench.dynamics.coordinates import FixedCell
from conservbench.dynamics.forces import force_of
from conservbench.dynamics.relaxation import OPTIMIZERS, Ending, relax
from conservbench.models.base import Prediction, check_support, gradient_of_energy
from conservbench.models.edip import EDIP
from conservbench.models.load import load_model
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.models.toy import Field, ToyModel
from conservbench.outcome import Outcome
from conservbench.scheme import Scheme
from conservbench.state import from_atoms
from conservbench.systems import find_system
from conservbench.training.implicit import Implicit
from conservbench.training.reweight import Reweighting, Sampling
from conservbench.training.route import Objective, of_average
from conservbench.units import BOLTZMANN, GIGAPASCAL

GRADIENT = Scheme("gradient")
DIRECT = Scheme("direct")


def skewed(atoms, seed=3):
    """Off its sites, in a cell of low symmetry: nothing is where symmetry would hold it."""
    atoms.set_cell(atoms.cell.array @ [[1.01, 0, 0], [0.02, 0.98, 0], [-0.01, 0.03, 1.005]], scale_atoms=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


def vacancy(n_cells=(2, 1, 1)):
    atoms = bulk("Si", "diamond", a=5.431, cubic=True) * n_cells
    del atoms[0]
    return skewed(atoms)


def energy(model, state):
    return model.evaluate(state, graph=True).energy


def pressure(model, state):
    stress = model.evaluate(state, stress=True, graph=True).stress
    return -stress.diagonal(dim1=-2, dim2=-1).mean(-1)


def distance(model, state):
    first = torch.nonzero(torch.diff(state.system, prepend=torch.tensor([-1])))[:, 0]
    return (state.positions[first + 4] - state.positions[first + 1]).norm(dim=-1)


total = of_average(torch.sum)


def relaxed_again(model, channel, start):
    run = relax(
        start,
        FixedCell(force_of(model, channel)),
        OPTIMIZERS["lbfgs"],
        fmax=1e-11,
        max_steps=[2000] * start.n_systems,
    )
    assert set(run.ending) == {Ending.CONVERGED}
    return run.final


def slopes_along(model, channel, observables, start, at, direction, *, step):
    """Central differences of means along a direction of parameters, relaxed from the same start each time."""
    means = []
    for sign in (1, -1):
        moved = model.at({name: value + sign * step * direction[name] for name, value in at.items()})
        relaxed = relaxed_again(moved, channel, start)
        means.append([float(observe(moved, relaxed).detach().mean()) for observe in observables])
    return [(ahead - behind) / (2 * step) for ahead, behind in zip(*means, strict=True)]


# finite differences


@pytest.mark.parametrize(
    ("potential", "names"), [(StillingerWeber, ("lam", "sigma")), (EDIP, ("lam", "B"))], ids=["sw", "edip"]
)
def test_the_gradient_through_a_minimum_equals_that_of_relaxing_again(potential, names):
    model, observables = potential(), (energy, pressure, distance)
    start = from_atoms([vacancy(), vacancy((1, 1, 2))])
    at = {name: model.parameters[name] for name in names}
    near = relaxed_again(model, "gradient", start)
    found = [Implicit(fmax=1e-10)(model, GRADIENT, Objective(observe, total), near, at) for observe in observables]
    assert [each.outcome for each in found] == 3 * [Outcome.COMPLETED]
    for name in names:
        one, step = {key: float(key == name) for key in at}, 1e-4 * float(at[name])
        slopes = slopes_along(model, "gradient", observables, near, at, one, step=step)
        assert [float(each.gradient[name]) for each in found] == pytest.approx(slopes, rel=1e-5)


def test_the_vacancy_in_silicon_relaxes_along():
    model, start = StillingerWeber(), from_atoms(find_system("si-vacancy-63").snapshots[0])
    at = {"lam": model.parameters["lam"]}
    found = Implicit(fmax=1e-10)(model, GRADIENT, Objective(distance, total), start, at)
    (slope,) = slopes_along(model, "gradient", [distance], start, at, {"lam": 1.0}, step=1e-3)
    assert float(found.gradient["lam"]) == pytest.approx(slope, rel=1e-5)
    assert found.record["fmax"] < 1e-10
    assert found.record["residual"] < 1e-8
    # conjugate gradients end before they have seen every direction
    assert found.record["products"] < start.n_atoms * 3
    assert found.record["model_calls"] == found.record["relaxation_steps"] + 2


@pytest.mark.parametrize("scheme", [GRADIENT, DIRECT, Scheme("mts", 8)], ids=lambda scheme: scheme.kind)
def test_the_gradient_by_the_weights_of_a_network_equals_that_of_relaxing_again(scheme):
    card = find_model("si-mace-gradient")
    model = load_model(card, find_system("si-64"), dtype="float64")
    at = dict(model.parameters)
    start = relaxed_again(model, scheme.mean_channel, from_atoms(vacancy((1, 1, 1))))
    found = Implicit(fmax=1e-10)(model, scheme, Objective(distance, total), start, at)
    assert found.outcome is Outcome.COMPLETED
    generator = torch.Generator().manual_seed(0)
    direction = {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype) * value.abs().mean()
        for name, value in at.items()
    }
    (slope,) = slopes_along(model, scheme.mean_channel, [distance], start, at, direction, step=1e-4)
    assert sum(float((found.gradient[name] * direction[name]).sum()) for name in at) == pytest.approx(slope, rel=1e-5)


# answers


class Strained:
    """A crystal at r (1 + e) in h (1 + e) whose parameter is e, in Mandel's basis of xx, yy and yz."""

    differentiable = True
    labelled = False
    elements = None
    channels = ("gradient",)
    device = torch.device("cpu")

    def __init__(self, model, strain):
        self.model = model
        self.parameters = {"strain": strain}

    def at(self, parameters):
        return Strained(self.model, parameters["strain"])

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        xx, yy, yz = self.parameters["strain"]
        none = torch.zeros_like(xx)
        half = yz / math.sqrt(2)
        e = torch.stack([torch.stack(row) for row in ((xx, none, none), (none, yy, half), (none, half, none))])

        def energy_of(positions, cell):
            strained = state.replace(positions=positions + positions @ e, cell=cell + cell @ e)
            return self.model.evaluate(strained, graph=True).energy

        said = gradient_of_energy(energy_of, state, forces="gradient" in forces, stress=False, graph=graph)
        return Prediction(said[0], {} if said[1] is None else {"gradient": said[1]})


def test_relaxed_stresses_follow_the_strain_by_the_elastic_constants_of_stillinger_and_weber():
    def stresses(model, state):
        volume = state.volume[0]
        return (
            torch.autograd.grad(energy(model, state).sum(), model.parameters["strain"], create_graph=True)[0][None]
            / volume
        )

    start = from_atoms(bulk("Si", "diamond", a=5.431))
    none = torch.zeros(3, dtype=torch.float64)
    rows = []
    for index in range(3):
        objective = Objective(stresses, of_average(lambda value, index=index: value[index]))
        found = Implicit(fmax=1e-8)(Strained(StillingerWeber(), none), GRADIENT, objective, start, {"strain": none})
        assert found.outcome is Outcome.COMPLETED
        rows.append(found.gradient["strain"].numpy() / GIGAPASCAL)
    C11, C12, C44 = 151.4131, 76.4154, 56.4464
    assert np.array(rows) == pytest.approx(np.array([[C11, C12, 0], [C12, C11, 0], [0, 0, 2 * C44]]), abs=1e-2)


class Loaded:
    """A swirl under a load: f = -k u + s n x u + F, at rest at u = F / (k - i s) across n and F / k along it.

    Net forces are taken out. Its energy, k/2 |u|^2 - F . u, is that of the force without the swirl.
    """

    differentiable = True
    labelled = True
    elements = None
    channels = ("gradient", "direct")
    device = torch.device("cpu")

    def __init__(self, sites, **parameters):
        self.toy = ToyModel(Field("harmonic", 1.0), sites)
        self.parameters = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in parameters.items()}

    def at(self, parameters):
        other = Loaded.__new__(Loaded)
        other.__dict__ = {**self.__dict__, "parameters": {**self.parameters, **parameters}}
        return other

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        check_support(self, state, forces)
        k, s, load = (self.parameters[name] for name in ("stiffness", "curl", "load"))
        load = load.repeat(state.n_systems, 1)

        def energy_of(positions, cell):
            u = self.toy.displacements(state, positions, cell)
            return state.sum(0.5 * k * u.square().sum(1) - (load * u).sum(1))

        energy, gradient, _ = gradient_of_energy(
            energy_of, state, forces="gradient" in forces, stress=False, graph=graph
        )
        pulls = {} if gradient is None else {"gradient": gradient}
        if "direct" in forces:
            u = self.toy.displacements(state, state.positions, state.cell)
            axis = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
            pulls["direct"] = -k * u + s * torch.linalg.cross(axis, u) + load
        return Prediction(energy, pulls)


SITES = bulk("Si", "diamond", a=5.431, cubic=True)
PULLS = torch.from_numpy(np.random.default_rng(5).normal(size=(8, 3)))
LOAD = torch.from_numpy(np.random.default_rng(6).normal(size=(8, 3)))
K, S = 3.0, 2.0


def pulled(model, state):
    """Q . u of each system."""
    return (PULLS * model.toy.displacements(state, state.positions, state.cell).view(-1, 8, 3)).sum((1, 2))


def loaded(curl):
    """Q . u, and its derivatives by k, by s and by F, on paper."""
    pull, load = ((part - part.mean(0)).numpy() for part in (PULLS, LOAD))
    across = [part[:, 0] + 1j * part[:, 1] for part in (pull, load)]
    stiffness = K - 1j * curl
    u = across[1] / stiffness
    value = (across[0].conj() @ u).real + pull[:, 2] @ load[:, 2] / K
    by_k = -(across[0].conj() @ u / stiffness).real - pull[:, 2] @ load[:, 2] / K**2
    by_s = (across[0].conj() @ (1j * u / stiffness)).real
    response = across[0] / stiffness.conjugate()
    by_load = np.stack([response.real, response.imag, pull[:, 2] / K], axis=1)
    return value, by_k, by_s, by_load


@pytest.mark.parametrize(("scheme", "curl"), [(DIRECT, S), (GRADIENT, 0.0), (Scheme("mts", 2), 0.0)])
def test_the_response_of_a_swirl_under_load_is_the_one_on_paper(scheme, curl):
    start = from_atoms([SITES, SITES])
    at = {"stiffness": torch.tensor(K).double(), "curl": torch.tensor(S).double(), "load": LOAD}
    objective = Objective(pulled, total)
    found = Implicit(fmax=1e-10, optimizer="fire")(Loaded(SITES, **at), scheme, objective, start, at)
    value, by_k, by_s, by_load = loaded(curl)
    assert found.loss == pytest.approx(value, rel=1e-8)
    assert float(found.gradient["stiffness"]) == pytest.approx(by_k, rel=1e-7)
    assert float(found.gradient["curl"]) == pytest.approx(by_s if curl else 0.0, rel=1e-7)
    assert found.gradient["load"].numpy() == pytest.approx(by_load, abs=1e-8)


def test_the_minimum_of_a_harmonic_crystal_follows_its_parameters_as_its_thermal_average_does():
    """At any temperature <F . u> is F . F / k: the route through an ensemble has the same answer, but for its noise."""
    model = Loaded(SITES, stiffness=K, curl=0.0, load=LOAD)
    at = {name: model.parameters[name] for name in ("stiffness", "load")}

    def along(model, state):
        return (LOAD * model.toy.displacements(state, state.positions, state.cell).view(-1, 8, 3)).sum((1, 2))

    objective, kelvin = Objective(along, total), 100.0
    # critical friction, 1 / tau = 2 w = 0.064 / fs; frames are w t = 5 apart
    sampling = Sampling(kelvin, 4.0, frames=32, interval=156.0, equilibration=0.5, settling=0.0, tau=15.6, seed=1)
    ensemble = Reweighting(sampling, batch=2048)(model, GRADIENT, objective, from_atoms(64 * [SITES]), at)
    minimum = Implicit(fmax=1e-10)(model, GRADIENT, objective, from_atoms(SITES), at)
    thermal = BOLTZMANN * kelvin / K
    load = LOAD - LOAD.mean(0)
    square, n = float(load.square().sum()), ensemble.record["frames"]
    # variance of F . u over n; of a covariance of two Gaussians whose correlation is 1, and of F . u with |u|^2 / 2,
    # relative: 2 / n and (2 + 21 k_B T k / 2 F^2) / n. 4 sigma and the time step's (w dt)^2 / 4: a false alarm in 5000
    wide = 21 * thermal * K**2 / (2 * square)
    assert ensemble.loss == pytest.approx(minimum.loss, abs=4 * math.sqrt(thermal * square / n))
    slopes = [float((each.gradient["load"] * LOAD).sum()) for each in (ensemble, minimum)]
    assert slopes[0] == pytest.approx(slopes[1], rel=4 * math.sqrt(2 / n) + 0.005)
    slopes = [float(each.gradient["stiffness"]) for each in (ensemble, minimum)]
    assert slopes[0] == pytest.approx(slopes[1], rel=4 * math.sqrt((2 + wide) / n) + 0.005)
    assert slopes[1] == pytest.approx(-square / K**2, rel=1e-9)


def test_a_loss_that_no_position_enters_needs_no_solver():
    model, start = StillingerWeber(), from_atoms(vacancy())
    objective = Objective(lambda model, state: model.parameters["lam"].expand(state.n_systems), total)
    found = Implicit(fmax=1e-3)(model, GRADIENT, objective, start, {"lam": model.parameters["lam"]})
    assert (found.loss, float(found.gradient["lam"])) == (21.0, 1.0)
    assert found.record["products"] == 0


# what breaks


def test_a_relaxation_or_a_system_that_does_not_converge_says_how_far_it_came():
    model, start, objective = StillingerWeber(), from_atoms([vacancy(), vacancy()]), Objective(distance, total)
    at = {"lam": model.parameters["lam"]}
    short = Implicit(max_steps=3)(model, GRADIENT, objective, start, at)
    assert short.outcome is Outcome.NOT_CONVERGED
    assert short.reason.startswith("2 of 2 relaxations exhausted after 3 steps at ")
    assert (short.record["relaxation_steps"], short.record["model_calls"]) == (3, 4)
    assert short.record["fmax"] > 1e-6
    assert math.isnan(short.loss)
    few = Implicit(max_products=2)(model, GRADIENT, objective, start, at)
    assert few.outcome is Outcome.NOT_CONVERGED
    # and one for the residual
    assert "the linear system has a residual of " in few.reason
    assert few.record["products"] == 3
    assert 1e-8 < few.record["residual"] < 10
    swirl = Loaded(SITES, stiffness=K, curl=S, load=LOAD)
    few = Implicit(max_products=1, optimizer="fire")(
        swirl, DIRECT, Objective(pulled, total), from_atoms(SITES), {"curl": torch.tensor(S).double()}
    )
    assert few.outcome is Outcome.NOT_CONVERGED
    assert few.record["residual"] > 0.01


def test_a_stationary_point_that_is_no_minimum_is_not_converged():
    # at its sites the crystal is at rest, and every displacement lowers the energy
    model = Loaded(SITES, stiffness=-K, curl=0.0, load=torch.zeros(8, 3).double())
    found = Implicit(max_steps=0)(
        model, GRADIENT, Objective(pulled, total), from_atoms(SITES), {"stiffness": torch.tensor(-K).double()}
    )
    assert found.outcome is Outcome.NOT_CONVERGED
    assert "no minimum" in found.reason


def test_an_explosion_is_an_outcome():
    model = StillingerWeber()
    atoms = bulk("Si", "diamond", a=5.431)
    atoms.positions[1] = [0.02, 0.0, 0.0]
    found = Implicit()(model, GRADIENT, Objective(energy, total), from_atoms(atoms), {"lam": torch.tensor(21.0)})
    assert (found.outcome, found.reason) == (Outcome.EXPLODED, "1 of 1 relaxations exploded after 0 steps")


def test_the_domain_is_that_of_differentiable_models_that_have_the_channel():
    at = {"stiffness": torch.tensor(K).double()}
    model = Loaded(SITES, stiffness=K, curl=S, load=LOAD)
    model.differentiable = False
    found = Implicit()(model, GRADIENT, Objective(pulled, total), from_atoms(SITES), at)
    assert (found.outcome, found.reason) == (Outcome.UNSUPPORTED, "the model is not differentiable")
    lam = {"lam": torch.tensor(21.0)}
    found = Implicit()(StillingerWeber(), DIRECT, Objective(energy, total), from_atoms(SITES), lam)
    assert found.outcome is Outcome.UNSUPPORTED
    silent = Objective(lambda model, state: energy(model, state) * math.nan, total)
    found = Implicit()(StillingerWeber(), GRADIENT, silent, from_atoms(SITES), lam)
    assert (found.outcome, found.reason) == (Outcome.FAILED, "the loss is nan")


@pytest.mark.parametrize(
    "changes", [{"fmax": 0.0}, {"tolerance": -1.0}, {"max_steps": -1}, {"max_products": 0}, {"optimizer": "newton"}]
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        Implicit(**changes)
