"""Has a model become worse? Scores measured now against those of a baseline, with the intervals of both. No torch.

Every metric whose card says what is ``better`` is compared where both sides have a value. The change for the worse,
less the tolerance of the card, is divided by its standard error, which comes from both intervals, and referred to
Student's t with the degrees of freedom of Welch (Biometrika 34, 28, 1947); fractions of independent trials go by the
exact test of Fisher. The p-values of all tests of a check are taken together by the procedure of Holm (Scand. J.
Statist. 6, 65, 1979): they call any metric of a model that has not changed a regression with a probability of no more
than :data:`FAMILY_RATE`, however many there are.

That rate is of these tests alone. A cell that ended worse than before, such as by an explosion, and a metric that lost
its value, as nothing converged, are regressions without a test, and numbers that are exact go by their tolerance alone:
a model that explodes or stalls now and then raises an alarm as often as its endings differ.

What is left where some replicas exploded, or some starts did not converge, are the better ones. Such values can show
that a model became worse, never that it became better; in the baseline, it is the other way round.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from scipy.special import stdtr, stdtrit

from conservbench.cards import Metric
from conservbench.outcome import Outcome
from conservbench.provenance import on_one_machine
from conservbench.scored import Score, ScoredCell
from conservbench.statistics import LEVEL, fraction_interval
from conservbench.units import PERCENT

State = Literal["pass", "regression", "improved", "not comparable", "missing", "new"]
"""What became of a metric, or of a cell. ``missing`` is in the baseline alone, ``new`` is not in it."""

Verdict = Literal["pass", "regression", "improved", "nothing comparable"]

STATES: Final[tuple[State, ...]] = get_args(State)

FAMILY_RATE: Final = 0.01
"""Probability that the tests of a check call any metric of an unchanged model a regression; or any improved."""

OUTCOME: Final = "outcome"
"""In place of a metric, in the row of how a cell ended."""

_SEVERITY: Final = {
    Outcome.COMPLETED: 0,
    # what did not converge has its own metrics, with intervals
    Outcome.NOT_CONVERGED: 0,
    Outcome.EXPLODED: 1,
    Outcome.UNSUPPORTED: 2,
    Outcome.OUT_OF_MEMORY: 2,
    Outcome.FAILED: 2,
}


_MEASURED: Final = (Outcome.COMPLETED, Outcome.NOT_CONVERGED, Outcome.EXPLODED)


class CompareError(ValueError):
    """Two sets of scores cannot be compared: they were measured by different protocols, or in different tiers."""


@dataclass(frozen=True)
class Row:
    """One metric of one cell, now and before.

    Attributes:
        model: name of the model measured now; of the baseline's where it is missing now.
        protocol: name of the protocol.
        system: name of the system.
        metric: key in the protocol card; :data:`OUTCOME` for how the cell ended.
        label: heading of the metric.
        unit: of the values.
        state: what became of it.
        base: the score of the baseline; None where there is none.
        head: the score now; None where there is none.
        headline: whether tables show it where there is nothing to say of it.
        digits: decimals of the values where no interval sets them.
        change: by how much it is worse, in ``unit``; negative where it is better, None where it is not compared.
        low: lower end of the 95 % interval of the change; minus infinity where nothing bounds it.
        high: upper end of it; infinity where nothing bounds it.
        tolerance: the change for the worse that nobody minds.
        detectable: the least change for the worse that this check would have called a regression, were it the only
            one; infinite where no change would have been.
        p_value: of the test that the change is above the tolerance, adjusted for all metrics of the check; that of the
            change being an improvement where the state is ``improved``.
        reason: why it is what it is, where there is something to say.
    """

    model: str
    protocol: str
    system: str
    metric: str
    label: str
    unit: str
    state: State
    base: Score | None = None
    head: Score | None = None
    headline: bool = True
    digits: int = 3
    change: float | None = None
    low: float | None = None
    high: float | None = None
    tolerance: float | None = None
    detectable: float | None = None
    p_value: float | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """The row in words."""
        return f"{self.model} / {self.protocol} / {self.system} / {self.metric}"

    def to_row(self) -> dict[str, Any]:
        """The row in JSON types, the scores as :meth:`conservbench.scored.Score.to_row` has them."""
        words = ("model", "protocol", "system", "metric", "unit", "state")
        numbers = ("change", "low", "high", "tolerance", "detectable", "p_value")
        found = {key: getattr(self, key) for key in numbers}
        return {
            **{key: getattr(self, key) for key in words},
            "base": self.base and self.base.to_row(),
            "head": self.head and self.head.to_row(),
            **{key: None if value is None or math.isinf(value) else value for key, value in found.items()},
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Comparison:
    """Every metric of a check, in the order of the cells.

    Attributes:
        rows: the metrics, and the outcome of each cell.
    """

    rows: tuple[Row, ...]

    @property
    def verdict(self) -> Verdict:
        """Of the whole check: a single regression makes it one."""
        if self.of("regression"):
            return "regression"
        if self.of("improved"):
            return "improved"
        return "pass" if self.compared else "nothing comparable"

    @property
    def compared(self) -> tuple[Row, ...]:
        """The metrics that have a value on both sides and were compared."""
        return tuple(row for row in self.rows if row.change is not None)

    def of(self, *states: State) -> tuple[Row, ...]:
        """The rows in one of these states."""
        return tuple(row for row in self.rows if row.state in states)

    def to_document(self) -> dict[str, Any]:
        """The comparison in JSON types."""
        return {"verdict": self.verdict, "rate": FAMILY_RATE, "rows": [row.to_row() for row in self.rows]}


def compare(base: Iterable[ScoredCell], head: Iterable[ScoredCell]) -> Comparison:
    """Compare cells measured now with those of a baseline; cells of a model of the same name belong together.

    Args:
        base: the baseline, such as :func:`conservbench.leaderboard.entry.read_entries` gives it; models that are not
            among those of ``head`` are left out.
        head: what was measured now.

    Raises:
        CompareError: a cell was measured by another version or card of its protocol, on another version of the system,
            or in another tier, than in the baseline, or is there twice.
    """
    before, now = _by_place(base, "the baseline"), _by_place(head, "what was measured now")
    models = {place[0] for place in now}
    rows: list[Row | _Test] = []
    for place, cell in now.items():
        if place in before:
            _refuse_unlike(before[place], cell, place)
            rows += _cell_rows(before[place], cell)
        else:
            rows.append(_outcome_row(cell, "new", head=_ending(cell), reason="not in the baseline"))
    for place, cell in before.items():
        if place not in now and place[0] in models and cell.outcome in _MEASURED:
            rows.append(_outcome_row(cell, "missing", base=_ending(cell), reason="not measured now"))
    return Comparison(_decided(rows))


def known_as(cells: Iterable[ScoredCell], name: str) -> tuple[ScoredCell, ...]:
    """The cells of one model under another name, to compare it with the baseline of that.

    Args:
        cells: of one model.
        name: that of the model in the baseline.

    Raises:
        CompareError: the cells are of several models.
    """
    cells = tuple(cells)
    names = {cell.model["name"] for cell in cells}
    if len(names) > 1:
        raise CompareError(
            f"only one model can be taken for {name!r}; there are {len(names)}: {', '.join(sorted(names))}"
        )
    return tuple(
        replace(
            cell,
            model={**cell.model, "name": name},
            scores=tuple(replace(score, model=name) for score in cell.scores),
        )
        for cell in cells
    )


Place = tuple[str, str, str]
"""Model, protocol and system: at most one cell of each."""


@dataclass(frozen=True)
class _Test:
    """A metric that waits for the p-values of all others.

    Attributes:
        row: all that is known of it alone.
        worse: by how much it is worse than tolerated; None where that cannot be told.
        better: by how much it is better than that; likewise.
    """

    row: Row
    worse: _Excess | _Shift | None
    better: _Excess | _Shift | None


def _by_place(cells: Iterable[ScoredCell], what: str) -> dict[Place, ScoredCell]:
    places: dict[Place, ScoredCell] = {}
    for cell in cells:
        place = cell.model["name"], cell.protocol["name"], cell.system
        if place in places:
            raise CompareError(f"{what} has the cell {' / '.join(place)} twice")
        places[place] = cell
    return places


def _refuse_unlike(base: ScoredCell, head: ScoredCell, place: Place) -> None:
    """Numbers of two versions, cards or tiers are answers to different questions."""
    where = " / ".join(place)
    versions = [cell.protocol["version"] for cell in (head, base)]
    if versions[0] != versions[1]:
        raise CompareError(
            f"{where}: measured by version {versions[0]} of the protocol, the baseline by version {versions[1]}:"
            " make a new baseline"
        )
    if head.protocol.get("digest", "") != base.protocol.get("digest", ""):
        raise CompareError(
            f"{where}: measured by another card of version {versions[0]} of the protocol than the baseline: the digests"
            " differ"
        )
    on_system = [cell.provenance.get("digests", {}).get("protocol") for cell in (head, base)]
    if None not in on_system and on_system[0] != on_system[1]:
        raise CompareError(
            f"{where}: measured with other settings for this system than the baseline: the digests differ"
        )
    systems = [cell.provenance.get("digests", {}).get("system") for cell in (head, base)]
    if None not in systems and systems[0] != systems[1]:
        raise CompareError(f"{where}: measured on {systems[0]}, the baseline on {systems[1]}: make a new baseline")
    if head.tier != base.tier:
        raise CompareError(f"{where}: measured in tier {head.tier}, the baseline in tier {base.tier}")


def _cell_rows(base: ScoredCell, head: ScoredCell) -> list[Row | _Test]:
    """How a cell ended, then its metrics in the order of the card."""
    rows: list[Row | _Test] = [_ended(base, head)]
    before = {score.metric: score for score in base.scores}
    now = {score.metric: score for score in head.scores}
    alike = on_one_machine([base.provenance, head.provenance])
    for key, metric in head.metrics.items():
        if metric.better is not None and (key in before or key in now):
            rows.append(_compared(metric, before.get(key), now.get(key), head, one_machine=alike))
    return rows


def _ended(base: ScoredCell, head: ScoredCell) -> Row:
    before, now = _SEVERITY[base.outcome], _SEVERITY[head.outcome]
    state: State = "regression" if now > before else "pass"
    if now < before:
        # that it can be measured at all now does not make it good
        state = "improved" if head.outcome is Outcome.COMPLETED else "new"
    reason = ""
    if now != before:
        reason = f"{_words(base.outcome)} before, {_words(head.outcome)} now"
        reason += f": {head.reason}" if head.reason else ""
    elif head.outcome not in _MEASURED:
        state, reason = "not comparable", f"{_words(head.outcome)} before and now"
    return _outcome_row(head, state, base=_ending(base), head=_ending(head), reason=reason)


def _outcome_row(
    cell: ScoredCell, state: State, *, base: Score | None = None, head: Score | None = None, reason: str
) -> Row:
    return Row(
        model=cell.model["name"],
        protocol=cell.protocol["name"],
        system=cell.system,
        metric=OUTCOME,
        label="outcome",
        unit="",
        state=state,
        base=base,
        head=head,
        reason=reason,
    )


def _ending(cell: ScoredCell) -> Score:
    """How a cell ended, as a score without a value."""
    place = cell.model["name"], cell.protocol["name"], cell.system
    return Score(*place, OUTCOME, None, None, None, "", 0, cell.outcome, None, cell.reason)


def _compared(
    metric: Metric, base: Score | None, head: Score | None, cell: ScoredCell, *, one_machine: bool
) -> Row | _Test:
    """One metric: a test where both sides have a width, else what is known without one."""

    def row(state: State, reason: str) -> Row:
        return Row(
            model=cell.model["name"],
            protocol=cell.protocol["name"],
            system=cell.system,
            metric=metric.key,
            label=metric.label,
            unit=metric.unit,
            state=state,
            base=base,
            head=head,
            headline=metric in cell.headlines,
            digits=metric.digits,
            reason=reason,
        )

    if base is None or base.value is None:
        if head is None or head.value is None:
            return row("not comparable", _why_none(head or base))
        return row("new", "no value in the baseline")
    if head is None or head.value is None:
        return row(*_lost(metric, base, head))
    if metric.timed and not one_machine:
        return row("not comparable", "times and memory are compared within one running machine only")
    return _tested(metric, row("pass", _caution(head)), base, head)


def _lost(metric: Metric, base: Score, head: Score | None) -> tuple[State, str]:
    """The state of a metric that had a value before and has none now."""
    if head is None:
        return "missing", "no such score now"
    said = f"no value now: {_why_none(head)}"
    if metric.compares:
        # its other row may just not have been measured, and tells of itself otherwise
        return "missing", said
    stalled = base.outcome is Outcome.COMPLETED and head.outcome is Outcome.NOT_CONVERGED
    worse = stalled or _SEVERITY[head.outcome] > _SEVERITY[base.outcome]
    return ("regression" if worse else "not comparable"), said


def _tested(metric: Metric, row: Row, base: Score, head: Score) -> Row | _Test:
    hits, hits_now = _hits(metric, base), _hits(metric, head)
    # what is left of a side is its better part: only towards the other side is its word sure
    tells_worse = _is_whole(metric, base)
    tells_better = head.outcome is Outcome.COMPLETED
    if not (tells_worse or tells_better):
        return replace(row, state="not comparable", reason=f"of both sides only a part is left: {row.reason}")
    old, new = _turned(metric, base), _turned(metric, head)
    change = new.value - old.value
    share = metric.relative_tolerance * abs(old.value)
    tolerance = max(metric.tolerance, share)
    if old.is_exact and new.is_exact:
        worse, better = tells_worse and change > tolerance, tells_better and change < -tolerance
        state: State = "regression" if worse else "improved" if better else "pass"
        seen = tolerance if tells_worse else math.inf
        return replace(row, state=state, change=change, low=change, high=change, tolerance=tolerance, detectable=seen)
    # it is worse beyond doubt if the old value may be higher, and the new one lower, by their errors
    up, down = (old.above, new.below), (old.below, new.above)
    if not (math.isfinite(sum(up)) or math.isfinite(sum(down))):
        which, score = ("the baseline", base) if min(up[0], down[0]) == math.inf else ("the value now", head)
        return replace(row, state="not comparable", reason=f"{which} {_why_unbounded(score)}")
    counts = base.n, head.n
    row = replace(
        row,
        change=change,
        low=change - _Excess(change, up, counts).beyond(0.5 - 0.5 * LEVEL),
        high=change + _Excess(-change, down, counts).beyond(0.5 - 0.5 * LEVEL),
        tolerance=tolerance,
    )
    if hits is not None and hits_now is not None:
        sides = (hits, hits_now), (base.n - hits, head.n - hits_now)
        good, bad = sides if metric.better == "higher" else sides[::-1]
        worse_by, better_by = (_Shift(each, counts, tolerance / PERCENT) for each in (bad, good))
        return _Test(row, worse_by if tells_worse else None, better_by if tells_better else None)
    # where the tolerance is a share of the old value, its error is in both
    lean = math.copysign(metric.relative_tolerance, old.value) if share > metric.tolerance else 0.0
    above = _Excess(change - tolerance, ((1.0 + lean) * up[0], up[1]), counts)
    below = _Excess(-change - tolerance, ((1.0 - lean) * down[0], down[1]), counts)
    return _Test(row, above if tells_worse else None, below if tells_better else None)


def _is_whole(metric: Metric, score: Score) -> bool:
    """Whether a value is of everything that was tried, not of what is left."""
    if score.outcome is Outcome.COMPLETED or _hits(metric, score) is not None:
        return True
    # what did not converge is in a bound
    return metric.bound and score.outcome is Outcome.NOT_CONVERGED


def _hits(metric: Metric, score: Score) -> int | None:
    """Trials that hit, of a fraction of independent trials in percent with its exact interval; None for all others."""
    if (metric.unit, metric.least, metric.most) != ("%", 0.0, PERCENT) or score.value is None or score.n < 1:
        return None
    hits = round(score.value / PERCENT * score.n)
    if not 0 <= hits <= score.n:
        return None
    expected = fraction_interval(hits, score.n).scaled(PERCENT)
    ends = (score.value, expected.value), (score.low, expected.low), (score.high, expected.high)
    alike = all(found is not None and math.isclose(found, each, abs_tol=1e-4) for found, each in ends)
    return hits if alike else None


def _why_unbounded(score: Score) -> str:
    if score.n < 2:
        return "rests on one sample"
    if score.low == score.high:
        return "is one of the few that were tried: nothing says how far chance moves it"
    return "has no interval: nothing bounds it"


@dataclass(frozen=True)
class _Turned:
    """A value turned so that lower is better, and its standard errors.

    Attributes:
        value: the value.
        below: standard error below it; infinite where nothing bounds it there.
        above: likewise, above it.
    """

    value: float
    below: float
    above: float

    @property
    def is_exact(self) -> bool:
        """Whether it has no error."""
        return self.below == self.above == 0.0


def _turned(metric: Metric, score: Score) -> _Turned:
    """A value and its errors, from the two sides of its interval.

    A side that ends where the quantity must, at zero or at 100 %, or that has no length beside one that has, is short
    for no lack of scatter: the longer side counts for both. What is bracketed by a few that were tried, with no length
    at all, has no error that is known.
    """
    value, low, high = (float(each) for each in (score.value, score.low, score.high) if each is not None)
    sides = value - low, high - value
    longest = max((side for side in sides if math.isfinite(side)), default=math.inf)
    bracketed = metric.bound and sides == (0.0, 0.0)
    if bracketed or (longest > 0.0 and score.n < 2):
        below = above = math.inf
    else:
        scale = 1.0 if longest == 0.0 else float(stdtrit(score.n - 1, 0.5 + 0.5 * LEVEL))
        at_end = metric.least is not None and low <= metric.least, metric.most is not None and high >= metric.most
        below, above = (
            (longest if ends or side == 0.0 else side) / scale if math.isfinite(side) else math.inf
            for side, ends in zip(sides, at_end, strict=True)
        )
    if metric.better == "higher":
        return _Turned(-value, above, below)
    if metric.better == "zero" and value < 0.0:
        return _Turned(-value, above, below)
    return _Turned(value, below, above)


@dataclass(frozen=True)
class _Excess:
    """By how much a change is above a tolerance.

    Attributes:
        value: that much.
        errors: standard errors of the old and of the new value that are in it.
        counts: independent samples behind them.
    """

    value: float
    errors: tuple[float, float]
    counts: tuple[int, int]

    @property
    def error(self) -> float:
        """Standard error; infinite where nothing bounds it."""
        return math.hypot(*self.errors)

    @property
    def p_value(self) -> float:
        """Probability of an excess so large by chance."""
        if self.error in (0.0, math.inf):
            return 0.0 if self.error == 0.0 and self.value > 0.0 else 1.0
        return float(stdtr(_freedom(self.errors, self.counts), -self.value / self.error))

    def beyond(self, rate: float) -> float:
        """What chance puts a value of no excess above as rarely as this."""
        if self.error in (0.0, math.inf):
            return self.error
        return -float(stdtrit(_freedom(self.errors, self.counts), rate)) * self.error


@dataclass(frozen=True)
class _Shift:
    """By how much a fraction of independent trials is above another, by the exact test of Fisher.

    Attributes:
        hits: trials that hit, before and now.
        counts: trials, before and now.
        tolerance: the difference of the fractions that does not count: up to it, nothing is found.
    """

    hits: tuple[int, int]
    counts: tuple[int, int]
    tolerance: float

    @property
    def p_value(self) -> float:
        """Probability of as many hits now, or more, by chance, given those of both sides together."""
        from scipy.stats import fisher_exact

        (before, now), (n_before, n_now) = self.hits, self.counts
        if now / n_now - before / n_before <= self.tolerance:
            return 1.0
        table = [[now, n_now - now], [before, n_before - before]]
        return float(fisher_exact(table, alternative="greater").pvalue)

    def beyond(self, rate: float) -> float:
        """The least difference, in percent above the tolerance, that is as rare as this; infinite if there is none."""
        (before, _), (n_before, n_now) = self.hits, self.counts
        # the more hits now, the rarer
        now = bisect_left(range(n_now + 1), True, key=lambda hits: replace(self, hits=(before, hits)).p_value <= rate)
        return math.inf if now > n_now else PERCENT * (now / n_now - before / n_before - self.tolerance)


def _freedom(errors: Sequence[float], counts: Sequence[int]) -> float:
    """Degrees of freedom of the difference of two means (Welch and Satterthwaite)."""
    squares = [error**2 for error in errors]
    return sum(squares) ** 2 / sum(
        square**2 / (n - 1) for square, n in zip(squares, counts, strict=True) if square > 0.0
    )


def _decided(rows: Sequence[Row | _Test]) -> tuple[Row, ...]:
    """The rows, with the tests decided together."""
    tests = [each for each in rows if isinstance(each, _Test)]
    worse = _adjusted([test.worse for test in tests])
    better = _adjusted([test.better for test in tests])
    among = sum(test.worse is not None for test in tests)
    adjusted = iter(zip(worse, better, strict=True))
    decided = []
    for each in rows:
        if isinstance(each, Row):
            decided.append(each)
            continue
        p_worse, p_better = next(adjusted)
        state: State = "regression" if p_worse <= FAMILY_RATE else "improved" if p_better <= FAMILY_RATE else "pass"
        # Holm's first step: what one regression among unchanged metrics must exceed
        least = math.inf if each.worse is None else each.worse.beyond(FAMILY_RATE / among)
        decided.append(
            replace(
                each.row,
                state=state,
                p_value=p_better if state == "improved" else p_worse,
                detectable=(each.row.tolerance or 0.0) + least,
            )
        )
    return tuple(decided)


def _adjusted(excesses: Sequence[_Excess | _Shift | None]) -> list[float]:
    """Adjusted p-values, 1 where there is no test."""
    found = iter(holm([each.p_value for each in excesses if each is not None]))
    return [1.0 if each is None else next(found) for each in excesses]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: a family whose smallest ones are taken below a rate has an error no more often than that.

    Args:
        p_values: of the tests of a family, whatever their dependence.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _why_none(score: Score | None) -> str:
    if score is None:
        return "no such score"
    return score.reason or _words(score.outcome)


def _caution(head: Score) -> str:
    """What a reader must know of a value that is compared."""
    return (
        ""
        if head.outcome is Outcome.COMPLETED
        else f"{_words(head.outcome)}{f': {head.reason}' if head.reason else ''}"
    )


def _words(outcome: Outcome) -> str:
    return str(outcome).replace("_", " ")
