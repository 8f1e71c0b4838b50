"""How far apart minima are, whatever translation, lattice vector or exchange of equal atoms lies between. No torch."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

ROUNDS: Final = 5
"""Matching atoms and centring them take turns; both only lower the distance, and few rounds settle it."""


def distances(
    positions: NDArray[np.float64], cell: NDArray[np.float64], numbers: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n, n) root-mean-square distances in Å between structures in the same cell.

    Args:
        positions: (n, n_atoms, 3), Å.
        cell: (3, 3), Å, periodic in all directions.
        numbers: (n_atoms,) atomic numbers.
    """
    n = len(positions)
    apart = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            apart[i, j] = apart[j, i] = distance(positions[i], positions[j], cell, numbers)
    return apart


def distance(
    left: NDArray[np.float64], right: NDArray[np.float64], cell: NDArray[np.float64], numbers: NDArray[np.int64]
) -> float:
    """Root-mean-square distance in Å of two structures after translation, nearest images and exchange of equal atoms.

    The translation is found from the atoms as they are numbered, and refined as they are matched: right for structures
    that are not far from each other, an upper bound for others.

    Args:
        left: (n_atoms, 3), Å.
        right: (n_atoms, 3), Å.
        cell: (3, 3), Å.
        numbers: (n_atoms,).
    """
    shift = _nearest(left - right, cell).mean(0)
    order = np.arange(len(numbers))
    offsets = _nearest(left - right - shift, cell)
    for _ in range(ROUNDS):
        previous, order = order, _match(left, right + shift, cell, numbers)
        offsets = _nearest(left - right[order] - shift, cell)
        shift = shift + offsets.mean(0)
        offsets = offsets - offsets.mean(0)
        if (order == previous).all():
            break
    return float(np.sqrt((offsets**2).sum(1).mean()))


def largest_group(apart: NDArray[np.float64], tolerance: float) -> int:
    """How many structures are within a distance of the one that has most of them about it, itself included.

    Args:
        apart: (n, n) distances, Å.
        tolerance: Å.
    """
    return int((apart < tolerance).sum(1).max())


def _match(
    left: NDArray[np.float64], right: NDArray[np.float64], cell: NDArray[np.float64], numbers: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(n_atoms,) which atom of ``right`` goes with each of ``left``: the least sum of squares, elements kept apart."""
    order = np.empty(len(numbers), dtype=np.int64)
    for number in np.unique(numbers):
        mine = np.flatnonzero(numbers == number)
        squares = (_nearest(left[mine, None] - right[None, mine], cell) ** 2).sum(-1)
        rows, columns = linear_sum_assignment(squares)
        order[mine[rows]] = mine[columns]
    return order


def _nearest(offsets: NDArray[np.float64], cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Offsets (..., 3) to the nearest image; of a cell that is not too skewed."""
    fractions = offsets @ np.linalg.inv(cell)
    return np.asarray((fractions - np.round(fractions)) @ cell)
