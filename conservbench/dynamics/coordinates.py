"""What an optimiser moves: the atoms in a fixed cell, or atoms and cell together by the unit-cell filter.

The filter is that of Tadmor, Smith, Bernstein and Kaxiras, Phys. Rev. B 59, 235 (1999), as in ASE's
``UnitCellFilter``: the coordinates are the positions without the deformation gradient F of the cell, and n_atoms x F;
the forces on them are f F and the virial F^-T over n_atoms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from conservbench.dynamics.forces import Force
from conservbench.dynamics.rows import Rows
from conservbench.models.base import InvalidPredictionError, Model
from conservbench.scheme import Channel
from conservbench.state import State

ForceAndStress = Callable[[State], tuple[Tensor, Tensor, Tensor | None]]
"""Forces (n_atoms, 3) in eV/Å, stress (n_systems, 3, 3) in eV/Å^3, energies (n_systems,) in eV or None, of a state."""


class Coordinates(Protocol):
    """Generalised coordinates of a batch, rows of three."""

    def rows(self, state: State) -> Rows:
        """Whose the rows are; those of the atoms come first."""
        ...

    def of(self, state: State) -> Tensor:
        """(n_rows, 3) coordinates of a state, Å."""
        ...

    def forces(self, state: State) -> tuple[Tensor, Tensor | None]:
        """(n_rows, 3) forces on them in eV/Å, and energies (n_systems,) in eV or None; one model call."""
        ...

    def place(self, state: State, coordinates: Tensor) -> State:
        """The state at other coordinates."""
        ...

    def take(self, kept: Tensor) -> Self:
        """Those of some systems, by a mask (n_systems,)."""
        ...


@dataclass(frozen=True)
class FixedCell:
    """The positions of the atoms.

    Attributes:
        force: on the atoms.
    """

    force: Force

    def rows(self, state: State) -> Rows:
        """See :class:`Coordinates`."""
        return Rows(state.system, state.n_systems)

    def of(self, state: State) -> Tensor:
        """See :class:`Coordinates`."""
        return state.positions

    def forces(self, state: State) -> tuple[Tensor, Tensor | None]:
        """See :class:`Coordinates`."""
        return self.force(state)

    def place(self, state: State, coordinates: Tensor) -> State:
        """See :class:`Coordinates`."""
        return state.replace(positions=coordinates)

    def take(self, kept: Tensor) -> FixedCell:  # noqa: ARG002 - a fixed cell has nothing of its own
        """See :class:`Coordinates`."""
        return self


@dataclass(frozen=True)
class UnitCell:
    """The positions of the atoms in the undeformed cell, and the deformation gradient of the cell.

    Attributes:
        force_and_stress: of the gradient channel.
        origin: (n_systems, 3, 3), Å, the undeformed cells.
    """

    force_and_stress: ForceAndStress
    origin: Tensor

    def rows(self, state: State) -> Rows:
        """See :class:`Coordinates`."""
        cells = torch.arange(state.n_systems, device=state.system.device).repeat_interleave(3)
        return Rows(torch.cat([state.system, cells]), state.n_systems)

    def of(self, state: State) -> Tensor:
        """See :class:`Coordinates`."""
        deformation = self._deformation(state)
        undeformed = torch.linalg.solve(deformation[state.system], state.positions)
        return torch.cat([undeformed, (self._weight(state) * deformation).view(-1, 3)])

    def forces(self, state: State) -> tuple[Tensor, Tensor | None]:
        """See :class:`Coordinates`."""
        forces, stress, energy = self.force_and_stress(state)
        deformation = self._deformation(state)
        on_atoms = torch.einsum("na,nab->nb", forces, deformation[state.system])
        virial = -state.volume[:, None, None] * stress
        on_cells = torch.linalg.solve(deformation, virial.transpose(1, 2)).transpose(1, 2) / self._weight(state)
        return torch.cat([on_atoms, on_cells.reshape(-1, 3)]), energy

    def place(self, state: State, coordinates: Tensor) -> State:
        """See :class:`Coordinates`."""
        undeformed, cells = coordinates.split([state.n_atoms, 3 * state.n_systems])
        stretch = (cells.view(-1, 3, 3) / self._weight(state)).transpose(1, 2)
        positions = torch.einsum("na,nab->nb", undeformed, stretch[state.system])
        return state.replace(positions=positions, cell=self.origin @ stretch)

    def take(self, kept: Tensor) -> UnitCell:
        """See :class:`Coordinates`."""
        return UnitCell(self.force_and_stress, self.origin[kept])

    def _deformation(self, state: State) -> Tensor:
        """F, (n_systems, 3, 3): cell = origin F^T."""
        return torch.linalg.solve(self.origin, state.cell).transpose(1, 2)

    @staticmethod
    def _weight(state: State) -> Tensor:
        return state.counts.to(state.cell.dtype)[:, None, None]


def force_and_stress_of(model: Model) -> ForceAndStress:
    """Forces and stress of the gradient channel of a model; a direct force has no stress that goes with it.

    Calling it raises :class:`~conservbench.models.base.UnsupportedError` for a model without stress.
    """
    channels: tuple[Channel, ...] = ("gradient",)

    def gradient(state: State) -> tuple[Tensor, Tensor, Tensor | None]:
        prediction = model.evaluate(state, forces=channels, stress=True)
        if prediction.stress is None or prediction.stress.shape != state.cell.shape:
            shape = None if prediction.stress is None else tuple(prediction.stress.shape)
            raise InvalidPredictionError(f"stress has shape {shape}, expected {tuple(state.cell.shape)}")
        return prediction.forces["gradient"], prediction.stress, prediction.energy

    return gradient
