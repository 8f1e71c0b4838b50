"""Files of the FitSNAP collection: extended XYZ of crystals, with stresses in kbar (compression positive)."""

from __future__ import annotations

from pathlib import Path

from ase import Atoms

from conservbench.data.readers import extxyz


def read(path: Path) -> list[Atoms]:
    """Labelled structures in a group named as the file; the stresses are left out.

    Raises:
        ValueError: the file is cut off, or a frame is not as the format has it.
    """
    frames = extxyz.read(path)
    for atoms in frames:
        atoms.set_pbc(True)
        # the labels belong to the structure as it is now
        atoms.calc.atoms = atoms.copy()
        atoms.info["group"] = path.stem
    return frames
