"""Ranks of models in one metric, as intervals: what the error bars leave open of who is better than whom.

A model is better than another in one system if its score is better by more than the tolerance of the metric, and over
several systems if its rank among the two is lower on average, over the same systems; third models do not enter. The
rank of a model is one more than the number of models that are better, so that equals share one.

Whether that is sure is asked of a bootstrap: each draw takes systems with replacement, and each score from its own
sampling distribution, Student's t scaled to each side of its interval, which is what its replicas say. A model is
surely better if it is in all draws but a share so small that over all comparisons of one model at most 5 % of the
intervals miss its rank. That holds also where many models are nearly equal, for which quantiles of the drawn ranks
would be too narrow (Hall and Miller, Ann. Statist. 37, 3929, 2009; pairwise tests instead: Mogstad et al., Rev. Econ.
Stud. 91, 476, 2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from conservbench.leaderboard.machine import TIMED, on_one_machine
from conservbench.leaderboard.sheet import comparable
from conservbench.outcome import Outcome
from conservbench.statistics import LEVEL

if TYPE_CHECKING:
    from conservbench.cards import Metric
    from conservbench.scored import Score, ScoredCell

DRAWS: Final = 10_000
"""Of the bootstrap."""

NO_VALUE: Final = frozenset({Outcome.EXPLODED, Outcome.FAILED, Outcome.OUT_OF_MEMORY})
"""Endings of a measurement whose values, such as those of the survivors of an explosion, are not compared."""


@dataclass(frozen=True)
class Rank:
    """Place of a model, 1 the best.

    Attributes:
        model: its name.
        best: the most likely rank, from the values alone; models within the tolerance share one.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
    """

    model: str
    best: int
    low: int
    high: int

    @property
    def text(self) -> str:
        """The interval, such as ``2–4``, or the rank where it is known."""
        return f"{self.low}" if self.low == self.high else f"{self.low}–{self.high}"


def ranks(cells: Iterable[ScoredCell], metric: str) -> tuple[Rank, ...]:
    """Ranks of the models, not of controls, in one metric.

    Systems are those that the protocol's card lists and for which any model has something to say. A model that failed
    or exploded there, or was not measured, is behind all that have a value, never left out; one for which the metric
    has no meaning, such as a comparison with itself, or that was measured on other systems alone, is not ranked.

    Args:
        cells: of one protocol, version, card and tier; of any number of systems.
        metric: key in the card.

    Returns:
        The ranked models, best first; none where the card does not say which values are better, fewer than two models
        have anything to say, or it rests on times that were not taken on one running machine.

    Raises:
        ValueError: the cells are of different protocols, versions, cards, tiers or, if they are times, machines; or
            two are of one model and system.
    """
    ranked = [cell for cell in cells if not cell.is_control]
    groups = len(comparable(ranked))
    if groups > 1:
        raise ValueError(f"ranks of {metric}: cells of {groups} protocols, versions, tiers or machines; expected one")
    declared = next((cell.metrics[metric] for cell in ranked if metric in cell.metrics), None)
    if declared is None or declared.better is None:
        return ()
    timed = declared.timed or ranked[0].protocol["name"] == TIMED
    if timed and not on_one_machine(ranked):
        return ()
    found = _scores(ranked, metric)
    systems = _systems(ranked, found)
    models = sorted({model for model, system in found if system in systems} | _absent(ranked, systems))
    if len(models) < 2:
        return ()
    return _ranked(models, [[found.get((model, system)) for system in systems] for model in models], declared)


def rankable(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    """The metrics that say which values are better."""
    return tuple(metric for metric in metrics if metric.better is not None)


def _scores(cells: Iterable[ScoredCell], metric: str) -> dict[tuple[str, str], Score | None]:
    """Model and system to its score; None where the cell gave none; no key where the metric has no meaning."""
    found: dict[tuple[str, str], Score | None] = {}
    seen: set[tuple[str, str]] = set()
    for cell in cells:
        key = (str(cell.model["name"]), cell.system)
        if key in seen:
            raise ValueError(f"ranks of {metric}: two cells of {key[0]} on {key[1]}")
        seen.add(key)
        score = next((score for score in cell.scores if score.metric == metric), None)
        asked = cell.outcome is Outcome.UNSUPPORTED or (score is not None and score.outcome is not Outcome.UNSUPPORTED)
        if asked or cell.outcome in NO_VALUE:
            found[key] = score
    return found


def _systems(cells: Sequence[ScoredCell], found: Mapping[tuple[str, str], Score | None]) -> list[str]:
    """The systems of the protocol, all there are if its card names none, on which any model has a value."""
    keys = ("systems", "more_systems")
    listed = {system for cell in cells for key in keys for system in cell.protocol.get(key, ())}
    valued = {system for (_, system), score in found.items() if _has_value(score)}
    return sorted(valued & listed if listed else valued)


def _absent(cells: Sequence[ScoredCell], systems: Sequence[str]) -> set[str]:
    """Models of the protocol that lack a cell of one of the systems, though their cards do not say that they must."""
    measured: dict[str, set[str]] = {}
    for cell in cells:
        if not cell.model.get("systems"):
            measured.setdefault(str(cell.model["name"]), set()).add(cell.system)
    # one that was measured on some of the systems is ranked or not by what it has there
    return {model for model, own in measured.items() if systems and own.isdisjoint(systems)}


def _has_value(score: Score | None) -> bool:
    return score is not None and score.value is not None and score.outcome not in NO_VALUE


def _ranked(models: Sequence[str], scores: Sequence[Sequence[Score | None]], metric: Metric) -> tuple[Rank, ...]:
    """Ranks from scores by model and system."""
    values = np.array([[_value(score) for score in row] for row in scores])
    tolerance = _tolerances(values, metric)
    costs = _cost(values, metric)
    with np.errstate(invalid="ignore"):
        systems_ahead = (costs[None, :] - costs[:, None] > tolerance).mean(-1)
    ahead = systems_ahead > systems_ahead.T
    rng = np.random.default_rng(0)
    draws = np.stack([np.stack([_drawn(score, rng) for score in row], -1) for row in scores], 1)
    least, most = _cost_at_least(draws, values, metric), _cost(draws, metric)
    n_models, n_systems = values.shape
    # how often a system is among those of a draw
    weights = rng.multinomial(n_systems, np.full(n_systems, 1.0 / n_systems), size=DRAWS) / n_systems
    doubt = np.full((n_models, n_models), math.inf)
    for one, other in np.argwhere(ahead):
        # two infinite costs are equal
        with np.errstate(invalid="ignore"):
            gained = least[:, other] - most[:, one] > tolerance[one, other]
            lost = least[:, one] - most[:, other] > tolerance[one, other]
        better = ((gained.astype(float) - lost) * weights).sum(-1) > 0.0
        doubt[one, other] = 2.0 * (1.0 - better.mean())
    found = [
        Rank(
            model=model,
            best=1 + int(ahead[:, place].sum()),
            low=1 + _rejected(doubt[:, place], doubt[place]),
            high=n_models - _rejected(doubt[place], doubt[:, place]),
        )
        for place, model in enumerate(models)
    ]
    return tuple(sorted(found, key=lambda rank: (rank.best, rank.low, rank.high, rank.model)))


def _rejected(doubts: NDArray[np.float64], opposite: NDArray[np.float64]) -> int:
    """How many comparisons of one model come out this way at a family-wise rate (Holm, Scand. J. Stat. 6, 65, 1979).

    Args:
        doubts: (models,) two-sided p-value of the comparison with each model, infinite where it came out otherwise.
        opposite: (models,) likewise of those that came out the other way: they are of the same family.
    """
    every = np.sort(np.minimum(doubts, opposite))[: len(doubts) - 1]
    limits = (1.0 - LEVEL) / np.arange(len(every), 0, -1)
    kept = int(np.argmin(np.append(every <= limits, False)))
    return int((doubts <= every[kept - 1]).sum()) if kept else 0


def _tolerances(values: NDArray[np.float64], metric: Metric) -> NDArray[np.float64]:
    """(models, models, systems): a difference that nobody minds, by the larger value of the two."""
    size = np.where(np.isfinite(values), np.abs(values), 0.0)
    return np.maximum(metric.tolerance, metric.relative_tolerance * np.maximum(size[None, :], size[:, None]))


def _value(score: Score | None) -> float:
    """The value; NaN where there is none."""
    return float(score.value) if score is not None and score.value is not None and _has_value(score) else math.nan


def _cost(values: NDArray[np.float64], metric: Metric) -> NDArray[np.float64]:
    """What is to be small; infinite where there is no value."""
    costs = {"lower": values, "higher": -values, "zero": np.abs(values)}[str(metric.better)]
    return np.where(np.isnan(values), math.inf, costs)


def _cost_at_least(draws: NDArray[np.float64], values: NDArray[np.float64], metric: Metric) -> NDArray[np.float64]:
    """The same, for lower bounds: the size of a draw on the other side of zero is none.

    Else a wide interval about zero would be surely further from it than a narrow one.
    """
    if metric.better != "zero":
        return _cost(draws, metric)
    return np.where(np.isnan(draws), math.inf, np.maximum(draws * np.where(values < 0, -1.0, 1.0), 0.0))


def _drawn(score: Score | None, rng: np.random.Generator) -> NDArray[np.float64]:
    """(draws,) from the sampling distribution of a score."""
    value = _value(score)
    if score is None or math.isnan(value) or score.low is None or score.high is None:
        return np.full(DRAWS, math.nan)
    freedom = score.n - 1 if score.n > 1 else math.inf
    normal = not math.isfinite(freedom)
    t = rng.standard_normal(DRAWS) if normal else rng.standard_t(freedom, DRAWS)
    t /= float(stdtrit(1e9 if normal else freedom, 0.5 + 0.5 * LEVEL))
    with np.errstate(invalid="ignore"):
        return np.where(t > 0, value + (score.high - value) * t, value + (value - score.low) * t)
