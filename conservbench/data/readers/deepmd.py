"""Folders of DeePMD-kit: NumPy arrays of frames that have all the same atoms, in eV and Å.

A system is a folder with ``type.raw`` (an index of the element of each atom), ``type_map.raw`` (the elements) and
``set.*`` folders of ``coord.npy`` (frames, 3 atoms), ``box.npy`` (frames, 9), ``energy.npy`` and ``force.npy``; with a
file ``nopbc`` it is not periodic, and needs no ``box.npy``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from conservbench.data.readers.labels import labelled


def read(path: Path) -> list[Atoms]:
    """Labelled structures of a system, or of all systems in a folder, in order of name; each system is a group.

    Raises:
        ValueError: there is no system, an array is cut off or has another shape than the others, or an element is not
            known.
    """
    systems = sorted(found.parent for found in path.rglob("type.raw"))
    if not systems:
        raise ValueError(f"{path}: no system of DeePMD-kit: no file type.raw")
    return [atoms for system in systems for atoms in _read_system(system)]


def _read_system(system: Path) -> list[Atoms]:
    numbers = _numbers(system)
    sets = sorted(found for found in system.glob("set.*") if found.is_dir())
    if not sets:
        raise ValueError(f"{system}: no folder set.*")
    frames = []
    for folder in sets:
        energies = _array(folder / "energy.npy").reshape(-1)
        width = 3 * len(numbers)
        positions, forces = (_shaped(folder / f"{name}.npy", len(energies), width) for name in ("coord", "force"))
        periodic = not (system / "nopbc").exists()
        boxes = _shaped(folder / "box.npy", len(energies), 9) if periodic else np.zeros((len(energies), 9))
        for energy, coord, force, box in zip(energies, positions, forces, boxes, strict=True):
            atoms = Atoms(numbers=numbers, positions=coord.reshape(-1, 3), cell=box.reshape(3, 3), pbc=periodic)
            frames.append(labelled(atoms, energy, force.reshape(-1, 3), system.name))
    return frames


def _numbers(system: Path) -> NDArray[np.int64]:
    map_file = system / "type_map.raw"
    if not map_file.is_file():
        raise ValueError(f"{system}: no file type_map.raw, which says what the elements are")
    elements = map_file.read_text(encoding="utf-8").split()
    for element in elements:
        if element not in atomic_numbers or atomic_numbers[element] < 1:
            raise ValueError(f"{map_file}: unknown element {element!r}")
    try:
        types = [int(word) for word in (system / "type.raw").read_text(encoding="utf-8").split()]
        return np.array([atomic_numbers[elements[kind]] for kind in types])
    except (ValueError, IndexError) as error:
        raise ValueError(f"{system / 'type.raw'}: expected indices of {len(elements)} elements") from error


def _array(path: Path) -> NDArray[np.float64]:
    try:
        return np.load(path, allow_pickle=False).astype(float)
    except FileNotFoundError as error:
        missing = "no forces: " if path.name == "force.npy" else ""
        raise ValueError(f"{path}: {missing}no such file") from error
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: cut off or not an array of NumPy: {str(error).splitlines()[0]}") from error


def _shaped(path: Path, n_frames: int, width: int) -> NDArray[np.float64]:
    array = _array(path)
    if array.size != n_frames * width:
        raise ValueError(f"{path}: shape is {array.shape}, expected ({n_frames}, {width})")
    return array.reshape(n_frames, width)
