"""What labels structures and what moves them, as ASE calculators."""

from __future__ import annotations

from collections.abc import Callable

from ase import Atoms
from ase.calculators.calculator import Calculator

from conservbench.cards import CardError
from conservbench.data.labelling.card import Labelling, distributions
from conservbench.models.ase import import_factory
from conservbench.models.calculator import ForceCalculator
from conservbench.models.load import load_model
from conservbench.provenance import version_of
from conservbench.systems import System

Make = Callable[[], Calculator]
"""Makes a calculator that remembers nothing."""


def labeller(card: Labelling) -> Make:
    """What makes the calculator of a card.

    Raises:
        CardError: the factory is not there, does not take its arguments, or fails.
    """
    factory = import_factory(card.calculator.factory)
    where = f"{card.path}: factory {card.calculator.factory!r}"

    def make() -> Calculator:
        try:
            made = factory(**card.calculator.arguments)
        except TypeError as error:
            raise CardError(f"{where} does not take its arguments: {error}") from error
        except Exception as error:
            raise CardError(f"{where} failed: {type(error).__name__}: {error}") from error
        if lacking := {"energy", "forces"} - set(made.implemented_properties):
            raise CardError(f"{where} makes a calculator without {' and '.join(sorted(lacking))}")
        return made

    return make


def packages_of(factory: str) -> dict[str, str | None]:
    """The installed packages that bring a factory, and their versions."""
    return {name: version_of(name) for name in distributions(factory)}


def sampler(card: Labelling, start: Atoms) -> Make | None:
    """What makes the calculator that moves the atoms, if it is another than the one that labels.

    Raises:
        CardError: the card names no model, or one that must be run under multiple time steps.
    """
    model_card = card.sampler_card()
    if model_card is None:
        return None
    system = System(card.name, card.version, card.title, 0.0, start, (start,), card.citation, "")
    return lambda: ForceCalculator(load_model(model_card, system), model_card.scheme.mean_channel)
