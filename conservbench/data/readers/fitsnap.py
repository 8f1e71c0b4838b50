"""Files of the FitSNAP collection: extended XYZ of crystals, with stresses in kbar, compression positive.

The energies over the volume of two atoms of silicon say so: their slope is these stresses to one per cent.
"""

from __future__ import annotations

from pathlib import Path

from ase import Atoms

from conservbench.data.readers import extxyz
from conservbench.units import KILOBAR


def read(path: Path) -> list[Atoms]:
    """Labelled structures in a group named as the file, with the stress where it has one.

    Raises:
        ValueError: the file is cut off, or a frame is not as the format has it.
    """
    frames = extxyz.read(path)
    for atoms in frames:
        atoms.set_pbc(True)
        if "stress" in atoms.calc.results:
            atoms.calc.results["stress"] = -KILOBAR * atoms.calc.results["stress"]
        # the labels belong to the structure as it is now
        atoms.calc.atoms = atoms.copy()
        atoms.info["group"] = path.stem
    return frames
