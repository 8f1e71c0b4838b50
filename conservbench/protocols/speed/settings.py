"""Settings of the speed protocol."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from conservbench.ranges import require_at_least, require_positive

Repeat = tuple[int, int, int]


@dataclass(frozen=True)
class Settings:
    """How large, how long and how often.

    Attributes:
        repeats: sizes: how often the system is repeated along its three cell vectors; from 1, 1, 1, which is the
            system itself, each with more atoms than the one before.
        replicas: of the system itself in the batch.
        rounds: times that every size is timed, all in turn; six or more for an interval.
        steps: inner steps that a time of the system itself is taken of, and shared out over the copies in larger ones;
            at least one outer step.
        trials: steps of which the memory is measured.
        time_step: fs, inner.
        seed: of the momenta; 0 or more.

    Raises:
        ValueError: a value is out of range, or sizes do not ascend from 1, 1, 1.
    """

    repeats: tuple[Repeat, ...]
    replicas: int
    rounds: int
    steps: int
    trials: int
    time_step: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(1, self, "replicas", "rounds", "steps", "trials")
        require_at_least(0, self, "seed")
        require_positive(self, "time_step")
        copies = [math.prod(repeat) for repeat in self.repeats]
        sound = self.repeats[:1] == ((1, 1, 1),) and all(min(repeat) >= 1 for repeat in self.repeats)
        if not sound or any(more <= less for less, more in pairwise(copies)):
            raise ValueError(
                f"repeats is {[list(repeat) for repeat in self.repeats]}; expected [1, 1, 1] and what ascends from it"
            )

    @property
    def most_samples(self) -> int:
        """Independent samples that an interval can rest on at most."""
        return max(self.rounds, self.trials)
