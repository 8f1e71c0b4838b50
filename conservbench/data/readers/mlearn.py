"""Files of the mlearn collection: pymatgen structures as JSON.

Their ``virial_stress`` is what VASP prints: the stress in kbar, compression positive, in the order xx, yy, zz, xy, yz,
zx, and no virial. The energies of the strained cells say so: their slopes are these stresses to one per cent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from conservbench.data.readers.labels import labelled
from conservbench.units import KILOBAR

_VOIGT = [0, 1, 2, 4, 5, 3]
"""Places of xx, yy, zz, yz, xz, xy in a file."""


def read(path: Path) -> list[Atoms]:
    """Labelled structures, with the stress where the file has it; ``info["description"]`` is theirs.

    Raises:
        ValueError: the file is cut off, or a frame is not as the format has it.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: cut off or not JSON: {error}") from error
    frames = []
    for index, entry in enumerate(entries):
        try:
            frames.append(_frame(entry))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            reason = f"no key {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{path}: frame {index}: not as the format has it: {reason}") from error
    return frames


def _frame(entry: dict[str, Any]) -> Atoms:
    sites = entry["structure"]["sites"]
    atoms = Atoms(
        symbols=[site["species"][0]["element"] for site in sites],
        positions=[site["xyz"] for site in sites],
        cell=entry["structure"]["lattice"]["matrix"],
        pbc=True,
    )
    outputs = entry["outputs"]
    description = entry.get("description", "")
    stress = outputs.get("virial_stress")
    labelled(atoms, outputs.get("energy"), outputs.get("forces"), entry["group"], description=description)
    if stress is not None:
        values = np.array(stress, dtype=float)
        if values.shape != (6,):
            raise ValueError(f"virial_stress has shape {values.shape}; expected 6 numbers")
        atoms.calc.results["stress"] = -KILOBAR * values[_VOIGT]
    return atoms
