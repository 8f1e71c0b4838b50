"""What the card of a model or protocol says, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from conservbench.cards import TIERS
from conservbench.leaderboard.sheet import plain
from conservbench.site.command import tier_settings


@dataclass(frozen=True)
class Fact:
    """One thing that a card says; ``link`` is empty where there is nothing to follow."""

    name: str
    text: str
    link: str = ""


_KEYS: Final = {
    "version": "card version",
    "loader": "loader",
    "dtype": "precision",
    "systems": "made for",
    "parent": "tuned from",
    "fast": "fast force of",
    "training_data": "trained on",
    "authors": "authors",
    "license": "licence",
    "sha256": "checkpoint, sha256",
    "digest": "digest of the card",
}

_TUNING: Final = {
    "target": "tuned to",
    "steps": "tuning steps",
    "evaluations": "tuning cost, evaluations of 64 atoms",
    "seconds": "tuning time, s",
}


def passport(card: Mapping[str, Any]) -> list[Fact]:
    """The passport of a model."""
    scheme = f"{card['scheme']}, stride {card['stride']}" if card["scheme"] == "mts" else card["scheme"]
    facts = [Fact("forces", plain(str(scheme)))]
    facts += [Fact(label, _spelled(card[key])) for key, label in _KEYS.items() if card.get(key) not in (None, "", [])]
    tuning = card.get("tuning") or {}
    facts += [Fact(label, _spelled(tuning[key])) for key, label in _TUNING.items() if key in tuning]
    if card.get("doi"):
        facts.append(Fact("doi", plain(card["doi"]), f"https://doi.org/{quote(plain(card['doi']))}"))
    return facts


def settings(card: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Settings of a protocol: the tiers, and for each key its value in each of them."""
    tables = [tier_settings(card, tier) for tier in TIERS]
    keys = dict.fromkeys(key for table in tables for key in table)
    return list(TIERS), [(key, [_spelled(table[key]) if key in table else "–" for table in tables]) for key in keys]


def _spelled(value: Any) -> str:
    return plain(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
