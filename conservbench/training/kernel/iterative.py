"""Conjugate gradients for more points than the matrix has memory for.

A product with the matrix is the forces of an expansion at its own training points, contracted like any prediction: the
matrix is never made. The preconditioner is that of Nystroem: a few columns of the matrix stand for all of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conservbench.models.kernel.contracted import Contracted
from conservbench.models.kernel.jets import features_of
from conservbench.models.kernel.kernel import Kernel, Points, expansion, matrix, parts_of
from conservbench.neighbors import find_pairs
from conservbench.state import select
from conservbench.training.kernel.solve import SingularKernelError, cholesky


def product(kernel: Kernel, points: Points, *, at_once: int = 64) -> Callable[[Tensor], Tensor]:
    """Function that multiplies the matrix of the points with a vector (sum of widths,), not making it.

    Args:
        kernel: of structures.
        points: without directions.
        at_once: structures whose energies are differentiated in one pass.

    Raises:
        ValueError: derivatives of forces are among the data.
    """
    if len(points.directions):
        raise ValueError('derivatives of forces are solved directly alone; set solver = "cholesky"')
    batches = []
    for start in range(0, points.state.n_systems, at_once):
        state = select(points.state, range(start, min(start + at_once, points.state.n_systems)))
        pairs = None if kernel.descriptor.cutoff is None else find_pairs(state, kernel.descriptor.cutoff)
        batches.append(features_of(kernel.descriptor, kernel.learned, state, pairs))
    jets = parts_of(kernel, points, permuted=True)

    def multiply(vector: Tensor) -> Tensor:
        energies, forces = _split(points, vector)
        summed = expansion(kernel, points, (energies, forces, points.directions), jets)
        rows = []
        for features in batches:
            state = features.state
            energy, pulls = Contracted(features, summed)(state.positions, state.cell)
            for index, count in enumerate(state.counts.tolist()):
                if points.has_energies:
                    rows.append(energy[index : index + 1])
                rows.append(pulls[:count].flatten())
                pulls = pulls[count:]
        return torch.cat(rows)

    return multiply


def _split(points: Points, vector: Tensor) -> tuple[Tensor | None, Tensor]:
    lead = int(points.has_energies)
    pieces = vector.split(points.widths)
    forces = torch.cat([piece[lead:] for piece in pieces]).view(-1, 3)
    return (torch.cat([piece[:lead] for piece in pieces]) if lead else None), forces


def nystroem(kernel: Kernel, points: Points, added: Tensor, frames: int, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Function that divides by the matrix that some of the columns say it is.

    Args:
        kernel: of structures.
        points: all of them.
        added: (sum of widths,), what is added to the diagonal.
        frames: structures whose columns are taken.
        seed: of their choice.
    """
    chosen = sorted(np.random.default_rng(seed).choice(points.state.n_systems, frames, replace=False).tolist())
    some = Points(select(points.state, chosen), has_energies=points.has_energies)
    own = matrix(kernel, some)
    # columns of one structure are nearly dependent: without net force and torque
    factor = cholesky(own, torch.full((len(own),), 1e-12 * float(own.diagonal().mean()), dtype=own.dtype))
    columns = torch.linalg.solve_triangular(factor, matrix(kernel, points, some).T, upper=False)
    inner = torch.linalg.cholesky(torch.eye(len(own), dtype=own.dtype) + (columns / added) @ columns.T)

    def divide(vector: Tensor) -> Tensor:
        weighed = vector / added
        projected = torch.cholesky_solve((columns @ weighed)[:, None], inner)[:, 0]
        return weighed - (projected @ columns) / added

    return divide


def solve_iteratively(
    kernel: Kernel, points: Points, added: Tensor, targets: Tensor, *, frames: int, tolerance: float, steps: int = 2000
) -> Tensor:
    """Coefficients (sum of widths,) of targets (sum of widths,) by preconditioned conjugate gradients of scipy.

    Args:
        kernel: of structures.
        points: without directions.
        added: (sum of widths,), what is added to the diagonal; positive.
        targets: labels.
        frames: structures of the preconditioner.
        tolerance: relative residual to end at.
        steps: to give up after.

    Raises:
        SingularKernelError: the residual does not come down.
    """
    from scipy.sparse.linalg import LinearOperator, cg

    multiply, divide = product(kernel, points), nystroem(kernel, points, added, frames)

    def wrapped(function: Callable[[Tensor], Tensor]) -> LinearOperator:
        def apply(vector: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(function(torch.from_numpy(vector.ravel())).numpy())

        return LinearOperator((len(targets), len(targets)), matvec=apply, dtype=np.float64)

    found, failed = cg(
        wrapped(lambda vector: multiply(vector) + added * vector),
        targets.numpy(),
        rtol=tolerance,
        maxiter=steps,
        M=wrapped(divide),
    )
    if failed:
        raise SingularKernelError(
            f"conjugate gradients did not reach a residual of {tolerance:.0e} in {steps} steps; set regularization to "
            f"{10 * float(added.min()):.0e} or more, or give the preconditioner more frames"
        )
    return torch.from_numpy(found)
