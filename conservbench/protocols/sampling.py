"""Lengths of time in whole steps and samples, as settings ask for them. No torch."""

from __future__ import annotations

import math
from typing import Final

TOLERANCE: Final = 1e-9
"""Relative, by which a length may miss a whole number of steps: that of decimal fractions in a card."""


def whole_steps(length: float, step: float) -> int | None:
    """How many steps make up a length; None if it is no whole number."""
    count = round(length / step)
    return count if count > 0 and abs(length - count * step) < TOLERANCE * length else None


def steps_lasting(picoseconds: float, step: float) -> int:
    """Steps of ``step`` fs that last at least so long."""
    return math.ceil(1e3 * picoseconds / step - TOLERANCE)


def samples_of(duration: float, sample_every: float) -> int:
    """Samples of a trajectory after its start.

    Args:
        duration: ps.
        sample_every: fs from one sample to the next.

    Raises:
        ValueError: the duration is no multiple of the sampling interval, or holds fewer than 2 samples.
    """
    samples = whole_steps(1000.0 * duration, sample_every)
    if samples is None:
        raise ValueError(f"duration {duration} ps is no multiple of sample_every {sample_every} fs")
    if samples < 2:
        raise ValueError(f"duration {duration} ps holds fewer than 2 samples of {sample_every} fs")
    return samples
