"""Make references from labelled sets: ``python -m conservbench.training.reference NAME``. Run once: files are kept."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from numpy.typing import NDArray

from conservbench.data.catalogue import find_data_set
from conservbench.data.frames import load_frames
from conservbench.data.locate import locate
from conservbench.data.readers.phonopy import read_force_constants
from conservbench.hint import did_you_mean
from conservbench.observables.phonons import band_path, crystal, frequencies
from conservbench.observables.rdf import smeared_rdf
from conservbench.references import operations
from conservbench.state import from_atoms

LATTICE_CONSTANT: Final = 5.468582
"""Å, of PBE silicon, at which the force constants were computed."""

ELASTIC: Final = (153.21414, 56.79690, 74.83264)
"""C11, C12, C44 in GPa."""

# the order of the published force constants: sites of the cubic cell in lattice constants, each repeated with x first
_PUBLISHED_SITES: Final = (
    (0.25, 0.75, 0.25),
    (0.0, 0.0, 0.5),
    (0.25, 0.25, 0.75),
    (0.0, 0.5, 0.0),
    (0.75, 0.75, 0.75),
    (0.5, 0.0, 0.0),
    (0.75, 0.25, 0.25),
    (0.5, 0.5, 0.5),
)

PATH: Final = "GXU,KGL"
RANGE: Final = (0.5, 5.5)
BINS: Final = 100
WIDTH: Final = 0.2
DIGITS: Final = 4
"""Of g(r): its error is a hundred times the rounding."""

_EQUILIBRATION: Final = 20
"""Frames left out at the start of a run from the perfect crystal: 100 fs."""

_RUN: Final = 200
"""Frames of each of the three runs of the crystal."""


def silicon_pbe() -> dict[str, Any]:
    """The table of the reference ``si-pbe``."""
    given = find_data_set("si-force-constants")
    return {
        "name": "si-pbe",
        "title": "Silicon, PBE: elastic constants, force constants and phonons; g(r) of ab initio dynamics",
        "sources": {
            "lattice_constant": given.citation,
            "elastic": given.citation,
            "force_constants": given.citation,
            "phonons": "of the force constants",
        },
        "lattice_constant": LATTICE_CONSTANT,
        "elastic": ELASTIC,
        **_of_crystal(read_force_constants(locate(given, "pbe"))),
        "rdf": {
            "melt-2000K": _melt(),
            "crystal-1500K": _hot_crystal(),
            "hot-2530K": _aimd(2530, "si-hot-64"),
            "hotter-3374K": _aimd(3374, "si-hotter-64"),
            "cool-843K": _aimd(843, "si-cool-64"),
        },
    }


def published_supercell(lattice_constant: float) -> Atoms:
    """The 64 atoms of the published force constants, in their order."""
    steps = np.indices((2, 2, 2)).reshape(3, -1).T[:, ::-1]
    places = (np.array(_PUBLISHED_SITES)[:, None] + steps).reshape(-1, 3)
    return Atoms(f"Si{len(places)}", lattice_constant * places, cell=[2.0 * lattice_constant] * 3, pbc=True)


def _of_crystal(published: NDArray[np.float64]) -> dict[str, Any]:
    primitive = bulk("Si", "diamond", a=LATTICE_CONSTANT)
    supercell = bulk("Si", "diamond", a=LATTICE_CONSTANT, cubic=True) * 2
    order = _order(supercell, published_supercell(LATTICE_CONSTANT))
    return crystal_table(primitive, supercell, published[np.ix_(order, order)], PATH, LATTICE_CONSTANT)


def crystal_table(
    primitive: Atoms, supercell: Atoms, computed: NDArray[np.float64], path: str, length: float
) -> dict[str, Any]:
    """What a file holds of a crystal: its structures, its force constants, and the phonons of these.

    Args:
        primitive: the primitive cell, one of its atoms on one of the supercell.
        supercell: of the force constants.
        computed: (n_atoms, n_atoms, 3, 3) force constants in the supercell, eV/Å^2.
        path: special points of the phonons, as :func:`conservbench.observables.phonons.band_path` takes them.
        length: Å, the lattice constant that lengths are divided by.
    """
    group = operations(supercell.cell.array, supercell.positions, supercell.numbers)
    kept = without_translations(group.average(computed))
    pairs = group.orbits()
    cells = crystal(primitive, supercell)
    line = band_path(primitive, path, n_points=61)
    found = frequencies(torch.as_tensor(kept[cells.atoms]), cells, line.points).numpy()
    return {
        "primitive": _table_of(primitive, length),
        "force_constants": {
            "supercell": _table_of(supercell, length),
            "primitive": cells.atoms.tolist(),
            "pairs": pairs.tolist(),
            "blocks": np.round(kept[pairs[:, 0], pairs[:, 1]], 12).tolist(),
            "remainder": float(np.linalg.norm(computed - kept)),
        },
        "phonons": {
            "points": np.round(line.points, 12).tolist(),
            "distance": np.round(line.distance, 12).tolist(),
            "labels": line.labels,
            "frequencies": (np.round(found, 6) + 0.0).tolist(),
        },
    }


def _order(atoms: Atoms, other: Atoms) -> NDArray[np.int64]:
    """Which atom of another crystal is at each site of one, after the shift that brings them together."""
    inverse = np.linalg.inv(atoms.cell.array)
    for shift in other.positions - atoms.positions[0]:
        between = (atoms.positions[:, None] + shift - other.positions[None]) @ inverse
        off = np.abs(between - np.rint(between)).max(-1)
        if off.min(1).max() < 1e-6:
            return off.argmin(1)
    raise ValueError("the two crystals are not the same")


def without_translations(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part of force constants that a translation of all atoms leaves at rest."""
    rows = matrix - matrix.mean(0, keepdims=True)
    return rows - rows.mean(1, keepdims=True)


