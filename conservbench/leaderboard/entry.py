"""Entries: what a model scored, as JSON that people send, publish and compare with. No torch.

An entry holds the scores, pictures and provenance of some cells. It names the protocols by version and digest and is
read with their cards, so that two versions never meet in one table; gates are made anew from the card.

    {"schema": 2,
     "protocols": {NAME: {"version", "digest"}},
     "models": {NAME: the model card as parsed, with its digest},
     "cells": [{"model", "protocol", "system", "tier", "outcome", "reason", "provenance",
                "scores": [{"metric", "value", "low", "high", "unit", "n", "outcome", "reason"}],
                "plots": [...]}]}

An end of an interval that nothing bounds is null beside a value that is not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, get_args
from urllib.parse import quote

from conservbench.cards import CardError, Metric, Tier, Tuning, build, check_name, digest_on, find_protocol, metrics_of
from conservbench.outcome import Outcome
from conservbench.plot import Line, Plot
from conservbench.result import write_bytes
from conservbench.scheme import Kind, Scheme
from conservbench.scored import Score, ScoredCell, gate_of
from conservbench.statistics import Interval

SCHEMA: Final = 2
"""Version of the layout."""

DEEPEST: Final = 20
"""Tables and arrays inside each other that a file may have; an entry has seven, options of loaders a few more."""

_TOP: Final = ("schema", "protocols", "models", "cells")
_CELL: Final = ("model", "protocol", "system", "tier", "outcome", "reason", "provenance", "scores", "plots")
_SCORE: Final = ("metric", "value", "low", "high", "unit", "n", "outcome", "reason")


MOST_ITEMS: Final = 5_000_000
"""Keys and values that a file may have; an entry of one model with all its pictures has some ten thousand."""

LARGEST: Final = 1e100
"""Size that no number of a measurement reaches; sums and squares of smaller ones are finite."""

SMALLEST: Final = 1e-100
"""Size below which a number is read as zero."""

_COMMIT: Final = re.compile(r"[0-9a-f]{7,64}")
_LARGEST_WHOLE: Final = 2**63
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


class EntryError(ValueError):
    """A file is no entry, or not one that can be read with the protocol cards at hand."""


@dataclass(frozen=True)
class Passport:
    """The model card as an entry holds it: the keys of :class:`conservbench.cards.ModelCard` as TOML spells them."""

    name: str
    version: int
    title: str
    scheme: Kind
    digest: str
    loader: str = ""
    stride: int = 1
    fast: str | None = None
    fast_card: Mapping[str, Any] = field(default_factory=dict)
    systems: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    by_default: bool = True
    role: Literal["model", "control"] = "model"
    checkpoint: str | None = None
    sha256: str | None = None
    dtype: Literal["float32", "float64"] = "float64"
    twin: str | None = None
    parent: str | None = None
    tuning: Tuning | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    authors: tuple[str, ...] = ()
    license: str = ""
    doi: str = ""
    bibtex: str = ""
    training_data: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        Scheme(self.scheme, self.stride)


def document_of(cells: Sequence[ScoredCell]) -> dict[str, Any]:
    """The entry of some cells, in JSON types; equal cells give equal documents.

    Raises:
        EntryError: two cells are of one protocol or model in two versions, of which an entry can name one.
    """
    protocols = _of_one_version([cell.protocol for cell in cells], "protocol")
    models = _of_one_version([cell.model for cell in cells], "model")
    return {
        "schema": SCHEMA,
        "protocols": {
            name: {"version": card["version"], "digest": card.get("digest", "")}
            for name, card in sorted(protocols.items())
        },
        "models": {name: dict(models[name]) for name in sorted(models)},
        "cells": [_cell_document(cell) for cell in cells],
    }


def _of_one_version(cards: Iterable[Mapping[str, Any]], what: str) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for card in cards:
        other = found.setdefault(card["name"], card)
        if card["version"] != other["version"]:
            versions = f"{other['version']} and {card['version']}"
            raise EntryError(f"{what} {card['name']} is there in versions {versions}: an entry holds one")
        if card.get("digest", "") != other.get("digest", ""):
            raise EntryError(
                f"{what} {card['name']}, version {card['version']}, is there as two cards of other digests"
            )
    return found


def without_plots(cells: Iterable[ScoredCell]) -> tuple[ScoredCell, ...]:
    """The same cells without their pictures: all that a comparison needs."""
    return tuple(replace(cell, plots=()) for cell in cells)


def write_entry(cells: Sequence[ScoredCell], path: Path) -> None:
    """Write an entry, whole or not at all.

    Raises:
        EntryError: see :func:`document_of`.
        conservbench.result.WriteError: the file cannot be written.
    """
    write_bytes(spelled_out(document_of(cells)).encode(), path)


def write_entries(cells: Sequence[ScoredCell], folder: Path) -> list[Path]:
    """Write one entry a model, ``FOLDER/<model>.json``; files of other models are left as they are.

    Raises:
        EntryError: see :func:`document_of`.
        conservbench.result.WriteError: a file cannot be written.
    """
    models: dict[str, list[ScoredCell]] = {}
    for cell in cells:
        models.setdefault(cell.model["name"], []).append(cell)
    paths = []
    for name, own in sorted(models.items()):
        paths.append(folder / entry_name(name))
        write_entry(own, paths[-1])
    return paths


def read_entries(path: Path, known: Iterable[Mapping[str, Any]] = ()) -> tuple[ScoredCell, ...]:
    """The cells of an entry, or of all entries of a folder.

    Args:
        path: a JSON file, or a folder of them.
        known: documents of protocol cards, with digests, that are not installed, such as those of results at hand.

    Raises:
        EntryError: there is none, one is not as it must be, a file of a folder is not named by its one model, or a
            protocol is not at hand in the version it names.
    """
    paths = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not paths:
        raise EntryError(f"no entries in {path}: expected files MODEL.json")
    cells: list[ScoredCell] = []
    for each in paths:
        try:
            text = each.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise EntryError(f"no entry {each}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise EntryError(f"{each}: not a JSON file ({error})") from error
        found = cells_of(parse(text, str(each)), str(each), known)
        wanted = sorted({entry_name(cell.model["name"]) for cell in found})
        # what is validated by its name is to be what is published
        if path.is_dir() and wanted != [each.name]:
            raise EntryError(
                f"{each}: expected the entry of one model, in a file of its name: {', '.join(wanted) or 'none'}"
            )
        cells += found
    return tuple(cells)


def entry_name(model: str) -> str:
    """The file of a model's entry in a folder; characters that file systems refuse are percent-encoded."""
    return f"{quote(model, safe='')}.json"


