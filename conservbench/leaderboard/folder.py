"""The published folder: ``entries/<model>.json`` are the data, ``README.md`` and ``baseline.json`` are made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from conservbench.leaderboard.coverage import installed_protocols
from conservbench.leaderboard.entry import (
    EntryError,
    cells_of,
    document_of,
    entry_name,
    read_entries,
    spelled_out,
    without_plots,
)
from conservbench.leaderboard.page import check_publishable, markdown

if TYPE_CHECKING:
    from conservbench.scored import ScoredCell

ENTRIES: Final = "entries"
"""Folder of the entries within the published one."""

PAGE: Final = "README.md"
"""The page within it."""

BASELINE: Final = "baseline.json"
"""What ``conservbench baseline`` makes of it, kept up to date where it is there."""


def published(cells: Sequence[ScoredCell], out: Path) -> dict[Path, bytes]:
    """Files of a folder after some results are published there; nothing is written.

    The entry of each of their models is replaced whole, but for cells of protocols that were not measured now, which
    are kept if the model's card did not change and the protocol's version is still in force. Entries of other models
    stay as they are. The page is of all entries.

    Args:
        cells: what is published; none writes the page again.
        out: the folder; it need not exist.

    Returns:
        Path to content, of the new entries, of the page, and of the baseline if there is one.

    Raises:
        BoardError: see :func:`conservbench.leaderboard.page.check_publishable`.
        EntryError: an entry of another model cannot be read, or was measured by a version that is no longer in force.
    """
    if cells:
        check_publishable(cells)
    models: dict[str, list[ScoredCell]] = {}
    for cell in cells:
        models.setdefault(str(cell.model["name"]), []).append(cell)
    files: dict[Path, bytes] = {}
    every: list[ScoredCell] = []
    for name, own in models.items():
        path = out / ENTRIES / entry_name(name)
        merged = sorted([*own, *_kept(path, own)], key=lambda cell: (cell.protocol["name"], cell.system))
        files[path] = spelled_out(document_of(merged)).encode()
        every += merged
    for path in sorted((out / ENTRIES).glob("*.json")):
        if path not in files:
            every += read_entries(path)
    check_publishable(every)
    files[out / PAGE] = markdown(_ordered(every), installed_protocols()).encode()
    if (out / BASELINE).exists():
        # in the order of the files of entries, as the command finds them
        inside = sorted(every, key=lambda c: (entry_name(c.model["name"]), c.protocol["name"], c.system))
        files[out / BASELINE] = spelled_out(document_of(without_plots(inside))).encode()
    return files


def stale(files: Mapping[Path, bytes]) -> list[Path]:
    """Those of some files that are not there, or not with this content."""
    return [path for path, content in files.items() if not path.is_file() or path.read_bytes() != content]


def _ordered(cells: Sequence[ScoredCell]) -> list[ScoredCell]:
    """By protocol, tier and system, models before controls."""
    return sorted(cells, key=lambda c: (c.protocol["name"], c.tier, c.system, c.is_control, c.model["name"]))


def _kept(path: Path, own: Sequence[ScoredCell]) -> list[ScoredCell]:
    """Cells of an older entry that stay: of protocols that were not measured now, where they still can be read."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    new = {cell.protocol["name"] for cell in own}
    kept: list[ScoredCell] = []
    try:
        names = [name for name in document["protocols"] if name not in new]
        for name in names:
            part = {
                **document,
                "protocols": {name: document["protocols"][name]},
                "cells": [cell for cell in document["cells"] if cell["protocol"] == name],
            }
            kept += _readable(part, str(path))
    except (KeyError, TypeError, AttributeError):
        return []
    # its passport may have changed: an entry has one card, that of what was measured last
    card = own[0].model
    return [replace(cell, model=card) for cell in kept if cell.model.get("digest") == card.get("digest")]


def _readable(document: Mapping[str, Any], where: str) -> list[ScoredCell]:
    try:
        return cells_of(document, where)
    except EntryError:
        return []
