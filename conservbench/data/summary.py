"""What a data set holds, in numbers that a reader of its errors must know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.symbols import Symbols

from conservbench.data.check import energy_force_ratio


def summary(frames: Sequence[Atoms]) -> dict[str, Any]:
    """Counts, elements, groups, and ranges of energies and forces, as JSON types.

    Args:
        frames: labelled structures that passed the check.
    """
    energies = np.array([atoms.get_potential_energy() / len(atoms) for atoms in frames])
    forces = np.concatenate([atoms.get_forces() for atoms in frames])
    numbers = np.concatenate([atoms.numbers for atoms in frames])
    sizes = sorted({len(atoms) for atoms in frames})
    temperatures = Counter(float(atoms.info["temperature"]) for atoms in frames if "temperature" in atoms.info)
    net = [atoms.get_forces().sum(0) / len(atoms) for atoms in frames]
    ratio = energy_force_ratio(frames)
    return {
        "frames": len(frames),
        "atoms": sizes if len(sizes) <= 2 else [sizes[0], sizes[-1]],
        "elements": {
            str(Symbols([number])): {
                "atoms": int((numbers == number).sum()),
                "force_rms": _rounded(np.sqrt(np.square(forces[numbers == number]).mean())),
            }
            for number in np.unique(numbers)
        },
        "groups": dict(Counter(str(atoms.info.get("group", "all")) for atoms in frames)),
        "temperatures": {f"{kelvin:g} K": count for kelvin, count in sorted(temperatures.items())},
        "energy_per_atom": {"least": _rounded(energies.min()), "most": _rounded(energies.max()), "unit": "eV"},
        "forces": {
            "rms": _rounded(np.sqrt(np.square(forces).mean())),
            "largest": _rounded(np.abs(forces).max()),
            "net_rms": _rounded(np.sqrt(np.square(net).mean())),
            "unit": "eV/Å",
        },
        "energy_over_work": None if ratio is None else _rounded(ratio),
    }


def _rounded(value: float) -> float:
    return float(f"{float(value):.5g}")
