"""Settings of ticks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How many ticks, and the seed of the walk."""

    steps: int
    seed: int
    pause: float = 0.0
