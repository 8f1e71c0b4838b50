"""What a model is fit for, in a sentence: from the gates of the protocols it was measured by, none of them named here.

A protocol is passed if no gate that its card puts into tables failed, and failed if one did, or if one was asked for
and has no value. A model that failed more than half of the protocols with such gates is not usable; one that failed
some, or whose gates stayed unclear, or whose cells ended badly, is usable with care, and so is one that was not
measured, or cannot be, on all that the protocols ask of it by default; one that passed all is usable.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from conservbench.leaderboard.number import spelled
from conservbench.leaderboard.sheet import plain
from conservbench.outcome import Outcome

if TYPE_CHECKING:
    from conservbench.cards import Metric
    from conservbench.leaderboard.coverage import Coverage
    from conservbench.scored import Score, ScoredCell

Level = Literal["usable", "usable with care", "not usable", "not measured", "no verdict"]


@dataclass(frozen=True)
class Verdict:
    """What the gates say of one model.

    Attributes:
        model: its name.
        level: see the module.
        sentence: the whole of it in one plain sentence, with the name.
        because: the same without name and level.
        reasons: all that was held against the model, the gravest first.
    """

    model: str
    level: Level
    sentence: str
    because: str
    reasons: tuple[str, ...]


def verdict(cells: Iterable[ScoredCell], covered: Coverage | None = None) -> Verdict:
    """The verdict on a model.

    Args:
        cells: of one model, of any protocols.
        covered: how much of what is asked of the model they are; None for all of it.

    Raises:
        ValueError: there is none, or they are of several models.
    """
    own = list(cells)
    names = {str(cell.model["name"]) for cell in own}
    if len(names) != 1:
        raise ValueError(f"a verdict is on one model; got cells of {len(names)}")
    (name,) = names
    every = [_Judged(cell, score, cell.metrics[score.metric]) for cell in own for score in cell.scores
             if score.metric in cell.metrics]  # fmt: skip
    gated = [each for each in every if each.score.gate]
    shown = [each for each in gated if each.is_headline]
    silent = [each for each in every if each.is_headline and each.has_no_answer]
    others = [each for each in gated if not each.is_headline and each.score.gate == "fail"]
    protocols = {each.protocol for each in (*shown, *silent)}
    failed = sorted((each for each in shown if each.score.gate == "fail"), key=_gravity, reverse=True)
    unclear = [each for each in shown if each.score.gate == "unclear"]
    broken = _broken(own)
    gaps = [*_gaps(covered), *_idle(own, protocols)]
    # a number says more than that there is none
    worst = list({each.protocol: each for each in reversed([*failed, *silent])}.values())[::-1]
    reasons = (
        *(f"failed: {each.text}" for each in failed),
        *(f"failed: {each.text}" for each in sorted(others, key=_gravity, reverse=True)),
        *(f"no value: {each.text}" for each in silent),
        *broken,
        *(f"not resolved: {each.text}" for each in unclear),
        *gaps,
    )
    level: Level
    if not shown and not silent and not any(metric.gated for cell in own for metric in cell.headlines):
        level = "no verdict"
        because = "; ".join(["no table that it is in has a gate", *(each.text for each in others[:2]), *broken[:2]])
    elif not shown:
        level, because = "not measured", "; ".join(broken) or "no gate has a value"
    elif 2 * len(worst) > len(protocols):
        level = "not usable"
        because = f"{_failures(worst, protocols)}: {'; '.join(each.text for each in worst)}"
    elif reasons:
        level, because = "usable with care", _care(worst, others, broken, unclear)
    else:
        level, because = "usable", f"it passes the gates of {_protocols(len(protocols))}"
    because = "; ".join([*([because] if because else []), *gaps])
    sentence = f"{plain(name)} {'has' if level == 'no verdict' else 'is'} {level}: {because}."
    return Verdict(plain(name), level, sentence, because, reasons)


def _gaps(covered: Coverage | None) -> list[str]:
    """Cells that were asked for by default and say nothing."""
    if covered is None:
        return []
    kinds = (("not measured", covered.missing), ("not supported", covered.unsupported))
    return [plain(f"{kind}: {', '.join(places)}") for kind, places in kinds if places]


def _idle(cells: Sequence[ScoredCell], judged: Collection[str]) -> list[str]:
    """Protocols that ask by default, and have gates of which the model was measured by none."""
    asking = [cell for cell in cells if cell.protocol.get("by_default", True)]
    gated = {
        str(cell.protocol["name"])
        for cell in asking
        if cell.outcome is not Outcome.UNSUPPORTED and any(metric.gated for metric in cell.headlines)
    }
    return [plain(f"no gate of {name} has a value") for name in sorted(gated - set(judged))]


@dataclass(frozen=True)
class _Judged:
    """A score with a gate, its cell and its metric."""

    cell: ScoredCell
    score: Score
    metric: Metric

    @property
    def protocol(self) -> str:
        return str(self.cell.protocol["name"])

    @property
    def is_headline(self) -> bool:
        """Whether tables show the metric."""
        return self.metric in self.cell.headlines

    @property
    def has_no_answer(self) -> bool:
        """Whether the gate was asked about and got no value: for a reason other than that it has no meaning here."""
        return self.metric.gated and not self.score.gate and self.score.outcome is not Outcome.UNSUPPORTED

    @property
    def text(self) -> str:
        """``energy drift 190 ± 30 meV/atom/ps (limit ±0.26) on si-liquid-64``, or how it ended."""
        label, score = plain(self.metric.label), self.score
        if score.value is None or score.low is None or score.high is None:
            ending = "without a value" if score.outcome is Outcome.COMPLETED else score.outcome.replace("_", " ")
            why = f": {score.reason}" if score.reason and not score.gate else ""
            return plain(f"{label} {ending} on {self.cell.system}{why}")
        unit = "" if self.metric.unit == "1" else f" {plain(self.metric.unit)}"
        value = spelled(score.value, score.low, score.high, self.metric.digits)
        return f"{label} {value}{unit} (limit {limit_of(self.metric)}) on {self.cell.system}"


def limit_of(metric: Metric) -> str:
    """The gate of a metric in few signs, such as ``±0.26`` or ``below 1e-06``; empty where it has none."""
    if metric.above is not None and metric.below is not None:
        alike = metric.above == -metric.below
        return f"±{metric.below:g}" if alike else f"{metric.above:g} to {metric.below:g}"
    if metric.below is not None:
        return f"below {metric.below:g}"
    return "" if metric.above is None else f"above {metric.above:g}"


def _gravity(each: _Judged) -> float:
    """How far a value is outside its limit, over the limit; infinite for an explosion."""
    value, metric = each.score.value, each.metric
    if value is None:
        return math.inf
    beyond = [
        (value - metric.below) / max(abs(metric.below), 1e-300) if metric.below is not None else -math.inf,
        (metric.above - value) / max(abs(metric.above), 1e-300) if metric.above is not None else -math.inf,
    ]
    return max(beyond)


def _broken(cells: Sequence[ScoredCell]) -> list[str]:
    """Cells that ended badly, but for what a model cannot be asked and what left its headlines whole."""
    fine = (Outcome.COMPLETED, Outcome.UNSUPPORTED)
    bad = [cell for cell in cells if cell.outcome not in fine and not _headlines_are_whole(cell)]
    return [
        plain(f"{cell.outcome.replace('_', ' ')}: {cell.protocol['name']} on {cell.system}: {cell.reason}").rstrip(": ")
        for cell in bad
    ]


def _headlines_are_whole(cell: ScoredCell) -> bool:
    shown = {metric.key for metric in cell.headlines}
    outcomes = [score.outcome for score in cell.scores if score.metric in shown]
    return bool(outcomes) and all(each in (Outcome.COMPLETED, Outcome.UNSUPPORTED) for each in outcomes)


def _care(
    worst: Sequence[_Judged], others: Sequence[_Judged], broken: Sequence[str], unclear: Sequence[_Judged]
) -> str:
    """What asks for care, in short."""
    parts = [each.text for each in worst] or [each.text for each in others[:2]]
    parts += broken[:2]
    if unclear:
        parts.append(f"not resolved: {_by_system(unclear)}")
    return "; ".join(parts)


def _failures(worst: Sequence[_Judged], protocols: Collection[str]) -> str:
    """``it fails 4 of 5 protocols, all but relax``."""
    rest = sorted(set(protocols) - {each.protocol for each in worst})
    but = f", all but {' and '.join(rest)}" if rest else ""
    return f"it fails {len(worst)} of {len(protocols)} protocols{but}"


def _by_system(unclear: Sequence[_Judged]) -> str:
    """``T error / drift on si-64; drift on si-liquid-64``."""
    systems: dict[str, list[str]] = {}
    for each in unclear:
        systems.setdefault(plain(each.cell.system), []).append(plain(each.metric.label))
    return "; ".join(f"{' / '.join(dict.fromkeys(labels))} on {system}" for system, labels in systems.items())


def _protocols(count: int) -> str:
    return "one protocol" if count == 1 else f"all {count} protocols"
