"""What makes labelled structures usable: finite labels, known elements, sound cells, plausible units.

Units cannot be read off a file, but four numbers give wrong ones away. Distances in units of the sum of two covalent
radii: near one where they are in Å, near two where they are in bohr. The size of forces. The work of the forces on the
way between frames that are near each other, by the trapezoid rule, which is exact in a harmonic well: it is the
difference of the energies if both are in the same units. And where both are in the same wrong ones, how stiff bonds are
(:mod:`conservbench.data.stiffness`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, Final

import numpy as np
import vesin
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import find_mic
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from conservbench.data.stiffness import bond_stiffness, stiffness_of_each

CLASH: Final = 0.4
"""Sums of covalent radii; atoms that are nearer are in no structure."""

DUPLICATE: Final = 0.05
"""Å; atoms that are nearer are one, written twice."""

STRETCHED: Final = 1.5
"""Sums of covalent radii: the nearest neighbour of half of all atoms is further away only where lengths are in bohr."""

SWOLLEN: Final = 5.0
"""Volume over the median of frames of the same atoms; that of a cell in bohr is 6.7 times too large."""

APART: Final = (5.0, 50.0)
"""eV/atom, and median distances from the median: no frame has an energy so far from others of the same atoms."""

PRESSED: Final = 1.0
"""eV/Å^3, 160 GPa: half of all frames of a set are under more stress only where it is in GPa or kbar."""

STRONG: Final = 12.0
"""eV/Å: root mean square force of structures that no thermal motion reaches; in kcal/mol/Å most are stronger."""

SMALLEST_VOLUME: Final = 1.0
"""Å^3 an atom: less than in the densest crystals."""

AGREEMENT: Final = (0.25, 1.6)
"""Within which the ratio of energy differences to the work of the forces lies if both are in the same units: wells that
are not harmonic make the work too large. Energies in hartree and forces in hartree/bohr, with lengths in Å, are apart
by the factor 1.89; other units that are mixed up, by 13 or more."""

BONDS: Final = (0.15, 1 / 0.15)
"""Within which the ratio of how stiff bonds are to how stiff their lengths let expect lies in eV and Å: it is 0.3 in
sodium and in salts, and 1.7 in acetylene. Labels in rydberg, hartree or kcal/mol change it by 14 or more."""

EACH: Final = (0.2, 5.0)
"""Within which the stiffness of the bonds of a frame lies over that of like frames: 0.39 to 1.66 was found in
molecules, liquids and crystals to 2300 K. Forces of the other sign have -1, missing ones 0."""

FEW: Final = 0.25
"""Part of like frames that is odd at most."""

LARGEST: Final = (1e3, 1e6)
"""eV/Å and Å: no force that a simulation meets is larger, and no position or cell."""

_NOBLE: Final = tuple(atomic_numbers[symbol] for symbol in ("He", "Ne", "Ar", "Kr", "Xe", "Rn"))
_TOUCHING: Final = 2.2
"""Å, of the search for atoms that are too near: more than any two radii allow."""

_RANGE: Final = 7.0
"""Å, of the search for nearest neighbours."""

_SAMPLED: Final = 50
"""Frames whose nearest neighbours are looked for."""

_NEAR: Final = 0.5
"""Å: root mean square displacement of two frames between which the trapezoid rule may be used."""

_SURE: Final = 0.6
"""Correlation of energy differences and work from which on their ratio is trusted."""

_PAIRS: Final = (8, 32)
"""Pairs of frames that the ratio needs, and those that are nearest each other, of which it is taken."""

_COMPARED: Final = 50
"""Frames of which each is compared with each other, beside those that follow each other."""


@dataclass(frozen=True)
class Problem:
    """Why a structure cannot be used.

    Attributes:
        frame: its index in the file.
        reason: what is wrong.
    """

    frame: int
    reason: str


def require_usable(frames: Sequence[Atoms], where: str) -> None:
    """Check labelled structures.

    Args:
        frames: structures with labels in their calculators.
        where: start of the error message, such as the file.

    Raises:
        ValueError: they are not usable; the message names the first frame and the reason.
    """
    found = problems(frames)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ValueError(f"{where}: frame {found[0].frame}: {found[0].reason}{more}")
    if not frames:
        raise ValueError(f"{where}: no frames")


def problems(frames: Sequence[Atoms]) -> list[Problem]:
    """Everything that is wrong, in the order of the frames; units are judged only where nothing else is wrong."""
    found = [Problem(index, reason) for index, atoms in enumerate(frames) if (reason := _flaw(atoms))]
    return found or _units(frames)


def _flaw(atoms: Atoms) -> str | None:
    """The first thing that is wrong with one labelled structure; None for nothing."""
    return structure_flaw(atoms) or _first((_energy, _forces, _stress), atoms)


def structure_flaw(atoms: Atoms) -> str | None:
    """The first thing that is wrong with a structure, whatever its labels; None for nothing."""
    return _first((_elements, _positions, _cell, _distances), atoms)


def _first(checks: Sequence[Callable[[Atoms], str | None]], atoms: Atoms) -> str | None:
    return next((reason for check in checks if (reason := check(atoms))), None)


def _elements(atoms: Atoms) -> str | None:
    known = (atoms.numbers >= 1) & (atoms.numbers < len(covalent_radii))
    if not len(atoms):
        return "no atoms"
    return None if known.all() else f"unknown element of atom {int(np.argmin(known))}"


def _positions(atoms: Atoms) -> str | None:
    finite = np.isfinite(atoms.positions).all(1)
    if not finite.all():
        return f"the position of atom {int(np.argmin(finite))} is not finite"
    far = np.abs(atoms.positions).max(1)
    return None if far.max() < LARGEST[1] else f"atom {int(np.argmax(far))} is at {far.max():.3g} Å"


def _cell(atoms: Atoms) -> str | None:
    cell = atoms.cell.array
    if not np.isfinite(cell).all():
        return "the cell is not finite"
    if not atoms.pbc.any():
        return None
    periodic = cell[atoms.pbc]
    spanned = float(np.sqrt(np.linalg.det(periodic @ periodic.T).clip(min=0.0)))
    if spanned < 1e-6:
        return "not a cell: its periodic vectors lie in a plane, or are missing"
    if atoms.pbc.all() and spanned < SMALLEST_VOLUME * len(atoms):
        return f"not a cell of {len(atoms)} atoms: its volume is {spanned:.3g} Å^3"
    return None


def _energy(atoms: Atoms) -> str | None:
    energy = _labels(atoms).get("energy")
    if energy is None:
        return "no energy"
    return None if np.isfinite(energy) else f"the energy is not finite: {energy}"


def _forces(atoms: Atoms) -> str | None:
    forces = _labels(atoms).get("forces")
    if forces is None:
        return "no forces"
    if np.shape(forces) != (len(atoms), 3):
        return f"shape of the forces is {np.shape(forces)}, expected ({len(atoms)}, 3)"
    finite = np.isfinite(forces).all(1)
    if not finite.all():
        return f"the force on atom {int(np.argmin(finite))} is not finite"
    sizes = np.abs(forces).max(1)
    largest = int(np.argmax(sizes))
    return None if sizes[largest] < LARGEST[0] else f"the force on atom {largest} is {sizes[largest]:.3g} eV/Å"


def _stress(atoms: Atoms) -> str | None:
    stress = _labels(atoms).get("stress")
    return None if stress is None or np.isfinite(stress).all() else "the stress is not finite"


def _distances(atoms: Atoms) -> str | None:
    first, second, distance = _pairs(atoms, _TOUCHING)
    if not len(distance):
        return None
    relative = distance / _radii(atoms, first, second)
    pair = int(np.argmin(np.where(distance < DUPLICATE, -1.0, relative)))
    names = " and ".join(f"{int(index)} ({atoms.symbols[index]})" for index in sorted((first[pair], second[pair])))
    if distance[pair] < DUPLICATE:
        return f"atoms {names} are at the same place"
    if relative[pair] < CLASH:
        return f"atoms {names} are {distance[pair]:.3g} Å apart: broken, or lengths are not in Å"
    return None


def _units(frames: Sequence[Atoms]) -> list[Problem]:
    checks = (_long, _swollen, _apart, _strong, _idle, _pressed, _disagreeing, _stiff, _odd)
    return [problem for check in checks if frames and (problem := check(frames))][:1]


def _long(frames: Sequence[Atoms]) -> Problem | None:
    """Lengths in bohr, by the nearest neighbours of all atoms together; noble gases and free atoms have no bonds."""
    nearest: list[NDArray[np.float64]] = []
    stride = -(-len(frames) // _SAMPLED)
    for atoms in frames[::stride]:
        first, second, distance = _pairs(atoms, _RANGE)
        bonded = ~np.isin(atoms.numbers[first], _NOBLE) & ~np.isin(atoms.numbers[second], _NOBLE)
        relative = np.full(len(atoms), np.inf)
        np.minimum.at(relative, first[bonded], distance[bonded] / _radii(atoms, first[bonded], second[bonded]))
        nearest.append(relative[np.isfinite(relative)])
    every = np.concatenate(nearest)
    if not len(every) or (middle := float(np.median(every))) < STRETCHED:
        return None
    frame = stride * next(index for index, each in enumerate(nearest) if len(each) and np.median(each) >= STRETCHED)
    said = f"lengths must be in bohr: nearest neighbours are at {middle:.2f} times the sum of covalent radii"
    return Problem(frame, f"{said}; expected Å")


def _swollen(frames: Sequence[Atoms]) -> Problem | None:
    """Single frames in bohr, by their volume beside that of the other frames of the same atoms."""
    for indices in _grouped(frames, _composition):
        periodic = [index for index in indices if frames[index].pbc.all()]
        volumes = np.array([frames[index].get_volume() for index in periodic])
        if len(volumes) > 2 and (ratio := volumes / np.median(volumes)).max() > SWOLLEN:
            said = f"the volume is {ratio.max():.3g} times that of other frames of these atoms"
            return Problem(periodic[int(np.argmax(ratio))], f"{said}: lengths must be in bohr; expected Å")
    return None


def _apart(frames: Sequence[Atoms]) -> Problem | None:
    """Single frames with energies in other units, or of another kind, than the other frames of the same atoms."""
    for indices in _grouped(frames, _composition):
        energies = np.array([_labels(frames[index])["energy"] / len(frames[index]) for index in indices])
        away = np.abs(energies - np.median(energies))
        if len(energies) > 2 and away.max() > max(APART[0], APART[1] * np.median(away)):
            worst = int(np.argmax(away))
            said = f"the energy is {energies[worst]:.4g} eV/atom, that of like frames {np.median(energies):.4g}"
            return Problem(indices[worst], f"{said}: it is in other units, or of another kind")
    return None


def _idle(frames: Sequence[Atoms]) -> Problem | None:
    """Forces that were never filled in: crystals at rest have none, but not half of all different structures."""
    idle = [index for index, atoms in enumerate(frames) if len(atoms) > 1 and not np.any(_labels(atoms)["forces"])]
    energies = {float(_labels(frames[index])["energy"]) for index in idle}
    if len(energies) < 2 or 2 * len(idle) < len(frames):
        return None
    return Problem(
        idle[0], f"all forces are zero, as in {len(idle) - 1} more of {len(frames)} frames: they are missing"
    )


def _pressed(frames: Sequence[Atoms]) -> Problem | None:
    sizes = [
        (index, float(np.abs(_labels(each)["stress"]).max()))
        for index, each in enumerate(frames)
        if "stress" in _labels(each)
    ]
    if not sizes or (size := float(np.median([each for _, each in sizes]))) < PRESSED:
        return None
    frame = next(index for index, each in sizes if each >= PRESSED)
    return Problem(frame, f"a stress of {size:.3g} in half of all frames must be in GPa or kbar; expected eV/Å^3")


def _grouped(frames: Sequence[Atoms], key: Callable[[Atoms], bytes]) -> list[list[int]]:
    """Indices of the frames that have one key."""
    found: dict[bytes, list[int]] = {}
    for index, atoms in enumerate(frames):
        found.setdefault(key(atoms), []).append(index)
    return list(found.values())


def _composition(atoms: Atoms) -> bytes:
    """How many atoms there are of each element."""
    return np.sort(atoms.numbers).tobytes()


def _order_and_cell(atoms: Atoms) -> bytes:
    """Which atoms there are, in their order, in which cell."""
    cell = np.round(atoms.cell.array, 6) + 0.0
    return atoms.numbers.tobytes() + cell.tobytes() + atoms.pbc.tobytes()


def _strong(frames: Sequence[Atoms]) -> Problem | None:
    squares = [float(np.square(_labels(atoms)["forces"]).mean()) for atoms in frames]
    size = float(np.sqrt(np.median(squares)))
    if size < STRONG:
        return None
    frame = next(index for index, square in enumerate(squares) if square >= STRONG**2)
    return Problem(frame, f"forces of {size:.3g} by root mean square must be in kcal/mol/Å or the like; expected eV/Å")


def _disagreeing(frames: Sequence[Atoms]) -> Problem | None:
    """Energies and forces in different units, by frames that are near each other."""
    ratio = energy_force_ratio(frames)
    if ratio is None or AGREEMENT[0] < ratio < AGREEMENT[1]:
        return None
    if ratio < 0:
        return Problem(0, "energies rise where the forces do work: these are gradients; forces have the other sign")
    said = f"energies change {ratio:.3g} times as much as the work of the forces says"
    return Problem(0, f"{said}: they are not in eV and eV/Å, or lengths are not in Å")


def _stiff(frames: Sequence[Atoms]) -> Problem | None:
    """Energies and forces that are scaled alike, by how stiff bonds are."""
    found = bond_stiffness(frames)
    if found is None or BONDS[0] < found < BONDS[1]:
        return None
    if found < 0:
        return Problem(0, "bonds push where they are stretched: these are gradients; forces have the other sign")
    how = f"{1 / found:.3g} times softer" if found < 1.0 else f"{found:.3g} times stiffer"
    units = "hartree, rydberg" if found < 1.0 else "kcal/mol, kJ/mol"
    said = f"bonds are {how} than their lengths let expect: labels must be in {units} or the like"
    return Problem(0, f"{said}; expected eV and eV/Å")


def _odd(frames: Sequence[Atoms]) -> Problem | None:
    """Single frames whose forces have other units or the other sign than those of like frames, by their bonds."""
    for indices in _grouped(frames, _order_and_cell):
        each = stiffness_of_each([frames[index] for index in indices])
        with np.errstate(invalid="ignore"):
            odd = np.flatnonzero((each < EACH[0]) | (each > EACH[1]))
        # many of them are a set of several kinds, not a slip
        if len(odd) and len(odd) <= FEW * len(indices):
            found, index = float(each[odd[0]]), indices[int(odd[0])]
            if found < -0.5:
                return Problem(index, "its bonds push where those of like frames pull: its forces have the other sign")
            said = f"its bonds pull {found:.2g} times as hard as those of like frames"
            return Problem(index, f"{said}: its forces are in other units, or missing")
    return None


def energy_force_ratio(frames: Sequence[Atoms]) -> float | None:
    """Size of energy differences over that of the work of the mean force, between the frames nearest each other.

    Frames of molecules are turned onto each other; atoms of crystals go the shortest way through the cell.

    Returns:
        About one where energies, forces and lengths agree, and negative where forces have the wrong sign; None where
        too few frames are near each other to tell.
    """
    ways = sorted(way for i, j in _compared(len(frames)) if (way := _way(frames[i], frames[j])) and way[0] < _NEAR)
    least, most = _PAIRS
    _, works, changes = np.array(ways[:most]).reshape(-1, 3).T
    sizes = float(np.linalg.norm(works)), float(np.linalg.norm(changes))
    if len(works) < least or min(sizes) == 0.0:
        return None
    overlap = float(works @ changes) / (sizes[0] * sizes[1])
    return float(np.copysign(sizes[1] / sizes[0], overlap)) if abs(overlap) > _SURE else None


def _compared(n_frames: int) -> set[tuple[int, int]]:
    """Pairs of frames that are compared: successive ones, and all of some that are spread evenly."""
    spread = np.unique(np.linspace(0, n_frames - 1, min(n_frames, _COMPARED)).round().astype(int)).tolist()
    return {*combinations(spread, 2), *pairwise(range(n_frames))}


def _way(one: Atoms, other: Atoms) -> tuple[float, float, float] | None:
    """Root mean square displacement (Å) from a structure to another, work and change of the energy on the way.

    None where they are not of the same atoms in the same cell, or are the same.
    """
    if not np.array_equal(one.numbers, other.numbers) or not np.allclose(one.cell.array, other.cell.array):
        return None
    here, there = _labels(one)["forces"], _labels(other)["forces"]
    if one.pbc.any():
        step = find_mic(other.positions - one.positions, one.cell, one.pbc)[0]
        step = step - step.mean(0)
    else:
        start, end = (atoms.positions - atoms.positions.mean(0) for atoms in (one, other))
        with warnings.catch_warnings():
            # that of atoms in a line is not unique, but as good as any
            warnings.simplefilter("ignore", UserWarning)
            turn = Rotation.align_vectors(start, end)[0]
        step, there = turn.apply(end) - start, turn.apply(there)
    size = float(np.sqrt(np.square(step).sum(1).mean()))
    work = -0.5 * float(((here + there) * step).sum())
    return (size, work, _labels(other)["energy"] - _labels(one)["energy"]) if size > 0.0 else None


def _labels(atoms: Atoms) -> dict[str, Any]:
    return {} if atoms.calc is None else atoms.calc.results


def _pairs(atoms: Atoms, cutoff: float) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    search = vesin.NeighborList(cutoff=cutoff, full_list=True, n_threads=1)
    first, second, distance = search.compute(
        points=atoms.positions, box=atoms.cell.array, periodic=atoms.pbc, quantities="ijd"
    )
    return first.astype(np.int64), second.astype(np.int64), distance


def _radii(atoms: Atoms, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    return covalent_radii[atoms.numbers[first]] + covalent_radii[atoms.numbers[second]]
