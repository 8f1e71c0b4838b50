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
from conservbench.cards import Metric, ModelCard, ProtocolCard, build, find_model, list_models
from conservbench.data.catalogue import find_data_set
from conservbench.leaderboard.coverage import asked
from conservbench.outcome import Outcome
from conservbench.plot import MOST_POINTS
from conservbench.protocols.base import names_of_data
from conservbench.provenance import data_of
from conservbench.scored import Score, ScoredCell
from conservbench.systems.catalogue import asked_about, elements_of, system_table

MOST_PLOTS: Final = 12
"""Pictures of a cell."""

MOST_LINES: Final = 24
"""Lines of a picture."""

LONGEST_REASON: Final = 2000
"""Characters of a reason."""

MOST_PACKAGES: Final = 100
"""Packages that the provenance names."""

LONGEST_ORIGIN: Final = 200
"""Characters of a text of the provenance."""

_EMPTY: Final = (Outcome.UNSUPPORTED, Outcome.FAILED, Outcome.OUT_OF_MEMORY)
_OF_A_SPECIES: Final = re.compile(r"(.+)_([A-Z][a-z]?)")
_MARKUP: Final = re.compile(r"<[A-Za-z/!?]")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")

_VERSION: Final = re.compile(r"[0-9][0-9A-Za-z.+!_-]{0,63}")
_DISTRIBUTION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BOOT: Final = re.compile(r"[0-9a-f]{16}")

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
    if not any(score.value is not None for cell in cells for score in cell.scores):
        yield "no score has a value: nothing was measured"
    for cell in cells:
        where = f"{cell.protocol['name']} / {cell.system}"
        protocol = protocols[str(cell.protocol["name"])]
        places = asked_about(card.systems, card.elements, protocol.systems, protocol.more_systems)
        settings = _settings(protocol, tier, cell.system)
        if cell.tier != tier:
            never = ", which is never published" if cell.tier == "smoke" else ""
            yield f"{where}: it is of the {cell.tier} tier{never}; expected {tier}"
        elif card.scheme.kind not in protocol.schemes:
            yield f"{where}: the protocol has no question for {card.scheme.kind} forces"
        elif cell.system not in places:
            yield f"{where}: unknown system; the cards ask for {', '.join(places)}"
        else:
            for said in (
                *_ending(cell, card),
                *_unasked(cell, card, protocol, cells),
                *_provenance(cell, card, protocol, settings),
                *_missing(cell),
                *_pictures(cell),
                *(f"{score.metric}: {said}" for score in cell.scores for said in _score(score, cell, card, settings)),
            ):
                yield f"{where}: {said}"


def _settings(protocol: ProtocolCard, tier: str, system: str) -> Any:
    # the plugin is that of a card of this suite
    kind = plugins.protocol_module(protocol.plugin, "settings").Settings
    return build(kind, protocol.settings(tier, system), f"{protocol.path}: settings of tier {tier!r} on {system}")


def _left_out(cells: Sequence[ScoredCell], card: ModelCard, protocols: Mapping[str, ProtocolCard]) -> Iterator[str]:
    """Every protocol that asks a model by default is answered, on all its systems, or none of them is.

    A rung of a ladder, or a model whose time alone was taken, is in the tables of these protocols and has no verdict;
    it is there on all of their systems that are asked for, as one that it does not last on is not to be left out.
    A tuned model of this suite is asked what those like it are asked; that another one was tuned is its card's word, so
    it is asked what every model is.
    """
    found = {(cell.protocol["name"], cell.system) for cell in cells}
    measured = {str(name) for name, _ in found}
    by_name = {name for name, protocol in protocols.items() if not (protocol.by_default or protocol.tuned)}
    for name in sorted(measured & by_name):
        for system in asked(card.document, {**protocols[name].document, "by_default": True}, is_parent=False):
            if (name, system) not in found:
                yield f"{name} / {system}: missing: what is measured by name is published on all that is asked for"
    if measured and measured <= by_name:
        return
    own = card.parent is not None and card.name in list_models() and find_model(card.name).parent == card.parent
    document = {key: value for key, value in card.document.items() if own or key not in ("parent", "tuning")}
    for name, protocol in protocols.items():
        question = {**protocol.document, "by_default": protocol.by_default or (own and protocol.tuned)}
        for system in asked(document, question, is_parent=False):
            if (name, system) not in found:
                yield f"{name} / {system}: missing: all that is asked of a model by default is published, or nothing"


