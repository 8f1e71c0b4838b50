"""Solving for the coefficients of a kernel model, with errors that say what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from conservbench.models.kernel.jets import Jets, alike, features_of, jets_of
from conservbench.models.kernel.kernel import Kernel, Points
from conservbench.neighbors import find_pairs
from conservbench.state import State

_ALIKE: Final = 1e-6
"""Relative distance of features below which the kernel cannot tell structures apart."""


class SingularKernelError(ValueError):
    """The kernel matrix cannot be solved: points coincide, or regularisation is too small."""


class TooManyPointsError(ValueError):
    """The kernel matrix does not fit into memory."""


def memory_needed(points: Points) -> int:
    """Bytes of a direct solution: the matrix, its factor, and one more while it is made."""
    return 3 * 8 * sum(points.widths) ** 2


def free_memory() -> int:
    """Bytes that are free on this machine."""
    # what the system could give without swapping; Linux says so, elsewhere all there is must stand in
    said = Path("/proc/meminfo")
    if said.is_file():
        for line in said.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_memory(points: Points, free: int | None = None) -> None:
    """Check that a direct solution fits, before anything is allocated.

    Raises:
        TooManyPointsError: it does not; the message says how many frames would.
    """
    needed, there = memory_needed(points), free_memory() if free is None else free
    if needed > there:
        frames = points.state.n_systems
        fit = int(frames * (there / needed) ** 0.5)
        raise TooManyPointsError(
            f"{frames} frames make a matrix of {sum(points.widths)} rows: a direct solution needs "
            f"{needed / 1e9:.1f} GB, {there / 1e9:.1f} GB are free; train on {fit} frames (frames = {fit}), or set "
            'solver = "iterative"'
        )


def preconditioner_frames(points: Points, free: int | None = None) -> int:
    """Frames whose columns an iterative solution is preconditioned by: a tenth, or as many as there is memory for.

    Raises:
        TooManyPointsError: there is not memory for those of a single one; the message says how many frames would fit.
    """
    there = free_memory() if free is None else free
    rows, frames = sum(points.widths), points.state.n_systems
    # the columns, and what they are made of
    each = 2 * 8 * rows * max(points.widths)
    if each > there:
        fit = int(frames * there / each)
        raise TooManyPointsError(
            f"{frames} frames make a matrix of {rows} rows: an iterative solution needs {each / 1e9:.1f} GB for one "
            f"frame of its preconditioner, {there / 1e9:.1f} GB are free; train on {fit} frames (frames = {fit})"
        )
    return min(max(1, frames // 10), there // each)


def duplicates(kernel: Kernel, points: Points) -> list[tuple[int, int]]:
    """Pairs of training structures that the kernel cannot tell apart."""
    if kernel.descriptor.is_local:
        each = [_local_features(kernel, part) for part in alike(kernel.descriptor, points.state)]
        found = [(i, j) for j in range(len(each)) for i in range(j) if _same(each[i], each[j])]
    else:
        (part,) = alike(kernel.descriptor, points.state)
        plain = _features(jets_of(kernel.descriptor, kernel.learned, part)[0])
        found = []
        for order in kernel.permutations or (None,):
            other = _features(jets_of(kernel.descriptor, kernel.learned, part, order=order)[0])
            near = torch.cdist(plain, other) < _ALIKE * plain.norm(dim=1).mean()
            found.extend((int(i), int(j)) for i, j in torch.nonzero(torch.triu(near, 1)).tolist())
    return sorted(set(found))


def _features(jets: Jets) -> Tensor:
    return jets.features[:, 0]


def _local_features(kernel: Kernel, state: State) -> tuple[Tensor, Tensor]:
    """Numbers (n_atoms,) and features (n_atoms, n_features) of one structure."""
    cutoff = kernel.descriptor.cutoff
    pairs = None if cutoff is None else find_pairs(state, cutoff)
    return state.numbers, features_of(kernel.descriptor, kernel.learned, state, pairs)(state.positions, state.cell)


def _same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    """Whether two structures have the same features, atom by atom: moved or turned, they are the same."""
    if not torch.equal(one[0], other[0]):
        return False
    return bool((one[1] - other[1]).norm() < _ALIKE * one[1].norm())


def require_distinct(kernel: Kernel, points: Points, added: Tensor) -> None:
    """Check that no two training structures are the same, where nothing was added to the diagonal that would bear it.

    Raises:
        SingularKernelError: some are; the message names them.
    """
    if float(added.min()) >= 1e-6:
        return
    if pairs := duplicates(kernel, points):
        named = ", ".join(f"{i} and {j}" for i, j in pairs[:5])
        more = f" and {len(pairs) - 5} pairs more" if len(pairs) > 5 else ""
        raise SingularKernelError(
            f"training frames {named}{more} are the same structure to this descriptor, which makes the kernel "
            "singular; remove one of each, or set regularization to 1e-6 or more"
        )


def cholesky(matrix: Tensor, added: Tensor) -> Tensor:
    """Lower factor of the matrix with ``added`` (n,) on its diagonal.

    Raises:
        SingularKernelError: it is not positive definite in float64.
    """
    noisy = matrix.clone()
    noisy.diagonal().add_(added)
    factor, info = torch.linalg.cholesky_ex(noisy)
    if int(info):
        largest = float(torch.linalg.matrix_norm(noisy, 1))
        least = max(1e-15 * largest, 10.0 * float(added.min()))
        raise SingularKernelError(
            f"the kernel matrix is singular to rounding (row {int(info)} of {len(matrix)}): the regularisation "
            f"{float(added.min()):.1e} is too small for a largest eigenvalue up to {largest:.1e}; set "
            f"regularization to {least:.0e} or more, or shorten length"
        )
    return factor


def solve(matrix: Tensor, added: Tensor, targets: Tensor) -> Tensor:
    """Coefficients (n,) of targets (n,).

    Raises:
        SingularKernelError: the matrix is not positive definite.
    """
    return torch.cholesky_solve(targets[:, None], cholesky(matrix, added))[:, 0]
