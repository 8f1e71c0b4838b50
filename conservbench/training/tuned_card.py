"""What a tuning leaves on disk: a model card that names its parent, and the parameters beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import tomli_w

from conservbench.cards import CardError, ModelCard, check_name, find_model, find_parent, list_models, read_model
from conservbench.result import write_bytes
from conservbench.training.finetune import Tuned
from conservbench.training.tuning_recipe import Target, TuningRecipe, in_words, name_of

_INHERITED: Final = (
    "loader",
    "scheme",
    "stride",
    "dtype",
    "systems",
    "elements",
    "authors",
    "license",
    "doi",
    "bibtex",
)


def write_tuned_card(
    tuned: Tuned, parent: ModelCard, targets: Sequence[Target], recipe: TuningRecipe, path: Path
) -> None:
    """Write a tuned model: its parameters first, then the card, atomically.

    Args:
        tuned: the model and how it came about.
        parent: card of what was tuned.
        targets: what it was tuned to beside energies and forces.
        recipe: where these, and the labels, are from.
        path: of the card.
    """
    inherited = {key: parent.document[key] for key in _INHERITED if key in parent.document}
    loaded = tuned.model.save(path)
    options = {**parent.options, **loaded.get("options", {})}
    document: dict[str, Any] = {
        "name": path.stem,
        "version": 1,
        "title": ", ".join((parent.title, "tuned to " + (in_words(targets) or "energies and forces alone"))),
        **inherited,
        "training_data": _training_data(parent, targets, recipe),
        **{key: value for key, value in loaded.items() if key != "options"},
        "parent": _name_for(parent, path),
        **({"options": options} if options else {}),
        "tuning": _record(tuned, parent, targets),
    }
    write_bytes(tomli_w.dumps(document, multiline_strings=True).encode(), path)


def check_place(name: str, parent: ModelCard, targets: Sequence[Target], folder: Path) -> None:
    """Check that a tuned model may take a name in a folder, before any work is done for it.

    Raises:
        CardError: no card may have that name, or the folder holds another model's card of that name.
        OSError: the folder cannot be written to.
    """
    check_name(name, "--name")
    path = folder / f"{name}.toml"
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise OSError(f"{folder}: cannot be written to")
    if not path.exists():
        return
    there = read_model(path)
    origin = find_parent(there)
    same = origin is not None and origin.digest == parent.digest and origin.name == parent.name
    if not same or there.tuning is None or there.tuning.target != _target(targets):
        raise CardError(f"{path} is there, and another model's; expected another --name or --out")


def _training_data(parent: ModelCard, targets: Sequence[Target], recipe: TuningRecipe) -> str:
    labels = [] if recipe.data in parent.training_data else [recipe.data]
    properties = [f"{in_words(targets)} of {recipe.reference}"] if targets else []
    return "; ".join(filter(None, (parent.training_data, *labels, *properties)))


def _name_for(card: ModelCard, beside: Path) -> str:
    """Name of a card that is found by it, the relative path of another."""
    shipped = card.name in list_models() and find_model(card.name).path == card.path
    return card.name if shipped else os.path.relpath(card.path, beside.parent)


def _target(targets: Sequence[Target]) -> str:
    return " + ".join(targets) or "energies and forces"


def _record(tuned: Tuned, parent: ModelCard, targets: Sequence[Target]) -> Mapping[str, Any]:
    """The ``[tuning]`` table (see :class:`conservbench.cards.Tuning`)."""
    errors = {
        f"{name}_{when}": round(value, 3)
        for when, measured in (("before", tuned.before), ("after", tuned.after))
        for name, value in measured.items()
    }
    descent = tuned.descent
    return {
        "target": _target(targets),
        "steps": len(descent.history),
        "rejected": len(descent.history) - descent.accepted,
        "evaluations": round(descent.total("evaluations")),
        "seconds": round(descent.total("seconds"), 1),
        **({"control": name_of(parent.name, ())} if targets else {}),
        **errors,
    }
