"""Whether models that fit better simulate better: errors on labels against errors of properties, over a ladder.

Spearman's and Kendall's rank correlation (tau-b, which counts ties) and Pearson's, for conservative and for direct
forces apart. An interval takes the models as drawn from more of their kind: a bootstrap gives the standard error of
Fisher's transform of the coefficient, which is not taken below that of normal theory (Fisher, Metron 1, 3, 1921; of
ranks: Bonett and Wright, Psychometrika 65, 23, 2000), for a ladder in perfect order has no spread of its own; Student's
t makes the ends. Noise of what was measured takes a correlation towards zero: the ends are taken out again, over the
root of the share of the spread that is not noise (Spearman, Am. J. Psychol. 15, 72, 1904). Errors on labels are of the
same frames for all models, which share their noise: it has no part. A model whose value is less sure than the values of
all are apart has no place among them, and is left out. For 5 to 12 models and normal errors whose correlation is 0 to
0.95, with noise up to the size of the spread, simulated intervals of Spearman's and Pearson's cover it in 97 to 100 %:
they are rather too wide than too narrow. Of ten models whose correlation is 0.99, Kendall's cover it in 88 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from scipy.stats import rankdata

from conservbench.leaderboard.chemistry import by_chemistry
from conservbench.leaderboard.machine import on_one_machine
from conservbench.leaderboard.ranking import NO_VALUE
from conservbench.leaderboard.sheet import comparable, plain
from conservbench.outcome import Outcome
from conservbench.statistics import LEVEL, Interval

if TYPE_CHECKING:
    from conservbench.cards import Metric
    from conservbench.scored import Score, ScoredCell

PLUGIN: Final = "complexity"
"""The plugin of the protocols whose cells are correlated."""

FITS: Final = ("force_error", "energy_error")
"""Its metrics that say how well a model fits."""

COST: Final = "step_time"
"""Its metric of the cost."""

LEAST: Final = 4
"""Models that a correlation takes at least: Fisher's transform has a standard error from then on."""

DRAWS: Final = 2000
"""Of the bootstrap."""

WORDS: Final = (
    "Correlation of errors on labels with errors of properties, and with the cost, over four models or more that have "
    "both, classical potentials among them. 1: a better fit is always a better property; 0: it says nothing; an "
    "interval that holds 0 leaves it open. A model that exploded or failed has no value, and is counted as lost; one "
    "whose value is less sure than the values of all are apart is left out as too noisy. Lattice and elastic constants "
    "of models with direct forces are those of the energy beside them."
)
"""What a table of coefficients says, for people."""

Forces = Literal["conservative", "direct"]

Values = NDArray[np.float64]

Coefficient = Callable[[Values, Values], Values]
"""Correlation of x and y (..., n) along the last axis, NaN where one of them never varies."""


@dataclass(frozen=True)
class Point:
    """One model.

    Attributes:
        model: its name.
        forces: which it is run by.
        control: whether its answer was known beforehand, as that of a classical potential.
        fit: its error on labels.
        measured: its error of the property, or its cost.
        near_zero: whether the size of that is what counts.
    """

    model: str
    forces: Forces
    control: bool
    fit: Interval
    measured: Interval
    near_zero: bool = False

    @property
    def other(self) -> Interval:
        """What is measured, as its size where near zero is better."""
        return self.measured.size if self.near_zero else self.measured


@dataclass(frozen=True)
class Correlation:
    """What the errors on labels of models of one kind say of a property.

    Attributes:
        forces: by which they are run.
        points: the models.
        lost: models without a value of the property, as it exploded or failed.
        vague: models of the points that are left out, see :func:`placed`.
        spearman: None for fewer than :data:`LEAST` models, or values that do not vary.
        kendall: likewise, and for one model more: its transform has no standard error of four.
        pearson: as Spearman's.
    """

    forces: Forces
    points: tuple[Point, ...]
    lost: tuple[str, ...]
    vague: tuple[str, ...]
    spearman: Interval | None
    kendall: Interval | None
    pearson: Interval | None

    @property
    def coefficients(self) -> tuple[Interval | None, ...]:
        """Spearman's, Kendall's and Pearson's."""
        return self.spearman, self.kendall, self.pearson

    @property
    def left_out(self) -> dict[str, tuple[str, ...]]:
        """Why to the models that no coefficient is of, where there are any."""
        return {why: models for why, models in (("lost", self.lost), ("too noisy", self.vague)) if models}

    @property
    def tells(self) -> bool:
        """Whether there is something to say: a coefficient, or models that were lost."""
        return self.spearman is not None or bool(self.lost)

    @property
    def count(self) -> str:
        """How many models it is of, such as ``7 (1 lost, 1 too noisy)``."""
        others = [f"{len(models)} {why}" for why, models in self.left_out.items()]
        n = str(len(self.points) - len(self.vague))
        return f"{n} ({', '.join(others)})" if others else n