def _table_of(atoms: Atoms, length: float) -> dict[str, Any]:
    positions, cell = ((array / length).round(12).tolist() for array in (atoms.positions, atoms.cell.array))
    return {"numbers": atoms.numbers.tolist(), "positions": positions, "cell": cell}


def _melt() -> dict[str, Any]:
    data_set = find_data_set("fitsnap-si")
    frames = load_frames(data_set, "melt")
    return _profile(frames, 48, 2000, ("si-melt-64", "si-melt-216"), f"{data_set.home}, Si/melt.xyz, 10 fs a frame")


def _hot_crystal() -> dict[str, Any]:
    data_set = find_data_set("fitsnap-si")
    frames = load_frames(data_set, "crystal-1500K")
    kept = [atoms for index, atoms in enumerate(frames) if index % _RUN >= _EQUILIBRATION]
    said = f"three runs without their first {_EQUILIBRATION} frames, 5 fs a frame"
    return _profile(kept, 90, 1500, ("si-warm-64",), f"{data_set.home}, Si/md_1500K.xyz, {said}")


def _aimd(kelvin: int, system: str) -> dict[str, Any]:
    data_set = find_data_set("mlearn-si")
    end = re.compile(rf"normal structure at {kelvin} K$")
    every = [atoms for split in ("train", "test") for atoms in load_frames(data_set, split)]
    frames = [atoms for atoms in every if end.search(atoms.info["description"])]
    return _profile(frames, 2, kelvin, (system,), f"{data_set.home}, AIMD-NVT at {kelvin} K, a frame every 4000 steps")


def lgps_gfn1() -> dict[str, Any]:
    """The table of the reference ``lgps-gfn1``: g(r) of the labelled frames at 700 K in the cell that is not strained.

    A block is a trajectory. They begin at one structure and take a third of a picosecond: the framework is at its
    temperature, lithium has not gone far.
    """
    data_set = find_data_set("lgps-xtb")
    every = [atoms for split in ("train", "test") for atoms in load_frames(data_set, split)]
    volume = np.median([atoms.get_volume() for atoms in every])
    frames = [
        atoms
        for atoms in every
        if atoms.info["group"] == "700 K"
        and abs(atoms.get_volume() / volume - 1.0) < _UNSTRAINED
        and _is_upright(atoms)
    ]
    walks = [[atoms for atoms in frames if atoms.info["trajectory"] == index] for index in _walks(frames)]
    least = min(map(len, walks))
    kept = [atoms for walk in walks for atoms in walk[:least]]
    said = f"{data_set.name}, GFN1-xTB, {len(walks)} short trajectories"
    return {
        "name": "lgps-gfn1",
        "title": "Li20Ge2P4S24, GFN1-xTB: g(r) of short dynamics at 700 K",
        "sources": {"rdf": data_set.citation},
        "rdf": {"crystal-700K": _profile(kept, least, 700, ("lgps-50",), said, width=0.1)},
    }


_UNSTRAINED: Final = 1e-3
"""Relative, by which the volume of a cell that is not strained may miss that of most."""


def _is_upright(atoms: Atoms) -> bool:
    """Whether no shear was put on the cell of a lattice of right angles."""
    return bool(np.abs(atoms.cell.angles() - 90.0).max() < 0.1)


def _walks(frames: Sequence[Atoms]) -> list[int]:
    return sorted({int(atoms.info["trajectory"]) for atoms in frames})


def _profile(
    frames: Sequence[Atoms], block: int, kelvin: int, systems: Sequence[str], source: str, width: float = WIDTH
) -> dict[str, Any]:
    g = smeared_rdf(from_atoms(frames), np.linspace(*RANGE, BINS), width).numpy()
    means = g.reshape(-1, block, BINS).mean(1)
    volumes = [atoms.get_volume() / len(atoms) for atoms in frames]
    return {
        "systems": list(systems),
        "source": f"{source}; blocks of {block} frames",
        "temperature": kelvin,
        "volume": round(float(np.mean(volumes)), 6),
        "n_frames": len(frames),
        "range": RANGE,
        "bins": BINS,
        "width": width,
        "blocks": np.round(means, DIGITS).tolist(),
    }


TABLES: Final = {"si-pbe": silicon_pbe, "lgps-gfn1": lgps_gfn1}
"""What makes each reference."""


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description="Make references from labelled sets.", epilog="example: lgps-gfn1")
    parser.add_argument("names", nargs="*", default=["si-pbe"], help=f"of {', '.join(TABLES)}; si-pbe if not told")
    home = Path(str(files("conservbench.references")))
    parser.add_argument("--out", type=Path, default=home, help="folder of the files")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in TABLES:
            parser.error(f"no reference {name!r}{did_you_mean(name, TABLES)}")
    torch.set_num_threads(1)
    for name in arguments.names:
        write_table(TABLES[name](), arguments.out)


def write_table(table: dict[str, Any], folder: Path) -> Path:
    """Write the file of a reference, and return its path."""
    target = folder / f"{table['name']}.json"
    draft = target.with_suffix(".tmp")
    draft.write_text(_text(table), encoding="utf-8")
    os.replace(draft, target)
    return target


def _text(table: dict[str, Any]) -> str:
    """JSON with a line a property, and one a profile."""
    lines = [f'"{key}": {_nested(value) if key == "rdf" else _compact(value)}' for key, value in table.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _nested(entries: dict[str, Any]) -> str:
    return "{\n" + ",\n".join(f'"{key}": {_compact(value)}' for key, value in entries.items()) + "\n}"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


if __name__ == "__main__":
    main()