def parse(text: str, where: str, most: int = MOST_ITEMS) -> Any:
    """Parse JSON strictly: no number that is not finite, no key twice, nothing that could not be written again.

    Args:
        text: the JSON.
        where: start of error messages.
        most: keys and values that it may have.

    Raises:
        EntryError: it is not JSON, or not of this kind.
    """
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise EntryError(f"{where}: not a JSON file ({error})") from error
    check_plain(document, where, most)
    return document


def check_plain(document: Any, where: str, most: int = MOST_ITEMS) -> None:
    """Check that parsed JSON or TOML is of plain types, finite, not deep, not long, and of text that can be written.

    Raises:
        EntryError: it is not.
    """
    level, items = [document], 1
    for _ in range(DEEPEST):
        following: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                following += [*value, *value.values()]
            elif isinstance(value, list):
                following += value
            elif isinstance(value, str):
                if _SURROGATES.search(value):
                    raise EntryError(f"{where}: half a character in {value!a:.80}")
            elif isinstance(value, int | float) and not abs(value) < _LARGEST_WHOLE and not _is_finite_float(value):
                raise EntryError(f"{where}: a number is not finite, or too large")
            elif not isinstance(value, int | float | None):
                raise EntryError(f"{where}: {value!r:.80} is neither text nor a number")
        if not following:
            return
        items += len(following)
        if items > most:
            raise EntryError(f"{where}: more than {most} keys and values")
        level = following
    raise EntryError(f"{where}: more than {DEEPEST} tables and arrays inside each other")


