"""Find the files of a data set: a local folder first, then what the package brings, then its public home.

Whatever is found counts only with the catalogue's checksum; a download has a temporary name until it has been checked.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from conservbench.cards import file_digest
from conservbench.data.catalogue import DataFile, DataFolder, DataSet, shipped_folder
from conservbench.hint import did_you_mean
from conservbench.result import write_bytes

DATA_VARIABLE: Final = "CONSERVBENCH_DATA"
"""Names the local folder."""

Progress = Callable[[int, int, str], None]
"""Told after each file: how many are there, of how many, and which was the last."""


def locate(data_set: DataSet, name: str) -> Path:
    """Path of a checked local copy of one file or folder, downloaded if it is not here.

    Raises:
        ValueError: the data set has no such file, or the one in the local folder, or the download, does not have the
            catalogue's checksum.
        OSError: it is not here and cannot be downloaded.
    """
    if name not in data_set.files:
        raise ValueError(f"{data_set.name} has no file {name!r}{did_you_mean(name, data_set.files)}")
    found = data_set.files[name]
    if isinstance(found, DataFolder):
        return _folder(data_set, found)
    return present(found) or _download(data_set, found)


def present(file: DataFile) -> Path | None:
    """Path of a file that is here, with the right checksum; None where it must be downloaded.

    Raises:
        ValueError: the file that is here has another checksum.
    """
    for folder in _folders():
        if (path := folder / file.local).is_file():
            check_digest(path, file.sha256)
            return path
    cached = _cache() / file.local
    # what lies there with another checksum is fetched again
    return cached if cached.is_file() and file_digest(cached) == file.sha256 else None


def fetch(data_set: DataSet, to: Path | None = None, progress: Progress | None = None) -> list[Path]:
    """Bring all files of a data set here, and copy them into a folder if one is named.

    Args:
        data_set: what to fetch.
        to: folder of the copies, by their local names, so that it can serve as the local folder.
        progress: told of each file.

    Returns:
        Paths of the files.

    Raises:
        ValueError: a checksum is wrong.
        OSError: a file cannot be downloaded or written.
    """
    files = data_set.members()
    paths = []
    for file in files:
        path = present(file) or _download(data_set, file)
        if to is not None:
            target = to / Path(file.local).name if Path(file.local).is_absolute() else to / file.local
            write_bytes(path.read_bytes(), target)
            path = target
        paths.append(path)
        if progress is not None:
            progress(len(paths), len(files), file.local)
    return paths


def check_digest(path: Path, expected: str) -> None:
    """Check the SHA-256 of a file; any will do where none is known.

    Raises:
        ValueError: it is another one.
    """
    if expected and (found := file_digest(path)) != expected:
        raise ValueError(f"{path}: wrong checksum {found[:12]}..., expected {expected[:12]}...")


def _folders() -> list[Path]:
    named = os.environ.get(DATA_VARIABLE)
    return [*([Path(named)] if named else []), shipped_folder()]


def _cache() -> Path:
    import pooch

    return Path(pooch.os_cache("conservbench"))


def _folder(data_set: DataSet, folder: DataFolder) -> Path:
    """The folder with all its files: the local one, if it holds them all, or that of the downloads."""
    for place in _folders():
        if all((place / file.local).is_file() for file in folder.members()):
            for file in folder.members():
                check_digest(place / file.local, file.sha256)
            _refuse_strays(place, folder)
            return place / folder.local
    for file in folder.members():
        _download(data_set, file)
    return _cache() / folder.local


def _refuse_strays(place: Path, folder: DataFolder) -> None:
    """Files that no checksum stands for would be read with the others."""
    listed = {place / file.local for file in folder.members()}
    for path in sorted((place / folder.local).rglob("*")):
        if path.is_file() and path not in listed and not path.name.startswith("."):
            raise ValueError(f"{path}: not a file of the data set; move it out of {place / folder.local}")


def _download(data_set: DataSet, file: DataFile) -> Path:
    if not file.url:
        raise OSError(f"{data_set.name}: no file {file.local}, and no public address to fetch it from")
    import pooch

    target = _cache() / file.local
    try:
        # under a temporary name until its checksum has been found right
        return Path(
            pooch.retrieve(
                file.url,
                known_hash=f"sha256:{file.sha256}",
                fname=target.name,
                path=target.parent,
                progressbar=False,
            )
        )
    except OSError as error:
        raise OSError(
            f"{data_set.name}: cannot download {file.url} ({type(error).__name__}); "
            f"put it as {file.local} into a folder and name that in {DATA_VARIABLE}"
        ) from error
