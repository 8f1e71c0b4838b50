"""What is kept of a trajectory: its frames, and all that is needed to go on from the last one, in one JSON file.

Numbers are written so that they are read back bit for bit, so that a resumed walk is the one that was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from conservbench.result import write_bytes


class DamagedRecordError(ValueError):
    """A file is not the record of a trajectory, or only a part of one."""


class OtherWalkError(ValueError):
    """A record belongs to another version of the card."""


@dataclass(frozen=True)
class Tally:
    """What a walk had come to at a frame; the fields are those of :class:`Record`."""

    steps: int
    passed_over: int
    kinetic: float
    counted: int

    @property
    def mean_temperature(self) -> float | None:
        """K; None before any step was counted."""
        return self.kinetic / self.counted if self.counted else None


@dataclass
class Frame:
    """One labelled structure.

    Attributes:
        positions: (n_atoms, 3), Å.
        energy: eV.
        forces: (n_atoms, 3), eV/Å.
        stress: (6,) in Voigt order, eV/Å^3; None where the calculator has none.
        correlation: of its forces with those of the frame before; None for the first.
        packages: that brought the calculator, and their versions; None where an older release did not write them down.
        tally: of the walk so far; None likewise.
    """

    positions: list[list[float]]
    energy: float
    forces: list[list[float]]
    stress: list[float] | None
    correlation: float | None
    packages: Mapping[str, str | None] | None = None
    tally: Tally | None = None


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
    def tally(self) -> Tally:
        """What the walk has come to."""
        return Tally(self.steps, self.passed_over, self.kinetic, self.counted)

    def place(self, atoms: Atoms, rng: np.random.Generator) -> None:
        """Bring a structure and a generator to where the last frame left them."""
        atoms.set_positions(np.array(self.frames[-1].positions))
        atoms.set_momenta(np.array(self.momenta))
        rng.bit_generator.state = self.random


def record_path(folder: Path, index: int) -> Path:
    """File of a trajectory."""
    return folder / f"{index:04d}.json"


def read_record(path: Path, digest: str) -> Record:
    """The record of a trajectory; an empty one where there is no file, or one of another walk without a frame.

    Raises:
        DamagedRecordError: the file is none.
        OtherWalkError: it has frames of another walk.
    """
    if not path.is_file():
        return Record(digest)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        record = Record(**{**table, "frames": [_frame(frame) for frame in table["frames"]]})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedRecordError(f"{path}: not the record of a trajectory") from error
    if record.digest == digest:
        return record
    if record.frames:
        raise OtherWalkError(f"{path}: belongs to another version of this card")
    return Record(digest)


def _frame(table: dict[str, Any]) -> Frame:
    tally = table.get("tally")
    return Frame(**{**table, "tally": None if tally is None else Tally(**tally)})


def write_record(record: Record, path: Path) -> None:
    """Write the record of a trajectory atomically.

    Raises:
        WriteError: the disk is full, or the folder is not to be written to.
    """
    write_bytes(json.dumps(asdict(record)).encode(), path)
