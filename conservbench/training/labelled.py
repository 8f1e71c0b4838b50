"""Structures with the energies and forces that they are labelled with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from ase import Atoms
from torch import Tensor

from conservbench.state import State, concatenate, from_atoms


@dataclass(frozen=True)
class Labelled:
    """One structure, or a batch of them.

    Attributes:
        state: the structures.
        energy: (n_systems,), eV.
        forces: (n_atoms, 3), eV/Å, without the net force of each structure, a residue of the electronic solver.
        group: of the data set.
    """

    state: State
    energy: Tensor
    forces: Tensor
    group: str


def label(atoms: Atoms, device: str) -> Labelled:
    """A structure with the labels that its calculator holds."""
    forces = torch.as_tensor(atoms.get_forces(), device=device)
    return Labelled(
        state=from_atoms(atoms, device=device),
        energy=torch.tensor([atoms.get_potential_energy()], dtype=torch.float64, device=device),
        forces=forces - forces.mean(0),
        group=atoms.info.get("group", "all"),
    )


def join(frames: Sequence[Labelled]) -> Labelled:
    """One batch of several."""
    return Labelled(
        state=concatenate([frame.state for frame in frames]),
        energy=torch.cat([frame.energy for frame in frames]),
        forces=torch.cat([frame.forces for frame in frames]),
        group="batch",
    )
