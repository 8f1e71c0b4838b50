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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from conservbench.cards import CardError, Metric, build, find_protocol, metrics_of
from conservbench.outcome import Outcome
from conservbench.plot import Plot
from conservbench.result import write_bytes
from conservbench.scored import Score, ScoredCell, gate_of
from conservbench.statistics import Interval

SCHEMA: Final = 2
"""Version of the layout."""

_TOP: Final = ("schema", "protocols", "models", "cells")
_CELL: Final = ("model", "protocol", "system", "tier", "outcome", "reason", "provenance", "scores", "plots")
_SCORE: Final = ("metric", "value", "low", "high", "unit", "n", "outcome", "reason")


class EntryError(ValueError):
    """A file is no entry, or not one that can be read with the protocol cards at hand."""


def document_of(cells: Sequence[ScoredCell]) -> dict[str, Any]:
    """The entry of some cells, in JSON types; equal cells give equal documents."""
    protocols = {cell.protocol["name"]: cell.protocol for cell in cells}
    models = {cell.model["name"]: cell.model for cell in cells}
    return {
        "schema": SCHEMA,
        "protocols": {
            name: {"version": card["version"], "digest": card.get("digest", "")}
            for name, card in sorted(protocols.items())
        },
        "models": {name: dict(models[name]) for name in sorted(models)},
        "cells": [_cell_document(cell) for cell in cells],
    }


def without_plots(cells: Iterable[ScoredCell]) -> tuple[ScoredCell, ...]:
    """The same cells without their pictures: all that a comparison needs."""
    return tuple(replace(cell, plots=()) for cell in cells)


def write_entry(cells: Sequence[ScoredCell], path: Path) -> None:
    """Write an entry, whole or not at all.

    Raises:
        conservbench.result.WriteError: the file cannot be written.
    """
    write_bytes(spelled_out(document_of(cells)).encode(), path)


def write_entries(cells: Sequence[ScoredCell], folder: Path) -> list[Path]:
    """Write one entry a model, ``FOLDER/<model>.json``; files of other models are left as they are.

    Raises:
        conservbench.result.WriteError: a file cannot be written.
    """
    models: dict[str, list[ScoredCell]] = {}
    for cell in cells:
        models.setdefault(cell.model["name"], []).append(cell)
    paths = []
    for name, own in sorted(models.items()):
        paths.append(folder / f"{quote(name, safe='')}.json")
        write_entry(own, paths[-1])
    return paths


