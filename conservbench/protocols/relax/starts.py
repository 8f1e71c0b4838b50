"""Where relaxations start: rattled, thermal and strained structures, each from its own seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

    from conservbench.protocols.relax.settings import Settings
    from conservbench.systems import System

Kind = Literal["rattled", "thermal", "strained"]
KINDS: tuple[Kind, ...] = ("rattled", "thermal", "strained")


@dataclass(frozen=True)
class Start:
    """One start.

    Attributes:
        kind: what took it out of equilibrium.
        amplitude: of that: Å, K, or strain.
        variable: whether the cell is relaxed, too.
        atoms: the structure.
    """

    kind: Kind
    amplitude: float
    variable: bool
    atoms: Atoms


def starts_of(system: System, settings: Settings) -> list[Start]:
    """All starts, those with a fixed cell first; the strained ones of both are alike, and of crystals alone."""
    return [*_starts(system, settings, variable=False), *_starts(system, settings, variable=True)]


def _starts(system: System, settings: Settings, *, variable: bool) -> Iterator[Start]:
    if not variable:
        for index, amplitude in enumerate(settings.rattles):
            for k in range(settings.rattled):
                random = _random(settings, "rattled", index, k)
                yield Start("rattled", amplitude, variable, _rattle(system.sites, amplitude, random))
        for k in range(settings.thermal):
            snapshot = system.snapshots[k % len(system.snapshots)]
            yield Start("thermal", system.temperature, variable, snapshot)
    if not system.sites.pbc.all():
        return
    for index, amplitude in enumerate(settings.strains):
        for k in range(settings.strained_cells if variable else settings.strained):
            random = _random(settings, "strained", index, k)
            atoms = _strain(system.sites, amplitude, random)
            yield Start("strained", amplitude, variable, _rattle(atoms, min(settings.rattles), random))


def _random(settings: Settings, kind: Kind, index: int, k: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([settings.seed, KINDS.index(kind), index, k]))


def _rattle(atoms: Atoms, amplitude: float, random: np.random.Generator) -> Atoms:
    """Gaussian displacements that leave the centre of the atoms where it is."""
    moved = atoms.copy()
    displacements = random.normal(scale=amplitude, size=atoms.positions.shape)
    moved.positions += displacements - displacements.mean(0)
    return moved


def _strain(atoms: Atoms, amplitude: float, random: np.random.Generator) -> Atoms:
    """A homogeneous symmetric strain of cell and positions, its six components normal."""
    upper = np.triu(random.normal(scale=amplitude, size=(3, 3)))
    strain = upper + np.triu(upper, 1).T
    moved = atoms.copy()
    moved.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return moved
