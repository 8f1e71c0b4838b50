"""Tune a model through its simulated properties.

The loss is that of labelled energies and forces plus a term for each target. With no target the same steps are taken on
energies and forces alone: the control that a tuned model is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import Tensor

from conservbench.cards import CardError, ModelCard
from conservbench.data.catalogue import find_data_set
from conservbench.data.frames import Split, load_frames
from conservbench.hint import did_you_mean
from conservbench.models.base import Tunable, UnsupportedError, in_precision_of
from conservbench.models.load import load_model
from conservbench.references import Reference, find_reference
from conservbench.scheme import Scheme
from conservbench.systems import System, find_system
from conservbench.training.descent import Descent, Progress, descend
from conservbench.training.labelled import Labelled, label
from conservbench.training.terms import Term
from conservbench.training.terms.crystal import elastic, interatomic
from conservbench.training.terms.labels import Labels, energy_offset, label_errors
from conservbench.training.terms.rdf import EnsembleRDF, TrajectoryRDF
from conservbench.training.tuning_recipe import Target, TuningRecipe

ZERO: Final = 0.2
"""eV/atom, by which energies that are counted from one zero may differ on average."""


@dataclass(frozen=True)
class Tuned:
    """What a tuning left.

    Attributes:
        model: at the parameters that are kept.
        descent: how it came there.
        before: mean absolute errors on test frames (see :func:`conservbench.training.terms.labels.label_errors`).
        after: likewise, at the parameters that are kept.
    """

    model: Tunable
    descent: Descent
    before: Mapping[str, float]
    after: Mapping[str, float]


def finetune(
    card: ModelCard,
    targets: Sequence[Target],
    recipe: TuningRecipe,
    state_file: Path,
    *,
    fresh: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Tuned:
    """Tune the model of a card, going on from the step that ``state_file`` holds (see :func:`descend`).

    Args:
        card: the model, and the force scheme whose properties are tuned.
        targets: properties beside energies and forces; none makes the control.
        recipe: how.
        state_file: where to go on, written after each step.
        fresh: start anew, whatever the file holds.
        device: torch device.
        progress: told of each step.

    Raises:
        UnsupportedError: the model cannot be tuned, or lacks what a target needs.
        ValueError: a name in the recipe is not known, a data file has a wrong checksum, or ``state_file`` is that of
            another tuning.
    """
    reference, system = find_reference(recipe.reference), find_system(recipe.rdf.system)
    model, exact = (_tunable(card, system, device, dtype) for dtype in (None, "float64"))
    train, test = (_labelled(recipe.data, split, device) for split in ("train", "test"))
    terms: list[Term] = [Labels(model, train, recipe.errors, recipe.seed)]
    terms += [_term(target, model, exact, card.scheme, recipe, reference, system) for target in targets]
    start = {name: _parameter(exact, name) for name in recipe.parameters or tuple(exact.parameters)}
    if recipe.errors.energy:
        _require_zero_of(train, model, card)
    identity = repr((card.digest, card.scheme, tuple(targets), recipe))
    descent = descend(terms, start, recipe, identity, state_file, fresh=fresh, progress=progress)
    tuned = model.at(in_precision_of(model, descent.parameters))
    before, after = (label_errors(each, test, energy=recipe.errors.energy > 0) for each in (model, tuned))
    return Tuned(tuned, descent, before, after)


def _require_zero_of(frames: Sequence[Labelled], model: Tunable, card: ModelCard) -> None:
    """Refuse to compare energies that are counted from another zero than those of the labels.

    Raises:
        UnsupportedError: they are; a potential would be tuned to that alone.
    """
    offset = energy_offset(model, frames)
    if abs(offset) > ZERO:
        raise UnsupportedError(
            f"the energies of {card.name} are {offset:+.2f} eV/atom off the labels on average, from another zero; "
            "set energy = 0 under [errors] of the recipe"
        )


def _labelled(data: str, split: Split, device: str) -> list[Labelled]:
    return [label(atoms, device) for atoms in load_frames(find_data_set(data), split)]


def _tunable(card: ModelCard, system: System, device: str, dtype: str | None) -> Tunable:
    model = load_model(card, system, device=device, dtype=dtype)
    if not isinstance(model, Tunable) or not model.differentiable:
        reason = f"its loader {card.loader!r} gives no parameters" if card.fast is None else "it is two models"
        raise UnsupportedError(f"{card.name} cannot be tuned: {reason}")
    return model


def _parameter(model: Tunable, name: str) -> Tensor:
    known = model.parameters
    if name not in known:
        raise CardError(f"parameters: the model has no parameter {name!r}{did_you_mean(name, known)}")
    return known[name]


def _term(
    target: Target,
    model: Tunable,
    exact: Tunable,
    scheme: Scheme,
    recipe: TuningRecipe,
    reference: Reference,
    system: System,
) -> Term:
    if target == "rdf":
        if system.name not in reference.rdf:
            known = ", ".join(reference.rdf)
            raise CardError(
                f"[rdf]: reference {reference.name} has no g(r) of system {system.name!r} (it has: {known})"
            )
        kind = EnsembleRDF if scheme.kind == "gradient" else TrajectoryRDF
        return kind(model, scheme, system, reference.rdf[system.name], recipe.rdf, recipe.seed)
    if target == "elastic":
        return elastic(exact, scheme, reference, recipe.elastic.weight)
    return interatomic(exact, scheme, reference, recipe.force_constants.weight)
