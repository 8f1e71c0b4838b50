"""Plugins: model loaders, protocols and card folders, found through entry points.

Three groups, which the package itself uses too:

* ``conservbench.models``: loader name to ``module:load``;
* ``conservbench.protocols``: protocol name to the package with its ``settings``, ``measure``, ``judge`` and, if it has
  any, ``plots``;
* ``conservbench.cards``: any name to a package that holds a folder ``models`` or ``protocols`` of cards.

Listing imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from conservbench.hint import did_you_mean

Group = Literal["conservbench.models", "conservbench.protocols"]
Part = Literal["settings", "measure", "judge", "plots"]


class PluginError(ValueError):
    """A plugin is not known, or not what it should be."""


def find_entry(group: Group, name: str) -> EntryPoint:
    """The entry point of a loader or protocol, without importing it.

    Raises:
        PluginError: no installed package declares it.
    """
    known = entry_points(group=group)
    for entry in known:
        if entry.name == name:
            return entry
    raise PluginError(f"no plugin {name!r} in {group}{did_you_mean(name, known.names)}")


def loader(name: str) -> Callable[..., Any]:
    """The function ``load(card, system, *, device, dtype) -> Model`` of a loader.

    Raises:
        PluginError: no installed package declares it.
    """
    return find_entry("conservbench.models", name).load()


def protocol_module(name: str, part: Part) -> ModuleType:
    """One module of a protocol; only ``measure`` may import torch.

    Raises:
        PluginError: no installed package declares it.
    """
    return import_module(f"{find_entry('conservbench.protocols', name).value}.{part}")


def card_folders(kind: Literal["models", "protocols"]) -> list[Path]:
    """Folders of cards that other packages bring; the packages are located, not imported.

    Raises:
        PluginError: a declared package is not there.
    """
    folders = []
    for entry in entry_points(group="conservbench.cards"):
        spec = find_spec(entry.value)
        if spec is None or spec.submodule_search_locations is None:
            raise PluginError(f"entry point {entry.name!r} in conservbench.cards: no package {entry.value!r}")
        folders += [Path(place) / kind for place in spec.submodule_search_locations]
    return [folder for folder in folders if folder.is_dir()]
