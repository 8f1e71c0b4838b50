"""Elastic constants: published exact numbers, stresses of relaxed strains, gradients by parameters."""

import numpy as np
import pytest
import torch
from ase.build import bulk

from conservbench.cards import find_model
from conservbench.models.ase import ASEModel
from conservbench.models.base import InvalidPredictionError, Prediction, UnsupportedError
from conservbench.models.edip import EDIP
from conservbench.models.load import load_model
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.models.toy import Field, ToyModel
from conservbench.observables.elastic import (
    constants_of_strains,
    cubic_constants,
    elastic_constants,
    hexagonal_constants,
    mandel_of_cubic,
    mandel_of_hexagonal,
)
from conservbench.observables.force_constants import force_constants
from conservbench.observables.jacobian import jacobian
from conservbench.state import from_atoms
from conservbench.systems import find_system
from conservbench.units import GIGAPASCAL

PBE = mandel_of_cubic(153.21414, 56.79690, 74.83264)
"""Of VASP, in GPa (Gangan et al., arXiv 2409.13844)."""

# Gangan et al., arXiv 2409.13844: potential, lattice constant, C11, C12, C44 in GPa, distance to PBE in GPa
PUBLISHED = {
    "SW": (StillingerWeber(), 5.431, (151.4131, 76.4154, 56.4464), 79.848),
    "SW optimised": (
        StillingerWeber({"epsilon": 1.935160955, "lam": 33.786738320}),
        5.431,
        (162.3052, 54.6155, 70.4416),
        22.536002,
    ),
    "EDIP": (EDIP(), 5.430, (172.0389, 64.6745, 72.7842), 38.546),
    "EDIP optimised": (
        EDIP({"A": 7.191596393, "lam": 1.457774758}),
        5.430,
        (162.3106, 54.6135, 70.4389),
        22.549845,
    ),
}


def diamond(lattice_constant):
    return bulk("Si", "diamond", a=lattice_constant)


def distance(model, state):
    return torch.linalg.matrix_norm(elastic_constants(model, "gradient", state) / GIGAPASCAL - PBE)


class Conservative:
    """A potential whose direct forces are its gradient forces."""

    channels = ("gradient", "direct")
    elements = None
    differentiable = True
    labelled = False
    device = torch.device("cpu")

    def __init__(self, potential):
        self.potential = potential

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        said = self.potential.evaluate(state, forces=("gradient",), stress=stress, graph=graph)
        return Prediction(said.energy, dict.fromkeys(forces, said.forces["gradient"]), said.stress)


class WithoutGraph(Conservative):
    """A potential that cannot be differentiated."""

    differentiable = False

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        assert not graph
        return super().evaluate(state, forces=forces, stress=stress)


@pytest.fixture(scope="module")
def trained():
    return load_model(find_model("si-mace-gradient"), find_system("si-64"), dtype="float64")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_constants(name):
    model, lattice_constant, expected, loss = PUBLISHED[name]
    state = from_atoms(diamond(lattice_constant))
    matrix = elastic_constants(model, "gradient", state) / GIGAPASCAL
    np.testing.assert_allclose([float(value) for value in cubic_constants(matrix)], expected, atol=1e-2)
    torch.testing.assert_close(matrix, mandel_of_cubic(*map(float, cubic_constants(matrix))), rtol=0, atol=1e-9)
    assert float(distance(model, state)) == pytest.approx(loss, abs=1e-3)


@pytest.mark.parametrize(("name", "energy"), [("SW", -277.53728), ("EDIP", -297.59701)])
def test_primitive_cell_gives_the_constants_of_64_atoms(name, energy):
    model, lattice_constant, _, _ = PUBLISHED[name]
    crystal = from_atoms(bulk("Si", "diamond", a=lattice_constant, cubic=True) * 2)
    assert float(model.evaluate(crystal).energy) == pytest.approx(energy, abs=1e-5)
    whole = elastic_constants(model, "gradient", crystal)
    small = elastic_constants(model, "gradient", from_atoms(diamond(lattice_constant)))
    torch.testing.assert_close(whole, small, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("epsilon", "lam", "loss"),
    [(2.16826, 21.0, 79.85), (1.64833, 31.5, 72.08), (1.80159, 17.3, 135.98), (2.90159, 25.8, 152.21)],
)
def test_published_starts(epsilon, lam, loss):
    model = StillingerWeber({"epsilon": epsilon, "lam": lam})
    assert float(distance(model, from_atoms(diamond(5.431)))) == pytest.approx(loss, abs=0.005)


