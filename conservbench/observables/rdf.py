"""The radial distribution function g(r) of periodic systems, images included.

g(r) is the number of atoms in a shell about an atom, over what an ideal gas of the same density n = N / V has there:

    g = sum over atoms and images in the shell / (N n 4 pi (r_2^3 - r_1^3) / 3)

so that n times the integral of 4 pi r^2 g counts neighbours. The neighbours come from a search, not from the nearest
images: g is right beyond half the cell too, where an atom meets several images of another, and its own.

:func:`radial_distribution` counts in bins. :func:`smeared_rdf` lays a Gaussian over each distance, so that it can be
differentiated in positions and cell.
"""

from __future__ import annotations

from math import sqrt, tau
from typing import Final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from conservbench.neighbors import Pairs, find_pairs
from conservbench.state import State, select

_TAIL: Final = 4.0
"""Widths beyond the last centre to which pairs are counted; what is left out there is 3e-4 of the peak of a kernel."""


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
    inside = _inside(state)
    g = state.positions.new_full((state.n_systems, len(limits) - 1), torch.nan)
    kept = _sound(state, inside)
    if kept:
        g[kept] = _of_sound(select(state.replace(positions=inside), kept), limits)
    return g


def smeared_rdf(state: State, centers: ArrayLike, width: float) -> Tensor:
    """Instantaneous g(r) of all pairs of each system, with a normalised Gaussian N in place of each distance.

        g(r_k) = sum over ordered pairs i, j and images of N(r_ij - r_k) / (N n 4 pi r_k^2)

    An ideal gas has 1 + (width / r_k)^2, for large N. The pairs are those closer than the last centre and four widths.
    The search sees positions without their history; the distances are built of those given, so that derivatives in
    positions and cell are exact.

    Args:
        state: periodic systems.
        centers: (n_bins,) ascending distances r_k above 0, Å.
        width: standard deviation of the Gaussian, Å.

    Returns:
        (n_systems, n_bins), differentiable; NaN for a system with a position that is not finite.

    Raises:
        ValueError: a system is not periodic in all directions, the centres do not ascend from above 0, or the width is
            not above 0.
    """
    middles = torch.as_tensor(np.asarray(centers, dtype=float), device=state.positions.device)
    if not len(middles) or not bool((middles.diff() > 0).all()) or not float(middles[0]) > 0:
        raise ValueError(f"centres of bins must ascend from above 0, got {middles.tolist()}")
    if not width > 0:
        raise ValueError(f"the width of a Gaussian must be above 0, got {width}")
    inside = _inside(state)
    kept = _sound(state, inside)
    shells = 4.0 * torch.pi * middles**2
    rows = [state.positions.new_full((len(middles),), torch.nan)] * state.n_systems
    # a system at a time, so that memory holds the kernels of one
    for index in kept:
        alone = select(state.replace(positions=inside), [index])
        found = _smeared_counts(alone, middles, width)
        rows[index] = found / (alone.n_atoms**2 / alone.volume) / shells
    return torch.stack(rows)


def _inside(state: State) -> Tensor:
    """Positions (n_atoms, 3) wrapped into the cell, so that an atom that has gone far costs the search nothing.

    Raises:
        ValueError: a system is not periodic in all directions.
    """
    if not bool(state.pbc.all()):
        raise ValueError("g(r) needs systems that are periodic in all directions")
    with torch.no_grad():
        turns = torch.einsum("na,nab->nb", state.positions, torch.linalg.inv(state.cell)[state.system]).floor()
    return state.positions - torch.einsum("na,nab->nb", turns, state.cell[state.system])


def _sound(state: State, inside: Tensor) -> list[int]:
    """The systems whose positions are all finite."""
    lost = state.sum((~torch.isfinite(inside)).any(1).double()) > 0
    return torch.nonzero(~lost)[:, 0].tolist()


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


def _smeared_counts(state: State, middles: Tensor, width: float) -> Tensor:
    """(n_bins,) sum of the kernels of all ordered pairs of one system, 1/Å."""
    pairs = find_pairs(state, float(middles[-1]) + _TAIL * width)
    # of a pair and its reverse one will do; an atom and its own images are few
    half = torch.nonzero(pairs.first <= pairs.second)[:, 0]
    once = Pairs(pairs.first[half], pairs.second[half], pairs.shift[half])
    weights = torch.where(once.first < once.second, 2.0, 1.0).to(middles)
    distances = torch.linalg.vector_norm(once.vectors(state.positions, state.cell, state.system), dim=-1)
    scale = 1.0 / (sqrt(2.0) * width)
    kernels = torch.exp(-(distances[:, None] * scale - middles * scale).square())
    return weights @ kernels / (sqrt(tau) * width)
