"""What a reference holds: properties of a crystal at rest and of atoms in motion, with their source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from conservbench.references.symmetry import operations

Family = Literal["cubic", "hexagonal"]
"""Crystal families."""

CONSTANTS: Final[Mapping[Family, tuple[str, ...]]] = {
    "cubic": ("C11", "C12", "C44"),
    "hexagonal": ("C11", "C12", "C13", "C33", "C44"),
}
"""Independent elastic constants of each."""


@dataclass(frozen=True)
class Sites:
    """A periodic structure.

    Attributes:
        numbers: (n_atoms,) atomic numbers.
        positions: (n_atoms, 3), Å.
        cell: (3, 3), Å; rows are the cell vectors.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]


@dataclass(frozen=True)
class ForceConstants:
    """Force constants of a supercell, one block of each orbit of pairs under the space group of the crystal.

    They are the part P H of a computed matrix H that the group, the exchange of two atoms and the translations of all
    leave. For the matrix K of any model that obeys these, ||K - H||^2 = ||K - P H||^2 + ||H - P H||^2.

    Attributes:
        supercell: the structure, at the lattice constant of the reference.
        primitive: (n_primitive,) atoms of the supercell that make up a primitive cell.
        pairs: (n_orbits, 2) atoms of the supercell.
        blocks: (n_orbits, 3, 3), eV/Å^2.
        remainder: ||H - P H||, Frobenius norm of what the projection took away, eV/Å^2.
    """

    supercell: Sites
    primitive: NDArray[np.int64]
    pairs: NDArray[np.int64]
    blocks: NDArray[np.float64]
    remainder: float

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """(n_atoms, n_atoms, 3, 3), eV/Å^2."""
        sites = self.supercell
        return operations(sites.cell, sites.positions, sites.numbers).expand(self.pairs, self.blocks)

    @property
    def rows(self) -> NDArray[np.float64]:
        """(n_primitive, n_atoms, 3, 3), eV/Å^2: those of the primitive cell's atoms."""
        return self.matrix[self.primitive]


@dataclass(frozen=True)
class Phonons:
    """Frequencies along a path of wave vectors.

    Attributes:
        points: (n_q, 3), over the reciprocal vectors of the primitive cell (without 2 pi).
        distance: (n_q,) length along the path, 1/Å (with 2 pi); it does not grow where the path jumps.
        labels: index and name of the special points.
        frequencies: (n_q, n_branches), THz, ascending, of the force constants of the reference.
    """

    points: NDArray[np.float64]
    distance: NDArray[np.float64]
    labels: tuple[tuple[int, str], ...]
    frequencies: NDArray[np.float64]


@dataclass(frozen=True)
class Profile:
    """A radial distribution function, smeared by a Gaussian (:func:`conservbench.observables.rdf.smeared_rdf`).

    Attributes:
        r: (n_bins,) Å.
        blocks: (n_blocks, n_bins) averages over stretches of the dynamics of equal length, taken as independent.
        width: standard deviation of the Gaussian, Å.
        n_frames: frames behind it.
        temperature: K.
        volume: Å^3 an atom.
        source: where the frames are from, and how many make a block.
    """

    r: NDArray[np.float64]
    blocks: NDArray[np.float64]
    width: float
    n_frames: int
    temperature: float
    volume: float
    source: str

    @property
    def g(self) -> NDArray[np.float64]:
        """(n_bins,) average."""
        return self.blocks.mean(0)

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(n_bins, n_bins) of the average, from the scatter of the blocks."""
        return np.atleast_2d(np.cov(self.blocks, rowvar=False)) / len(self.blocks)

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """(n_bins,) of the average, from the scatter of the blocks."""
        return self.blocks.std(0, ddof=1) / np.sqrt(len(self.blocks))


@dataclass(frozen=True)
class Profiles:
    """How the atoms of one material move by one method.

    Attributes:
        name: what settings call it.
        title: one line for people.
        sources: citations by property.
        rdf: radial distribution functions by the name of the system that samples the same state.
    """

    name: str
    title: str
    sources: Mapping[str, str]
    rdf: Mapping[str, Profile]


@dataclass(frozen=True)
class Reference(Profiles):
    """Properties of one material by one method, of its crystal at rest too.

    Attributes:
        lattice_constant: Å, of the cubic cell, or a of a hexagonal one.
        primitive: the primitive cell at rest; the axis of a hexagonal one is its third vector, along z.
        family: of the crystal.
        elastic: the independent constants in the order of :data:`CONSTANTS`, GPa, with relaxed atoms.
        force_constants: of a supercell.
        phonons: of these.
    """

    lattice_constant: float
    primitive: Sites
    family: Family
    elastic: tuple[float, ...]
    force_constants: ForceConstants
    phonons: Phonons


def from_table(table: Mapping[str, Any]) -> Profiles:
    """Read what :mod:`conservbench.training.reference` wrote: lengths of structures are in lattice constants.

    Raises:
        ValueError: the crystal family is not known, or has other elastic constants.
    """
    profiles = {name: _profile(entry) for name, entry in table["rdf"].items()}
    by_system = {system: profiles[name] for name, entry in table["rdf"].items() for system in entry["systems"]}
    if "force_constants" not in table:
        return Profiles(name=table["name"], title=table["title"], sources=table["sources"], rdf=by_system)
    constant = float(table["lattice_constant"])
    given, phonons = table["force_constants"], table["phonons"]
    family = table.get("family", "cubic")
    if family not in get_args(Family) or len(table["elastic"]) != len(CONSTANTS[family]):
        n = len(table["elastic"])
        raise ValueError(f"{table['name']}: {n} elastic constants are not those of a {family!r} crystal")
    return Reference(
        name=table["name"],
        title=table["title"],
        sources=table["sources"],
        lattice_constant=constant,
        primitive=_sites(table["primitive"], constant),
        family=family,
        elastic=tuple(map(float, table["elastic"])),
        force_constants=ForceConstants(
            supercell=_sites(given["supercell"], constant),
            primitive=np.array(given["primitive"]),
            pairs=np.array(given["pairs"]),
            blocks=np.array(given["blocks"]),
            remainder=float(given["remainder"]),
        ),
        phonons=Phonons(
            points=np.array(phonons["points"]),
            distance=np.array(phonons["distance"]),
            labels=tuple((int(index), str(name)) for index, name in phonons["labels"]),
            frequencies=np.array(phonons["frequencies"]),
        ),
        rdf=by_system,
    )


def _sites(table: Mapping[str, Any], constant: float) -> Sites:
    numbers = np.array(table["numbers"])
    return Sites(numbers, constant * np.array(table["positions"]), constant * np.array(table["cell"]))


def _profile(table: Mapping[str, Any]) -> Profile:
    first, last = map(float, table["range"])
    return Profile(
        r=np.linspace(first, last, int(table["bins"])),
        blocks=np.array(table["blocks"]),
        width=float(table["width"]),
        n_frames=int(table["n_frames"]),
        temperature=float(table["temperature"]),
        volume=float(table["volume"]),
        source=table["source"],
    )