def _ending(cell: ScoredCell, card: ModelCard) -> Iterator[str]:
    # what tuning is compared with is asked of parents and controls too, which have nothing to say
    untold = bool(cell.protocol.get("tuned")) and (card.tuning is None or card.tuning.control is None)
    for score in cell.scores:
        metric = _declared(score.metric, cell)
        compares = metric is not None and metric.compares
        gated = metric is not None and metric.gated
        if score.value is not None and cell.outcome in _EMPTY:
            yield f"{score.metric} has a value, but the cell ended as {cell.outcome}"
        elif score.value is not None and score.outcome in _EMPTY:
            yield f"{score.metric} has a value, but ended as {score.outcome}"
        elif (
            score.value is None
            and not score.reason.strip()
            and not (untold and score.outcome is Outcome.UNSUPPORTED and not gated)
        ):
            yield f"{score.metric} is {score.outcome}, but has neither a value nor a reason"
        elif score.outcome is Outcome.EXPLODED and cell.outcome is Outcome.COMPLETED and not compares:
            yield f"{score.metric} exploded, but the cell is completed"
        elif score.value is None and gated and score.outcome not in _without_value(cell, compares=compares):
            yield (
                f"{score.metric} has a gate and no value: it is {score.outcome}, but the cell ended as {cell.outcome}"
            )
    if cell.outcome in _EMPTY and not cell.reason.strip():
        yield f"it ended as {cell.outcome} without a reason"
    if max(map(len, (cell.reason, *(score.reason for score in cell.scores)))) > LONGEST_REASON:
        yield f"a reason has more than {LONGEST_REASON} characters"


def _without_value(cell: ScoredCell, *, compares: bool) -> set[Outcome]:
    """How a metric with a gate may have ended where it has no value: as its cell did, or because it is not asked.

    One that compares with another row may have ended as that did.
    """
    if compares:
        return set(Outcome) - {Outcome.COMPLETED}
    exploded = {Outcome.EXPLODED} if cell.outcome is Outcome.NOT_CONVERGED else set()
    return {Outcome.UNSUPPORTED, *exploded, *({cell.outcome} - {Outcome.COMPLETED})}


def _unasked(cell: ScoredCell, card: ModelCard, protocol: ProtocolCard, cells: Sequence[ScoredCell]) -> Iterator[str]:
    """A model that answers one protocol on a system is not beyond the others, where they ask by themselves.

    A stride may not divide the times of a protocol, and the atoms of a toy may be tied to their sites.
    """
    if cell.outcome is not Outcome.UNSUPPORTED or card.scheme.kind == "mts" or card.loader == "toy":
        return
    if cell.system not in (*protocol.systems, *protocol.more_systems) or not (protocol.by_default or protocol.tuned):
        return
    for other in cells:
        if other.system == cell.system and any(score.value is not None for score in other.scores):
            yield f"it ended as unsupported, but {other.protocol['name']} was measured on {cell.system}"
            return


def _missing(cell: ScoredCell) -> Iterator[str]:
    have = {score.metric for score in cell.scores}
    headlines = {metric.key for metric in cell.headlines}
    for key, metric in cell.metrics.items():
        if key not in have and (key in headlines or (metric.gated and cell.outcome not in _EMPTY)):
            yield f"{key} is missing: a metric that tables show, or that has a gate, is never left out"


