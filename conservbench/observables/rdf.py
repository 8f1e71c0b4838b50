"""The radial distribution function g(r) of periodic systems, images included.

g(r) is the number of atoms in a shell about an atom, over what an ideal gas of the same density n = N / V has there:

    g = sum over atoms and images in the shell / (N n 4 pi (r_2^3 - r_1^3) / 3)

so that n times the integral of 4 pi r^2 g counts neighbours. The neighbours come from a search, not from the nearest
images: g is right beyond half the cell too, where an atom meets several images of another, and its own.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from conservbench.neighbors import find_pairs
from conservbench.state import State, select


def radial_distribution(state: State, edges: ArrayLike) -> Tensor:
    """Instantaneous g(r) of all pairs of each system.

    Args:
        state: periodic systems.
        edges: (n_bins + 1,) ascending limits of the bins, Å; a distance at a limit belongs to the bin above.

    Returns:
        (n_systems, n_bins); NaN for a system with a position that is not finite.

    Raises:
        ValueError: a system is not periodic in all directions, or the edges do not ascend from 0 or above.
    """
    limits = torch.as_tensor(np.asarray(edges, dtype=float), device=state.positions.device)
    if len(limits) < 2 or not bool((limits.diff() > 0).all()) or float(limits[0]) < 0:
        raise ValueError(f"edges of bins must ascend from 0 or above, got {limits.tolist()}")
    if not bool(state.pbc.all()):
        raise ValueError("g(r) needs systems that are periodic in all directions")
    # wrapped, so that an atom that has gone far costs the search nothing
    fractions = torch.einsum("na,nab->nb", state.positions, torch.linalg.inv(state.cell)[state.system])
    inside = torch.einsum("na,nab->nb", fractions - fractions.floor(), state.cell[state.system])
    lost = state.sum((~torch.isfinite(inside)).any(1).double()) > 0
    g = state.positions.new_full((state.n_systems, len(limits) - 1), torch.nan)
    kept = torch.nonzero(~lost)[:, 0]
    if len(kept):
        g[kept] = _of_sound(select(state.replace(positions=inside), kept.tolist()), limits)
    return g


def _of_sound(state: State, limits: Tensor) -> Tensor:
    pairs = find_pairs(state, float(limits[-1]))
    distances = pairs.vectors(state.positions, state.cell, state.system).norm(dim=-1)
    bins = torch.bucketize(distances, limits, right=True) - 1
    n_bins = len(limits) - 1
    counted = (bins >= 0) & (bins < n_bins)
    where = (state.system[pairs.first] * n_bins + bins)[counted]
    found = torch.bincount(where, minlength=state.n_systems * n_bins).reshape(-1, n_bins)
    shells = 4.0 / 3.0 * torch.pi * (limits**3).diff()
    return found / (state.counts**2 / state.volume)[:, None] / shells
