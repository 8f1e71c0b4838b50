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
    """

    value: Elementwise
    slope: Elementwise
    curvature: Elementwise


def of_function(value: Elementwise) -> Radial:
    """A kernel whose derivatives are taken by forward differentiation."""
    slope = _derivative(value)
    return Radial(value, slope, _derivative(slope))


def _derivative(function: Elementwise) -> Elementwise:
    def slope(u: Tensor) -> Tensor:
        return torch.func.jvp(function, (u,), (torch.ones_like(u),))[1]

    return slope


def _gaussian(u: Tensor) -> Tensor:
    return torch.exp(-0.5 * u)


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


RBF: Final = of_function(_gaussian)
"""Gaussian, exp(-d^2 / 2)."""

MATERN52: Final = Radial(_matern, _matern_slope, _matern_curvature)
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
