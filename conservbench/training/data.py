"""Public data sets found by name: a local folder first, the public home otherwise, always with a checksum."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from numpy.typing import NDArray

from conservbench.hint import did_you_mean

DATA_VARIABLE = "CONSERVBENCH_DATA"
Split = Literal["train", "test"]


@dataclass(frozen=True)
class DataFile:
    """One file of a data set: its name in a local folder, its public address and its SHA-256."""

    local: str
    url: str
    sha256: str


@dataclass(frozen=True)
class DataSet:
    """An entry of the catalogue.

    Attributes:
        name: of the entry.
        title: what it holds.
        reader: how its files are written (:data:`READERS` for labelled structures).
        units: of its files.
        license: as its home states it.
        home: where it is published.
        doi: of what it is published with.
        citation: likewise.
        files: by name: ``train`` and ``test`` where a model can be trained on it, others elsewhere.
    """

    name: str
    title: str
    reader: str
    units: str
    license: str
    home: str
    doi: str
    citation: str
    files: Mapping[str, DataFile]


@cache
def catalogue() -> Mapping[str, DataSet]:
    """All data sets by name."""
    text = resources.files("conservbench.training").joinpath("catalogue.toml").read_text(encoding="utf-8")
    entries = {}
    for name, table in tomllib.loads(text).items():
        files = {split: DataFile(**file) for split, file in table.pop("files").items()}
        entries[name] = DataSet(name=name, files=files, **table)
    return entries


def find_data_set(name: str) -> DataSet:
    """The catalogue's entry of that name.

    Raises:
        ValueError: no such entry; the message names the nearest.
    """
    entries = catalogue()
    if name not in entries:
        raise ValueError(f"no data set {name!r}{did_you_mean(name, entries)}")
    return entries[name]


def locate(data_set: DataSet, name: str) -> Path:
    """Path of a checked local copy of one file, downloaded if the local folder does not hold it.

    Raises:
        ValueError: the data set has no such file, or the one in the local folder, or the download, does not have the
            catalogue's checksum.
        OSError: it is not in the local folder and cannot be downloaded.
    """
    if name not in data_set.files:
        raise ValueError(f"{data_set.name} has no file {name!r}{did_you_mean(name, data_set.files)}")
    file = data_set.files[name]
    folder = os.environ.get(DATA_VARIABLE)
    if folder and (path := Path(folder) / file.local).is_file():
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != file.sha256:
            raise ValueError(f"{path}: wrong checksum {found[:12]}..., expected {file.sha256[:12]}...")
        return path
    import pooch

    try:
        return Path(
            pooch.retrieve(
                file.url,
                known_hash=f"sha256:{file.sha256}",
                fname=file.local,
                path=pooch.os_cache("conservbench"),
                progressbar=False,
            )
        )
    except OSError as error:
        raise OSError(
            f"{data_set.name}: cannot download {file.url} ({type(error).__name__}); "
            f"put it as {file.local} into a folder and name that in {DATA_VARIABLE}"
        ) from error


def load_frames(data_set: DataSet, name: str) -> list[Atoms]:
    """Labelled structures: energy (eV) and forces (eV/Å) in the calculator, the group's name in ``info["group"]``.

    Raises:
        ValueError: the data set holds no labelled structures, or has no such file, or the checksum is wrong.
        OSError: the file is not in the local folder and cannot be downloaded.
    """
    if data_set.reader not in READERS:
        raise ValueError(f"{data_set.name} holds no labelled structures")
    return READERS[data_set.reader](locate(data_set, name))


def read_mlearn(path: Path) -> list[Atoms]:
    """Read a file of the mlearn collection (pymatgen structures as JSON); ``info["description"]`` is theirs."""
    frames = []
    for entry in json.loads(path.read_text(encoding="utf-8")):
        sites = entry["structure"]["sites"]
        atoms = Atoms(
            symbols=[site["species"][0]["element"] for site in sites],
            positions=[site["xyz"] for site in sites],
            cell=entry["structure"]["lattice"]["matrix"],
            pbc=True,
        )
        outputs = entry["outputs"]
        atoms.calc = SinglePointCalculator(atoms, energy=outputs["energy"], forces=np.array(outputs["forces"]))
        atoms.info["group"] = entry["group"]
        atoms.info["description"] = entry.get("description", "")
        frames.append(atoms)
    return frames


def read_fitsnap(path: Path) -> list[Atoms]:
    """Read an extended XYZ file of the FitSNAP collection, whose stresses (kbar, compression positive) are left out."""
    frames = []
    for found in read(path, index=":", format="extxyz"):
        atoms = Atoms(numbers=found.numbers, positions=found.positions, cell=found.cell.array, pbc=True)
        labels = found.calc.results
        atoms.calc = SinglePointCalculator(atoms, energy=labels["energy"], forces=labels["forces"])
        atoms.info["group"] = path.stem
        frames.append(atoms)
    return frames


def read_force_constants(path: Path) -> NDArray[np.float64]:
    """Read the full force constants of a supercell in phonopy's text format.

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


READERS: Mapping[str, Callable[[Path], list[Atoms]]] = {"mlearn": read_mlearn, "fitsnap": read_fitsnap}