@dataclass(frozen=True)
class Ladder:
    """One error on labels against one property, or the cost.

    Attributes:
        title: of the protocol.
        version: of its card.
        tier: which settings.
        elements: of the systems, where there are several chemistries; empty otherwise.
        fit: the metric of the error on labels.
        other: the other metric.
        system: what the other one was measured on.
        kinds: conservative, then direct, those that there are.
    """

    title: str
    version: int
    tier: str
    elements: str
    fit: Metric
    other: Metric
    system: str
    kinds: tuple[Correlation, ...]

    @property
    def of(self) -> str:
        """The other metric and where it was measured, in words."""
        return ", ".join(filter(None, (plain(self.other.label), self.system, self.elements)))


def is_rung(cell: ScoredCell) -> bool:
    """Whether a cell is of a protocol that makes ladders, whatever its card is called."""
    return bool(cell.protocol.get("plugin", cell.protocol["name"]) == PLUGIN)


def ladders(cells: Iterable[ScoredCell]) -> tuple[Ladder, ...]:
    """Every error on labels against every property that two models or more have a value of.

    Args:
        cells: of any models, protocols and tiers; what is not comparable does not share a ladder.

    Returns:
        Those against properties, which are the headline metrics that say which values are better, then against the
        cost, where one running machine took the times.
    """
    found = []
    for group in comparable(cell for cell in cells if is_rung(cell)):
        for elements, own in by_chemistry(group).items():
            found += _ladders(own, elements)
    return tuple(found)


def _ladders(cells: Sequence[ScoredCell], elements: str) -> list[Ladder]:
    metrics = cells[-1].metrics
    fits = [metrics[key] for key in FITS if key in metrics]
    others = [each for each in cells[-1].headlines if each.better and each.key not in FITS and each.key != COST]
    others += [metrics[COST]] if COST in metrics else []
    card = cells[-1].protocol
    found = []
    systems = tuple(dict.fromkeys(cell.system for cell in cells))
    for fit in fits:
        for system in systems:
            errors = _errors(cells, fit, system)
            for other in others:
                here = [cell for cell in cells if cell.system == system and _model(cell) in errors]
                if other.timed and not on_one_machine(here):
                    continue
                kinds = tuple(
                    each for forces in ("conservative", "direct") if (each := _kind(here, forces, errors, other))
                )
                if sum(len(kind.points) + len(kind.lost) for kind in kinds) > 1:
                    title = str(card.get("title") or card["name"])
                    found.append(Ladder(title, card["version"], cells[-1].tier, elements, fit, other, system, kinds))
    return found


def _errors(cells: Sequence[ScoredCell], fit: Metric, system: str) -> dict[tuple[str, str], Score]:
    """Errors on labels that go with properties of a system: those taken on it, or on the one that has any.

    Nothing where labels were compared on several systems, of which this is none: whose are meant is not known.
    """
    of: dict[str, dict[tuple[str, str], Score]] = {}
    for cell in cells:
        if (score := _score(cell, fit)) is not None:
            of.setdefault(cell.system, {})[_model(cell)] = score
    return of.get(system) or (next(iter(of.values())) if len(of) == 1 else {})


def _model(cell: ScoredCell) -> tuple[str, str]:
    """A model as it was when it was measured: errors of one version say nothing of the properties of another."""
    return str(cell.model["name"]), str(cell.model.get("digest", cell.model["version"]))


def _kind(
    cells: Sequence[ScoredCell], forces: str, errors: dict[tuple[str, str], Score], other: Metric
) -> Correlation | None:
    kind: Forces = "direct" if forces == "direct" else "conservative"
    points, lost = [], []
    for cell in cells:
        if (cell.model["scheme"] == "direct") != (kind == "direct"):
            continue
        name, score = str(cell.model["name"]), _score(cell, other)
        if score is None:
            missed = next((each for each in cell.scores if each.metric == other.key), None)
            ending = cell.outcome if missed is None else missed.outcome
            lost += [name] if ending in NO_VALUE else []
            continue
        fit = _interval(errors[_model(cell)])
        points.append(Point(name, kind, cell.is_control, fit, _interval(score), other.better == "zero"))
    if not points and not lost:
        return None
    # models are drawn by their place: the interval must not depend on who lists the cells, and how
    points.sort(key=lambda point: (point.control, point.model))
    if len(points) < LEAST:
        return Correlation(kind, tuple(points), tuple(lost), (), None, None, None)
    kept = placed(points)
    vague = tuple(each.model for each in points if each not in kept)
    return Correlation(kind, tuple(points), tuple(lost), vague, *_three(kept))


def placed(points: Sequence[Point]) -> Sequence[Point]:
    """The models whose noise is below the standard deviation of the values of all of them, the noisiest left out first.

    All models where fewer than :data:`LEAST` have: then noise leaves nothing to be said, which the interval tells.
    """
    kept = list(points)
    while True:
        noise = _spread([each.measured for each in kept])
        worst = int(np.argmax(noise))
        if noise[worst] <= np.std([each.other.value for each in kept], ddof=1):
            return kept
        if len(kept) == LEAST:
            return points
        kept.pop(worst)


