"""Force constants in phonopy's text format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_force_constants(path: Path) -> NDArray[np.float64]:
    """Read the full force constants of a supercell.

    Returns:
        (n_atoms, n_atoms, 3, 3), eV/Å^2.

    Raises:
        ValueError: the file does not hold the constants of all pairs of atoms in order.
    """
    header, *lines = path.read_text(encoding="utf-8").split("\n")
    n_atoms = int(header.split()[-1])
    rows = [np.array(line.split(), dtype=float) for line in lines if line.strip()]
    pairs = np.array(rows[::4])
    expected = np.indices((n_atoms, n_atoms)).reshape(2, -1).T + 1
    if header.split()[0] != header.split()[-1] or pairs.shape != expected.shape or (pairs != expected).any():
        raise ValueError(f"{path}: not the force constants of all pairs of {n_atoms} atoms")
    blocks = np.stack([np.array(rows[offset::4]) for offset in (1, 2, 3)], axis=1)
    return blocks.reshape(n_atoms, n_atoms, 3, 3)
