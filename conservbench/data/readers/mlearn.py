"""Files of the mlearn collection: pymatgen structures as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ase import Atoms

from conservbench.data.readers.labels import labelled


def read(path: Path) -> list[Atoms]:
    """Labelled structures; ``info["description"]`` is theirs.

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
    return labelled(atoms, outputs.get("energy"), outputs.get("forces"), entry["group"], description=description)
