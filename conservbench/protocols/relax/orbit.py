"""Closed orbits: relaxations that keep moving, come back to where they were, and get no nearer to rest. No torch.

A force that is no gradient can do work round a loop, so that an optimiser that trusts forces alone may go round it for
ever; L-BFGS without a line search may do so even under a gradient, where its steps overshoot. What tells an orbit from
a slow descent is that it recurs; from a rattling at the noise of the forces, which goes nowhere either, that it does so
on a smooth way.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUND: Final = 3.0
"""Path over extent of a circle that is gone round once is pi."""
RETURN: Final = 0.1
"""Recurrence over extent: how near it comes to where it was."""
FALL: Final = 0.5
"""The lowest force of the second half of the window over that of the first: lower where the relaxation still works."""


def closed_orbits(
    fmax: ArrayLike, steps: ArrayLike, path: ArrayLike, extent: ArrayLike, recurrence: ArrayLike, window: int
) -> NDArray[np.bool_]:
    """Whether each relaxation ended in a closed orbit, going by its last window.

    Args:
        fmax: (n, n_steps + 1), eV/Å.
        steps: (n,) steps made; those that made fewer than a window are in no orbit.
        path: (n,) length of the path, Å.
        extent: (n,) farthest from its end, Å.
        recurrence: (n,) nearest to its end after having been far, Å.
        window: steps.
    """
    series, last = np.asarray(fmax, dtype=float), np.asarray(steps, dtype=int)
    way, far, near = (np.asarray(part, dtype=float) for part in (path, extent, recurrence))
    # NaN compares false
    found = (last >= window) & (way > ROUND * far) & (near < RETURN * far) & (far > 0)
    for index in np.flatnonzero(found):
        recent = series[index, last[index] - window : last[index] + 1]
        early, late = recent[: window // 2 + 1].min(), recent[window // 2 + 1 :].min()
        found[index] = late > FALL * early
    return found
