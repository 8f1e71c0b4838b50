"""Batches of atomic systems: one frozen state that every model and integrator reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class State:
    """``n_systems`` systems with ``n_atoms`` atoms in all, stored one after the other.

    Attributes:
        positions: (n_atoms, 3), Å; never wrapped, so that displacements are continuous.
        momenta: (n_atoms, 3), amu Å per internal time unit (sqrt(eV amu)).
        masses: (n_atoms,), amu.
        numbers: (n_atoms,), atomic numbers, int64.
        cell: (n_systems, 3, 3), Å; rows are the cell vectors, zero rows where not periodic.
        pbc: (n_systems, 3), bool.
        system: (n_atoms,), index of each atom's system, ascending, int64.
    """

    positions: Tensor
    momenta: Tensor
    masses: Tensor
    numbers: Tensor
    cell: Tensor
    pbc: Tensor
    system: Tensor

    @property
    def n_atoms(self) -> int:
        """Number of atoms in all systems together."""
        return self.positions.shape[0]

    @property
    def n_systems(self) -> int:
        """Number of systems in the batch."""
        return self.cell.shape[0]

    @property
    def counts(self) -> Tensor:
        """(n_systems,) number of atoms of each system."""
        return torch.bincount(self.system, minlength=self.n_systems)

    @property
    def volume(self) -> Tensor:
        """(n_systems,) cell volume in Å^3."""
        return torch.linalg.det(self.cell).abs()

    @property
    def velocities(self) -> Tensor:
        """(n_atoms, 3) velocities in Å per internal time unit."""
        return self.momenta / self.masses[:, None]

    def sum(self, per_atom: Tensor) -> Tensor:
        """Sum a per-atom quantity (n_atoms, ...) over each system: (n_systems, ...)."""
        total = per_atom.new_zeros((self.n_systems, *per_atom.shape[1:]))
        return total.index_add(0, self.system, per_atom)

    def replace(self, **changes: Tensor) -> Self:
        """Copy with some fields replaced."""
        return replace(self, **changes)

    def to(self, device: torch.device | str) -> Self:
        """Copy on another device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in _FIELDS})


_FIELDS = ("positions", "momenta", "masses", "numbers", "cell", "pbc", "system")


def from_atoms(atoms: Atoms | Sequence[Atoms], *, device: torch.device | str = "cpu") -> State:
    """Batch ASE structures, float64.

    Args:
        atoms: one structure or several; they may differ in size and composition.
        device: where the tensors live.
    """
    from ase import Atoms

    frames = [atoms] if isinstance(atoms, Atoms) else list(atoms)
    sizes = torch.tensor([len(frame) for frame in frames])

    def stack(arrays: list[np.ndarray]) -> Tensor:
        return torch.as_tensor(np.concatenate(arrays), device=device)

    return State(
        positions=stack([frame.get_positions() for frame in frames]),
        momenta=stack([frame.get_momenta() for frame in frames]),
        masses=stack([frame.get_masses() for frame in frames]),
        numbers=stack([frame.get_atomic_numbers() for frame in frames]).long(),
        cell=stack([frame.cell.array[None] for frame in frames]),
        pbc=stack([frame.pbc[None] for frame in frames]),
        system=torch.repeat_interleave(sizes).to(device),
    )


def to_atoms(state: State) -> list[Atoms]:
    """One ASE structure a system, momenta included."""
    from ase import Atoms

    frames = []
    for index in range(state.n_systems):
        mine = state.system == index
        frames.append(
            Atoms(
                numbers=state.numbers[mine].cpu().numpy(),
                positions=state.positions[mine].detach().cpu().numpy(),
                momenta=state.momenta[mine].detach().cpu().numpy(),
                masses=state.masses[mine].cpu().numpy(),
                cell=state.cell[index].detach().cpu().numpy(),
                pbc=state.pbc[index].cpu().numpy(),
            )
        )
    return frames


def concatenate(states: Sequence[State]) -> State:
    """Join batches into one."""
    offsets = np.cumsum([0, *(state.n_systems for state in states)])
    joined = {name: torch.cat([getattr(state, name) for state in states]) for name in _FIELDS[:-1]}
    system = torch.cat([state.system + int(offset) for state, offset in zip(states, offsets[:-1], strict=True)])
    return State(**joined, system=system)


def select(state: State, systems: Sequence[int]) -> State:
    """Batch of some systems of a batch, in the order given (an index may repeat)."""
    members = [torch.nonzero(state.system == index)[:, 0] for index in systems]
    atoms = torch.cat(members)
    sizes = torch.tensor([len(member) for member in members], device=atoms.device)
    chosen = torch.tensor(list(systems), device=atoms.device)
    return State(
        positions=state.positions[atoms],
        momenta=state.momenta[atoms],
        masses=state.masses[atoms],
        numbers=state.numbers[atoms],
        cell=state.cell[chosen],
        pbc=state.pbc[chosen],
        system=torch.repeat_interleave(sizes),
    )


def only(state: State, number: int) -> State:
    """The atoms of one element, by its atomic number, in each system of a batch.

    Raises:
        ValueError: a system has none.
    """
    atoms = torch.nonzero(state.numbers == number)[:, 0]
    part = {name: getattr(state, name)[atoms] for name in ("positions", "momenta", "masses", "numbers", "system")}
    if not bool((torch.bincount(part["system"], minlength=state.n_systems) > 0).all()):
        raise ValueError(f"a system has no atom of atomic number {number}")
    return State(cell=state.cell, pbc=state.pbc, **part)
