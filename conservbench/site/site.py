"""The site of a board: a folder of static pages that opens from disk and from any web server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conservbench.leaderboard.entry import document_of, spelled_out
from conservbench.result import write_bytes
from conservbench.site.pages import site_pages
from conservbench.site.render import LICENCES, SCRIPTS, STYLES, asset

if TYPE_CHECKING:
    from conservbench.scored import ScoredCell


class SiteError(ValueError):
    """There is nothing to show."""


def write_site(cells: Sequence[ScoredCell], out: Path, protocols: Iterable[Mapping[str, Any]] = ()) -> list[Path]:
    """Write the pages, their assets, and the entry of every model.

    Args:
        cells: what is shown, with pictures.
        out: the folder; it is made if need be, and what else is in it is left as it is.
        protocols: cards as parsed of more protocols that ask the models, measured or not.

    Returns:
        The files, the first page first.

    Raises:
        SiteError: there are no cells.
        conservbench.result.WriteError: a file cannot be written.
    """
    if not cells:
        raise SiteError("no results to show")
    pages, names = site_pages(cells, protocols)
    written = {out / where: text for where, text in pages.items()}
    for name in (*STYLES, *SCRIPTS, *LICENCES):
        written[out / "assets" / name] = asset(name)
    for model, name in names.items():
        own = _newest([cell for cell in cells if cell.model["name"] == model])
        written[out / "data" / f"{name}.json"] = spelled_out(document_of(own))
    for path, text in written.items():
        write_bytes(text.encode(), path)
    return list(written)


def _newest(cells: Sequence[ScoredCell]) -> list[ScoredCell]:
    """Those of the newest version of the model and of each protocol: an entry holds one."""
    newest: dict[str, tuple[int, str]] = {}
    cards = [card for cell in cells for card in ({**cell.model, "name": ""}, cell.protocol)]
    for card in cards:
        newest[card["name"]] = max(newest.get(card["name"], (0, "")), _version(card))
    return [
        cell
        for cell in cells
        if _version(cell.model) == newest[""] and _version(cell.protocol) == newest[cell.protocol["name"]]
    ]


def _version(card: Mapping[str, Any]) -> tuple[int, str]:
    return card["version"], card.get("digest", "")