def _is_finite_float(value: float) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {double!r:.80} is there twice")
    return table


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def cells_of(document: Any, where: str, known: Iterable[Mapping[str, Any]] = ()) -> list[ScoredCell]:
    """The cells of a parsed entry.

    Args:
        document: what the JSON holds.
        where: start of error messages.
        known: see :func:`read_entries`.

    Raises:
        EntryError: it is not as it must be; the message names the place.
    """
    # the layout of another version has other keys: its number is looked at first
    if isinstance(document, dict) and document.get("schema", SCHEMA) != SCHEMA:
        raise EntryError(f"{where}: schema is {document['schema']!r:.80}; expected {SCHEMA}")
    table = _table(document, where, _TOP)
    protocols = _typed(table["protocols"], dict, f"{where}: protocols")
    cards = {name: _protocol(name, protocols[name], known, where) for name in protocols}
    metrics = {name: metrics_of(card, f"{where}: protocols: {name}") for name, card in cards.items()}
    models = _typed(table["models"], dict, f"{where}: models")
    for name, card in models.items():
        _check_passport(name, card, f"{where}: models: {name}")
    found: dict[tuple[str, str, str, str], ScoredCell] = {}
    for place, each in enumerate(_typed(table["cells"], list, f"{where}: cells")):
        cell = _cell(each, cards, metrics, models, f"{where}: cells[{place}]")
        key = (cell.protocol["name"], cell.system, cell.tier, cell.model["name"])
        if key in found:
            raise EntryError(f"{where}: cells[{place}]: {' / '.join(key)} is there twice")
        found[key] = cell
    return list(found.values())


