"""Named start structures: a reference structure and thermal snapshots of it. Names cost no simulation stack.

Each system is a file ``NAME.json`` of this package, written once by :mod:`conservbench.systems.sample` and never by
hand. Changed content needs a new version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from conservbench.hint import did_you_mean
from conservbench.systems.catalogue import system_names, system_table

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class System:
    """A named start structure.

    Attributes:
        name: what protocol cards call it.
        version: raised by hand when its content changes.
        title: one line for people.
        temperature: K, at which the snapshots were sampled.
        sites: reference structure: the perfect crystal, or the first snapshot of a liquid.
        snapshots: thermal, decorrelated structures without momenta; atoms are not wrapped, those of a crystal stay by
            their own site.
        citation: source of the structure and of the potential behind the snapshots.
        provenance: command, seed and packages that made the snapshots.
    """

    name: str
    version: int
    title: str
    temperature: float
    sites: Atoms
    snapshots: tuple[Atoms, ...]
    citation: str
    provenance: str


def list_systems() -> dict[str, str]:
    """Title of every system by its name, in alphabetical order."""
    return {name: system_table(name)["title"] for name in system_names()}


def find_system(name: str) -> System:
    """Build a system.

    Raises:
        ValueError: there is no system of that name.
    """
    from ase import Atoms

    known = system_names()
    if name not in known:
        raise ValueError(f"no system {name!r}{did_you_mean(name, known)}")
    table = system_table(name)

    def structure(positions: list[list[float]]) -> Atoms:
        return Atoms(numbers=table["numbers"], positions=positions, cell=table["cell"], pbc=table["pbc"])

    return System(
        name=name,
        version=table["version"],
        title=table["title"],
        temperature=table["temperature"],
        sites=structure(table["sites"]),
        snapshots=tuple(structure(positions) for positions in table["snapshots"]),
        citation=table["citation"],
        provenance=table["provenance"],
    )
