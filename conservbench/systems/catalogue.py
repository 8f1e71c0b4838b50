"""What systems there are, by name, as their files have them; and which of them a model is asked about."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from conservbench.elements import SYMBOLS


@cache
def system_names() -> tuple[str, ...]:
    """Names of all systems, in alphabetical order."""
    folder = files("conservbench") / "systems"
    return tuple(sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json")))


@cache
def system_table(name: str) -> Mapping[str, Any]:
    """A system as its file has it; nothing where there is none of this name."""
    # a name from outside is no path
    if name not in system_names():
        return {}
    table: Mapping[str, Any] = json.loads(
        (files("conservbench") / "systems" / f"{name}.json").read_text(encoding="utf-8")
    )
    return table


def elements_of(name: str) -> frozenset[str]:
    """Symbols of the elements of a system; none where there is no system of this name."""
    return frozenset(SYMBOLS[number - 1] for number in system_table(name).get("numbers", ()))


def fits(elements: Collection[str], system: str) -> bool:
    """Whether a model that knows these elements, or any where there are none, can be asked about a system."""
    return not elements or elements_of(system) <= set(elements)


def concerns(systems: Sequence[str], more_systems: Sequence[str], system: str) -> bool:
    """Whether a protocol that lists these systems has any of the elements of a system, or lists none at all."""
    listed = (*systems, *more_systems)
    return not listed or elements_of(system) <= frozenset().union(*map(elements_of, listed))


def asked_about(
    own: Sequence[str], elements: Collection[str], systems: Sequence[str], more_systems: Sequence[str]
) -> tuple[str, ...]:
    """The systems that a protocol asks a model about where nobody chose any.

    Args:
        own: those the card of the model names.
        elements: that the card of the model names.
        systems: of the protocol.
        more_systems: of the protocol, for models that know no element of its ``systems``.
    """
    if own:
        return tuple(own)
    known = tuple(name for name in systems if fits(elements, name))
    return known or tuple(name for name in more_systems if fits(elements, name))
