"""The catalogue of data sets: where each is published, under which licence, and the checksum of every file.

Public sets are those of ``catalogue.toml``. Those that ``conservbench data label`` made lie in the folder ``data``
beside the package, each described by its ``NAME.provenance.json``. Reading the catalogue costs no simulation stack.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from conservbench import cards
from conservbench.hint import did_you_mean

PROVENANCE: Final = ".provenance.json"
"""End of the name of the file that says how a labelled set was made."""

FRAME_SUFFIXES: Final = (".extxyz", ".xyz", ".extxyz.xz", ".xyz.xz", ".extxyz.gz", ".xyz.gz")
"""Ends of names of files that are read as labelled structures without an entry of the catalogue."""


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    Attributes:
        local: its name in a local folder; an absolute path is read where it is.
        url: its public address; empty where it travels with the package.
        sha256: its checksum; empty where none is known.
    """

    local: str
    url: str
    sha256: str


@dataclass(frozen=True)
class DataFolder:
    """Files that are read together.

    Attributes:
        local: name of the folder in a local one.
        url: public address, to which the names of the files are added.
        sha256: checksum of every file by its name in the folder.
    """

    local: str
    url: str
    sha256: Mapping[str, str]

    def members(self) -> tuple[DataFile, ...]:
        """The files, each as one of its own."""
        return tuple(
            DataFile(f"{self.local}/{name}", f"{self.url}/{name}", digest) for name, digest in self.sha256.items()
        )


@dataclass(frozen=True)
class DataSet:
    """An entry of the catalogue.

    Attributes:
        name: of the entry.
        title: what it holds.
        reader: how its files are written: a module of :mod:`conservbench.data.readers`.
        units: of its files.
        license: as its home states it.
        home: where it is published.
        doi: of what it is published with; empty where there is none.
        citation: likewise.
        files: by name: ``train`` and ``test`` where the home splits it so, others elsewhere.
        split: which frames are for testing where no file of that name is (see :mod:`conservbench.data.split`); empty
            for a set that is not to be trained on.
        options: what the reader is told.
    """

    name: str
    title: str
    reader: str
    units: str
    license: str
    home: str
    doi: str
    citation: str
    files: Mapping[str, DataFile | DataFolder]
    split: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def members(self) -> list[DataFile]:
        """All files, those of folders too."""
        return [
            file
            for found in self.files.values()
            for file in (found.members() if isinstance(found, DataFolder) else (found,))
        ]

    def checksum(self) -> str:
        """SHA-256 over the checksums of all files: that of a file of one's own is of what it holds now.

        Of a set that its home serves by name, whose contents are not known here, it is that of what is asked for.

        Raises:
            OSError: such a file is not there.
        """
        digests = [file.sha256 or cards.file_digest(Path(file.local)) for file in self.members()]
        return hashlib.sha256(cards.canonical_json(digests or self.options).encode()).hexdigest()


@cache
def catalogue() -> Mapping[str, DataSet]:
    """All data sets by name."""
    text = resources.files("conservbench.data").joinpath("catalogue.toml").read_text(encoding="utf-8")
    entries = {name: _entry(name, table) for name, table in tomllib.loads(text).items()}
    for path in sorted(shipped_folder().glob(f"*{PROVENANCE}")):
        made = labelled_entry(path)
        entries[made.name] = made
    return entries


def find_data_set(name: str) -> DataSet:
    """The catalogue's entry of that name, or one for a file of labelled structures, given by its path.

    Raises:
        ValueError: no such entry or file; the message names the nearest.
    """
    if name.endswith(FRAME_SUFFIXES):
        return at_path(Path(name))
    entries = catalogue()
    if name not in entries:
        raise ValueError(f"no data set {name!r}{did_you_mean(name, entries)}")
    return entries[name]


def beside(data: str, recipe: Path) -> str:
    """What a recipe names as its data: a file of frames by its path from the recipe, all else as it stands.

    Args:
        data: name of a data set, or relative path of a file.
        recipe: the file that names it.
    """
    return str((recipe.parent / data).absolute()) if data.endswith(FRAME_SUFFIXES) else data


def at_path(path: Path) -> DataSet:
    """A data set of one's own: an extended XYZ file, whose frames say by ``split=test`` that they are for testing.

    Where none says so, every tenth is.

    Raises:
        ValueError: there is no such file.
    """
    if not path.is_file():
        raise ValueError(f"no data file {path}")
    return DataSet(
        name=path.name.partition(".")[0],
        title=path.name,
        reader="extxyz",
        units="energy eV, forces eV/Å, lengths Å",
        license="",
        home="",
        doi="",
        citation="",
        files={"frames": DataFile(str(path.absolute()), "", "")},
        split="marked, or every 10th",
    )


def labelled_entry(path: Path) -> DataSet:
    """The entry of a set that ``conservbench data label`` made, of its ``NAME.provenance.json``.

    Raises:
        ValueError: the file does not say what an entry needs.
    """
    name = path.name.removesuffix(PROVENANCE)
    try:
        said = json.loads(path.read_text(encoding="utf-8"))["data"]
        file = DataFile(said["file"], "", said["sha256"])
        keys = ("title", "units", "license", "home", "doi", "citation")
        return DataSet(
            name=name, reader="extxyz", files={"frames": file}, split="marked", **{key: said[key] for key in keys}
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the provenance of a labelled data set ({error})") from error


def shipped_folder() -> Path:
    """The folder of cards and products of ``conservbench data label`` that the package brings."""
    return cards.shipped_folder("data")


def _entry(name: str, table: dict[str, Any]) -> DataSet:
    files = {
        key: DataFolder(**file) if isinstance(file["sha256"], dict) else DataFile(**file)
        for key, file in table.pop("files", {}).items()
    }
    return DataSet(name=name, files=files, **table)
