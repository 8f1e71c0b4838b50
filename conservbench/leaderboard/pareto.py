"""Speed against fidelity: which models no other one beats in both, as far as the intervals say.

Times are compared within one running machine alone: cells of the protocol ``speed`` that share the ``boot`` of their
provenance. A model is on the front if no other one is at least as good in both values and better in one; it is surely
dominated if another one is better in both by whole intervals. What the survivors of an explosion give is no value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from conservbench.leaderboard.machine import TIMED, machine_name, machine_of, on_one_machine
from conservbench.leaderboard.ranking import NO_VALUE
from conservbench.leaderboard.sheet import comparable
from conservbench.statistics import Interval

if TYPE_CHECKING:
    from conservbench.cards import Metric
    from conservbench.scored import Score, ScoredCell

SPEED: Final = "ns_per_day"
"""Its metric on the one axis: higher is better."""

Standing = Literal["front", "dominated", "surely dominated"]


@dataclass(frozen=True)
class Point:
    """One model.

    Attributes:
        model: its name.
        control: whether its answer was known beforehand: shown, but it dominates nobody and is not judged.
        speed: its value and interval.
        other: those of the other metric, as its size where near zero is better.
        standing: see the module; None for a control.
    """

    model: str
    control: bool
    speed: Interval
    other: Interval
    standing: Standing | None


@dataclass(frozen=True)
class Front:
    """Speed on one machine against one metric on one system.

    Attributes:
        machine: processor, device and threads, and which of several running machines of this kind.
        machine_key: the running machine, as :func:`conservbench.leaderboard.machine.machine_of` gives it.
        speed: the metric of speed.
        speed_system: what it was measured on.
        speed_tier: in which tier.
        metric: the other one.
        protocol: of the other metric.
        title: of that protocol.
        tier: of its cells.
        system: name of the system that the other metric was measured on.
        points: fastest first.
    """

    machine: str
    machine_key: tuple[str, ...]
    speed: Metric
    speed_system: str
    speed_tier: str
    metric: Metric
    protocol: str
    title: str
    tier: str
    system: str
    points: tuple[Point, ...]


def fronts(cells: Iterable[ScoredCell]) -> tuple[Front, ...]:
    """A front for each machine, and each headline metric with a gate that says which values are better.

    Args:
        cells: of any models, protocols and tiers; what is not comparable does not share a front.

    Returns:
        Fronts of two models or more, controls not counted.
    """
    every = list(cells)
    timed = _groups(cell for cell in every if cell.protocol["name"] == TIMED and on_one_machine([cell]))
    others = _groups(cell for cell in every if cell.protocol["name"] != TIMED)
    found = []
    for fast in timed:
        for group in others:
            limited = [metric for metric in group[0].headlines if metric.gated and metric.better]
            found += [_front(fast, group, metric) for metric in limited if SPEED in fast[0].metrics]
    return tuple(each for each in found if sum(not point.control for point in each.points) > 1)


def _groups(cells: Iterable[ScoredCell]) -> list[list[ScoredCell]]:
    """Cells that can be compared, of one system."""
    systems: dict[tuple[int, str], list[ScoredCell]] = {}
    for place, group in enumerate(comparable(cells)):
        for cell in group:
            systems.setdefault((place, cell.system), []).append(cell)
    return list(systems.values())


def _front(fast: Sequence[ScoredCell], group: Sequence[ScoredCell], metric: Metric) -> Front:
    speeds = {cell.model["name"]: _interval(cell, SPEED) for cell in fast}
    pairs = []
    for cell in group:
        speed, other = speeds.get(cell.model["name"]), _interval(cell, metric.key)
        if speed is not None and other is not None:
            pairs.append((cell, speed, other.size if metric.better == "zero" else other))
    rivals = [(speed, other) for cell, speed, other in pairs if not cell.is_control]
    sign = -1.0 if metric.better == "higher" else 1.0
    points = [
        Point(
            model=str(cell.model["name"]),
            control=cell.is_control,
            speed=speed,
            other=other,
            standing=None if cell.is_control else _standing(speed, other, rivals, sign),
        )
        for cell, speed, other in pairs
    ]
    card = group[0].protocol
    return Front(
        machine=machine_name(fast[0]),
        machine_key=machine_of(fast[0]),
        speed=fast[0].metrics[SPEED],
        speed_system=fast[0].system,
        speed_tier=fast[0].tier,
        metric=metric,
        protocol=str(card["name"]),
        title=str(card.get("title") or card["name"]),
        tier=group[0].tier,
        system=group[0].system,
        points=tuple(sorted(points, key=lambda point: (-point.speed.value, point.model))),
    )


def _standing(speed: Interval, other: Interval, rivals: Sequence[tuple[Interval, Interval]], sign: float) -> Standing:
    """Where a model stands among its rivals; it is no rival of its own, as none is better than itself."""
    surely = any(faster.low > speed.high and _surely_better(better, other, sign) for faster, better in rivals)
    if surely:
        return "surely dominated"
    beaten = any(
        (faster.value, better.value) != (speed.value, other.value)
        and faster.value >= speed.value
        and sign * better.value <= sign * other.value
        for faster, better in rivals
    )
    return "dominated" if beaten else "front"


def _surely_better(one: Interval, other: Interval, sign: float) -> bool:
    return one.high < other.low if sign > 0 else one.low > other.high


def _interval(cell: ScoredCell, key: str) -> Interval | None:
    score: Score | None = next((score for score in cell.scores if score.metric == key), None)
    if score is None or score.value is None or score.low is None or score.high is None:
        return None
    if score.outcome in NO_VALUE:
        return None
    return Interval(score.value, score.low, score.high, score.n)
