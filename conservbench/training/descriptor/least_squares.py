"""Weighted least squares with a ridge, of rows that come in pieces: memory holds a triangle, not the design matrix.

The triangular factor of [A | b] is updated by orthogonal transformations piece by piece (Demmel et al., SIAM J. Sci.
Comput. 34, A206, 2012), so that the condition number of A is never squared; every ridge is solved from its singular
values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

Rows = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Weighted rows of the design matrix (n, k) and of the target (n,)."""


@dataclass(frozen=True)
class Triangle:
    """What a least-squares problem comes down to.

    Attributes:
        factor: (m, k + 1) triangular factor of [A | b], m up to k + 1.
    """

    factor: NDArray[np.float64]

    def loss(self, solution: NDArray[np.float64]) -> float:
        """|A x - b|^2 of a solution (k,)."""
        return float(np.square(self.factor @ np.append(solution, -1.0)).sum())

    @property
    def target(self) -> float:
        """|b|^2."""
        return float(np.square(self.factor[:, -1]).sum())


def triangle_of(pieces: Iterable[Rows]) -> Triangle:
    """The triangle of rows that come in pieces.

    Raises:
        ValueError: there is no piece.
    """
    waiting: list[NDArray[np.float64]] = []
    for matrix, target in pieces:
        waiting.append(np.column_stack((matrix, target)))
        if sum(map(len, waiting)) > 3 * waiting[0].shape[1]:
            waiting = [_reduce(waiting)]
    if not waiting:
        raise ValueError("no rows to fit to")
    return Triangle(_reduce(waiting))


def joined(triangles: Iterable[Triangle]) -> Triangle:
    """The triangle of the rows of all."""
    return Triangle(_reduce([triangle.factor for triangle in triangles]))


def _reduce(pieces: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    rows = np.concatenate(pieces)
    return qr(rows, mode="r", overwrite_a=True, check_finite=True)[0][: rows.shape[1]]


def solve(triangle: Triangle, ridges: Iterable[float]) -> list[NDArray[np.float64]]:
    """Solutions x (k,) of the least |A x - b|^2 + ridge sum((a_i x_i)^2), one a ridge.

    With a_i the norm of column i, so that the ridge is a number without unit, and a solution does not depend on the
    units of the columns. Columns of zero, or of what rounding alone leaves beside the largest, get a coefficient of
    zero.
    """
    matrix, target = triangle.factor[:, :-1], triangle.factor[:, -1]
    norms = np.linalg.norm(matrix, axis=0)
    rounding = np.finfo(float).eps * max(matrix.shape) * norms.max()
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > rounding)
    left, sizes, right = np.linalg.svd(matrix * scale, full_matrices=False)
    projected = left.T @ target
    # what rounding alone leaves of a dependent column is no direction
    known = sizes > np.finfo(float).eps * max(matrix.shape) * sizes[0]
    solutions = []
    for ridge in ridges:
        filtered = np.divide(sizes, sizes**2 + ridge, out=np.zeros_like(sizes), where=known)
        solutions.append(scale * (right.T @ (filtered * projected)))
    return solutions
