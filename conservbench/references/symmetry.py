"""Symmetry operations of a supercell, as they act on its atoms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SAME: Final = 1e-4
"""Å, within which two atoms are at one site."""

_WHOLE: Final = 1e-9
"""Within which an entry of a rotation is a whole number, as all are of those of a cube."""


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

    def average_vectors(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """The part of vectors at the atoms (n_atoms, 3), such as forces, that the group leaves alone."""
        given = np.asarray(vectors, dtype=float)
        turned = np.einsum("gba,gib->gia", self.rotations, given[self.atoms])
        return np.asarray(turned.mean(0))

    def average_tensor(self, tensor: ArrayLike) -> NDArray[np.float64]:
        """The part of a tensor (3, 3), such as a strain, that the group leaves alone."""
        turned = self.rotations @ np.asarray(tensor, dtype=float) @ self.rotations.transpose(0, 2, 1)
        return np.asarray(turned.mean(0))

    def expand(self, pairs: ArrayLike, blocks: ArrayLike) -> NDArray[np.float64]:
        """Force constants (n_atoms, n_atoms, 3, 3) of one pair (n, 2) of each orbit and their blocks (n, 3, 3)."""
        n_atoms = self.atoms.shape[1]
        whole = np.zeros((n_atoms, n_atoms, 3, 3))
        for (i, j), block in zip(np.asarray(pairs), np.asarray(blocks, dtype=float), strict=True):
            turned = self.rotations @ block @ self.rotations.transpose(0, 2, 1)
            whole[self.atoms[:, i], self.atoms[:, j]] = turned
            whole[self.atoms[:, j], self.atoms[:, i]] = turned.transpose(0, 2, 1)
        return whole

    def from_rows(self, atoms: ArrayLike, rows: ArrayLike) -> NDArray[np.float64]:
        """Force constants (n_atoms, n_atoms, 3, 3) from the rows (n, n_atoms, 3, 3) of some atoms (n,).

        Raises:
            ValueError: the group takes none of these atoms to one of the others.
        """
        n_atoms = self.atoms.shape[1]
        total, times = np.zeros((n_atoms, n_atoms, 3, 3)), np.zeros(n_atoms)
        for rotation, images in zip(self.rotations, self.atoms, strict=True):
            for atom, row in zip(np.asarray(atoms), np.asarray(rows, dtype=float), strict=True):
                total[images[atom], images] += rotation @ row @ rotation.T
                times[images[atom]] += 1
        if not times.all():
            raise ValueError(f"atom {int(np.argmin(times))} is no image of those whose rows are given")
        return total / times[:, None, None, None]

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
    """All operations that take a periodic structure onto itself, as spglib finds them (Togo et al., STAM-M 4, 2024).

    Args:
        cell: (3, 3), Å; rows are the cell vectors.
        positions: (n_atoms, 3), Å.
        numbers: (n_atoms,) atomic numbers.
    """
    from phonopy.structure.atoms import PhonopyAtoms
    from phonopy.structure.symmetry import Symmetry

    vectors, places = np.asarray(cell, dtype=float), np.asarray(positions, dtype=float)
    inverse = np.linalg.inv(vectors)
    fractions = places @ inverse
    found = Symmetry(PhonopyAtoms(numbers=np.asarray(numbers), cell=vectors, scaled_positions=fractions), symprec=_SAME)
    turns, shifts = (found.symmetry_operations[name] for name in ("rotations", "translations"))
    exact = vectors.T @ turns @ inverse.T
    whole = np.rint(exact)
    atoms = np.empty((len(turns), len(places)), dtype=np.int64)
    for index, (turn, shift) in enumerate(zip(turns, shifts, strict=True)):
        off = (fractions @ turn.T + shift)[:, None] - fractions
        atoms[index] = np.linalg.norm((off - np.rint(off)) @ vectors, axis=-1).argmin(1)
    return Operations(np.where(np.abs(exact - whole) < _WHOLE, whole + 0.0, exact), atoms)
