"""Readers of labelled structures, one a module, imported when it is used.

A reader is a function ``read(path)`` that returns structures with energy (eV) and forces (eV/Å) in the calculator, and
the name of their group in ``info["group"]``. It raises a ``ValueError`` that names file, frame and reason.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from conservbench.hint import did_you_mean

if TYPE_CHECKING:
    from ase import Atoms

    from conservbench.data.catalogue import DataSet

OF_FILES: Final = ("deepmd", "extxyz", "fitsnap", "mlearn")
"""Modules whose ``read`` takes the path of a file, or of a folder that is read as one."""

HOSTED: Final = "load_atoms"
"""The module that asks another package for structures."""


def gives_frames(name: str) -> bool:
    """Whether a reader gives labelled structures."""
    return name in (*OF_FILES, HOSTED)


def read(name: str, path: Path) -> list[Atoms]:
    """Labelled structures of a file.

    Raises:
        ValueError: no such reader, or the file is not as it must be.
    """
    if name not in OF_FILES:
        raise ValueError(f"no reader {name!r}{did_you_mean(name, OF_FILES)}")
    return import_module(f"{__name__}.{name}").read(path)


def read_hosted(data_set: DataSet) -> list[Atoms]:
    """Labelled structures that another package finds and fetches.

    Raises:
        ValueError: see :func:`conservbench.data.readers.load_atoms.read`.
        OSError: likewise.
    """
    return import_module(f"{__name__}.{HOSTED}").read(data_set.name, data_set.options)
