"""The published page: markdown tables, and the same numbers as JSON. Equal results give equal bytes."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from conservbench.leaderboard.sheet import LEGEND, Sheet, label_of, limits_of, plain, sheets

if TYPE_CHECKING:
    from conservbench.scored import ScoredCell

SCHEMA: Final = 1
"""Version of the layout of ``results.json``."""

_PASSPORT: Final = (
    "version",
    "title",
    "loader",
    "scheme",
    "stride",
    "fast",
    "systems",
    "role",
    "dtype",
    "twin",
    "parent",
    "tuning",
    "authors",
    "license",
    "doi",
    "training_data",
    "sha256",
    "digest",
)

_ESCAPES: Final = str.maketrans({
    **{letter: f"\\{letter}" for letter in "\\`*_[]|#~$"},
    "<": "&lt;",
    ">": "&gt;",
    "&": "&amp;",
})  # fmt: skip


_INTRODUCTION: Final = (
    "Written by `conservbench board`; all metrics are in [results.json](results.json). Controls are rows whose answer "
    "is known beforehand: they check the benchmark."
)


class BoardError(ValueError):
    """Results that are not to be published, or not side by side."""


def write_board(cells: Sequence[ScoredCell], out: Path) -> tuple[Path, Path]:
    """Write ``README.md`` and ``results.json``, each whole or not at all.

    Args:
        cells: what is published.
        out: the folder; it is made if need be.

    Returns:
        The two files.

    Raises:
        BoardError: see :func:`check_publishable`.
    """
    check_publishable(cells)
    out.mkdir(parents=True, exist_ok=True)
    files = {out / "README.md": markdown(cells), out / "results.json": results_json(cells)}
    for path, text in files.items():
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    page, entries = files
    return page, entries


def check_publishable(cells: Sequence[ScoredCell]) -> None:
    """Check that results may stand side by side on a page.

    Raises:
        BoardError: there are none; one is of the smoke tier; or two differ in tier, version or card of their protocol,
            or in version or card of their model. The gates count as part of the protocol's card.
    """
    if not cells:
        raise BoardError("no results to publish")
    for cell in cells:
        if cell.tier == "smoke":
            raise BoardError(
                f"{_label(cell)} is of the smoke tier, which is never published; expected quick or standard"
            )
    for kind in ("protocol", "model"):
        first: dict[str, ScoredCell] = {}
        for cell in cells:
            other = first.setdefault(getattr(cell, kind)["name"], cell)
            _check_alike(kind, other, cell)


def _check_alike(kind: Literal["protocol", "model"], one: ScoredCell, other: ScoredCell) -> None:
    cards = [getattr(cell, kind) for cell in (one, other)]
    versions = [f"version {card['version']}" for card in cards]
    if kind == "protocol":
        versions = [f"{version}, {cell.tier} tier" for version, cell in zip(versions, (one, other), strict=True)]
    where = f"{_label(one)} and {_label(other)}"
    if versions[0] != versions[1]:
        raise BoardError(f"{where} differ in their {kind}: {versions[0]} against {versions[1]}; measure them alike")
    if cards[0].get("digest") != cards[1].get("digest"):
        raise BoardError(f"{where} were measured with different cards of one {kind} version; measure them again")
    # the digest leaves the gates out
    if cards[0].get("metrics") != cards[1].get("metrics"):
        raise BoardError(
            f"{where} were measured for different metrics or gates of one {kind} version; measure them alike"
        )


def results_json(cells: Sequence[ScoredCell]) -> str:
    """All scores, how each cell ended and where it comes from, and the passports of the models."""
    models = {cell.model["name"]: cell.model for cell in cells}
    protocols = {cell.protocol["name"]: cell.protocol for cell in cells}
    document = {
        "schema": SCHEMA,
        "models": {name: {key: card[key] for key in _PASSPORT if key in card} for name, card in sorted(models.items())},
        "protocols": {
            name: {key: card.get(key) for key in ("version", "title", "question", "digest", "metrics")}
            for name, card in sorted(protocols.items())
        },
        "cells": [
            {
                "model": cell.model["name"],
                "protocol": cell.protocol["name"],
                "system": cell.system,
                "tier": cell.tier,
                "outcome": cell.outcome,
                "reason": cell.reason,
                "provenance": cell.provenance,
            }
            for cell in cells
        ],
        "scores": [score.to_row() for cell in cells for score in cell.scores],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def markdown(cells: Sequence[ScoredCell]) -> str:
    """The page: a table for each protocol and system, the gates, the models, and how to measure it all again."""
    drawn = sheets(cells)
    lines = [
        "# Leaderboard: what the published models scored",
        "",
        _INTRODUCTION,
        "",
        escaped(LEGEND),
        "",
    ]
    for sheet in drawn:
        lines += [f"## {escaped(sheet.title)}", "", escaped(sheet.question), ""]
        for system in sheet.systems:
            lines += _table(sheet, system)
    lines += _gates(cells) + _models(cells) + _reproduction(cells)
    return "\n".join(lines).rstrip() + "\n"


def escaped(text: str) -> str:
    """Text that markdown and HTML leave as it is, on one line."""
    return plain(text).translate(_ESCAPES)


def _table(sheet: Sheet, system: str) -> list[str]:
    body = [(row.name, *(entry.marked for entry in row.entries)) for row in sheet.systems[system]]
    notes = [f"- {escaped(note)}" for note in sheet.notes[system]]
    return [f"### {escaped(system)}", "", *_rows(("model", *sheet.headings), body), *notes, *([""] if notes else [])]


def _rows(headings: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    rule = "|".join([" --- ", *([" ---: "] * (len(headings) - 1))])
    drawn = [f"| {' | '.join(map(escaped, row))} |" for row in (headings, *body)]
    return [drawn[0], f"|{rule}|", *drawn[1:], ""]


def _gates(cells: Sequence[ScoredCell]) -> list[str]:
    lines = ["## Gates", ""]
    for name, cell in {cell.protocol["name"]: cell for cell in cells}.items():
        lines += [f"**{escaped(name)}**", ""]
        lines += [
            f"- {escaped(label_of(metric))}: {limits_of(metric) or 'no gate'}. {escaped(metric.source)}".rstrip()
            for metric in sorted(cell.metrics.values(), key=lambda metric: not metric.headline)
            if limits_of(metric) or metric.headline
        ]
        lines.append("")
    return lines


def _models(cells: Sequence[ScoredCell]) -> list[str]:
    lines = ["## Models", ""]
    cards = {cell.model["name"]: (cell.is_control, cell.model) for cell in cells}
    for _, (control, card) in sorted(cards.items(), key=lambda item: (item[1][0], item[0])):
        lines.append(f"- **{escaped(card['name'])}**, version {card['version']}{' (control)' if control else ''}: "
                     + _passport(card))  # fmt: skip
    return [*lines, ""]


def _passport(card: Mapping[str, Any]) -> str:
    scheme = f"{card['scheme']}-{card['stride']}" if card["scheme"] == "mts" else card["scheme"]
    parts = [escaped(card["title"]), f"forces {escaped(scheme)}"]
    parts += [escaped(f"tuned from {card['parent']} to {card['tuning']['target']}")] if card.get("parent") else []
    parts += [escaped(", ".join(card["authors"]))] if card.get("authors") else []
    parts += [f"licence {escaped(card['license'])}"] if card.get("license") else []
    parts += [f"[{escaped(card['doi'])}](https://doi.org/{quote(plain(card['doi']))})"] if card.get("doi") else []
    parts += [f"trained on: {escaped(card['training_data'])}"] if card.get("training_data") else []
    return "; ".join(parts).rstrip(".") + "."


def _reproduction(cells: Sequence[ScoredCell]) -> list[str]:
    codes = sorted({_code(cell.provenance) for cell in cells})
    return [
        "## Reproduce",
        "",
        f"Measured with {escaped('; '.join(codes))}.",
        "",
        "```",
        *_commands(cells),
        "conservbench board conservbench-results",
        "```",
    ]


def _commands(cells: Sequence[ScoredCell]) -> list[str]:
    """Commands that measure these cells and no others: one for each block of protocols, systems and models."""
    models: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        models.setdefault((cell.tier, cell.protocol["name"], cell.system), []).append(cell.model["name"])
    systems: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for (tier, protocol, system), names in models.items():
        systems.setdefault((tier, protocol, tuple(sorted(names))), []).append(system)
    protocols: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (tier, protocol, block), names in systems.items():
        protocols.setdefault((tier, tuple(names), block), []).append(protocol)
    return [
        shlex.join(
            ["conservbench", "run", "--tier", tier, *_flagged("-p", names), *_flagged("-s", on), *_flagged("-m", of)]
        )
        for (tier, on, of), names in protocols.items()
    ]


def _flagged(flag: str, names: Iterable[str]) -> list[str]:
    return [word for name in names for word in (flag, name)]


def _code(provenance: Mapping[str, Any]) -> str:
    git = provenance.get("git") or {}
    commit = f" at commit {git['commit'][:12]}{' with local changes' if git.get('dirty') else ''}" if git else ""
    packages = provenance.get("packages", {})
    versions = [f"{name} {packages[name]}" for name in ("torch", "mace-torch", "ase") if packages.get(name)]
    return ", ".join([f"conservbench {provenance.get('conservbench')}{commit}", *versions])


def _label(cell: ScoredCell) -> str:
    return f"{cell.protocol['name']} / {cell.system} / {cell.model['name']}"
