"""How unlike minima are: by where their atoms are, and by what surrounds each atom. No torch.

Positions are compared after translation, nearest images (molecules: after rotation) and exchange of equal atoms.
Surroundings do not change under rotations and reflections either: a structure that breaks the symmetry
of its crystal in one of several equal ways is the same minimum in each of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation

ROUNDS: Final = 5
"""Matching atoms and centring them take turns; both only lower the distance, and few rounds settle it."""

NEIGHBORS: Final = 16
"""Of an atom: in diamond, the first two shells."""


def distances(
    positions: NDArray[np.float64], cell: NDArray[np.float64], numbers: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n, n) root-mean-square distances in Å between structures in the same cell.

    Args:
        positions: (n, n_atoms, 3), Å.
        cell: (3, 3), Å, periodic along the vectors that are not zero.
        numbers: (n_atoms,) atomic numbers.
    """
    n = len(positions)
    apart = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            apart[i, j] = apart[j, i] = distance(positions[i], positions[j], cell, numbers)
    return apart


def unlikeness(
    positions: NDArray[np.float64], cell: NDArray[np.float64], numbers: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n, n) root-mean-square differences in Å between the surroundings of the atoms of structures in the same cell.

    Those of an atom are the distances to its :data:`NEIGHBORS` nearest neighbours, in their order; each atom is
    compared with the atom of the same element that makes the sum over all atoms least.

    Args:
        positions: (n, n_atoms, 3), Å.
        cell: (3, 3), Å, periodic along the vectors that are not zero.
        numbers: (n_atoms,) atomic numbers.
    """
    n = len(positions)
    surroundings = [_surroundings(structure, cell) for structure in positions]
    unlike = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            pairs = _match(surroundings[i], surroundings[j], numbers)
            squares = (surroundings[i] - surroundings[j][pairs]) ** 2
            unlike[i, j] = unlike[j, i] = np.sqrt(squares.mean())
    return unlike


def distance(
    left: NDArray[np.float64], right: NDArray[np.float64], cell: NDArray[np.float64], numbers: NDArray[np.int64]
) -> float:
    """Root-mean-square distance in Å of two structures after translation and exchange of equal atoms.

    In a cell after nearest images, too, and without one after rotation. Both are found from the atoms as they are
    numbered, a rotation also from their surroundings, and refined as atoms are matched: right for structures that are
    not far from each other, an upper bound for others.

    Args:
        left: (n_atoms, 3), Å.
        right: (n_atoms, 3), Å.
        cell: (3, 3), Å; zero for a molecule.
        numbers: (n_atoms,).
    """
    return _distance_in_cell(left, right, cell, numbers) if cell.any() else _distance_turned(left, right, numbers)


def _distance_in_cell(
    left: NDArray[np.float64], right: NDArray[np.float64], cell: NDArray[np.float64], numbers: NDArray[np.int64]
) -> float:
    shift = _nearest(left - right, cell).mean(0)
    order = np.arange(len(numbers))
    offsets = _nearest(left - right - shift, cell)
    for _ in range(ROUNDS):
        previous, order = order, _match(left, right + shift, numbers, lambda offsets: _nearest(offsets, cell))
        offsets = _nearest(left - right[order] - shift, cell)
        shift = shift + offsets.mean(0)
        offsets = offsets - offsets.mean(0)
        if (order == previous).all():
            break
    return float(np.sqrt((offsets**2).sum(1).mean()))


def _distance_turned(left: NDArray[np.float64], right: NDArray[np.float64], numbers: NDArray[np.int64]) -> float:
    left, right = left - left.mean(0), right - right.mean(0)
    nowhere = np.zeros((3, 3))
    alike = _match(_surroundings(left, nowhere), _surroundings(right, nowhere), numbers)
    return min(_refined(left, right, numbers, order) for order in (np.arange(len(numbers)), alike))


def _refined(
    left: NDArray[np.float64], right: NDArray[np.float64], numbers: NDArray[np.int64], order: NDArray[np.int64]
) -> float:
    for _ in range(ROUNDS):
        turned = _turn(left, right[order]).apply(right)
        previous, order = order, _match(left, turned, numbers)
        if (order == previous).all():
            break
    offsets = left - _turn(left, right[order]).apply(right[order])
    return float(np.sqrt((offsets**2).sum(1).mean()))


def _turn(left: NDArray[np.float64], right: NDArray[np.float64]) -> Rotation:
    """The rotation of ``right`` that brings it nearest to ``left``, atom by atom (Kabsch 1976)."""
    with warnings.catch_warnings():
        # that of atoms in a line is not unique, but as good as any
        warnings.simplefilter("ignore", UserWarning)
        return Rotation.align_vectors(left, right)[0]


def largest_group(unlike: NDArray[np.float64], tolerance: float) -> int:
    """How many structures are like the one that most are like, itself included.

    Args:
        unlike: (n, n), Å.
        tolerance: Å.
    """
    return int((unlike < tolerance).sum(1).max())


def _surroundings(positions: NDArray[np.float64], cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n_atoms, n_neighbors) sorted distances, Å, one image of each neighbour."""
    lengths = np.linalg.norm(_nearest(positions[:, None] - positions[None], cell), axis=-1)
    return np.sort(lengths, axis=1)[:, 1 : 1 + NEIGHBORS]


def _match(
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    numbers: NDArray[np.int64],
    offset: Callable[[NDArray[np.float64]], NDArray[np.float64]] = np.asarray,
) -> NDArray[np.int64]:
    """(n_atoms,) which row of ``right`` goes with each of ``left``: the least sum of squares, elements kept apart."""
    order = np.empty(len(numbers), dtype=np.int64)
    for number in np.unique(numbers):
        mine = np.flatnonzero(numbers == number)
        squares = (offset(left[mine, None] - right[None, mine]) ** 2).sum(-1)
        rows, columns = linear_sum_assignment(squares)
        order[mine[rows]] = mine[columns]
    return order


def _nearest(offsets: NDArray[np.float64], cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Offsets (..., 3) to the nearest image; of a cell that is not too skewed."""
    # the pseudo-inverse leaves out directions without a cell vector
    return np.asarray(offsets - np.round(offsets @ np.linalg.pinv(cell)) @ cell)
