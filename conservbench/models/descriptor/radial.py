"""Radial functions R_n(r) = p_n(e^{-r/a}) f(r), orthonormal on [0, cutoff] with the measure r^2 dr.

The p_n are polynomials of degree n, by the recurrence that Stieltjes' procedure finds for this measure (Gautschi,
Orthogonal Polynomials, Oxford 2004, section 2.2), which stays stable where orthogonalising powers does not. The end
f(r) = (1 - (r/cutoff)^2)^3 and its first two derivatives vanish at the cutoff. Distances enter by an exponential, as in
atomic cluster expansions (Drautz, Phys. Rev. B 99, 014104, 2019), so that near neighbours are told apart more finely.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_NODES = 200
"""Of the quadrature: exact to rounding for the degrees in use."""


@dataclass(frozen=True)
class RadialBasis:
    """The first ``n`` functions.

    Attributes:
        cutoff: Å.
        length: a, Å.
        middle: (n,) centres of the recurrence.
        weight: (n,) norms of the monic polynomials over those before; the first is the norm of the constant.
    """

    cutoff: float
    length: float
    middle: tuple[float, ...]
    weight: tuple[float, ...]

    def __call__(self, distance: Tensor) -> Tensor:
        """(n_pairs, n) values at distances (n_pairs,) in Å; zero beyond the cutoff."""
        x = torch.exp(-distance / self.length)
        end = (1.0 - (distance / self.cutoff).square()).clamp(min=0.0) ** 3
        values = [end / self.weight[0]]
        for n in range(1, len(self.middle)):
            value = (x - self.middle[n - 1]) * values[-1]
            if n > 1:
                value = value - self.weight[n - 1] * values[-2]
            values.append(value / self.weight[n])
        return torch.stack(values, dim=-1)


def radial_basis(n: int, cutoff: float, length: float) -> RadialBasis:
    """The first ``n`` radial functions up to ``cutoff``, with decay length ``length`` (Å)."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    r = 0.5 * cutoff * (nodes + 1.0)
    measure = 0.5 * cutoff * weights * r**2 * (1.0 - (r / cutoff) ** 2) ** 6
    x = np.exp(-r / length)
    norms = [float(np.sqrt(measure.sum()))]
    middle = []
    before, now = np.zeros_like(x), np.full_like(x, 1.0 / norms[0])
    for index in range(n):
        middle.append(float((measure * x * now**2).sum()))
        following = (x - middle[-1]) * now - (norms[-1] * before if index else 0.0)
        norms.append(float(np.sqrt((measure * following**2).sum())))
        before, now = now, following / norms[-1]
    return RadialBasis(cutoff, length, tuple(middle), tuple(norms[:n]))
