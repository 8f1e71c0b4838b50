"""Data sets that the package load-atoms finds, fetches and keeps (the extra ``load-atoms``)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any

from ase import Atoms

from conservbench.data.readers.labels import labelled
from conservbench.process import quiet_stdout


def read(name: str, options: Mapping[str, Any]) -> list[Atoms]:
    """Labelled structures of a data set that load-atoms hosts.

    Args:
        name: of the entry of the catalogue, for messages.
        options: ``dataset``, its name there; ``group``, the key that names the group of a structure; ``where``, values
            of keys that a structure must have; ``every``, to take each such one only; ``factor``, of energies and
            forces to eV, with ``version``, the release of load-atoms that needs it.

    Raises:
        ValueError: load-atoms is not installed, or is of another version than the factor is for, or what it has is not
            what the entry says.
        OSError: it cannot be downloaded.
    """
    factor = float(options.get("factor", 1.0))
    _check_version(name, options.get("version"))
    group, where = options.get("group", ""), options.get("where", {})
    found = _fetch(name, options["dataset"])
    # one at a time: some of its sets have a million structures
    chosen = (atoms for atoms in found if all(atoms.info.get(key) == value for key, value in where.items()))
    frames = []
    for atoms in islice(chosen, 0, None, int(options.get("every", 1))):
        bare = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc)
        energy, forces = atoms.info.get("energy"), atoms.arrays.get("forces")
        frames.append(
            labelled(
                bare,
                None if energy is None else factor * energy,
                None if forces is None else factor * forces,
                str(atoms.info.get(group, "all")),
            )
        )
    if not frames:
        raise ValueError(f"{name}: load-atoms has no structures with {dict(where)} in {options['dataset']}")
    return frames


def _check_version(name: str, expected: str | None) -> None:
    try:
        installed = version("load-atoms")
    except PackageNotFoundError as error:
        raise ValueError(f"{name} is fetched by load-atoms: pip install 'conservbench[load-atoms]'") from error
    if expected is not None and installed != expected:
        raise ValueError(f"{name}: units were checked with load-atoms {expected}; {installed} is installed")


def _fetch(name: str, dataset: str) -> Iterable[Atoms]:
    import pooch

    package = import_module("load_atoms")
    with warnings.catch_warnings(), quiet_stdout():
        # it warns where a download is not what it should be, and goes on
        warnings.filterwarnings("error", message="Checksum mismatch")
        try:
            found: Iterable[Atoms] = package.load_dataset(dataset, root=pooch.os_cache("conservbench") / "load-atoms")
        except UserWarning as warning:
            raise ValueError(f"{name}: {warning}") from warning
        except Exception as error:  # its own kinds, and those of its downloader
            raise OSError(f"{name}: load-atoms cannot provide {dataset!r}: {_one_line(error)}") from error
    return found


def _one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
