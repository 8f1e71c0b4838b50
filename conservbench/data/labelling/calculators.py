"""What labels structures and what moves them, as ASE calculators."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from conservbench.cards import CardError, ModelCard
from conservbench.data.labelling.card import Labelling
from conservbench.models.ase import import_factory
from conservbench.models.load import load_model
from conservbench.state import from_atoms
from conservbench.systems import System

if TYPE_CHECKING:
    from conservbench.models.base import Model

Make = Callable[[], Calculator]
"""Makes a calculator that remembers nothing."""


def labeller(card: Labelling) -> Make:
    """What makes the calculator of a card.

    Raises:
        CardError: the factory is not there, or does not take its arguments.
    """
    factory = import_factory(card.calculator.factory)

    def make() -> Calculator:
        try:
            return factory(**card.calculator.arguments)
        except TypeError as error:
            name = card.calculator.factory
            raise CardError(f"{card.path}: factory {name!r} does not take its arguments: {error}") from error

    return make


def sampler(card: Labelling, start: Atoms) -> Make | None:
    """What makes the calculator that moves the atoms, if it is another than the one that labels.

    Raises:
        CardError: the card names no model, or one that must be run under multiple time steps.
    """
    model_card = card.sampler_card()
    if model_card is None:
        return None
    system = System(card.name, card.version, card.title, 0.0, start, (start,), card.citation, "")
    return lambda: SuiteCalculator(load_model(model_card, system), model_card)


class SuiteCalculator(Calculator):  # type: ignore[misc, unused-ignore]
    """A model of the suite as an ASE calculator of forces.

    Args:
        model: as its loader made it.
        card: says which of its channels the force is.
    """

    implemented_properties = ["forces"]  # noqa: RUF012

    def __init__(self, model: Model, card: ModelCard) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model, self._channel = model, card.scheme.mean_channel

    def calculate(
        self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: list[str] = all_changes
    ) -> None:
        """Fill ``results``; see ASE."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        prediction = self._model.evaluate(from_atoms(cast("Atoms", self.atoms)), forces=[self._channel])
        self.results = {"forces": prediction.forces[self._channel].detach().cpu().numpy().astype(float)}
