"""What is kept of a trajectory: its frames, and all that is needed to go on from the last one, in one JSON file.

Numbers are written so that they are read back bit for bit, so that a resumed walk is the one that was interrupted.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from conservbench.result import write_bytes


@dataclass
class Frame:
    """One labelled structure.

    Attributes:
        positions: (n_atoms, 3), Å.
        energy: eV.
        forces: (n_atoms, 3), eV/Å.
        stress: (6,) in Voigt order, eV/Å^3; None where the calculator has none.
        correlation: of its forces with those of the frame before; None for the first.
    """

    positions: list[list[float]]
    energy: float
    forces: list[list[float]]
    stress: list[float] | None
    correlation: float | None


@dataclass
class Record:
    """A trajectory so far.

    Attributes:
        digest: of what determines the walk.
        frames: kept so far.
        momenta: at the last frame.
        random: state of the generator there.
        attempt: how often the walk began anew.
        failures: what went wrong: the frame it was on the way to, and the reason.
        passed_over: structures that were too much like the last frame.
        steps: of the walk.
        kinetic: sum over steps after the equilibration of the kinetic temperature, K.
        counted: number of those steps.
        ended: whether nothing more is to be done.
    """

    digest: str
    frames: list[Frame] = field(default_factory=list)
    momenta: list[list[float]] = field(default_factory=list)
    random: dict[str, Any] = field(default_factory=dict)
    attempt: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    passed_over: int = 0
    steps: int = 0
    kinetic: float = 0.0
    counted: int = 0
    ended: bool = False

    @property
    def mean_temperature(self) -> float | None:
        """K; None before any step was counted."""
        return self.kinetic / self.counted if self.counted else None

    def place(self, atoms: Atoms, rng: np.random.Generator) -> None:
        """Bring a structure and a generator to where the last frame left them."""
        atoms.set_positions(np.array(self.frames[-1].positions))
        atoms.set_momenta(np.array(self.momenta))
        rng.bit_generator.state = self.random


def record_path(folder: Path, index: int) -> Path:
    """File of a trajectory."""
    return folder / f"{index:04d}.json"


def read_record(path: Path, digest: str) -> Record:
    """The record of a trajectory; an empty one where there is no file.

    Raises:
        ValueError: the file is none, or that of another walk.
    """
    if not path.is_file():
        return Record(digest)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        record = Record(**{**table, "frames": [Frame(**frame) for frame in table["frames"]]})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the record of a trajectory; --fresh starts anew") from error
    if record.digest != digest:
        raise ValueError(f"{path}: belongs to another version of this card; --fresh starts anew")
    return record


def write_record(record: Record, path: Path) -> None:
    """Write the record of a trajectory atomically.

    Raises:
        WriteError: the disk is full, or the folder is not to be written to.
    """
    write_bytes(json.dumps(asdict(record)).encode(), path)
