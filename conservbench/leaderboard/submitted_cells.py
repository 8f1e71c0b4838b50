"""Scores that a stranger submits: what no measurement by the cards could have given is found. No torch.

Nobody can see from a number whether it was measured. What is found here is what cannot have been: a value that the card
rules out, an interval without width or of too many samples, an ending that contradicts its scores, random numbers of
one's own choice, and what is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from conservbench import plugins
from conservbench.cards import Metric, ModelCard, ProtocolCard, build
from conservbench.leaderboard.coverage import asked
from conservbench.outcome import Outcome
from conservbench.plot import MOST_POINTS
from conservbench.scored import Score, ScoredCell

MOST_PLOTS: Final = 12
"""Pictures of a cell."""

MOST_LINES: Final = 24
"""Lines of a picture."""

LONGEST_REASON: Final = 2000
"""Characters of a reason."""

_EMPTY: Final = (Outcome.UNSUPPORTED, Outcome.FAILED, Outcome.OUT_OF_MEMORY)
_OF_A_SPECIES: Final = re.compile(r"(.+)_([A-Z][a-z]?)")
_MARKUP: Final = re.compile(r"<[A-Za-z/!?]")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")

_PROVENANCE: Final[Mapping[str, type | tuple[type, ...]]] = {
    "conservbench": str,
    "git": (dict, type(None)),
    "python": str,
    "packages": dict,
    "platform": str,
    "processor": str,
    "device": str,
    "dtype": str,
    "threads": int,
    "seeds": dict,
    "digests": dict,
    "seconds": (int, float),
}
"""Keys that every result has, by their types."""


def against_cells(
    cells: Sequence[ScoredCell], card: ModelCard, protocols: Mapping[str, ProtocolCard], tier: str
) -> Iterator[str]:
    """All that stands against the cells of an entry.

    Args:
        cells: of an entry, read with the cards of this suite.
        card: the model they are of.
        protocols: name to card of those of this suite.
        tier: the tier they must be of.
    """
    yield from _left_out(cells, card, protocols)
    names = dict.fromkeys(str(cell.protocol["name"]) for cell in cells)
    given = {name: _settings(protocols[name], tier) for name in names}
    for cell in cells:
        where = f"{cell.protocol['name']} / {cell.system}"
        protocol, settings = protocols[str(cell.protocol["name"])], given[str(cell.protocol["name"])]
        if cell.tier != tier:
            never = ", which is never published" if cell.tier == "smoke" else ""
            yield f"{where}: it is of the {cell.tier} tier{never}; expected {tier}"
        elif card.scheme.kind not in protocol.schemes:
            yield f"{where}: the protocol has no question for {card.scheme.kind} forces"
        elif cell.system not in (places := card.systems or protocol.systems):
            yield f"{where}: unknown system; the cards ask for {', '.join(places)}"
        else:
            for said in (
                *_ending(cell),
                *_provenance(cell, card, protocol, settings),
                *_missing(cell),
                *_pictures(cell),
                *(f"{score.metric}: {said}" for score in cell.scores for said in _score(score, cell, card, settings)),
            ):
                yield f"{where}: {said}"


def _settings(protocol: ProtocolCard, tier: str) -> Any:
    # the plugin is that of a card of this suite
    kind = plugins.protocol_module(protocol.plugin, "settings").Settings
    return build(kind, protocol.settings(tier), f"{protocol.path}: settings of tier {tier!r}")


def _left_out(cells: Sequence[ScoredCell], card: ModelCard, protocols: Mapping[str, ProtocolCard]) -> Iterator[str]:
    """Every protocol that asks a model by default is answered, on all its systems."""
    found = {(cell.protocol["name"], cell.system) for cell in cells}
    for name, protocol in protocols.items():
        if not (protocol.by_default or protocol.tuned):
            continue
        for system in asked(card.document, protocol.document, is_parent=False):
            if (name, system) not in found:
                yield f"{name} / {system}: missing: all that is asked of a model by default is published, or nothing"


def _ending(cell: ScoredCell) -> Iterator[str]:
    for score in cell.scores:
        metric = cell.metrics.get(score.metric)
        if score.value is not None and cell.outcome in _EMPTY:
            yield f"{score.metric} has a value, but the cell ended as {cell.outcome}"
        elif score.value is not None and score.outcome in _EMPTY:
            yield f"{score.metric} has a value, but ended as {score.outcome}"
        elif score.value is None and score.outcome is Outcome.COMPLETED and not score.reason.strip():
            yield f"{score.metric} is completed, but has neither a value nor a reason"
        elif (
            score.outcome is Outcome.EXPLODED
            and cell.outcome is Outcome.COMPLETED
            and not (metric is not None and _compares(metric))
        ):
            yield f"{score.metric} exploded, but the cell is completed"
    if cell.outcome in _EMPTY and not cell.reason.strip():
        yield f"it ended as {cell.outcome} without a reason"
    if max(map(len, (cell.reason, *(score.reason for score in cell.scores)))) > LONGEST_REASON:
        yield f"a reason has more than {LONGEST_REASON} characters"


def _missing(cell: ScoredCell) -> Iterator[str]:
    have = {score.metric for score in cell.scores}
    headlines = {metric.key for metric in cell.headlines}
    for key, metric in cell.metrics.items():
        gated = metric.below is not None or metric.above is not None
        if key not in have and (key in headlines or (gated and cell.outcome not in _EMPTY)):
            yield f"{key} is missing: a metric that tables show, or that has a gate, is never left out"


def _score(score: Score, cell: ScoredCell, card: ModelCard, settings: Any) -> Iterator[str]:
    metric = _declared(score.metric, cell.metrics)
    if metric is None:
        yield f"unknown metric; the protocol has {', '.join(cell.metrics)}"
        return
    if metric.unit != score.unit:
        yield f"it is in {score.unit!r:.80}; the card says {metric.unit!r}"
    if score.value is None or score.low is None or score.high is None:
        return
    if said := _unrelated(metric, card):
        yield said
    least, most = metric.least, metric.most
    if (least is not None and score.value < least) or (most is not None and score.value > most):
        yield f"{score.value:g} {metric.unit} is impossible; the card says {_range(least, most)}"
    width = score.high - score.low
    if width == 0 and metric.exact:
        return
    if width == 0:
        yield f"an interval without width; {score.n} independent samples of it differ"
    elif score.n == 1 and math.isfinite(width):
        yield "a finite interval of one sample, which bounds nothing"
    elif score.n > 2 and not math.isfinite(width) and not metric.bound:
        yield f"an interval with an open end of {score.n} samples, which bound both"
    bound = getattr(settings, "most_samples", None)
    if bound is not None and score.n > bound:
        yield f"n is {score.n}; the settings of the {cell.tier} tier give {bound} samples at most"


def _declared(key: str, metrics: Mapping[str, Metric]) -> Metric | None:
    """The metric of a key, also of one that names a species of atoms at its end."""
    species = _OF_A_SPECIES.fullmatch(key)
    return metrics.get(key) or (metrics.get(species[1]) if species else None)


def _compares(metric: Metric) -> bool:
    return metric.twin or metric.parent or metric.control


def _unrelated(metric: Metric, card: ModelCard) -> str:
    """Why a model cannot have a value of a metric that compares it with another row."""
    if metric.twin and (card.twin is None or card.scheme.kind == "gradient"):
        return "it compares with a twin of gradient forces; the card names none, or has gradient forces itself"
    if metric.parent and card.parent is None:
        return "it compares with a parent; the card names none"
    if metric.control and (card.tuning is None or card.tuning.control is None):
        return "it compares with the control of a tuning; the card names none"
    return ""


def _range(least: float | None, most: float | None) -> str:
    if most is None:
        return f"{least:g} or more"
    return f"{most:g} or less" if least is None else f"{least:g} to {most:g}"


def _provenance(cell: ScoredCell, card: ModelCard, protocol: ProtocolCard, settings: Any) -> Iterator[str]:
    origin = cell.provenance
    wrong = [
        key
        for key, kind in _PROVENANCE.items()
        if not isinstance(origin.get(key, ...), kind) or isinstance(origin[key], bool)
    ]
    if wrong:
        yield f"provenance: {', '.join(wrong)} missing or not as a run writes it"
        return
    if (given := origin["digests"].get("model")) != card.digest:
        yield f"provenance: measured with a model card of digest {given!s:.16}; this one has {card.digest:.16}"
    if (given := origin["digests"].get("protocol")) != protocol.digest:
        yield f"provenance: measured with a protocol card of digest {given!s:.16}; this one has {protocol.digest:.16}"
    dtype = card.dtype if protocol.dtype == "model" else protocol.dtype
    if origin["dtype"] != dtype:
        yield f"provenance: measured in {origin['dtype']:.20}; the cards say {dtype}"
    seeds = {key: value for key, value in vars(settings).items() if "seed" in key}
    if origin["seeds"] != seeds:
        yield f"provenance: measured with other random numbers than the card's, {seeds}: they are not for choosing"
    if origin["threads"] < 1 or not origin["seconds"] > 0:
        yield "provenance: no threads, or no time"
    if not all(isinstance(each, str | None) for each in origin["packages"].values()) or not origin["packages"]:
        yield "provenance: packages without versions"
    git = origin["git"]
    if git is not None:
        if not _COMMIT.fullmatch(str(git.get("commit"))) or not isinstance(git.get("dirty"), bool):
            yield "provenance: git: expected a whole commit, and whether files differ from it"
        elif git["dirty"]:
            yield "provenance: measured with local changes of the code, so that nobody can measure it again"


def _pictures(cell: ScoredCell) -> Iterator[str]:
    if len(cell.plots) > MOST_PLOTS:
        yield f"{len(cell.plots)} pictures; expected {MOST_PLOTS} or fewer"
    for plot in cell.plots:
        if len(plot.lines) > MOST_LINES or any(len(line.x) > MOST_POINTS for line in plot.lines):
            yield f"picture {plot.key:.80}: expected {MOST_LINES} lines of {MOST_POINTS} points or fewer"
        texts = (plot.key, plot.title, plot.note, *(line.name for line in plot.lines))
        # libraries that draw take some markup in labels, links among it
        if _MARKUP.search("\n".join((*texts, plot.x.label, plot.x.unit, plot.y.label, plot.y.unit))):
            yield f"picture {plot.key:.80}: markup in its text"
