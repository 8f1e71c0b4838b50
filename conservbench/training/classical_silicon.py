"""Stillinger-Weber and EDIP tuned to the silicon of density functional theory, from published starts.

The starts, the elastic target, and the SW optima of both are those of Gangan et al., arXiv 2409.13844. All tables of
docs/classical-silicon.md:

    python -m conservbench.training.classical_silicon
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import click
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from torch import Tensor

from conservbench.models.base import Tunable
from conservbench.models.edip import EDIP
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.elastic import cubic_constants, elastic_constants, mandel_of_cubic
from conservbench.observables.force_constants import force_constants
from conservbench.observables.phonons import Crystal, crystal, frequencies, repeated
from conservbench.references import Reference, find_reference
from conservbench.state import from_atoms
from conservbench.training.calibrate import Calibration, Loss, calibrate, curvature
from conservbench.training.static_targets import (
    density_distance,
    elastic_distance,
    force_constant_distance,
    half_mesh,
    together,
)
from conservbench.units import GIGAPASCAL

MESH: Final = 8
"""Points along each axis of the mesh of wave vectors of densities of states."""

WIDTH: Final = 1.0
"""THz, of densities of states: with 0.5 and less some starts end in minima of their own."""

_FREQUENCIES: Final = np.arange(0.0, 25.0, 0.05)
_POINTS: Final = {"Γ": (0.0, 0.0, 0.0), "X": (0.5, 0.0, 0.5), "L": (0.5, 0.5, 0.5)}
_CUBE: Final = np.array([[-2, 2, 2], [2, -2, 2], [2, 2, -2]])
"""64 atoms in a cube, by vectors of the primitive cell."""


@dataclass(frozen=True)
class Potential:
    """A potential as it is tuned.

    Attributes:
        name: short.
        relaxed: with its published parameters, at rest at ``lattice_constant``: tuned to elastic constants there.
        lattice_constant: Å.
        stretched: the one that is tuned to phonons, at the lattice constant of the reference.
        starts: values of the parameters that are tuned; the first are the published ones.
    """

    name: str
    relaxed: Tunable
    lattice_constant: float
    stretched: Tunable
    starts: tuple[Mapping[str, float], ...]


def _starts(names: tuple[str, str], values: Sequence[tuple[float, float]]) -> tuple[Mapping[str, float], ...]:
    return tuple(dict(zip(names, pair, strict=True)) for pair in values)


POTENTIALS: Final = (
    Potential(
        name="SW",
        relaxed=StillingerWeber(),
        lattice_constant=5.431,
        # at rest at 5.468582 Å
        stretched=StillingerWeber({"sigma": 2.123822}, cutoff=3.77118),
        starts=_starts(("epsilon", "lam"), [(2.16826, 21.0), (1.64833, 31.5), (1.80159, 17.3), (2.90159, 25.8)]),
    ),
    Potential(
        name="EDIP",
        relaxed=EDIP(),
        lattice_constant=5.430,
        stretched=EDIP(),
        starts=_starts(
            ("A", "lam"),
            [(7.9821730, 1.4533108), (9.032173, 1.2533108), (7.6155063, 1.0833108), (8.7155063, 1.9333108)],
        ),
    ),
)


@dataclass(frozen=True)
class Task:
    """A potential and what it is tuned to.

    Attributes:
        potential: its starts are those of the task.
        target: in words.
        model: the one of its two that is tuned.
        loss: of it.
    """

    potential: Potential
    target: str
    model: Tunable
    loss: Loss

    def calibrations(self) -> list[Calibration]:
        """One from each start."""
        return [calibrate(self.model, self.loss, start) for start in self.potential.starts]


def primitive_cell(lattice_constant: float) -> Atoms:
    """Two atoms of diamond silicon."""
    return bulk("Si", "diamond", a=lattice_constant)


def tasks(reference: Reference) -> list[Task]:
    """Elastic constants, force constants, both, and the density of states, for each potential."""
    found = []
    for potential in POTENTIALS:
        losses = losses_of(potential, reference)
        found += [
            Task(potential, "elastic", potential.relaxed, losses["elastic"]),
            Task(potential, "phonons", potential.stretched, losses["phonons"]),
            Task(potential, "both", potential.stretched, losses["both"]),
            Task(potential, "density", potential.stretched, losses["density"]),
        ]
    return found


def losses_of(potential: Potential, reference: Reference) -> dict[str, Loss]:
    """The targets of a potential.

    Elastic constants alone are asked for at the potential's own lattice constant, as published; force constants and the
    density of states at that of the reference. With force constants, elastic constants are asked for where the tuned
    potential is at rest.
    """
    cells, rows = _phonons_of(reference)
    wanted = mandel_of_cubic(*reference.elastic)
    phonons = force_constant_distance(cells, rows, reference.remainder)
    own = elastic_distance(from_atoms(primitive_cell(potential.lattice_constant)), wanted)
    there = elastic_distance(from_atoms(primitive_cell(reference.lattice_constant)), wanted)
    at_rest = there if potential.name == "SW" else own
    density = density_distance(cells, rows, half_mesh(MESH), _FREQUENCIES, WIDTH)
    return {
        "elastic": own,
        "elastic there": there,
        "phonons": phonons,
        "density": density,
        "both": together(phonons, at_rest),
    }
