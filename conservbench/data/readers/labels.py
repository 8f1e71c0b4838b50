"""How a reader hangs labels on a structure."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import ArrayLike


def labelled(atoms: Atoms, energy: float | None, forces: ArrayLike | None, group: str, **info: Any) -> Atoms:
    """The structure with labels in its calculator and nothing in ``info`` but the group and what is given.

    Args:
        atoms: the structure, changed in place.
        energy: eV; None where the file has none.
        forces: (n_atoms, 3), eV/Å; None where the file has none.
        group: which part of the data set it belongs to.
        info: further keys.
    """
    labels: dict[str, Any] = {}
    if energy is not None:
        labels["energy"] = float(energy)
    if forces is not None:
        labels["forces"] = np.array(forces, dtype=float)
    atoms.calc = SinglePointCalculator(atoms, **labels)
    atoms.info = {"group": group, **info}
    return atoms
