"""How stiff bonds are in labelled structures, over how stiff their lengths let expect.

By Badger's rule the force constant of a bond is C / (r - d)^3, where d depends on the rows of the two elements in the
periodic table alone. It was found for diatomic molecules, and holds within a factor of about three for bonds in
molecules, liquids, metals and salts: units of energy lie further apart.
R. M. Badger, J. Chem. Phys. 2, 128 (1934), doi:10.1063/1.1749435; 3, 710 (1935), doi:10.1063/1.1749581.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import vesin
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import find_mic
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BOND: Final = 1.3
"""Sums of covalent radii, up to which two atoms are bonded."""

CONSTANT: Final = 11.6
"""eV Å: C of the rule, 1.86 mdyn/Å times Å^3."""

CLOSEST: Final = np.array(
    [
        [0.025, 0.335, 0.585, 0.65, 0.70],
        [0.335, 0.680, 0.900, 0.95, 1.00],
        [0.585, 0.900, 1.250, 1.30, 1.40],
        [0.650, 0.950, 1.300, 1.40, 1.50],
        [0.700, 1.000, 1.400, 1.50, 1.60],
    ]
)
"""Å: d of the rule, by the rows of the two elements; those from potassium on are rough."""

_LAST: Final = (2, 10, 18, 36)
"""Atomic numbers that end the first rows; all further ones count as one."""

_SAMPLED: Final = 50
"""Pairs of successive frames that are compared, and frames that are spread evenly."""

_ENOUGH: Final = 20
"""Changes of lengths that a stiffness needs."""

_LIKE: Final = 8
"""Frames that one of them is held against."""

_ENOUGH_EACH: Final = 6
"""Bonds that the stiffness of one frame needs."""

_MOVED: Final = 0.3
"""Of the median deviation of bonds from their medians, that of a frame that is judged."""

_SURE: Final = 0.6
"""Correlation of what bonds pull with their lengths from which on their stiffness is trusted."""


def bond_stiffness(frames: Sequence[Atoms]) -> float | None:
    """Stiffness of all bonds over that by Badger's rule, by how pulls change with lengths from a frame to another.

    A bond's pull is half the difference of the forces on its atoms along it. Frames are compared where they are of the
    same atoms in the same order; nothing else in them need be alike.

    Args:
        frames: structures with forces (eV/Å) in their calculators.

    Returns:
        About one in eV and Å, negative where bonds push when they are stretched; None where too few bonds change to
        tell, or their pulls do not go with their lengths.
    """
    found = [_changes(frames[one], frames[other]) for one, other in _compared(len(frames))]
    expected, pulled = np.concatenate([np.zeros((2, 0)), *(each for each in found if each is not None)], axis=1)
    sizes = float(np.linalg.norm(expected)), float(np.linalg.norm(pulled))
    if len(expected) < _ENOUGH or min(sizes) == 0.0:
        return None
    overlap = float(expected @ pulled)
    return overlap / sizes[0] ** 2 if abs(overlap) > _SURE * sizes[0] * sizes[1] else None


def stiffness_of_each(frames: Sequence[Atoms]) -> Floats:
    """(n_frames,) stiffness of the bonds of each frame over that of all, by how far they are from their medians.

    Args:
        frames: structures of the same atoms in the same order and cell, with forces (eV/Å) in their calculators.

    Returns:
        About one where the labels of a frame are like those of the others, near minus one where its forces have the
        other sign; NaN where too few bonds are in all frames to tell, or those of a frame are near their medians.
    """
    unknown = np.full(len(frames), np.nan)
    first, second, reach = _bonds(frames[0])
    lengths, pulls = np.stack([_stretched(atoms, first, second) for atoms in frames]).transpose(1, 0, 2)
    kept = (lengths < reach).all(0)
    if len(frames) < _LIKE or kept.sum() < _ENOUGH_EACH:
        return unknown
    numbers = frames[0].numbers[first[kept]], frames[0].numbers[second[kept]]
    # the last axis of pulls is that of bonds; a bond that is longer than at the median pulls its atoms together
    expected, pulled = (each - np.median(each, 0) for each in (lengths[:, kept], -pulls[:, kept]))
    expected = expected * badger(*numbers, lengths[:, kept].mean(0))
    sizes = np.linalg.norm(expected, axis=1)
    slopes = (expected * pulled).sum(1) / np.maximum(sizes, 1e-12) ** 2
    typical = float(np.median(slopes))
    if not typical > 0.0:
        return unknown
    told = (expected * pulled).sum(1) / np.maximum(sizes * np.linalg.norm(pulled, axis=1), 1e-12)
    if np.median(told) < _SURE:
        return unknown
    return np.where(sizes > _MOVED * np.median(sizes), slopes / typical, np.nan)


def badger(first: NDArray[np.int64], second: NDArray[np.int64], lengths: Floats) -> Floats:
    """Force constants (eV/Å^2) of bonds between atoms of these numbers, of these lengths (Å), by Badger's rule."""
    rows = (np.searchsorted(_LAST, numbers) for numbers in (first, second))
    # far below any length of a bond, where the rule says nothing
    return CONSTANT / np.maximum(lengths - CLOSEST[tuple(rows)], 0.2) ** 3


def _compared(n_frames: int) -> list[tuple[int, int]]:
    spread = np.unique(np.linspace(0, n_frames - 1, min(n_frames, _SAMPLED)).round().astype(int)).tolist()
    return sorted({*pairwise(spread), *((index, index + 1) for index in spread if index + 1 < n_frames)})


def _changes(one: Atoms, other: Atoms) -> Floats | None:
    """(2, n_bonds): by how much the pull of each bond should change by the rule, and by how much it does, eV/Å."""
    if not np.array_equal(one.numbers, other.numbers) or one.pbc.any() != other.pbc.any():
        return None
    first, second, reach = _bonds(one)
    before, after = _stretched(one, first, second), _stretched(other, first, second)
    kept = after[0] < reach
    here, there = before[:, kept], after[:, kept]
    numbers = one.numbers[first[kept]], one.numbers[second[kept]]
    expected = badger(*numbers, 0.5 * (here[0] + there[0])) * (there[0] - here[0])
    return np.stack((expected, here[1] - there[1]))


def _bonds(atoms: Atoms) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Both atoms of each bond, and the length up to which it is one."""
    search = vesin.NeighborList(
        cutoff=2 * BOND * float(covalent_radii[atoms.numbers].max()), full_list=True, n_threads=1
    )
    first, second, lengths = search.compute(
        points=atoms.positions, box=atoms.cell.array, periodic=atoms.pbc, quantities="ijd"
    )
    reach = BOND * (covalent_radii[atoms.numbers[first]] + covalent_radii[atoms.numbers[second]])
    kept = (first < second) & (lengths < reach)
    return first[kept].astype(np.int64), second[kept].astype(np.int64), reach[kept]


def _stretched(atoms: Atoms, first: NDArray[np.int64], second: NDArray[np.int64]) -> Floats:
    """(2, n_bonds): lengths of bonds (Å), and the forces along them that drive their atoms apart (eV/Å)."""
    forces = atoms.calc.results["forces"]
    apart = atoms.positions[second] - atoms.positions[first]
    if atoms.pbc.any() and len(apart):
        apart = find_mic(apart, atoms.cell, atoms.pbc)[0]
    lengths = np.linalg.norm(apart, axis=1)
    return np.stack((lengths, 0.5 * ((forces[second] - forces[first]) * apart).sum(1) / lengths))