def _three(points: Sequence[Point]) -> tuple[Interval | None, Interval | None, Interval | None]:
    rng = np.random.default_rng(0)
    n = len(points)
    # half of what an exchange of neighbours takes from a perfect order
    of_ranks, of_pairs = 6.0 / (n * (n * n - 1)), 2.0 / (n * (n - 1))
    return (
        correlation_interval(spearman, points, lambda r: math.sqrt((1.0 + 0.5 * r * r) / (n - 3)), of_ranks, rng),
        correlation_interval(kendall, points, lambda _: math.sqrt(0.437 / (n - 4)), of_pairs, rng)
        if n > LEAST
        else None,
        correlation_interval(pearson, points, lambda _: math.sqrt(1.0 / (n - 3)), of_ranks, rng),
    )


def correlation_interval(
    coefficient: Coefficient,
    points: Sequence[Point],
    normal: Callable[[float], float],
    quantum: float,
    rng: np.random.Generator,
) -> Interval | None:
    """A correlation with its interval; see the module.

    Args:
        coefficient: what to compute.
        points: the models, :data:`LEAST` or more.
        normal: standard error of Fisher's transform by normal theory, of the coefficient.
        quantum: a coefficient that is perfect is taken to be as good as one that lacks this much.
        rng: of the bootstrap.

    Returns:
        None where one of the two never varies.
    """
    n = len(points)
    near_zero = points[0].near_zero
    sides = [each.fit for each in points], [each.measured for each in points]

    def of(x: Values, y: Values) -> Values:
        # the noise is that of what was measured, before its size is taken
        return coefficient(x, np.abs(y) if near_zero else y)

    values = [np.array([each.value for each in side]) for side in sides]
    value = float(of(*values))
    if not math.isfinite(value):
        return None
    drawn = rng.integers(0, n, (DRAWS, n))
    found = of(
        *(
            (mean + _spread(side) * rng.standard_normal((DRAWS, n)))[np.arange(DRAWS)[:, None], drawn]
            for mean, side in zip(values, sides, strict=True)
        )
    )
    most = 1.0 - quantum
    turned = np.arctanh(np.clip(found[np.isfinite(found)], -most, most))
    error = max(float(turned.std()) if len(turned) else 0.0, normal(value))
    centre = math.atanh(min(max(value, -most), most))
    half = float(stdtrit(n - 2, 0.5 + 0.5 * LEVEL)) * error
    low, high = min(math.tanh(centre - half), value), max(math.tanh(centre + half), value)
    share = reliability(points)
    if share == 0.0:
        return Interval(value, -1.0, 1.0, n)
    # noise cannot have taken an end away from zero
    return Interval(value, max(min(low, low / share**0.5), -1.0), min(max(high, high / share**0.5), 1.0), n)


def reliability(points: Sequence[Point]) -> float:
    """Share of the variance of what was measured, over the models, that is not noise: 0 to 1.

    The noise of a value without bounds is taken to be that of the noisiest with bounds; without any of those, all is.
    """
    values, noise = np.array([each.other.value for each in points]), _spread([each.measured for each in points])
    if not np.isfinite(noise).any():
        return 0.0
    noise = np.where(np.isfinite(noise), noise, np.nanmax(noise[np.isfinite(noise)]))
    return max(1.0 - float((noise**2).mean() / values.var(ddof=1)), 0.0)


def pearson(x: Values, y: Values) -> Values:
    """Pearson's correlation along the last axis."""
    across, up = (each - each.mean(-1, keepdims=True) for each in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((across * up).sum(-1) / np.sqrt((across**2).sum(-1) * (up**2).sum(-1)))


def spearman(x: Values, y: Values) -> Values:
    """Spearman's correlation along the last axis: Pearson's of the ranks, equal values sharing one."""
    return pearson(rankdata(x, axis=-1), rankdata(y, axis=-1))


def kendall(x: Values, y: Values) -> Values:
    """Kendall's tau-b along the last axis."""
    signs = [np.sign(each[..., :, None] - each[..., None, :]) for each in (x, y)]
    with np.errstate(invalid="ignore", divide="ignore"):
        sizes = np.prod([(sign**2).sum((-1, -2)) for sign in signs], axis=0)
        return np.asarray((signs[0] * signs[1]).sum((-1, -2)) / np.sqrt(sizes))


def _spread(intervals: Sequence[Interval]) -> Values:
    """Standard deviation of each, as its interval has it; infinite where it has no bounds."""
    halves = np.array([0.5 * (each.high - each.low) for each in intervals])
    return np.asarray(halves / stdtrit([max(each.n - 1, 1) for each in intervals], 0.5 + 0.5 * LEVEL))


def _score(cell: ScoredCell, metric: Metric) -> Score | None:
    """The score of a metric if it has a value that can be compared."""
    score = next((each for each in cell.scores if each.metric == metric.key), None)
    if score is None or score.value is None or score.outcome in NO_VALUE or score.outcome is Outcome.UNSUPPORTED:
        return None
    return score


def _interval(score: Score) -> Interval:
    value, low, high = score.value, score.low, score.high
    if value is None:
        raise AssertionError("only scores with a value are asked for")
    return Interval(value, -math.inf if low is None else low, math.inf if high is None else high, score.n)
