"""Mean squared displacement, differentiable: what :mod:`conservbench.observables.msd` is to numbers, on tensors."""

from __future__ import annotations

import torch
from scipy.fft import next_fast_len
from torch import Tensor


def mean_squared_displacement(positions: Tensor, masses: Tensor | None = None) -> Tensor:
    """<|r_i(s + t) - r_i(s)|^2>, the mean over atoms and over all origins s that the trajectory has.

    The motion of the centre of mass is taken out.

    Args:
        positions: (n_times, ..., n_atoms, 3) in Å, equally spaced in time, never wrapped.
        masses: (n_atoms,) that the centre is weighted by; all equal if not told.

    Returns:
        (n_times, ...) for lags 0, 1, ..., Å^2.

    Raises:
        ValueError: positions have another shape.
    """
    if positions.ndim < 3 or positions.shape[-1] != 3 or 0 in positions.shape:
        raise ValueError(f"positions have shape {tuple(positions.shape)}, expected (n_times, ..., n_atoms, 3)")
    n = len(positions)
    weights = positions.new_ones(positions.shape[-2]) if masses is None else masses
    centres = (positions * weights[:, None]).sum(-2, keepdim=True) / weights.sum()
    r = positions - centres
    # about each atom's own mean, so that large coordinates cost no digits
    r = r - r.mean(0, keepdim=True)
    size = next_fast_len(2 * n, real=True)
    power = torch.view_as_real(torch.fft.rfft(r, size, dim=0)).square().sum((-1, -2, -3))
    products = torch.fft.irfft(power, size, dim=0)[:n]
    # at lag k the origins are the first n - k times, and they end at the last n - k
    squares = r.square().sum((-1, -2))
    reached = squares.cumsum(0).flip(0)
    left = squares.flip(0).cumsum(0).flip(0)
    origins = torch.arange(n, 0, -1, device=r.device).reshape(-1, *[1] * (squares.ndim - 1))
    found = (reached + left - 2.0 * products) / (origins * positions.shape[-2])
    return torch.cat((torch.zeros_like(found[:1]), found[1:]))
