"""The state of a running simulation: a batch of systems with forces, energies, and the heat and variables of a bath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from conservbench.models.base import InvalidPredictionError
from conservbench.state import State, select


@dataclass(frozen=True)
class MDState(State):
    """A batch in motion.

    Attributes:
        forces: (n_atoms, 3), eV/Å, at the positions.
        energy: (n_systems,), eV, potential energy at the positions; None for a model without one.
        heat: (n_systems,), eV, what a thermostat has put in so far: kinetic + potential energy - heat is conserved.
        bath: (n_systems, n), variables of a thermostat; (n_systems, 0) where it has none.
        replica: (n_systems) who each system is, whatever batch it is in; random numbers and records go by it.
    """

    forces: Tensor
    energy: Tensor | None
    heat: Tensor
    bath: Tensor
    replica: tuple[int, ...]

    def take(self, systems: Sequence[int]) -> Self:
        """Some systems of the batch, in the order given, with all that belongs to them."""
        part = select(self, systems)
        members = torch.cat([torch.nonzero(self.system == index)[:, 0] for index in systems])
        chosen = torch.tensor(list(systems), device=self.system.device)
        per_atom = {name: getattr(self, name)[members] for name in self._forces()}
        return type(self)(
            **{field.name: getattr(part, field.name) for field in fields(State)},
            **per_atom,
            energy=None if self.energy is None else self.energy[chosen],
            heat=self.heat[chosen],
            bath=self.bath[chosen],
            replica=tuple(self.replica[index] for index in systems),
        )

    @staticmethod
    def _forces() -> tuple[str, ...]:
        return ("forces",)


def set_in_motion(state: State, forces: Tensor, energy: Tensor | None) -> MDState:
    """The start of a simulation; its systems are numbered from 0, no heat has flown, and no bath is there.

    Raises:
        InvalidPredictionError: the forces or energies have a wrong shape or a value that is not finite.
    """
    require_sound("forces", forces, state.positions.shape, state.system)
    if energy is not None:
        systems = torch.arange(state.n_systems)
        require_sound("energies", energy, systems.shape, systems)
    return MDState(
        **{field.name: getattr(state, field.name) for field in fields(State)},
        forces=forces,
        energy=energy,
        heat=state.positions.new_zeros(state.n_systems),
        bath=state.positions.new_zeros((state.n_systems, 0)),
        replica=tuple(range(state.n_systems)),
    )


def require_sound(name: str, values: Tensor, shape: torch.Size, system: Tensor) -> None:
    """Refuse a prediction that no simulation can start from.

    Args:
        name: what the values are.
        values: a row for each atom, or for each system.
        shape: what theirs must be.
        system: the system of each row.

    Raises:
        InvalidPredictionError: the values have another shape, or one of them is not finite.
    """
    if values.shape != shape:
        raise InvalidPredictionError(f"{name} of the start have shape {tuple(values.shape)}, expected {tuple(shape)}")
    astray = torch.nonzero(~torch.isfinite(values))
    if len(astray):
        raise InvalidPredictionError(f"{name} of the start are not all finite in system {int(system[astray[0, 0]])}")
