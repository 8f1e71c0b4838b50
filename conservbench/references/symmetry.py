"""Symmetry operations of a supercell; those whose rotations permute and flip the axes, as in cubic crystals."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SAME: Final = 1e-5
"""Of a cell vector, within which two atoms are at one site."""


@dataclass(frozen=True)
class Operations:
    """A space group, as it acts on the atoms of a supercell: r -> R r + t takes atom i to atom ``atoms[:, i]``.

    Attributes:
        rotations: (n_operations, 3, 3), orthogonal.
        atoms: (n_operations, n_atoms).
    """

    rotations: NDArray[np.float64]
    atoms: NDArray[np.int64]

    def average(self, matrix: ArrayLike) -> NDArray[np.float64]:
        """The part of force constants (n_atoms, n_atoms, 3, 3) that the group and an exchange of atoms leave alone."""
        given = np.asarray(matrix, dtype=float)
        total = np.zeros_like(given)
        for rotation, atoms in zip(self.rotations, self.atoms, strict=True):
            total += rotation.T @ given[np.ix_(atoms, atoms)] @ rotation
        mean = total / len(self.atoms)
        return 0.5 * (mean + mean.transpose(1, 0, 3, 2))

    def expand(self, pairs: ArrayLike, blocks: ArrayLike) -> NDArray[np.float64]:
        """Force constants (n_atoms, n_atoms, 3, 3) of one pair (n, 2) of each orbit and their blocks (n, 3, 3)."""
        n_atoms = self.atoms.shape[1]
        whole = np.zeros((n_atoms, n_atoms, 3, 3))
        for (i, j), block in zip(np.asarray(pairs), np.asarray(blocks, dtype=float), strict=True):
            turned = self.rotations @ block @ self.rotations.transpose(0, 2, 1)
            whole[self.atoms[:, i], self.atoms[:, j]] = turned
            whole[self.atoms[:, j], self.atoms[:, i]] = turned.transpose(0, 2, 1)
        return whole

    def orbits(self) -> NDArray[np.int64]:
        """(n, 2) one ordered pair of atoms of each orbit under the group and an exchange of the two."""
        n_atoms = self.atoms.shape[1]
        seen = np.zeros((n_atoms, n_atoms), dtype=bool)
        found = []
        for i, j in np.ndindex(n_atoms, n_atoms):
            if not seen[i, j]:
                found.append((i, j))
                seen[self.atoms[:, i], self.atoms[:, j]] = True
                seen[self.atoms[:, j], self.atoms[:, i]] = True
        return np.array(found)


def operations(cell: ArrayLike, positions: ArrayLike, numbers: ArrayLike) -> Operations:
    """All operations that take a periodic structure onto itself.

    Args:
        cell: (3, 3), Å; rows are the cell vectors.
        positions: (n_atoms, 3), Å.
        numbers: (n_atoms,) atomic numbers.
    """
    vectors, places, species = (np.asarray(part) for part in (cell, positions, numbers))
    inverse = np.linalg.inv(vectors)
    fractions, unlike = places @ inverse, species[:, None] != species[None, :]
    alike = np.flatnonzero(species == species[0]).tolist()

    def image(rotation: NDArray[np.float64], target: int) -> NDArray[np.int64] | None:
        """Where the atoms go if the first one goes to ``target``; None if that is no operation."""
        turned = places @ rotation.T @ inverse
        off = (turned + fractions[target] - turned[0])[:, None] - fractions
        distance = np.abs(off - np.rint(off)).max(-1)
        distance[unlike] = np.inf
        return distance.argmin(1) if distance.min(1).max() < _SAME else None

    shifts = np.array([found for target in alike if (found := image(np.eye(3), target)) is not None])
    rotations, atoms = [], []
    for rotation in _signed_permutations():
        turned_cell = vectors @ rotation.T @ inverse
        if np.abs(turned_cell - np.rint(turned_cell)).max() > _SAME:
            continue
        # two operations of one rotation differ by a translation
        first = next((found for target in alike if (found := image(rotation, target)) is not None), None)
        if first is not None:
            rotations += [rotation] * len(shifts)
            atoms.append(shifts[:, first])
    return Operations(np.array(rotations), np.concatenate(atoms))


def _signed_permutations() -> list[NDArray[np.float64]]:
    identity = np.eye(3)
    return [
        identity[list(order)] * np.array(signs)[:, None]
        for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3))
    ]
