"""Result files: one netCDF a cell at ``OUT/<protocol>/<system>/<model>.nc``, opened together as a tree.

A file appears whole or not at all: it is written under a temporary name and moved. Its attributes are strings:
``outcome``, ``outcome_reason``, ``model``, ``protocol``, ``system``, ``tier``, and as JSON ``identity`` (what a later
run must match to keep the file), ``model_card``, ``protocol_card`` and ``provenance``; ``traceback`` if it failed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote

import xarray as xr

SUFFIX = ".nc"


class ResultError(ValueError):
    """A result file or folder is not there, or cannot be read."""


class WriteError(OSError):
    """A result file cannot be written."""


def result_path(out: Path, protocol: str, system: str, model: str) -> Path:
    """File of one cell; characters that file systems refuse are percent-encoded (``ase:a.b:c`` has two)."""
    return out / protocol / system / (quote(model, safe="") + SUFFIX)


def write_result(data: xr.Dataset, path: Path) -> None:
    """Write one cell atomically, replacing an older file.

    Raises:
        WriteError: the disk is full, or the folder is not to be written to.
    """
    # made in memory: on a full disk HDF5 fails when a file is closed, says nothing, and may take the process with it
    write_bytes(bytes(data.to_netcdf(engine="h5netcdf")), path)


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file atomically, replacing an older one.

    Raises:
        WriteError: the disk is full, or the folder is not to be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error


def read_result(path: Path) -> xr.Dataset:
    """Read one cell into memory.

    Raises:
        ResultError: there is no such file, or it is not a whole result.
    """
    try:
        # loaded at once: a handle kept open would go on showing a file that was replaced since
        data = xr.load_dataset(path, engine="h5netcdf")
    except FileNotFoundError as error:
        raise ResultError(f"no result file {path}") from error
    except Exception as error:  # whatever the HDF5 stack makes of broken bytes
        raise ResultError(f"{path}: not a readable result file ({_one_line(error)})") from error
    if "outcome" not in data.attrs:
        raise ResultError(f"{path}: not a result file: attribute 'outcome' is missing")
    return data


def read_attributes(path: Path) -> dict[str, str]:
    """Read the attributes of one cell alone.

    Raises:
        ResultError: there is no such file, or it is not a whole result.
    """
    import h5netcdf

    try:
        with h5netcdf.File(path, "r") as file:
            attributes = {key: value for key, value in file.attrs.items() if isinstance(value, str)}
    except FileNotFoundError as error:
        raise ResultError(f"no result file {path}") from error
    except Exception as error:
        raise ResultError(f"{path}: not a readable result file ({_one_line(error)})") from error
    if "outcome" not in attributes:
        raise ResultError(f"{path}: not a result file: attribute 'outcome' is missing")
    return attributes


def open_results(folder: str | Path) -> xr.DataTree:
    """All results of a folder, as a tree with groups ``/<protocol>/<system>/<model>``.

    Files that cannot be read are left out with a warning; a run measures them again.

    Raises:
        ResultError: the folder is not there, or holds no results.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResultError(f"no results folder {folder}")
    paths = sorted(folder.glob(f"*/*/*{SUFFIX}"))
    if not paths:
        raise ResultError(f"{folder} is not a results folder: no file <protocol>/<system>/<model>{SUFFIX} in it")
    return open_cells(paths)


def open_cells(paths: Iterable[Path]) -> xr.DataTree:
    """The given result files as a tree with groups ``/<protocol>/<system>/<model>``."""
    cells = {}
    for path in paths:
        try:
            data = read_result(path)
        except ResultError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        cells[f"/{path.parent.parent.name}/{path.parent.name}/{unquote(path.stem)}"] = data
    return xr.DataTree.from_dict(cells)


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
