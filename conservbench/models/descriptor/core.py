"""Screened repulsion of nuclei, so that atoms which no data set brings so close do not fall into each other.

J. F. Ziegler, J. P. Biersack and U. Littmark, The Stopping and Range of Ions in Solids (Pergamon, 1985), switched off
by the factor (1 - r/end)^3.
"""

from __future__ import annotations

import torch
from torch import Tensor

_COULOMB = 14.399645
"""e^2 / (4 pi eps0) in eV Å."""

_BOHR = 0.529177
_TERMS = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))


def pair_repulsion(distance: Tensor, first: Tensor, second: Tensor, end: float) -> Tensor:
    """(n_pairs,) energies in eV, zero beyond ``end`` with two derivatives.

    Args:
        distance: (n_pairs,) Å.
        first: (n_pairs,) atomic numbers.
        second: (n_pairs,) likewise of the neighbours.
        end: Å.
    """
    one, other = first.to(distance), second.to(distance)
    length = 0.88534 * _BOHR / (one**0.23 + other**0.23)
    screening = torch.stack([size * torch.exp(-rate * distance / length) for size, rate in _TERMS]).sum(0)
    inside = (1.0 - distance / end).clamp(min=0.0) ** 3
    return _COULOMB * one * other / distance * screening * inside
