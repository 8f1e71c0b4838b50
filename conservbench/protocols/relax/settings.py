"""Settings of the relaxation protocol."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from conservbench.ranges import require_at_least, require_positive

OPTIMIZERS: Final = ("lbfgs", "fire")
"""Names of the optimisers there are."""

MINIMUM_FMAX: Final = 1e-2
"""eV/Å: relaxations that end above it have found no minimum to be compared."""
SPEED_FMAX: Final = 1e-3
"""eV/Å, to which the cost of relaxations is compared."""


@dataclass(frozen=True)
class Settings:
    """From where, how, and how far.

    Attributes:
        optimizers: of :data:`OPTIMIZERS`; the minima of the first are compared, and cells are relaxed by it.
        thresholds: eV/Å, greatest first: longest forces below which a relaxation counts as converged; the last ends it
            and is no greater than :data:`SPEED_FMAX`. Metrics name them by one digit, in which they differ.
        max_steps: steps of one relaxation.
        rattles: Å, standard deviations of each coordinate about the sites.
        rattled: starts with each of them.
        thermal: starts from thermal snapshots.
        strains: standard deviations of the components of random symmetric strains of crystals that are rattled, too, by
            the smallest of ``rattles``.
        strained: starts with each of them in the fixed strained cell.
        strained_cells: starts with each of them whose cells are relaxed, too, if the scheme has a stress.
        window: steps before the end of a relaxation in which closed orbits are looked for.
        handover_fmax: eV/Å, longest direct force below which MTS rows go over to the gradient force.
        patience: steps without a lower direct force after which they do, too.
        timed_calls: pairs of calls that give the ratio of their costs.
        seed: of rattles and strains.

    Raises:
        ValueError: a value is out of range, or two thresholds share a name.
    """

    optimizers: tuple[str, ...]
    thresholds: tuple[float, ...]
    max_steps: int
    rattles: tuple[float, ...]
    rattled: int
    thermal: int
    strains: tuple[float, ...]
    strained: int
    strained_cells: int
    window: int = 100
    handover_fmax: float = 0.1
    patience: int = 20
    timed_calls: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.optimizers:
            if name not in OPTIMIZERS:
                raise ValueError(f"optimizers has {name!r}; expected some of {', '.join(OPTIMIZERS)}")
        if not self.optimizers or len(set(self.optimizers)) < len(self.optimizers):
            raise ValueError(f"optimizers is {list(self.optimizers)}; expected one or more, all different")
        for name in ("thresholds", "rattles", "strains"):
            # NaN compares false
            if not all(0 < value < math.inf for value in getattr(self, name)):
                raise ValueError(f"{name} is {list(getattr(self, name))}; expected positive numbers")
        if not self.thresholds or list(self.thresholds) != sorted(set(self.thresholds), reverse=True):
            raise ValueError(f"thresholds is {list(self.thresholds)}; expected one or more, greatest first")
        if self.thresholds[-1] > min(MINIMUM_FMAX, SPEED_FMAX):
            raise ValueError(
                f"thresholds end at {self.thresholds[-1]:g} eV/Å, where relaxations end;"
                f" expected {min(MINIMUM_FMAX, SPEED_FMAX):g} or less, where minima and costs are compared"
            )
        for greater, less in pairwise(self.thresholds):
            if key_of(greater) == key_of(less):
                raise ValueError(f"thresholds has {greater:g} and {less:g}; metrics name both {key_of(less)}")
        if not self.rattles:
            raise ValueError("rattles is []; expected one or more")
        require_positive(self, "handover_fmax")
        require_at_least(1, self, "max_steps", "window", "patience", "timed_calls")
        require_at_least(0, self, "rattled", "thermal", "strained", "strained_cells", "seed")
        if not len(self.rattles) * self.rattled + self.thermal + len(self.strains) * self.strained:
            raise ValueError("rattled, thermal and strained leave no start in a fixed cell")

    @property
    def most_samples(self) -> int:
        """Independent samples that an interval can rest on at most."""
        return (
            len(self.rattles) * self.rattled
            + self.thermal
            + len(self.strains) * max(self.strained, self.strained_cells)
        )


def key_of(threshold: float) -> str:
    """How metrics name a threshold: ``1e-3``."""
    mantissa, exponent = f"{threshold:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"
