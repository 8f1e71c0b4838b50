"""Permutations of molecules whose groups are known."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from conservbench.training.kernel.permutations import closure, find_permutations, match


def frames_of(name, steps, n=40):
    """Frames of a molecule, each after one of the steps that its atoms can make."""
    atoms = molecule(name)
    rng = np.random.default_rng(0)
    frames = [atoms.positions[list(steps[k % len(steps)])] + rng.normal(0, 0.02, (len(atoms), 3)) for k in range(n)]
    return np.array(frames), atoms.numbers


def test_a_match_undoes_a_permutation_and_keeps_elements():
    positions, numbers = frames_of("CH3OH", [tuple(range(6))], 1)
    distances = np.linalg.norm(positions[0][:, None] - positions[0], axis=-1)
    hydrogens = [i for i, z in enumerate(numbers) if z == 1]
    order = np.arange(6)
    order[hydrogens] = np.roll(hydrogens, 1)
    found = list(match(distances[np.ix_(order, order)], distances, numbers))
    np.testing.assert_allclose(distances[np.ix_(found, found)], distances[np.ix_(order, order)], atol=0.1)
    assert (numbers[found] == numbers).all()


def test_the_group_of_water_has_two_elements():
    positions, numbers = frames_of("H2O", [(0, 1, 2)])
    skewed = positions.copy()
    # one bond longer than the other, in turn
    skewed[::2, 1] += 0.3 * (skewed[::2, 1] - skewed[::2, 0])
    skewed[1::2, 2] += 0.3 * (skewed[1::2, 2] - skewed[1::2, 0])
    assert find_permutations(skewed, numbers) == ((0, 1, 2), (0, 2, 1))


def test_a_rigid_molecule_has_the_identity_alone():
    positions, numbers = frames_of("H2O", [(0, 1, 2)])
    positions[:, 1] += 0.5 * (positions[:, 1] - positions[:, 0])
    assert find_permutations(positions, numbers) == ((0, 1, 2),)


def test_closure_makes_a_group():
    group = closure([(1, 2, 0, 3), (1, 0, 2, 3)], 4)
    assert len(group) == 6
    assert group[0] == (0, 1, 2, 3)
    assert {tuple(a[i] for i in b) for a in group for b in group} == set(group)


def test_a_group_too_large_is_refused():
    with pytest.raises(ValueError, match=r'more than 512.* permutations = "none"'):
        closure([(1, 2, 3, 4, 5, 6, 0), (1, 0, 2, 3, 4, 5, 6)], 7)
