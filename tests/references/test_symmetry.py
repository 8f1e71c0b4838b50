"""Space groups of supercells: orders known from tables, and a projection that is one."""

import numpy as np
import pytest
from ase.build import bulk

from conservbench.references import operations


@pytest.fixture(scope="module")
def diamond():
    return bulk("Si", "diamond", a=5.4, cubic=True)


def group_of(atoms):
    return operations(atoms.cell.array, atoms.positions, atoms.numbers)


# International Tables: 48 point operations times the translations in the cell; zincblende has half as many
@pytest.mark.parametrize(
    ("atoms", "order"),
    [
        (bulk("Si", "diamond", a=5.4, cubic=True), 48 * 4),
        (bulk("Si", "diamond", a=5.4, cubic=True) * 2, 48 * 32),
        (bulk("GaAs", "zincblende", a=5.6, cubic=True), 24 * 4),
        (bulk("NaCl", "rocksalt", a=5.6, cubic=True), 48 * 4),
        (bulk("Cu", "fcc", a=3.6), 48),
        (bulk("Si", "diamond", a=5.4, cubic=True) * (2, 1, 1), 16 * 8),
        (bulk("GaN", "wurtzite", a=3.2, c=5.2, u=0.37), 12),
        (bulk("GaN", "wurtzite", a=3.2, c=5.2, u=0.37) * 2, 12 * 8),
        (bulk("Mg", "hcp", a=3.2, c=5.2), 24),
    ],
)
def test_orders_of_groups(atoms, order):
    assert len(group_of(atoms).rotations) == order


def test_operations_take_the_structure_onto_itself(diamond):
    diamond.positions[3] += diamond.cell.array[1]
    group = group_of(diamond)
    inverse = np.linalg.inv(diamond.cell.array)
    for rotation, atoms in zip(group.rotations, group.atoms, strict=True):
        np.testing.assert_array_equal(np.sort(atoms), np.arange(8))
        shifts = (diamond.positions[atoms] - diamond.positions @ rotation.T) @ inverse
        off = shifts - shifts[0]
        np.testing.assert_allclose(off, np.rint(off), atol=1e-12)
    assert len({(*rotation.ravel(), *atoms) for rotation, atoms in zip(group.rotations, group.atoms, strict=True)}) == (
        len(group.atoms)
    )


def test_average_is_an_orthogonal_projection(diamond):
    group = group_of(diamond)
    one, two = np.random.default_rng(0).normal(size=(2, 8, 8, 3, 3))
    kept = group.average(one)
    np.testing.assert_allclose(group.average(kept), kept, atol=1e-13)
    # what is taken away is orthogonal to all that is kept
    assert np.sum((one - kept) * group.average(two)) == pytest.approx(0, abs=1e-10)


def test_orbits_hold_everything(diamond):
    group = group_of(diamond)
    kept = group.average(np.random.default_rng(1).normal(size=(8, 8, 3, 3)))
    pairs = group.orbits()
    np.testing.assert_allclose(group.expand(pairs, kept[pairs[:, 0], pairs[:, 1]]), kept, atol=1e-13)
    assert len(pairs) < 6


def test_what_is_free_of_wurtzite_is_two_lengths_and_a_height():
    group = group_of(bulk("GaN", "wurtzite", a=3.2, c=5.2, u=0.37))
    strain, moves = np.random.default_rng(2).normal(size=(3, 3)), np.random.default_rng(3).normal(size=(4, 3))
    kept = group.average_tensor(strain)
    across = (strain[0, 0] + strain[1, 1]) / 2
    np.testing.assert_allclose(kept, np.diag([across, across, strain[2, 2]]), atol=1e-12)
    forces = group.average_vectors(moves)
    np.testing.assert_allclose(forces[:, :2], 0.0, atol=1e-12)
    # gallium is 0 and 2, nitrogen 1 and 3
    np.testing.assert_allclose(forces[:, 2], np.tile([moves[::2, 2].mean(), moves[1::2, 2].mean()], 2))


def test_rows_of_one_atom_of_each_element_are_all_there_is():
    atoms = bulk("GaN", "wurtzite", a=3.2, c=5.2, u=0.37) * (2, 2, 1)
    group = group_of(atoms)
    whole = group.average(np.random.default_rng(4).normal(size=(16, 16, 3, 3)))
    np.testing.assert_allclose(group.from_rows([0, 3], whole[[0, 3]]), whole, atol=1e-12)
    with pytest.raises(ValueError, match="atom 1 is no image"):
        group.from_rows([0], whole[[0]])