def spelled_out(document: Mapping[str, Any]) -> str:
    """JSON text of an entry: a line for each score and plot, so that a change of one is a line of a diff."""
    cells = []
    for cell in document["cells"]:
        head = {key: value for key, value in cell.items() if key not in ("scores", "plots")}
        scores, plots = (",\n".join(f"   {_json(each)}" for each in cell[key]) for key in ("scores", "plots"))
        cells.append(f'  {_json(head)[:-1]}, "scores": [\n{scores}\n  ], "plots": [\n{plots}\n  ]}}')
    models = ",\n".join(f"  {_json(name)}: {_json(card)}" for name, card in document["models"].items())
    joined = ",\n".join(cells)
    return (
        f'{{"schema": {document["schema"]},\n "protocols": {_json(document["protocols"])},\n'
        f' "models": {{\n{models}\n }},\n "cells": [\n{joined}\n ]}}\n'
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _cell_document(cell: ScoredCell) -> dict[str, Any]:
    return {
        "model": cell.model["name"],
        "protocol": cell.protocol["name"],
        "system": cell.system,
        "tier": cell.tier,
        "outcome": str(cell.outcome),
        "reason": cell.reason,
        "provenance": dict(cell.provenance),
        "scores": [
            {**{key: score.to_row()[key] for key in _SCORE[:-1]}, "reason": score.reason} for score in cell.scores
        ],
        "plots": [_plot_document(plot) for plot in cell.plots],
    }


def _plot_document(plot: Plot) -> dict[str, Any]:
    # empty bands and notes are left out: most lines have none
    lines = [{key: value for key, value in asdict(line).items() if value != ()} for line in plot.lines]
    return {**asdict(plot), "lines": lines}


def _protocol(name: str, given: Any, known: Iterable[Mapping[str, Any]], where: str) -> dict[str, Any]:
    """The document of the protocol card that an entry names."""
    place = f"{where}: protocols: {name:.80}"
    wanted = _table(given, place, ("version", "digest"))
    _typed(wanted["version"], int, f"{place}: version")
    _typed(wanted["digest"], str, f"{place}: digest")
    try:
        check_name(name, f"{where}: protocols: name")
    except CardError as error:
        raise EntryError(f"{error!s:.200}") from error
    if name.endswith(".toml"):
        # a path would be looked up as one
        raise EntryError(f"{place}: expected the name of a protocol, not a file")
    candidates = [dict(each) for each in known if each.get("name") == name]
    if not any(_is_meant(card, wanted) for card in candidates):
        try:
            candidates.append(json.loads(find_protocol(name).to_json()))
        except CardError as error:
            if not candidates:
                raise EntryError(f"{where}: protocols: {error}") from error
    found = next((card for card in candidates if _is_meant(card, wanted)), candidates[0])
    if _is_meant(found, wanted):
        return found
    if found["version"] != wanted["version"]:
        what = (
            f"measured by version {wanted['version']} of protocol {name}; the card here is version {found['version']}"
        )
    else:
        what = f"measured by another card of protocol {name}, version {found['version']}: the digests differ"
    raise EntryError(f"{where}: {what}: measure it again")


def _is_meant(card: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return (card["version"], card.get("digest", "")) == (wanted["version"], wanted["digest"])


def _check_passport(name: str, given: Any, where: str) -> None:
    try:
        passport = build(Passport, _typed(given, dict, where), where)
    except CardError as error:
        raise EntryError(str(error)) from error
    if passport.name != name:
        raise EntryError(f"{where}: is named {passport.name!r:.80}")


def _cell(
    given: Any,
    cards: Mapping[str, Any],
    declared: Mapping[str, Mapping[str, Metric]],
    models: Mapping[str, Any],
    where: str,
) -> ScoredCell:
    table = _table(given, where, _CELL)
    for key, among in (("protocol", cards), ("model", models)):
        if _typed(table[key], str, f"{where}: {key}") not in among:
            raise EntryError(f"{where}: {key} {table[key]!r:.80} is not among the {key}s of the entry")
    card, metrics = cards[table["protocol"]], declared[table["protocol"]]
    if table["tier"] not in (tiers := get_args(Tier)):
        raise EntryError(f"{where}: tier is {table['tier']!r:.80}; expected one of {', '.join(tiers)}")
    names = {
        "model": table["model"],
        "protocol": table["protocol"],
        "system": _typed(table["system"], str, f"{where}: system"),
    }
    rows = _typed(table["scores"], list, f"{where}: scores")
    plots = _typed(table["plots"], list, f"{where}: plots")
    provenance = _typed(table["provenance"], dict, f"{where}: provenance")
    _check_provenance(provenance, f"{where}: provenance")
    wanted = digest_on(card, names["system"])
    if names["system"] in card.get("on", {}) and provenance.get("digests", {}).get("protocol", wanted) != wanted:
        raise EntryError(
            f"{where}: measured with other settings than protocol {card['name']}, version {card['version']}, has for"
            f" {names['system']:.80}: the digests differ: measure it again"
        )
    scores = [_score(row, metrics, names, f"{where}: scores[{place}]") for place, row in enumerate(rows)]
    if double := _double(score.metric for score in scores):
        raise EntryError(f"{where}: scores: {double} is there twice")
    pictures = [_plot(plot, f"{where}: plots[{place}]") for place, plot in enumerate(plots)]
    if double := _double(plot.key for plot in pictures):
        raise EntryError(f"{where}: plots: {double} is there twice")
    return ScoredCell(
        model=models[table["model"]],
        protocol=card,
        system=names["system"],
        tier=table["tier"],
        outcome=_outcome(table["outcome"], where),
        reason=_typed(table["reason"], str, f"{where}: reason"),
        provenance=provenance,
        metrics=metrics,
        scores=tuple(scores),
        plots=tuple(pictures),
    )


def _check_provenance(given: Mapping[str, Any], where: str) -> None:
    """What readers take from it is as :func:`conservbench.provenance.provenance` writes it, or absent."""
    for key in ("packages", "seeds", "digests"):
        _typed(given.get(key, {}), dict, f"{where}: {key}")
    git = given.get("git")
    if git is not None:
        commit = _typed(git, dict, f"{where}: git").get("commit")
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise EntryError(f"{where}: git: commit is {commit!r:.80}; expected hexadecimal digits")


def _double(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _score(given: Any, metrics: Mapping[str, Metric], names: Mapping[str, str], where: str) -> Score:
    row = _table(given, where, _SCORE)
    key, outcome = _typed(row["metric"], str, f"{where}: metric"), _outcome(row["outcome"], where)
    interval, n = None, _typed(row["n"], int, f"{where}: n")
    if row["value"] is not None:
        value = _number(row["value"], f"{where}: value")
        low = -math.inf if row["low"] is None else _number(row["low"], f"{where}: low")
        high = math.inf if row["high"] is None else _number(row["high"], f"{where}: high")
        if not low <= value <= high:
            raise EntryError(f"{where}: {key}: the interval [{low}, {high}] does not hold the value {value}")
        if n < 1:
            raise EntryError(f"{where}: {key}: a value of {n} samples; expected 1 or more")
        interval = Interval(value, low, high, n)
    elif row["low"] is not None or row["high"] is not None or n != 0:
        raise EntryError(f"{where}: {key}: an interval or samples without a value")
    unit = _typed(row["unit"], str, f"{where}: unit")
    metric = metrics.get(key)
    if metric is not None and metric.unit != unit:
        raise EntryError(f"{where}: {key} is in {unit!r:.80}; its card says {metric.unit!r}")
    return Score(
        **names,
        metric=key,
        value=None if interval is None else interval.value,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        unit=unit,
        n=0 if interval is None else interval.n,
        outcome=outcome,
        gate=gate_of(metric, interval, outcome),
        reason=_typed(row["reason"], str, f"{where}: reason"),
    )


def _plot(given: Any, where: str) -> Plot:
    try:
        plot = build(Plot, _typed(given, dict, where), where)
    except CardError as error:
        raise EntryError(str(error)) from error
    return replace(plot, lines=tuple(_line(each, f"{where}: line {place}") for place, each in enumerate(plot.lines)))


def _line(given: Line, where: str) -> Line:
    def edge(values: Iterable[float | None]) -> tuple[float | None, ...]:
        return tuple(None if value is None else _number(value, where) for value in values)

    x = tuple(_number(value, where) for value in given.x)
    return replace(given, x=x, y=edge(given.y), low=edge(given.low), high=edge(given.high))


def _outcome(given: Any, where: str) -> Outcome:
    try:
        return Outcome(given)
    except ValueError as error:
        raise EntryError(f"{where}: outcome is {given!r:.80}; expected one of {', '.join(Outcome)}") from error


def _table(given: Any, where: str, keys: Sequence[str]) -> dict[str, Any]:
    """A table with exactly these keys."""
    table = _typed(given, dict, where)
    for key in keys:
        if key not in table:
            raise EntryError(f"{where}: missing key {key!r}")
    for key in table:
        if key not in keys:
            raise EntryError(f"{where}: unknown key {key!r:.80}")
    return table


def _typed(value: Any, kind: type, where: str) -> Any:
    # True is a whole number to Python
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise EntryError(f"{where} is {value!r:.80}; expected {kind.__name__}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EntryError(f"{where} is {value!r:.80}; expected a finite number")
    if abs(value) > LARGEST:
        raise EntryError(f"{where} is {value!r:.80}; expected a size of {LARGEST:g} or less")
    return 0.0 if abs(value) < SMALLEST else float(value)
