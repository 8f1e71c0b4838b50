"""The structure that a trajectory starts from."""

from __future__ import annotations

import ase.io
import numpy as np
from ase import Atoms

from conservbench.cards import CardError
from conservbench.data.check import structure_flaw
from conservbench.data.labelling.card import Labelling, Trajectory
from conservbench.models.ase import import_factory


def start_structure(card: Labelling) -> Atoms:
    """The structure of a card, with its cell repeated.

    Raises:
        CardError: there is no such file or factory, or it makes no structure, or one that cannot be.
    """
    where = f"{card.path}: [start]"
    if card.start.file:
        path = card.path.parent / card.start.file
        if not path.is_file():
            raise CardError(f"{where}: no file {path}")
        try:
            found = ase.io.read(path)
        except KeyError as error:
            raise CardError(f"{where}: cannot read {path}: unknown element {error.args[0]!r}") from error
        except Exception as error:  # whatever a parser makes of broken text
            raise CardError(f"{where}: cannot read {path}: {error}") from error
    else:
        factory = import_factory(card.start.factory)
        try:
            found = factory(**card.start.arguments)
        except Exception as error:  # a factory of someone else's
            raise CardError(f"{where}: {card.start.factory} cannot build it: {error}") from error
    if not isinstance(found, Atoms):
        raise CardError(f"{where}: {card.start.factory} made a {type(found).__name__}, expected a structure of ASE")
    if flaw := structure_flaw(found):
        raise CardError(f"{where}: {card.start.file or card.start.factory}: {flaw}")
    bare = Atoms(numbers=found.numbers, positions=found.positions, cell=found.cell.array, pbc=found.pbc)
    return bare * card.start.repeats


def strained(atoms: Atoms, trajectory: Trajectory) -> Atoms:
    """The structure under the strain of a trajectory; atoms move with the cell.

    Raises:
        ValueError: a structure without periodic directions is to be strained.
    """
    xx, yy, zz, yz, xz, xy = trajectory.strain
    if any(trajectory.strain) and not atoms.pbc.any():
        raise ValueError(f"trajectory {trajectory.index}: a molecule cannot be strained")
    strain = np.array([[xx, xy / 2, xz / 2], [xy / 2, yy, yz / 2], [xz / 2, yz / 2, zz]])
    moved = atoms.copy()
    moved.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return moved
