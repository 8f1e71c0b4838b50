"""A model of the suite as an ASE calculator: the way back from :mod:`conservbench.models.ase`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from conservbench.state import from_atoms

if TYPE_CHECKING:
    from conservbench.models.base import Model
    from conservbench.scheme import Channel


class ForceCalculator(Calculator):  # type: ignore[misc, unused-ignore]
    """Forces of one channel of a model, for programs that move atoms by an ASE calculator.

    Args:
        model: as its loader made it.
        channel: which of its forces.
    """

    implemented_properties = ["forces"]  # noqa: RUF012

    def __init__(self, model: Model, channel: Channel) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model, self._channel = model, channel

    def calculate(
        self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: list[str] = all_changes
    ) -> None:
        """Fill ``results``; see ASE."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        prediction = self._model.evaluate(from_atoms(cast("Atoms", self.atoms)), forces=[self._channel])
        self.results = {"forces": prediction.forces[self._channel].detach().cpu().numpy().astype(float)}