@pytest.mark.parametrize(
    ("model", "names"), [(StillingerWeber(), ("epsilon", "lam", "sigma")), (EDIP(), ("A", "lam", "Q0"))]
)
def test_gradients_by_parameters_are_those_of_finite_differences(model, names):
    state = from_atoms(diamond(5.40))
    leaves = {name: model.parameters[name].clone().requires_grad_(True) for name in names}
    slopes = torch.autograd.grad(distance(model.at(leaves), state), list(leaves.values()))
    for name, slope in zip(names, slopes, strict=True):
        value = model.parameters[name]
        step = 1e-4 * float(value)
        ends = [float(distance(model.at({name: value + sign * step}), state)) for sign in (2, 1, -1, -2)]
        difference = (8 * (ends[1] - ends[2]) - (ends[0] - ends[3])) / (12 * step)
        assert float(slope) == pytest.approx(difference, rel=1e-6)


def test_no_graph_is_left_where_nothing_asks_for_one():
    model, state = StillingerWeber(), from_atoms(diamond(5.431))
    assert not elastic_constants(model, "gradient", state).requires_grad
    tuned = model.at({"lam": torch.tensor(21.0, dtype=torch.float64, requires_grad=True)})
    assert elastic_constants(tuned, "gradient", state).requires_grad
    with torch.no_grad():
        assert not elastic_constants(tuned, "gradient", state).requires_grad


def relaxed_slope(model, channel, atoms, strain):
    """dU/de of the strained crystal with its atoms relaxed by Newton steps, as a (3, 3) tensor."""
    deformation = np.eye(3) + strain
    strained = atoms.copy()
    strained.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    for _ in range(6):
        state = from_atoms(strained)
        forces = model.evaluate(state, forces=(channel,)).forces[channel].numpy()
        matrix = jacobian(model, channel, state, atoms_per_batch=64).reshape(forces.size, -1).numpy()
        strained.positions -= (np.linalg.pinv(matrix, rcond=1e-8) @ forces.ravel()).reshape(-1, 3)
    assert np.abs(forces).max() < 1e-9
    stress = model.evaluate(from_atoms(strained), stress=True).stress[0].numpy()
    slope = strained.get_volume() * stress @ np.linalg.inv(deformation)
    return 0.5 * (slope + slope.T)


def by_relaxation(model, channel, atoms, strain, step=2e-4):
    """V^-1 d2U/de de along one strain, contracted with it."""
    ahead, behind = (relaxed_slope(model, channel, atoms, sign * step * strain) for sign in (1, -1))
    return float(((ahead - behind) * strain).sum()) / (2 * step) / atoms.get_volume()


AXIAL = np.diag([1.0, 0.0, 0.0])
SHEAR = np.array([[0, 0, 0], [0, 0, 1.0], [0, 1.0, 0]]) / np.sqrt(2)


