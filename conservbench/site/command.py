"""The command that measures one cell again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from conservbench.cards import list_models, list_protocols, row_name

if TYPE_CHECKING:
    from conservbench.scored import ScoredCell


SOMEWHERE: Final = "path/to/"
"""Where a card is that is not installed."""


@dataclass(frozen=True)
class Installed:
    """Names of the cards that a command can name; others are files of the reader's."""

    models: frozenset[str]
    protocols: frozenset[str]


def installed() -> Installed:
    """The cards that are installed here."""
    return Installed(frozenset(list_models()), frozenset(list_protocols()))


def command_of(cell: ScoredCell, here: Installed) -> str:
    """The command line that measures a cell and what its metrics compare it with.

    It gives seed and device where they are not those by default. A card that is not installed is one of the reader's,
    in a folder that nobody else knows: it stands as ``path/to/NAME.toml``.
    """
    words = ["conservbench", "run"]
    for name in (cell.model["name"], *_compared(cell)):
        words += ["-m", _named(name, here.models)]
    words += ["-p", _named(cell.protocol["name"], here.protocols), "-s", cell.system, "--tier", cell.tier]
    seed = (cell.provenance.get("seeds") or {}).get("seed")
    if seed is not None and seed != tier_settings(cell.protocol, cell.tier).get("seed"):
        words += ["--seed", str(seed)]
    device = str(cell.provenance.get("device") or "cpu")
    words += [] if device == "cpu" else ["--device", device]
    return shlex.join(words)


def _compared(cell: ScoredCell) -> list[str]:
    """Names of the models whose results its metrics compare it with."""
    card = cell.model
    others = {
        # the twin that a gradient names has other forces: it is compared with the gradient, not the gradient with it
        "twin": None if card["scheme"] == "gradient" else card.get("twin"),
        "parent": card.get("parent"),
        "control": (card.get("tuning") or {}).get("control"),
    }
    asked = [key for key in others if any(getattr(metric, key) for metric in cell.metrics.values())]
    names = [row_name(str(others[key])) for key in asked if others[key]]
    return [name for name in dict.fromkeys(names) if name != card["name"]]


def tier_settings(card: Mapping[str, Any], tier: str) -> dict[str, Any]:
    """Settings of a tier of a protocol card as parsed."""
    return {**(card.get("settings") or {}), **(card.get("tiers") or {}).get(tier, {})}


def origin_of(provenance: Mapping[str, Any]) -> str:
    """What measured a cell, and on which machine, in one line; empty where nothing is recorded."""
    git = provenance.get("git") or {}
    commit = f"commit {str(git['commit'])[:12]}{' with local changes' if git.get('dirty') else ''}" if git else ""
    packages = provenance.get("packages") or {}
    parts = [
        f"conservbench {provenance['conservbench']}" if provenance.get("conservbench") else "",
        commit,
        *(f"{name} {packages[name]}" for name in ("torch", "mace-torch", "ase") if packages.get(name)),
        str(provenance.get("processor") or ""),
        str(provenance.get("device") or ""),
        f"{provenance['threads']} threads" if provenance.get("threads") else "",
        str(provenance.get("dtype") or ""),
        f"{provenance['seconds']:.0f} s" if isinstance(provenance.get("seconds"), int | float) else "",
    ]
    return ", ".join(part for part in parts if part)


def _named(name: str, known: frozenset[str]) -> str:
    return name if name in known or name.startswith("ase:") else f"{SOMEWHERE}{name}.toml"