def _score(score: Score, cell: ScoredCell, card: ModelCard, settings: Any) -> Iterator[str]:
    metric = _declared(score.metric, cell)
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
    elif score.n == 1 and (math.isfinite(score.low) or math.isfinite(score.high)):
        yield "an interval of one sample with an end, which bounds nothing"
    elif score.n == 2 and math.isfinite(score.low) != math.isfinite(score.high) and not metric.bound:
        yield "an interval with one open end of 2 samples, which bound both or neither"
    elif score.n > 2 and not math.isfinite(width) and not metric.bound:
        yield f"an interval with an open end of {score.n} samples, which bound both"
    bound = getattr(settings, "most_samples", None)
    if bound is not None and score.n > bound:
        yield f"n is {score.n}; the settings of the {cell.tier} tier give {bound} samples at most"


def _declared(key: str, cell: ScoredCell) -> Metric | None:
    """The metric of a key, also of one that names a species of the system's atoms at its end."""
    species = _OF_A_SPECIES.fullmatch(key)
    if key in cell.metrics or species is None or species[2] not in elements_of(cell.system):
        return cell.metrics.get(key)
    return cell.metrics.get(species[1])


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
    if unknown := [key for key in origin if key not in (*_PROVENANCE, "boot")]:
        yield f"provenance: unknown key {unknown[0]!r:.80}"
    yield from _texts(origin)
    if (given := origin["digests"].get("model")) != card.digest:
        yield f"provenance: measured with a model card of digest {given!s:.16}; this one has {card.digest:.16}"
    digest = protocol.digest_on(cell.system)
    if (given := origin["digests"].get("protocol")) != digest:
        yield f"provenance: measured with a protocol card of digest {given!s:.16}; this one has {digest:.16}"
    dtype = card.dtype if protocol.dtype == "model" else protocol.dtype
    if origin["dtype"] != dtype:
        yield f"provenance: measured in {origin['dtype']:.20}; the cards say {dtype}"
    seeds = {key: value for key, value in vars(settings).items() if "seed" in key}
    if origin["seeds"] != seeds:
        yield f"provenance: measured with other random numbers than the card's, {seeds}: they are not for choosing"
    if origin["threads"] < 1 or not origin["seconds"] > 0:
        yield "provenance: no threads, or no time"
    for key, given in data_of(origin).items():
        if key not in (data := names_of_data(settings)):
            yield "provenance: digests of something else than the model, the protocol, the system and data"
        elif given != (meant := find_data_set(data[key]).checksum()):
            yield f"provenance: measured with {data[key]} of checksum {given!s:.16}; that of this suite has {meant:.16}"
    # a system is told by its name and version
    meant = f"{cell.system} {system_table(cell.system).get('version')}"
    if (given := origin["digests"].get("system", meant)) != meant:
        yield f"provenance: measured on system {given!s:.80}; that of this suite is {meant}"
    git = origin["git"]
    if git is not None:
        if (
            set(git) != {"commit", "dirty"}
            or not _COMMIT.fullmatch(str(git["commit"]))
            or not isinstance(git["dirty"], bool)
        ):
            yield "provenance: git: expected a whole commit, and whether files differ from it"
        elif git["dirty"]:
            yield "provenance: measured with local changes of the code, so that nobody can measure it again"


def _texts(origin: Mapping[str, Any]) -> Iterator[str]:
    """Nothing in it is free text: what stands there is shown beside every number."""
    if not _VERSION.fullmatch(origin["conservbench"]):
        yield f"provenance: conservbench is {origin['conservbench']!r:.80}; expected a version"
    packages = origin["packages"]
    if not packages or len(packages) > MOST_PACKAGES:
        yield f"provenance: packages without versions, or more than {MOST_PACKAGES}"
    for name, version in packages.items():
        if not _DISTRIBUTION.fullmatch(name):
            yield f"provenance: packages: {name!r:.80} is no name of a package"
        elif version is not None and not (isinstance(version, str) and _VERSION.fullmatch(version)):
            yield f"provenance: packages: {name} is {version!r:.80}; expected a version"
    for key in ("python", "platform", "processor", "device"):
        if len(origin[key]) > LONGEST_ORIGIN:
            yield f"provenance: {key} has more than {LONGEST_ORIGIN} characters"
    boot = origin.get("boot")
    if boot is not None and not (isinstance(boot, str) and _BOOT.fullmatch(boot)):
        yield f"provenance: boot is {boot!r:.80}; expected 16 hexadecimal digits"


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
