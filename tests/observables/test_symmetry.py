"""Symmetries: rounding level for potentials that keep them, the known size for one that does not."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from conservbench.models.base import Prediction
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables import symmetry
from conservbench.state import concatenate, from_atoms

WIND = 0.01  # eV/Å


class Windy:
    """Stillinger-Weber with a constant force along x on every atom."""

    channels = ("gradient",)
    elements = frozenset({14})
    differentiable = True
    labelled = False
    device = torch.device("cpu")

    def __init__(self):
        self.calm = StillingerWeber()

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        prediction = self.calm.evaluate(state, forces=forces, graph=graph)
        wind = torch.tensor([WIND, 0.0, 0.0], dtype=torch.float64)
        return Prediction(prediction.energy, {name: pull + wind for name, pull in prediction.forces.items()})


@pytest.fixture(scope="module")
def state():
    atoms = bulk("Si", "diamond", a=5.431, cubic=True)
    atoms.rattle(0.1, seed=3)
    return from_atoms(atoms)


@pytest.mark.parametrize(
    ("name", "channel", "tolerance"),
    # e3nn keeps some constants in single precision
    [("sw", "gradient", 1e-12), ("mace", "gradient", 1e-6), ("mace", "direct", 1e-6)],
)
def test_potentials_keep_the_symmetries(state, network, name, channel, tolerance):
    model = {"sw": StillingerWeber(), "mace": network}[name]
    reference = symmetry.forces_of(model, channel, state)
    rng = np.random.default_rng(0)
    scale = symmetry.rms(reference)
    turned, matrix = symmetry.rotated(state, rng)
    assert symmetry.deviation(model, channel, turned, reference @ matrix) < tolerance * scale
    moved = symmetry.wrapped(symmetry.translated(state, rng), rng)
    assert symmetry.deviation(model, channel, moved, reference) < 1e-12 * scale
    swapped, order = symmetry.permuted(state, rng)
    assert symmetry.deviation(model, channel, swapped, reference[order]) < 1e-12 * scale
    assert symmetry.net_force(reference) < 1e-14
    cluster = symmetry.isolated(state)
    torque = symmetry.relative_torque(cluster.positions, symmetry.forces_of(model, channel, cluster))
    assert (torque < tolerance) if channel == "gradient" else (torque > 10 * tolerance)


def test_a_preferred_direction_shows_with_its_size(state):
    model = Windy()
    reference = symmetry.forces_of(model, "gradient", state)
    turned, matrix = symmetry.rotated(state, np.random.default_rng(0))
    x = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    expected = WIND * float((x - x @ matrix).norm())
    assert expected > 1e-3
    assert symmetry.deviation(model, "gradient", turned, reference @ matrix) == pytest.approx(expected, rel=1e-9)
    assert symmetry.net_force(reference) == pytest.approx(WIND, rel=1e-12)


def test_rotations_are_proper_and_move_the_cell_along(state):
    turned, matrix = symmetry.rotated(state, np.random.default_rng(1))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64))
    assert float(torch.linalg.det(matrix)) == pytest.approx(1.0)
    torch.testing.assert_close(turned.cell[0], state.cell[0] @ matrix)


def test_wrapping_moves_by_cell_vectors_along_periodic_directions_only():
    slab = Atoms("Si3", positions=np.random.default_rng(2).normal(size=(3, 3)), cell=[4, 5, 6], pbc=[True, True, False])
    state = concatenate([from_atoms(slab), from_atoms(slab)])
    moves = (symmetry.wrapped(state, np.random.default_rng(3)).positions - state.positions) / torch.tensor([4.0, 5, 6])
    torch.testing.assert_close(moves, moves.round())
    assert moves[:, :2].abs().sum() > 0
    assert (moves[:, 2] == 0).all()


def test_permutations_exchange_like_atoms_only():
    atoms = Atoms("SiCSiCSi", positions=np.arange(15.0).reshape(5, 3))
    state = from_atoms(atoms)
    swapped, order = symmetry.permuted(state, np.random.default_rng(3))
    assert torch.equal(state.numbers[order], state.numbers)
    assert not torch.equal(order, torch.arange(5))
    assert torch.equal(swapped.positions, state.positions[order])


def test_isolated_cluster_lies_in_the_cell(state):
    far = state.replace(positions=state.positions + 3 * 5.431)
    cluster = symmetry.isolated(far)
    assert not cluster.pbc.any()
    assert not cluster.cell.any()
    assert ((cluster.positions >= -1e-6) & (cluster.positions < 5.431 + 1e-6)).all()


def test_torque_of_a_couple():
    positions = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]], dtype=torch.float64) + 7.0
    couple = torch.tensor([[0, 2.0, 0], [0, -2.0, 0]], dtype=torch.float64)
    assert symmetry.relative_torque(positions, couple) == pytest.approx(1.0)
    radial = torch.tensor([[2.0, 0, 0], [-2.0, 0, 0]], dtype=torch.float64)
    assert symmetry.relative_torque(positions, radial) == 0.0


def test_rms_is_per_atom():
    assert symmetry.rms(torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])) == pytest.approx(5 / np.sqrt(2))
