"""Force schemes: how a simulation uses the force channels of a model."""

from dataclasses import dataclass
from typing import Literal, get_args

Channel = Literal["gradient", "direct"]
"""Where a force comes from: minus the gradient of an energy, or a head of the network."""

Kind = Literal["gradient", "direct", "mts"]

CHANNELS: tuple[Channel, ...] = get_args(Channel)
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Scheme:
    """A force scheme of a simulation.

    Attributes:
        kind: ``gradient`` and ``direct`` use one channel for everything; ``mts`` steps with the direct force and
            corrects it by the difference to the gradient force at every ``stride``-th step (two-force r-RESPA,
            Bigi, Langer and Ceriotti, arXiv 2412.11569).
        stride: inner steps to one correction; 1 unless the kind is ``mts``.

    Raises:
        ValueError: the kind is not known, the stride is not positive, or a stride is given to a one-channel kind.
    """

    kind: Kind
    stride: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"scheme is {self.kind!r}; expected one of {', '.join(KINDS)}")
        if self.stride < 1 or (self.stride > 1 and self.kind != "mts"):
            raise ValueError(f"stride {self.stride} does not go with scheme {self.kind!r}")

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels a model must have to be run under this scheme."""
        return CHANNELS if self.kind == "mts" else (self.kind,)

    @property
    def mean_channel(self) -> Channel:
        """The channel whose force acts on average: over an outer MTS step the fast force cancels."""
        return "direct" if self.kind == "direct" else "gradient"
