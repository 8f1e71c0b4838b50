"""Neighbour pairs against ASE's list, and a skin that changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

from conservbench.neighbors import VerletList, find_pairs
from conservbench.state import concatenate, from_atoms


def random_atoms(cell, pbc, n_atoms=12, seed=0):
    random = np.random.default_rng(seed)
    # fractions beyond [0, 1): positions are never wrapped
    fractions = random.uniform(-1.3, 2.2, (n_atoms, 3))
    complete = np.array(cell, dtype=float)
    return Atoms(numbers=[14] * n_atoms, positions=fractions @ complete, cell=complete, pbc=pbc)


TRICLINIC = [[4.0, 0.0, 0.0], [1.5, 3.6, 0.0], [-1.0, 2.0, 5.0]]
CASES = {
    "one atom, many images": (Atoms("Si", cell=[2.0, 2.5, 3.0], pbc=True), 6.1),
    "primitive cell": (bulk("Si"), 5.0),
    "triclinic": (random_atoms(TRICLINIC, True), 4.5),
    "flat cell": (random_atoms([[3, 0, 0], [2.8, 1.1, 0], [0, 0, 9]], True, seed=1), 4.0),
    "left-handed": (random_atoms([[0, 4, 0], [4, 0, 0], [0, 0, 5]], True, seed=2), 4.0),
    "slab": (random_atoms(TRICLINIC, [True, True, False], seed=3), 4.0),
    "wire": (random_atoms(TRICLINIC, [False, False, True], seed=4), 4.0),
    "cell that does not repeat": (random_atoms(TRICLINIC, False, seed=5), 4.0),
    "no cell": (molecule("CH3CH2OH"), 3.0),
    "slab without third vector": (
        Atoms(
            "Li3", positions=[[0, 0, 0], [1, 1, 2], [3, 0, -2]], cell=[[3, 0, 0], [0, 3, 0], [0, 0, 0]], pbc=[1, 1, 0]
        ),
        4.0,
    ),
}


def as_rows(pairs):
    return sorted(zip(pairs.first.tolist(), pairs.second.tolist(), map(tuple, pairs.shift.tolist()), strict=True))


@pytest.mark.parametrize("case", list(CASES))
def test_pairs_are_those_of_ase(case):
    atoms, cutoff = CASES[case]
    state = from_atoms(atoms)
    pairs = find_pairs(state, cutoff)
    first, second, shift, vectors = neighbor_list("ijSD", atoms, cutoff)
    expected = sorted(zip(first.tolist(), second.tolist(), map(tuple, shift.tolist()), strict=True))
    assert as_rows(pairs) == expected
    assert len(expected) > 0
    ours = pairs.vectors(state.positions, state.cell, state.system).numpy()
    np.testing.assert_allclose(ours[np.lexsort(ours.T)], vectors[np.lexsort(vectors.T)], atol=1e-12)


def test_pairs_are_sorted_and_full():
    atoms, cutoff = CASES["triclinic"]
    pairs = find_pairs(from_atoms(atoms), cutoff)
    assert (pairs.first.diff() >= 0).all()
    rows = as_rows(pairs)
    assert sorted((j, i, (-s[0], -s[1], -s[2])) for i, j, s in rows) == rows


def test_batch_has_the_pairs_of_its_systems():
    chosen = [CASES[name][0] for name in ("triclinic", "no cell", "slab")]
    batch = find_pairs(from_atoms(chosen), 4.0)
    expected, start = [], 0
    for atoms in chosen:
        expected += [(i + start, j + start, s) for i, j, s in as_rows(find_pairs(from_atoms(atoms), 4.0))]
        start += len(atoms)
    assert as_rows(batch) == sorted(expected)


def test_atoms_far_apart_have_no_pairs():
    pairs = find_pairs(from_atoms(Atoms("Ar2", positions=[[0, 0, 0], [50, 0, 0]])), 5.0)
    assert pairs.first.shape == (0,)
    assert pairs.shift.shape == (0, 3)
    assert pairs.first.dtype == pairs.shift.dtype == torch.int64


def test_vectors_are_differentiable():
    state = from_atoms(CASES["triclinic"][0])
    pairs = find_pairs(state, 4.0)
    positions, cell = state.positions.requires_grad_(True), state.cell.requires_grad_(True)

    def total(positions, cell):
        return pairs.vectors(positions, cell, state.system).square().sum().sqrt()

    assert torch.autograd.gradcheck(total, (positions, cell))


@pytest.mark.parametrize("case", ["triclinic", "slab", "no cell"])
def test_skin_changes_nothing_over_a_random_walk(case):
    atoms, _ = CASES[case]
    random = np.random.default_rng(7)
    skinned = VerletList(3.5, skin=0.6)
    state = concatenate([from_atoms(atoms), from_atoms(atoms)])
    for _ in range(60):
        state = state.replace(positions=state.positions + torch.from_numpy(random.normal(0, 0.02, (state.n_atoms, 3))))
        assert as_rows(skinned(state)) == as_rows(find_pairs(state, 3.5))
    # walked far enough to need new lists, but not one a step
    assert 1 < skinned.n_searches < 30


def test_skin_follows_an_atom_to_the_limit():
    # two atoms that approach by the whole skin, half of it each, come into reach just before the list is made again
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [5.49, 0, 0]])
    state = from_atoms(atoms)
    skinned = VerletList(5.0, skin=0.5)
    assert len(skinned(state).first) == 0
    nearer = state.replace(positions=torch.tensor([[0.2499, 0, 0], [5.2401, 0, 0]], dtype=torch.float64))
    assert len(skinned(nearer).first) == 2
    assert skinned.n_searches == 1
    far = state.replace(positions=torch.tensor([[0.2501, 0, 0], [5.2401, 0, 0]], dtype=torch.float64))
    assert len(skinned(far).first) == 2
    assert skinned.n_searches == 2


@pytest.mark.parametrize("change", ["cell", "pbc", "size", "system"])
def test_list_is_made_again_when_the_batch_changes(change):
    atoms = bulk("Si", cubic=True)
    state = from_atoms([atoms, atoms])
    skinned = VerletList(4.0)
    skinned(state)
    other = {
        "cell": state.replace(cell=state.cell * 1.001),
        "pbc": state.replace(pbc=~state.pbc),
        "size": from_atoms(atoms),
        "system": from_atoms([atoms[:6], atoms[6:] + atoms]),
    }[change]
    assert as_rows(skinned(other)) == as_rows(find_pairs(other, 4.0))
    assert skinned.n_searches == 2


def test_wrapped_atoms_are_found_again():
    state = from_atoms(bulk("Si", cubic=True))
    skinned = VerletList(4.0)
    before = skinned(state)
    positions = state.positions.clone()
    positions[3] += state.cell[0, 1]
    after = skinned(state.replace(positions=positions))
    assert skinned.n_searches == 2
    assert len(after.first) == len(before.first)


def test_list_keeps_no_graph():
    state = from_atoms(bulk("Si", cubic=True))
    state = state.replace(positions=state.positions.requires_grad_(True))
    skinned = VerletList(4.0)
    skinned(state)
    assert skinned._reference is not None
    assert not skinned._reference.positions.requires_grad


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_that_are_no_numbers_are_named(value):
    state = from_atoms([bulk("Si", cubic=True), bulk("Si", cubic=True)])
    skinned = VerletList(4.0)
    skinned(state)
    positions = state.positions.clone()
    positions[11, 1] = value
    with pytest.raises(ValueError, match="system 1: the position of atom 3 is not finite"):
        skinned(state.replace(positions=positions))


def test_cells_that_would_stop_the_process_are_named():
    state = from_atoms(bulk("Si", cubic=True))
    with pytest.raises(ValueError, match="system 0: the cell is not finite"):
        find_pairs(state.replace(cell=state.cell * np.nan), 4.0)
    with pytest.raises(ValueError, match="collapsed"):
        find_pairs(state.replace(cell=state.cell * 1e-3), 4.0)
    with pytest.raises(ValueError, match="collapsed"):
        find_pairs(state.replace(cell=torch.zeros_like(state.cell)), 4.0)
