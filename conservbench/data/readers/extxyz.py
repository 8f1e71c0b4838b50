"""Extended XYZ, plain or compressed by xz or gzip.

Frames are parted by their counts of atoms first and parsed one by one, so that a mistake is told with its frame.
"""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterator
from io import StringIO
from numbers import Real
from pathlib import Path

import ase.io
from ase import Atoms
from ase.calculators.calculator import Calculator

from conservbench.data.readers.labels import labelled
from conservbench.data.split import MARKS

_KEPT = ("temperature", "split", "trajectory", "description")


def read(path: Path) -> list[Atoms]:
    """Labelled structures, with the stress in eV/Å^3 where the file has it.

    Keys ``group``, ``description``, ``temperature``, ``split`` and ``trajectory`` of ``info`` are kept.

    Raises:
        ValueError: the file is cut off or damaged, or a frame is not as the format has it.
    """
    frames = []
    for index, found in enumerate(structures(path)):
        labels = found.calc.results if isinstance(found.calc, Calculator) else {}
        for label, told, word in (("forces", found.arrays, "force"), ("energy", found.info, "energy")):
            if label not in labels and (near := [key for key in told if word in key.lower()]):
                raise ValueError(f"{path}: frame {index}: no {label}, but {near[0]!r}: rename it if that is meant")
        kept = {key: found.info[key] for key in _KEPT if key in found.info}
        group = str(found.info.get("group", "all"))
        if (mark := kept.get("split", MARKS[0])) not in MARKS:
            raise ValueError(f"{path}: frame {index}: split={mark}; expected one of {', '.join(MARKS)}")
        for key, value in (("temperature", kept.get("temperature")), ("energy", labels.get("energy"))):
            if value is not None and not isinstance(value, Real):
                raise ValueError(f"{path}: frame {index}: {key} is {value}; expected a number")
        bare = Atoms(numbers=found.numbers, positions=found.positions, cell=found.cell.array, pbc=found.pbc)
        frame = labelled(bare, labels.get("energy"), labels.get("forces"), group, **kept)
        if "stress" in labels:
            frame.calc.results["stress"] = labels["stress"]
        frames.append(frame)
    return frames


def structures(path: Path) -> Iterator[Atoms]:
    """Structures as ASE reads them, with or without labels.

    Raises:
        ValueError: the file is cut off or damaged, or a frame is not as the format has it.
    """
    for index, text in enumerate(_frames(path)):
        try:
            found: Atoms = ase.io.read(StringIO(text), format="extxyz")  # type: ignore[assignment]
        except KeyError as error:
            raise ValueError(f"{path}: frame {index}: unknown element {error.args[0]!r}") from error
        except Exception as error:  # whatever the parser makes of broken text
            raise ValueError(f"{path}: frame {index}: not as the format has it: {_one_line(error)}") from error
        yield found


def text_of(path: Path) -> str:
    """Text of a file, decompressed as its name says.

    Raises:
        ValueError: it is cut off or damaged.
    """
    decompress = {".xz": lzma.decompress, ".gz": gzip.decompress}.get(path.suffix, bytes)
    try:
        return decompress(path.read_bytes()).decode("utf-8")
    except (lzma.LZMAError, EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cut off or damaged: {_one_line(error)}") from error


def _frames(path: Path) -> Iterator[str]:
    text = text_of(path)
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise ValueError(f"{path}: no frames")
    start, index = 0, 0
    while start < len(lines):
        try:
            n_atoms = int(lines[start])
        except ValueError as error:
            said = lines[start][:40]
            raise ValueError(f"{path}: frame {index}: expected a number of atoms, found {said!r}") from error
        end = start + 2 + n_atoms
        if n_atoms < 1 or end > len(lines):
            here = max(len(lines) - start - 2, 0)
            raise ValueError(f"{path}: frame {index}: cut off: {here} of {n_atoms} atoms")
        if end == len(lines) and not text.endswith("\n"):
            # a last number that lost digits is a number still
            said = "cut off, or its last line has no end: if the file is whole, add one"
            raise ValueError(f"{path}: frame {index}: {said}")
        yield "\n".join(lines[start:end]) + "\n"
        start, index = end, index + 1


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