def read_entries(path: Path, known: Iterable[Mapping[str, Any]] = ()) -> tuple[ScoredCell, ...]:
    """The cells of an entry, or of all entries of a folder.

    Args:
        path: a JSON file, or a folder of them.
        known: documents of protocol cards, with digests, that are not installed, such as those of results at hand.

    Raises:
        EntryError: there is none, one is not as it must be, or a protocol is not at hand in the version it names.
    """
    paths = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not paths:
        raise EntryError(f"no entries in {path}: expected files MODEL.json")
    cells: list[ScoredCell] = []
    for each in paths:
        try:
            document = json.loads(each.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise EntryError(f"no entry {each}") from error
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise EntryError(f"{each}: not a JSON file ({error})") from error
        cells += cells_of(document, str(each), known)
    return tuple(cells)


def cells_of(document: Any, where: str, known: Iterable[Mapping[str, Any]] = ()) -> list[ScoredCell]:
    """The cells of a parsed entry.

    Args:
        document: what the JSON holds.
        where: start of error messages.
        known: see :func:`read_entries`.

    Raises:
        EntryError: it is not as it must be; the message names the place.
    """
    table = _table(document, where, _TOP)
    if table["schema"] != SCHEMA:
        raise EntryError(f"{where}: schema is {table['schema']!r}; expected {SCHEMA}")
    protocols = _typed(table["protocols"], dict, f"{where}: protocols")
    cards = {name: _protocol(name, protocols[name], known, where) for name in protocols}
    models = _typed(table["models"], dict, f"{where}: models")
    for name, card in models.items():
        _typed(card, dict, f"{where}: models: {name}")
        for key in ("name", "version", "title", "scheme", "digest"):
            if key not in card:
                raise EntryError(f"{where}: models: {name}: missing key {key!r}")
        if card["name"] != name:
            raise EntryError(f"{where}: models: {name}: is named {card['name']!r}")
    cells = _typed(table["cells"], list, f"{where}: cells")
    return [_cell(each, cards, models, f"{where}: cells[{place}]") for place, each in enumerate(cells)]


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
    wanted = _table(given, f"{where}: protocols: {name}", ("version", "digest"))
    candidates = [dict(each) for each in known if each.get("name") == name]
    try:
        candidates.append(json.loads(find_protocol(name).to_json()))
    except CardError as error:
        if not candidates:
            raise EntryError(f"{where}: protocols: {error}") from error
    for card in candidates:
        if (card["version"], card.get("digest", "")) == (wanted["version"], wanted["digest"]):
            return card
    found = candidates[0]
    if found["version"] != wanted["version"]:
        what = (
            f"measured by version {wanted['version']} of protocol {name}; the card here is version {found['version']}"
        )
    else:
        what = f"measured by another card of protocol {name}, version {found['version']}: the digests differ"
    raise EntryError(f"{where}: {what}: measure it again")


def _cell(given: Any, cards: Mapping[str, Any], models: Mapping[str, Any], where: str) -> ScoredCell:
    table = _table(given, where, _CELL)
    for key, among in (("protocol", cards), ("model", models)):
        if table[key] not in among:
            raise EntryError(f"{where}: {key} {table[key]!r} is not among the {key}s of the entry")
    card = cards[table["protocol"]]
    metrics = metrics_of(card, where)
    names = {
        "model": table["model"],
        "protocol": table["protocol"],
        "system": _typed(table["system"], str, f"{where}: system"),
    }
    rows = _typed(table["scores"], list, f"{where}: scores")
    plots = _typed(table["plots"], list, f"{where}: plots")
    return ScoredCell(
        model=models[table["model"]],
        protocol=card,
        system=names["system"],
        tier=_typed(table["tier"], str, f"{where}: tier"),
        outcome=_outcome(table["outcome"], where),
        reason=_typed(table["reason"], str, f"{where}: reason"),
        provenance=_typed(table["provenance"], dict, f"{where}: provenance"),
        metrics=metrics,
        scores=tuple(_score(row, metrics, names, f"{where}: scores[{place}]") for place, row in enumerate(rows)),
        plots=tuple(_plot(plot, f"{where}: plots[{place}]") for place, plot in enumerate(plots)),
    )


def _score(given: Any, metrics: Mapping[str, Metric], names: Mapping[str, str], where: str) -> Score:
    row = _table(given, where, _SCORE)
    key, outcome = _typed(row["metric"], str, f"{where}: metric"), _outcome(row["outcome"], where)
    interval = None
    if row["value"] is not None:
        value = _number(row["value"], f"{where}: value")
        low = -math.inf if row["low"] is None else _number(row["low"], f"{where}: low")
        high = math.inf if row["high"] is None else _number(row["high"], f"{where}: high")
        if not low <= value <= high:
            raise EntryError(f"{where}: {key}: the interval [{low}, {high}] does not hold the value {value}")
        interval = Interval(value, low, high, _typed(row["n"], int, f"{where}: n"))
    elif row["low"] is not None or row["high"] is not None:
        raise EntryError(f"{where}: {key}: an interval without a value")
    unit = _typed(row["unit"], str, f"{where}: unit")
    metric = metrics.get(key)
    if metric is not None and metric.unit != unit:
        raise EntryError(f"{where}: {key} is in {unit!r}; its card says {metric.unit!r}")
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
        return build(Plot, _typed(given, dict, where), where)
    except CardError as error:
        raise EntryError(str(error)) from error


def _outcome(given: Any, where: str) -> Outcome:
    try:
        return Outcome(given)
    except ValueError as error:
        raise EntryError(f"{where}: outcome is {given!r}; expected one of {', '.join(Outcome)}") from error


def _table(given: Any, where: str, keys: Sequence[str]) -> dict[str, Any]:
    """A table with exactly these keys."""
    table = _typed(given, dict, where)
    for key in keys:
        if key not in table:
            raise EntryError(f"{where}: missing key {key!r}")
    for key in table:
        if key not in keys:
            raise EntryError(f"{where}: unknown key {key!r}")
    return table


def _typed(value: Any, kind: type, where: str) -> Any:
    # True is a whole number to Python
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise EntryError(f"{where} is {value!r:.80}; expected {kind.__name__}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EntryError(f"{where} is {value!r:.80}; expected a finite number")
    return float(value)