@pytest.mark.parametrize(("strain", "entry"), [(AXIAL, 0), (SHEAR, 3)])
@pytest.mark.parametrize("lattice_constant", [5.431, 5.25])
def test_relaxed_strains_have_these_constants_under_pressure_too(strain, entry, lattice_constant):
    atoms = diamond(lattice_constant)
    matrix = elastic_constants(StillingerWeber(), "gradient", from_atoms(atoms))
    expected = by_relaxation(StillingerWeber(), "gradient", atoms, strain)
    assert float(matrix[entry, entry]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("channel", ["gradient", "direct"])
def test_network_has_the_constants_of_relaxed_strains(trained, channel):
    atoms = diamond(5.46)
    with torch.no_grad():
        matrix = elastic_constants(trained, channel, from_atoms(atoms))
    assert float(matrix[3, 3]) == pytest.approx(by_relaxation(trained, channel, atoms, SHEAR), rel=1e-5)
    # the axial strain of diamond leaves the atoms where they are, whatever the forces
    assert float(matrix[0, 0]) == pytest.approx(by_relaxation(trained, "gradient", atoms, AXIAL), rel=1e-5)


def test_network_constants_are_cubic_and_differentiable_by_weights(trained):
    name = "trunk.readouts.1.linear_2.weight"
    weight = trained.parameters[name].clone().requires_grad_(True)
    matrix = elastic_constants(trained.at({name: weight}), "gradient", from_atoms(diamond(5.46)))
    C11, C12, C44 = (float(value) / GIGAPASCAL for value in cubic_constants(matrix.detach()))
    torch.testing.assert_close(matrix.detach() / GIGAPASCAL, mandel_of_cubic(C11, C12, C44), rtol=0, atol=1e-6)
    (slope,) = torch.autograd.grad(matrix[3, 3], weight)
    move = torch.ones_like(weight) * 1e-4
    with torch.no_grad():
        ends = [
            float(elastic_constants(trained.at({name: weight + shift}), "gradient", from_atoms(diamond(5.46)))[3, 3])
            for shift in (move, -move)
        ]
    assert float((slope * move).sum()) == pytest.approx((ends[0] - ends[1]) / 2, rel=1e-5)


def test_conservative_direct_forces_give_the_constants_of_the_gradient():
    state = from_atoms(diamond(5.40))
    model = Conservative(StillingerWeber())
    direct = elastic_constants(model, "direct", state)
    torch.testing.assert_close(direct, elastic_constants(model, "gradient", state), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(direct, direct.T, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("lattice_constant", [5.431, 5.25])
def test_differences_are_near_for_what_has_no_graph(lattice_constant):
    state = from_atoms(diamond(lattice_constant))
    exact = elastic_constants(StillingerWeber(), "gradient", state)
    found = elastic_constants(WithoutGraph(StillingerWeber()), "gradient", state)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-3 * float(exact.abs().max()))


def test_any_number_of_copies_gives_the_same():
    state = from_atoms(diamond(5.431))
    whole = elastic_constants(EDIP(), "gradient", state)
    torch.testing.assert_close(elastic_constants(EDIP(), "gradient", state, atoms_per_batch=1), whole)


def test_harmonic_crystal_whose_sites_move_with_the_cell_has_none():
    crystal = diamond(5.431)
    found = elastic_constants(ToyModel(Field("harmonic", 3.0), crystal), "gradient", from_atoms(crystal))
    assert float(found.abs().max()) < 1e-12


def test_what_cannot_be_answered_is_refused():
    crystal = diamond(5.431)
    state = from_atoms(crystal)
    with pytest.raises(ValueError, match="one system"):
        elastic_constants(StillingerWeber(), "gradient", from_atoms([crystal, crystal]))
    with pytest.raises(UnsupportedError, match="no direct forces"):
        elastic_constants(StillingerWeber(), "direct", state)
    from ase.calculators.lj import LennardJones

    with pytest.raises(UnsupportedError, match="stress"):
        elastic_constants(ASEModel(LennardJones(), channel="direct"), "direct", state)
    apart = diamond(40.0)
    with pytest.raises(InvalidPredictionError, match="do not hold"):
        elastic_constants(WithoutGraph(StillingerWeber()), "gradient", from_atoms(apart))


LENGTHWISE = np.diag([0.0, 0.0, 1.0])


def lonsdaleite():
    """Silicon of the wurtzite structure, at rest under Stillinger-Weber."""
    a = 5.43095 / np.sqrt(2)
    return bulk("SiSi", "wurtzite", a=a, c=np.sqrt(8 / 3) * a, u=3 / 8)


def test_a_hexagonal_crystal_has_five_constants():
    """And C66 = (C11 - C12) / 2, which is not put in."""
    matrix = elastic_constants(StillingerWeber(), "gradient", from_atoms(lonsdaleite()))
    five = [float(value) for value in hexagonal_constants(matrix)]
    torch.testing.assert_close(matrix, mandel_of_hexagonal(*five), rtol=0, atol=1e-12)
    assert float(matrix[5, 5]) == pytest.approx(five[0] - five[1], rel=1e-9)
    for strain, entry in ((AXIAL, 0), (LENGTHWISE, 2), (SHEAR, 3)):
        expected = by_relaxation(StillingerWeber(), "gradient", lonsdaleite(), strain)
        assert float(matrix[entry, entry]) == pytest.approx(expected, rel=1e-6)


def test_an_isotropic_solid_is_a_hexagonal_crystal_too():
    """C11 = C33, C12 = C13, C44 = (C11 - C12) / 2."""
    torch.testing.assert_close(mandel_of_hexagonal(5.0, 2.0, 2.0, 5.0, 1.5), mandel_of_cubic(5.0, 2.0, 1.5))


def test_strains_and_force_constants_give_the_same_constants():
    state = from_atoms(lonsdaleite())
    exact = elastic_constants(StillingerWeber(), "gradient", state)
    found = constants_of_strains(StillingerWeber(), state, force_constants(StillingerWeber(), "gradient", state))
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))
    free = torch.zeros((4, 4, 3, 3), dtype=torch.float64)
    with pytest.raises(InvalidPredictionError, match="do not hold the atoms"):
        constants_of_strains(StillingerWeber(), state, free)
