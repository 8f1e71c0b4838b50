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
from numpy.typing import NDArray
from torch import Tensor

from conservbench.models.base import Tunable
from conservbench.models.edip import EDIP
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.elastic import cubic_constants, elastic_constants, mandel_of_cubic
from conservbench.observables.force_constants import force_constants
from conservbench.observables.phonons import Crystal, crystal, frequencies, repeated
from conservbench.references import Reference, Sites, find_reference
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

MESH: Final = 6
"""Points along each axis of the mesh of wave vectors of densities of states."""

WIDTH: Final = 1.0
"""THz, of densities of states: with 0.5 one start of eight misses the optimum, with 0.3 five do."""

_FREQUENCIES: Final = np.arange(0.0, 25.0, 0.05)
_GAMMA_X_L: Final = ((0.0, 0.0, 0.0), (0.5, 0.0, 0.5), (0.5, 0.5, 0.5))
_CUBE: Final = np.array([[-2, 2, 2], [2, -2, 2], [2, 2, -2]])
"""64 atoms in a cube, by vectors of the primitive cell."""

_MINIMA: Final = "potential | target | parameter | parameter | loss | starts | curvature | curvature"
_RUNS: Final = "potential | target | start | start | loss | optimum | optimum | loss | evaluations | outcome"
_PROPERTIES: Final = "potential | tuned to | a | C11 | C12 | C44 | Γ | X: TA, LA/LO, TO | L: TA, longitudinal, TO"
_LOSSES: Final = "potential | tuned to | elastic, own a | elastic, PBE a | force constants | density of states"


@dataclass(frozen=True)
class Potential:
    """A potential as it is tuned.

    Attributes:
        name: short.
        own: with its original parameters: tuned to elastic constants.
        own_lattice: Å, where that one is at rest.
        other: the one that is tuned to phonons, at the lattice constant of the reference.
        other_lattice: Å, where that one is at rest.
        starts: values of the parameters that are tuned; the first are the original ones.
    """

    name: str
    own: Tunable
    own_lattice: float
    other: Tunable
    other_lattice: float
    starts: tuple[Mapping[str, float], ...]


def _starts(names: tuple[str, str], values: Sequence[tuple[float, float]]) -> tuple[Mapping[str, float], ...]:
    return tuple(dict(zip(names, pair, strict=True)) for pair in values)


