"""The set that a campaign leaves: one compressed extended XYZ file, and how it was made."""

from __future__ import annotations

import io
import json
import lzma
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz

from conservbench.data.catalogue import PROVENANCE
from conservbench.data.check import require_usable
from conservbench.data.labelling.calculators import packages_of
from conservbench.data.labelling.card import Labelling, Trajectory
from conservbench.data.labelling.record import Frame, Record
from conservbench.data.labelling.start import start_structure, strained
from conservbench.provenance import git_state, version_of
from conservbench.result import write_bytes

UNITS: Final = "energy eV, forces eV/Å, stress eV/Å^3, lengths Å"
ENERGY_DIGITS: Final = 6
FORCE_DIGITS: Final = 5
POSITION_DIGITS: Final = 6
STRESS_DIGITS: Final = 8
LARGEST: Final = 2_000_000
"""Bytes of a set that is to travel with the package."""


class NothingLabelledError(ValueError):
    """A side of the split is without a frame."""


def frames_of(card: Labelling, records: Sequence[Record]) -> list[Atoms]:
    """All labelled structures, rounded, in the order of the plan.

    Raises:
        NothingLabelledError: a side of the split is empty.
    """
    start = start_structure(card)
    frames = []
    for trajectory, record in zip(card.plan(), records, strict=True):
        begin = strained(start, trajectory)
        frames += [_atoms(begin, trajectory, frame) for frame in record.frames[: trajectory.frames]]
    for split in ("train", "test"):
        if not any(atoms.info["split"] == split for atoms in frames):
            raise NothingLabelledError(f"{card.name}: no frame of a {split} trajectory could be labelled")
    return frames


def write_product(card: Labelling, records: Sequence[Record], out: Path) -> tuple[Path, Path]:
    """Write ``NAME.extxyz.xz`` and ``NAME.provenance.json``, each atomically.

    Returns:
        Their paths.

    Raises:
        NothingLabelledError: a side of the split is empty.
        ValueError: the labels are not usable, such as those in other units than eV and Å.
        WriteError: the disk is full, or the folder is not to be written to.
    """
    frames = frames_of(card, records)
    require_usable(frames, f"{card.name}: what the calculator says")
    text = io.StringIO()
    write_extxyz(text, frames, columns=["symbols", "positions", "forces"])
    content = lzma.compress(text.getvalue().encode(), preset=9 | lzma.PRESET_EXTREME)
    path = out / f"{card.name}.extxyz.xz"
    write_bytes(content, path)
    said = provenance(card, records, frames, path.name, sha256(content).hexdigest())
    origin = out / f"{card.name}{PROVENANCE}"
    write_bytes((json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode(), origin)
    return path, origin


def provenance(
    card: Labelling, records: Sequence[Record], frames: Sequence[Atoms], file: str, digest: str
) -> dict[str, Any]:
    """How a set was made, as JSON types: its entry in the catalogue under ``data``, then what determined it."""
    return {
        "data": {
            "file": file,
            "sha256": digest,
            "title": card.title,
            "units": UNITS,
            "license": card.license,
            "home": card.home,
            "doi": card.doi,
            "citation": card.citation,
        },
        "card": {"name": card.name, "version": card.version, "digest": card.digest},
        "calculator": {
            "factory": card.calculator.factory,
            "arguments": dict(card.calculator.arguments),
            "packages": packages_of(card.calculator.factory),
            "labelled_by": _versions(card, records),
        },
        "sampler": card.sampler or None,
        "conservbench": version_of("conservbench"),
        "git": git_state(),
        "packages": {name: version_of(name) for name in ("ase", "numpy")},
        "frames": {
            "all": len(frames),
            **{split: sum(atoms.info["split"] == split for atoms in frames) for split in ("train", "test")},
        },
        "groups": dict(Counter(atoms.info["group"] for atoms in frames)),
        "trajectories": [_story(each, record) for each, record in zip(card.plan(), records, strict=True)],
    }


def _atoms(begin: Atoms, trajectory: Trajectory, frame: Frame) -> Atoms:
    atoms = Atoms(
        numbers=begin.numbers,
        positions=np.round(frame.positions, POSITION_DIGITS),
        cell=np.round(begin.cell.array, 8),
        pbc=begin.pbc,
    )
    labels: dict[str, Any] = {
        "energy": round(frame.energy, ENERGY_DIGITS),
        # a negative zero would be written as one
        "forces": np.round(frame.forces, FORCE_DIGITS) + 0.0,
    }
    if frame.stress is not None:
        labels["stress"] = np.round(frame.stress, STRESS_DIGITS) + 0.0
    atoms.calc = SinglePointCalculator(atoms, **labels)
    atoms.info.update(
        group=trajectory.group,
        temperature=trajectory.temperature,
        split=trajectory.split,
        trajectory=trajectory.index,
    )
    return atoms


def _story(trajectory: Trajectory, record: Record) -> dict[str, Any]:
    kept = record.frames[: trajectory.frames]
    overlaps = [frame.correlation for frame in kept if frame.correlation is not None]
    # frames beyond those that are asked for are of a longer walk, which the set says nothing of
    longer = len(record.frames) > len(kept)
    tally = kept[-1].tally if longer else record.tally
    mean = None if tally is None else tally.mean_temperature
    return {
        "index": trajectory.index,
        "group": trajectory.group,
        "split": trajectory.split,
        "temperature": trajectory.temperature,
        "strain": list(trajectory.strain),
        "frames": len(kept),
        "steps": None if tally is None else tally.steps,
        "mean_temperature": None if mean is None else round(mean, 1),
        "force_correlation": {
            "mean": round(float(np.mean(overlaps)), 3) if overlaps else None,
            "largest": round(max(map(abs, overlaps)), 3) if overlaps else None,
            "passed_over": None if tally is None else tally.passed_over,
        },
        "failures": [each for each in record.failures if not longer or each["frame"] < len(kept)],
    }


def _versions(card: Labelling, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Versions of the packages of the calculator, and how many frames they labelled; None where none is known."""
    kept = [frame for each, record in zip(card.plan(), records, strict=True) for frame in record.frames[: each.frames]]
    counts = Counter(json.dumps(frame.packages, sort_keys=True) for frame in kept)
    return [{"packages": json.loads(said), "frames": count} for said, count in counts.items()]
