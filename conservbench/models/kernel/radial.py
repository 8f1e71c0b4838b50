"""Scalar kernels of the squared distance between features, and their derivatives.

A kernel is a function of u = d^2, elementwise and of value one at zero. Written so, its derivatives are those of a
function of one number, and nothing is singular where two points coincide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from conservbench.hint import did_you_mean

Elementwise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Radial:
    """A scalar kernel; each function takes squared distances in units of the length scale.

    Attributes:
        value: the kernel.
        slope: its first derivative.
        curvature: its second derivative.
        slopes: slope and curvature at once, for numbers that nothing is differentiated by.
    """

    value: Elementwise
    slope: Elementwise
    curvature: Elementwise
    slopes: Callable[[Tensor], tuple[Tensor, Tensor]]


def _gaussian(u: Tensor) -> Tensor:
    return torch.exp(-0.5 * u)


def _gaussian_slopes(u: Tensor) -> tuple[Tensor, Tensor]:
    value = _gaussian(u)
    return -0.5 * value, 0.25 * value


_NEAR: Final = 1e-10
"""Below this squared distance a Matern kernel is its Taylor polynomial: the root of it has no derivative at zero, and
terms left out are below rounding wherever they enter a force or its derivative."""


def _root(u: Tensor) -> Tensor:
    """sqrt(5 u), harmless where its derivative is infinite; rounding may leave a squared distance below zero."""
    apart = u > _NEAR
    return torch.where(apart, torch.sqrt(5.0 * torch.where(apart, u, 1.0)), 0.0)


def _matern(u: Tensor) -> Tensor:
    s = _root(u)
    return torch.where(u > _NEAR, (1.0 + s + s * s / 3.0) * torch.exp(-s), 1.0 - 5.0 / 6.0 * u + 25.0 / 24.0 * u * u)


def _matern_slope(u: Tensor) -> Tensor:
    s = _root(u)
    return torch.where(u > _NEAR, -5.0 / 6.0 * (1.0 + s) * torch.exp(-s), -5.0 / 6.0 + 25.0 / 12.0 * u)


def _matern_curvature(u: Tensor) -> Tensor:
    return 25.0 / 12.0 * torch.exp(-_root(u))


def _matern_slopes(u: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sqrt(5.0 * u.clamp_min(0.0))
    curvature = 25.0 / 12.0 * torch.exp(-s)
    return -0.4 * (1.0 + s) * curvature, curvature


RBF: Final = Radial(_gaussian, lambda u: -0.5 * _gaussian(u), lambda u: 0.25 * _gaussian(u), _gaussian_slopes)
"""Gaussian, exp(-d^2 / 2)."""

MATERN52: Final = Radial(_matern, _matern_slope, _matern_curvature, _matern_slopes)
"""Matern kernel of order 5/2, (1 + s + s^2 / 3) e^-s with s = sqrt(5) d."""

RADIALS: Final[dict[str, Radial]] = {"matern52": MATERN52, "rbf": RBF}


def find_radial(name: str) -> Radial:
    """Scalar kernel by name.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in RADIALS:
        raise ValueError(f"no radial kernel {name!r}{did_you_mean(name, RADIALS)}")
    return RADIALS[name]
