"""The vibrational density of states of a harmonic crystal, each mode a Gaussian: differentiable in the frequencies."""

from __future__ import annotations

from math import sqrt, tau

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


def harmonic_density(frequencies: Tensor, at: ArrayLike, width: float) -> Tensor:
    """D(f) = mean over modes of N(f - f_m).

    Modes of one frequency may be in any order and basis: what is differentiated is symmetric in them. The width says
    how far apart a mode and its target may be and still feel each other.

    Args:
        frequencies: (..., n_modes), THz; of all modes, or of those at a mesh of wave vectors; imaginary ones as
            negative numbers.
        at: (n_points,) frequencies where the density is asked for, THz.
        width: standard deviation of the Gaussians, THz.

    Returns:
        (..., n_points), 1/THz, with an integral of 1 over all frequencies.

    Raises:
        ValueError: the width is not above 0.
    """
    if not width > 0:
        raise ValueError(f"the width of a Gaussian must be above 0, got {width}")
    points = torch.as_tensor(np.asarray(at, dtype=float), device=frequencies.device)
    away = (points[:, None] - frequencies[..., None, :]) / width
    return torch.exp(-0.5 * away.square()).mean(-1) / (sqrt(tau) * width)
