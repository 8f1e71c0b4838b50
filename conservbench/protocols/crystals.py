"""Whether a system is a crystal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from conservbench.systems import System

_LINDEMANN: Final = 0.2
"""Root mean square displacement of a crystal in units of its nearest-neighbour distance, which melts at about 0.1."""


def is_crystal(system: System) -> bool:
    """Whether the snapshots are vibrations about the sites: root mean square displacements are short."""
    moves = np.array([frame.positions - system.sites.positions for frame in system.snapshots])
    moves -= moves.mean(1, keepdims=True)
    distances = system.sites.get_all_distances(mic=True)
    nearest = distances[distances > 0].min(initial=math.inf)
    return bool(system.sites.pbc.all() and np.sqrt((moves**2).sum(2).mean()) < _LINDEMANN * nearest)
