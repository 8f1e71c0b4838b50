"""Scores of measured cells: values with 95 % intervals and gates, judged just now or read from an entry. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from conservbench.outcome import Outcome

if TYPE_CHECKING:
    from conservbench.cards import Metric
    from conservbench.plot import Plot
    from conservbench.statistics import Interval

Gate = Literal["pass", "fail", "unclear"]

KEYS: Final = (
    "model",
    "protocol",
    "system",
    "metric",
    "value",
    "low",
    "high",
    "unit",
    "n",
    "outcome",
    "gate",
)
"""Keys of a score in JSON, in their order."""


@dataclass(frozen=True)
class Score:
    """One metric of one cell.

    Attributes:
        model: name of the model.
        protocol: name of the protocol.
        system: name of the system.
        metric: key in the protocol card.
        value: the estimate in ``unit``; None where there is none.
        low: lower end of the 95 % interval; minus infinity where nothing bounds it.
        high: upper end of the 95 % interval; infinity where nothing bounds it.
        unit: of value, low and high.
        n: independent samples behind it.
        outcome: how the measurement of this metric ended.
        gate: see :func:`gate_of`.
        reason: why there is no value, or what a reader must know of it; not part of the JSON.
    """

    model: str
    protocol: str
    system: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    n: int
    outcome: Outcome
    gate: Gate | None
    reason: str = ""

    def to_row(self) -> dict[str, str | float | int | None]:
        """The score in JSON types: an end that nothing bounds is None."""
        row = {key: getattr(self, key) for key in KEYS}
        bare = {key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
        return {**row, **dict.fromkeys(bare), "outcome": str(self.outcome)}


@dataclass(frozen=True)
class ScoredCell:
    """All scores of one cell and what its file says of their origin.

    Attributes:
        model: the model card as parsed when the cell was measured, with its digest.
        protocol: the protocol card, likewise.
        system: name of the system.
        tier: which settings of the protocol.
        outcome: how the cell ended; ``failed`` also where its file could not be judged.
        reason: of the outcome.
        provenance: code, packages, machine and seeds.
        metrics: key to metric, as the card declares them.
        scores: in the order of the judge.
        plots: what the cell shows in pictures; empty where nobody asked for them.
    """

    model: Mapping[str, Any]
    protocol: Mapping[str, Any]
    system: str
    tier: str
    outcome: Outcome
    reason: str
    provenance: Mapping[str, Any] = field(repr=False)
    metrics: Mapping[str, Metric] = field(repr=False)
    scores: tuple[Score, ...]
    plots: tuple[Plot, ...] = field(default=(), repr=False)

    @property
    def is_control(self) -> bool:
        """Whether the answer was known beforehand."""
        return self.model.get("role") == "control"

    @property
    def headlines(self) -> tuple[Metric, ...]:
        """The metrics that tables show."""
        return headlines_of(self.metrics)


def gate_of(metric: Metric | None, interval: Interval | None, outcome: Outcome) -> Gate | None:
    """Whether a metric keeps the limits of its card.

    Args:
        metric: its declaration; None where the card has none.
        interval: the finding's.
        outcome: the finding's.

    Returns:
        ``pass`` if the whole interval is inside the limits, ``fail`` if it is wholly outside, ``unclear`` if it
        straddles one. What the survivors of an explosion give cannot pass, and an explosion that left no value
        fails. None where there is no limit, or no value for another reason.
    """
    if metric is None or (metric.below is None and metric.above is None):
        return None
    if interval is None:
        return "fail" if outcome is Outcome.EXPLODED else None
    below = math.inf if metric.below is None else metric.below
    above = -math.inf if metric.above is None else metric.above
    if interval.low >= below or interval.high <= above:
        return "fail"
    # an end that nothing bounds still is inside a side without a limit
    inside = (metric.above is None or interval.low > above) and (metric.below is None or interval.high < below)
    return "pass" if inside and outcome is Outcome.COMPLETED else "unclear"


def headlines_of(metrics: Mapping[str, Metric]) -> tuple[Metric, ...]:
    """The metrics that tables show: all of them where the card marks none."""
    chosen = tuple(metric for metric in metrics.values() if metric.headline)
    return chosen or tuple(metrics.values())
