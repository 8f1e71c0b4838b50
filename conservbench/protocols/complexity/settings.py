"""Settings of the complexity protocol."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from conservbench.protocols.base import DATA
from conservbench.protocols.fidelity.settings import Sampling
from conservbench.ranges import require_at_least, require_positive

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Settings(Sampling):
    """What is compared with what on one system; how systems in motion are sampled is as in the fidelity protocol.

    Attributes:
        labels: name of the data set on whose test frames errors are taken, or a file of frames, by its path from the
            card; empty for none.
        groups: name and regular expression of each group of frames: a frame is of the first whose expression is found
            in its group and description, as the data set has them, with a space between.
        reference: name of the reference of the properties; empty for none.
        top: the model that the dynamics of all others are compared with, measured in the same run; empty for none.
        temperature: K at which a system in motion is sampled; its own by 0.
        mesh: points of the density of states along each reciprocal vector of the primitive cell.
        width: THz, standard deviation of the Gaussian that each mode of the density of states is.
        rounds: times that a step is timed; none by 0.
        steps: inner steps to a time.

    Raises:
        ValueError: a value is out of range, times do not fit each other, a group has no name or expression, or there is
            nothing to compare with.
    """

    labels: str = field(default="", metadata=DATA)
    groups: tuple[tuple[str, str], ...] = ()
    reference: str = ""
    top: str = ""
    temperature: float = 0.0
    mesh: int = 6
    width: float = 0.4
    rounds: int = 0
    steps: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "mesh", "steps")
        require_at_least(0, self, "rounds", "temperature")
        require_positive(self, "width")
        if not self.labels and not self.reference:
            raise ValueError("labels and reference are empty; expected one of them or both")
        names = [name for name, _ in self.groups]
        for name, pattern in self.groups:
            if not _NAME.fullmatch(name) or names.count(name) > 1 or name == _OTHER:
                raise ValueError(f"groups: {name!r} is no name of its own, of small letters, other than {_OTHER!r}")
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"groups: {name}: {pattern!r} is no regular expression: {error}") from error

    @property
    def most_samples(self) -> int:
        """Independent samples that an interval can rest on at most: frames, replicas or rounds."""
        # the number of frames is that of the data set
        return max(self.replicas, self.rounds, 10_000 if self.labels else 0)

    def group_of(self, text: str) -> str:
        """The group of a frame by its group and description; ``other`` for none."""
        return next((name for name, pattern in self.groups if re.search(pattern, text)), _OTHER)
