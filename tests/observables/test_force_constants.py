"""Force constants: the Jacobian of other code, published distances, gradients by parameters."""

import dataclasses

import numpy as np
import pytest
import torch
from ase.build import bulk

from conservbench.models import toy
from conservbench.models.base import InvalidPredictionError, Prediction, UnsupportedError
from conservbench.models.edip import EDIP
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.force_constants import force_constants, matrix_distance
from conservbench.observables.jacobian import jacobian
from conservbench.state import from_atoms


@dataclasses.dataclass
class WithoutGraph:
    """A model that cannot be differentiated."""

    model: object
    elements = None
    differentiable = False
    labelled = False
    device = torch.device("cpu")

    @property
    def channels(self):
        return self.model.channels

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        assert not graph
        said = self.model.evaluate(state, forces=forces)
        return Prediction(said.energy, {name: value.detach() for name, value in said.forces.items()})


@pytest.fixture(scope="module")
def rattled():
    atoms = bulk("Si", "diamond", a=5.431, cubic=True)
    atoms.rattle(0.1, seed=2)
    return from_atoms(atoms)


def symmetric_part(model, channel, state):
    matrix = jacobian(model, channel, state, atoms_per_batch=64)
    both = -0.5 * (matrix + matrix.permute(2, 3, 0, 1))
    return both.transpose(1, 2)


@pytest.mark.parametrize("channel", ["gradient", "direct"])
def test_constants_are_minus_the_symmetric_jacobian(network, rattled, channel):
    expected = symmetric_part(network, channel, rattled)
    torch.testing.assert_close(force_constants(network, channel, rattled), expected, rtol=1e-10, atol=1e-12)
    some = force_constants(network, channel, rattled, [5, 0], atoms_per_batch=32)
    torch.testing.assert_close(some, expected[[5, 0]], rtol=1e-10, atol=1e-12)


def test_swirl_leaves_the_constants_of_the_harmonic_crystal():
    crystal = bulk("Si", "diamond", a=5.431, cubic=True)
    model = toy.ToyModel(toy.Field("swirl", 3.0, 0.7), crystal)
    found = force_constants(model, "direct", from_atoms(crystal))
    each = torch.eye(8, dtype=torch.float64) - 1 / 8
    expected = 3.0 * each[:, :, None, None] * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("channel", "atoms"), [("gradient", [3, 1]), ("direct", [3, 1]), ("direct", None)])
def test_differences_are_near_for_what_has_no_graph(network, rattled, channel, atoms):
    exact = force_constants(network, channel, rattled, atoms)
    found = force_constants(WithoutGraph(network), channel, rattled, atoms)
    assert float((found - exact).norm() / exact.norm()) < 1e-3


def test_crystal_is_known_by_its_primitive_cell():
    """Rows of other atoms are those of the primitive cell moved, so that the norms of all are known from two."""
    state = from_atoms(bulk("Si", "diamond", a=5.431, cubic=True) * 2)
    whole = force_constants(StillingerWeber(), "gradient", state)
    other = force_constants(StillingerWeber({"epsilon": 2.0}), "gradient", state)
    expected = (whole - other).norm()
    torch.testing.assert_close(matrix_distance(whole[:2], other[:2]), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(matrix_distance(whole, other, 3.0), (expected**2 + 9.0).sqrt(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("model", "names"), [(StillingerWeber(cutoff=3.77118), ("epsilon", "lam", "sigma")), (EDIP(), ("A", "lam", "Q0"))]
)
def test_gradients_by_parameters_are_those_of_finite_differences(model, names):
    state = from_atoms(bulk("Si", "diamond", a=5.468582, cubic=True))
    target = 1.1 * force_constants(EDIP(), "gradient", state, [0, 1])

    def distance(parameters):
        return matrix_distance(force_constants(model.at(parameters), "gradient", state, [0, 1]), target)

    leaves = {name: model.parameters[name].clone().requires_grad_(True) for name in names}
    slopes = torch.autograd.grad(distance(leaves), list(leaves.values()))
    for name, slope in zip(names, slopes, strict=True):
        value = model.parameters[name]
        step = 1e-4 * float(value)
        ends = [float(distance({name: value + sign * step})) for sign in (2, 1, -1, -2)]
        difference = (8 * (ends[1] - ends[2]) - (ends[0] - ends[3])) / (12 * step)
        assert float(slope) == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize("channel", ["gradient", "direct"])
def test_gradients_by_weights_of_a_network_are_those_of_finite_differences(network, rattled, channel):
    name = "direct.mix.weight" if channel == "direct" else "trunk.readouts.1.linear_2.weight"
    weight = network.parameters[name].clone().requires_grad_(True)

    def norm(value):
        return force_constants(network.at({name: value}), channel, rattled, [0, 4]).square().sum()

    (slope,) = torch.autograd.grad(norm(weight), weight)
    move = 1e-4 * torch.randn(weight.shape, dtype=weight.dtype, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = float(norm(weight + move) - norm(weight - move)) / 2
    assert float((slope * move).sum()) == pytest.approx(expected, rel=1e-5)


def test_no_graph_is_left_where_nothing_asks_for_one(rattled):
    assert not force_constants(StillingerWeber(), "gradient", rattled, [0]).requires_grad
    tuned = StillingerWeber().at({"lam": torch.tensor(21.0, dtype=torch.float64, requires_grad=True)})
    assert force_constants(tuned, "gradient", rattled, [0]).requires_grad
    with torch.no_grad():
        assert not force_constants(tuned, "gradient", rattled, [0]).requires_grad


def test_what_cannot_be_answered_is_refused(rattled):
    with pytest.raises(UnsupportedError, match="no direct forces"):
        force_constants(StillingerWeber(), "direct", rattled)
    crystal = bulk("Si", "diamond", a=5.431)
    with pytest.raises(ValueError, match="one system"):
        force_constants(StillingerWeber(), "gradient", from_atoms([crystal, crystal]))
    lost = rattled.replace(positions=torch.zeros_like(rattled.positions))
    with pytest.raises(InvalidPredictionError, match="not finite"):
        force_constants(StillingerWeber(), "gradient", lost)


def test_order_of_indices_is_atom_atom_axis_axis(rattled):
    model = StillingerWeber()
    found = force_constants(model, "gradient", rattled, [2])[0]
    step = 1e-5
    ends = []
    for sign in (1, -1):
        positions = rattled.positions.clone()
        positions[5, 1] += sign * step
        ends.append(model.evaluate(rattled.replace(positions=positions), forces=("gradient",)).forces["gradient"][2])
    np.testing.assert_allclose(found[5, :, 1], -(ends[0] - ends[1]) / (2 * step), atol=1e-6)
