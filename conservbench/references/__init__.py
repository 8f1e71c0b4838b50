"""Reference properties by name: numbers that a model's simulated properties are compared with.

Each reference is a file ``NAME.json`` of this package, made from public data by :mod:`conservbench.training.reference`,
or computed by :mod:`conservbench.training.computed_reference`.
"""

from __future__ import annotations

import json
from importlib.resources import files

from conservbench.hint import did_you_mean
from conservbench.references.reference import (
    CONSTANTS,
    ForceConstants,
    Phonons,
    Profile,
    Profiles,
    Reference,
    Sites,
    from_table,
)
from conservbench.references.symmetry import Operations, operations

__all__ = [
    "CONSTANTS",
    "ForceConstants",
    "Operations",
    "Phonons",
    "Profile",
    "Profiles",
    "Reference",
    "Sites",
    "find_profiles",
    "find_reference",
    "list_references",
    "operations",
]


def list_references() -> dict[str, str]:
    """Title of every reference by its name, in alphabetical order."""
    return {name: find_profiles(name).title for name in _names()}


def find_profiles(name: str) -> Profiles:
    """The reference of that name, be it of a crystal too or of atoms in motion alone.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    known = _names()
    if name not in known:
        raise ValueError(f"no reference {name!r}{did_you_mean(name, known)}")
    text = files("conservbench.references").joinpath(f"{name}.json").read_text(encoding="utf-8")
    return from_table(json.loads(text))


def find_reference(name: str) -> Reference:
    """The reference of that name, which is of a crystal.

    Raises:
        ValueError: there is none, or it has no crystal.
    """
    found = find_profiles(name)
    if not isinstance(found, Reference):
        raise ValueError(f"reference {name!r} has no crystal at rest")
    return found


def _names() -> list[str]:
    folder = files("conservbench.references")
    return sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json"))