POTENTIALS: Final = (
    Potential(
        name="SW",
        own=StillingerWeber(),
        own_lattice=5.431,
        other=StillingerWeber({"sigma": 2.123822}, cutoff=3.77118),
        other_lattice=5.468582,
        starts=_starts(("epsilon", "lam"), [(2.16826, 21.0), (1.64833, 31.5), (1.80159, 17.3), (2.90159, 25.8)]),
    ),
    Potential(
        name="EDIP",
        own=EDIP(),
        own_lattice=5.430,
        other=EDIP(),
        other_lattice=5.430,
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
        target: in a word.
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


def elastic_loss(lattice_constant: float, reference: Reference) -> Loss:
    """Distance of elastic constants, GPa, at a lattice constant in Å."""
    wanted = mandel_of_cubic(*reference.elastic)
    return elastic_distance(from_atoms(bulk("Si", "diamond", a=lattice_constant)), wanted)


def phonon_loss(reference: Reference) -> Loss:
    """Distance of force constants, eV/Å^2, in the cell of the reference."""
    return force_constant_distance(*_phonons_of(reference), reference.force_constants.remainder)


def density_loss(reference: Reference, width: float = WIDTH) -> Loss:
    """Relative distance of the densities of states by Gaussians of a width in THz, in the cell of the reference."""
    return density_distance(*_phonons_of(reference), half_mesh(MESH), _FREQUENCIES, width)


def tasks(reference: Reference) -> list[Task]:
    """Elastic constants, force constants, their sum, and the density of states, for each potential.

    Elastic constants are asked for where the tuned potential is at rest; force constants and the density of states at
    the lattice constant of the reference.
    """
    found = []
    for potential in POTENTIALS:
        phonons = phonon_loss(reference)
        both = together(phonons, elastic_loss(potential.other_lattice, reference))
        found += [
            Task(potential, "elastic", potential.own, elastic_loss(potential.own_lattice, reference)),
            Task(potential, "phonons", potential.other, phonons),
            Task(potential, "both", potential.other, both),
            Task(potential, "density", potential.other, density_loss(reference)),
        ]
    return found


@dataclass(frozen=True)
class Tuned:
    """A task that is done.

    Attributes:
        task: what was asked.
        runs: one from each start.
    """

    task: Task
    runs: list[Calibration]

    @property
    def lowest(self) -> Calibration:
        """The best of the runs."""
        return min(self.runs, key=lambda run: run.loss)


def rows_of_runs(done: Sequence[Tuned]) -> list[list[str]]:
    """Start, optimum, losses and evaluations of each run."""
    return [
        [
            one.task.potential.name,
            one.task.target,
            *(f"{value:g}" for value in run.start.values()),
            f"{run.start_loss:.4f}",
            *(f"{value:.6f}" for value in run.parameters.values()),
            f"{run.loss:.6f}",
            str(run.evaluations),
            run.reason or str(run.outcome),
        ]
        for one in done
        for run in one.runs
    ]


def rows_of_minima(done: Sequence[Tuned]) -> list[list[str]]:
    """The lowest of each task, how many starts reached it, and the eigenvalues of its curvature over the loss."""
    found = []
    for one in done:
        task, lowest = one.task, one.lowest
        reached = sum(run.loss < lowest.loss * (1 + 1e-6) for run in one.runs)
        bends = torch.linalg.eigvalsh(curvature(task.model, task.loss, lowest.parameters)) / lowest.loss
        names = [f"{name} {value:.9g}" for name, value in lowest.parameters.items()]
        shares = [f"{value:.3g}" for value in bends.tolist()]
        found.append(
            [task.potential.name, task.target, *names, f"{lowest.loss:.6f}", f"{reached} of {len(one.runs)}", *shares]
        )
    return found


def rows_of_properties(done: Sequence[Tuned], reference: Reference) -> list[list[str]]:
    """Elastic constants (GPa) and phonon frequencies (THz) of originals and optima, and of the reference."""
    found = []
    for potential in POTENTIALS:
        # one of the two where both are the same
        originals = {potential.other_lattice: potential.other, potential.own_lattice: potential.own}
        cases = [("original", model, at) for at, model in sorted(originals.items())]
        for one in done:
            if one.task.potential is potential:
                model = _at(one.task.model, one.lowest.parameters)
                cases += [(one.task.target, model, at) for at in _lattices(one.task, reference)]
        found += [[potential.name, target, f"{at:.6g}", *_properties(model, at)] for target, model, at in cases]
    cells, rows = _phonons_of(reference)
    constants = [f"{value:.1f}" for value in reference.elastic]
    return [*found, ["PBE", "", f"{reference.lattice_constant:.6g}", *constants, *_special(rows, cells)]]


def _lattices(task: Task, reference: Reference) -> list[float]:
    """Where the tuned model is at rest, and where it was tuned to phonons."""
    if task.model is task.potential.own:
        return [task.potential.own_lattice]
    return sorted({task.potential.other_lattice, reference.lattice_constant})


def rows_of_losses(done: Sequence[Tuned], reference: Reference) -> list[list[str]]:
    """What each optimum makes of all targets."""
    phonons, density = phonon_loss(reference), density_loss(reference)
    found = []
    for potential in POTENTIALS:
        own = elastic_loss(potential.own_lattice, reference)
        there = elastic_loss(reference.lattice_constant, reference)
        cases = [("original", potential.starts[0])]
        cases += [(one.task.target, one.lowest.parameters) for one in done if one.task.potential is potential]
        for target, parameters in cases:
            first, second = _at(potential.own, parameters), _at(potential.other, parameters)
            losses = (own(first), there(second), phonons(second), density(second))
            found.append([potential.name, target, *(f"{loss.item():.3f}" for loss in losses)])
    return found


def _phonons_of(reference: Reference) -> tuple[Crystal, Tensor]:
    """The reference's cells, and the rows of its force constants that are needed."""
    cells = crystal(_atoms(reference.primitive), _atoms(reference.force_constants.supercell))
    return cells, torch.tensor(reference.force_constants.matrix[cells.atoms])


def _atoms(sites: Sites) -> Atoms:
    return Atoms(numbers=sites.numbers, positions=sites.positions, cell=sites.cell, pbc=True)


def _at(model: Tunable, parameters: Mapping[str, float]) -> Tunable:
    return model.at({name: torch.tensor(value, dtype=torch.float64) for name, value in parameters.items()})


def _properties(model: Tunable, lattice_constant: float) -> list[str]:
    cell = bulk("Si", "diamond", a=lattice_constant)
    cells = repeated(cell, _CUBE)
    rows = force_constants(model, "gradient", from_atoms(cells.supercell), cells.atoms.tolist())
    matrix = elastic_constants(model, "gradient", from_atoms(cell)) / GIGAPASCAL
    return [*(f"{constant.item():.1f}" for constant in cubic_constants(matrix)), *_special(rows, cells)]


def _special(rows: Tensor, cells: Crystal) -> list[str]:
    """Frequencies at Gamma, X and L, each once."""
    found = frequencies(rows, cells, _GAMMA_X_L).numpy()
    return [f"{found[0, -1]:.3f}", _joined(found[1, ::2]), _joined(found[2, [0, 2, 3, 4]])]


def _joined(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _table(head: str, rows: Sequence[Sequence[str]]) -> str:
    columns = head.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    """Tune, and print the tables."""
    reference = find_reference("si-pbe")
    done = [Tuned(task, task.calibrations()) for task in tasks(reference)]
    click.echo(_table(_MINIMA, rows_of_minima(done)))
    click.echo(_table(_RUNS, rows_of_runs(done)))
    click.echo(_table(_PROPERTIES, rows_of_properties(done, reference)))
    click.echo(_table(_LOSSES, rows_of_losses(done, reference)))


if __name__ == "__main__":
    main()
