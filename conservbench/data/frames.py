"""Labelled structures of a data set: found, read, checked and split."""

from __future__ import annotations

from typing import Literal, get_args

from ase import Atoms

from conservbench.data import readers
from conservbench.data.catalogue import DataSet
from conservbench.data.check import require_usable
from conservbench.data.locate import locate
from conservbench.data.split import is_test, require_sides
from conservbench.hint import did_you_mean

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def load_frames(data_set: DataSet, name: str) -> list[Atoms]:
    """Labelled structures: energy (eV) and forces (eV/Å) in the calculator, the group's name in ``info["group"]``.

    Args:
        data_set: an entry of the catalogue.
        name: ``train`` or ``test``, or the name of one of its files.

    Raises:
        ValueError: the data set holds no labelled structures, or has no such file, or its checksum is wrong, or what it
            holds is not usable: the message names file, frame and reason.
        OSError: the file is not here and cannot be downloaded.
    """
    if not readers.gives_frames(data_set.reader):
        raise ValueError(f"{data_set.name} holds no labelled structures")
    if name in data_set.files:
        return read_file(data_set, name)
    if name not in SPLITS or not data_set.split:
        names = [*data_set.files, *(SPLITS if data_set.split else ())]
        raise ValueError(f"{data_set.name} has no file {name!r}{did_you_mean(name, names)}")
    frames = load_all(data_set)
    wanted = name == "test"
    chosen = is_test(frames, data_set.split)
    try:
        # what is trained is tested, too; but a set may be for testing alone
        require_sides(chosen, data_set.split, training=not wanted)
    except ValueError as error:
        raise ValueError(f"{data_set.name}: {error}") from error
    return [atoms for atoms, test in zip(frames, chosen, strict=True) if test == wanted]


def load_all(data_set: DataSet) -> list[Atoms]:
    """All labelled structures, in the order of the files.

    Raises:
        ValueError: see :func:`load_frames`.
        OSError: likewise.
    """
    if not data_set.files:
        frames = readers.read_hosted(data_set)
        require_usable(frames, data_set.name)
        return frames
    return [atoms for name in data_set.files for atoms in read_file(data_set, name)]


def read_file(data_set: DataSet, name: str) -> list[Atoms]:
    """Labelled structures of one file, or of one folder that is read as one.

    Raises:
        ValueError: see :func:`load_frames`.
        OSError: likewise.
    """
    path = locate(data_set, name)
    frames = readers.read(data_set.reader, path)
    require_usable(frames, str(path))
    return frames
