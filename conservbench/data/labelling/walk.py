"""Walk along one trajectory and keep labelled frames.

Atoms are moved by Langevin dynamics. A structure becomes a frame if its forces overlap little with those of the last
frame: the normalised overlap f.f' / (|f| |f'|) is their autocorrelation over that time. Each frame is labelled by a new
calculator, which then moves the atoms on: labels depend on the structure alone, and a walk that was interrupted goes on
bit for bit. With a sampler it does so only if the sampler's forces do not depend, by their rounding, on structures
that it saw before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.md.langevin import Langevin
from numpy.typing import NDArray

from conservbench.cards import CardError
from conservbench.data.labelling.calculators import Make, labeller, packages_of, sampler
from conservbench.data.labelling.card import Labelling, Trajectory
from conservbench.data.labelling.record import Frame, Record, read_record, record_path, write_record
from conservbench.data.labelling.start import start_structure, strained

Report = Callable[[int], None]
"""Told the number of frames of a trajectory after each one."""

RUNAWAY: Final = 10.0
"""Times the temperature of the bath: a walk that is hotter has exploded."""


class WalkError(RuntimeError):
    """A walk cannot go on from where it is; it starts again from the last frame, with other random numbers."""


def walk(card: Labelling, trajectory: Trajectory, folder: Path, report: Report | None = None) -> Record:
    """Walk until all frames of a trajectory are kept, going on from what ``folder`` holds.

    A failure of the calculator, an explosion, or forces that stay alike are recorded, and the walk starts again from
    the last frame with new momenta; after too many of them the trajectory ends with the frames it has.

    Args:
        card: what is labelled and how.
        trajectory: one of its plan.
        folder: of the records.
        report: told of each frame.

    Raises:
        ValueError: the card does not fit, or the folder holds a damaged record, or that of another walk.
    """
    path = record_path(folder, trajectory.index)
    record = read_record(path, card.digest_of(trajectory))
    begin = strained(start_structure(card), trajectory)
    walker = _Walker(card, trajectory, begin, record)
    while not record.ended and len(record.frames) < trajectory.frames:
        try:
            walker.go_on()
        except WalkError as error:
            walker.fail(str(error))
        write_record(record, path)
        if report is not None:
            report(len(record.frames))
    return record


class _Walker:
    """A structure on its way, and the record it fills."""

    def __init__(self, card: Labelling, trajectory: Trajectory, begin: Atoms, record: Record) -> None:
        self._walk, self._trajectory, self._begin, self._record = card.walk, trajectory, begin, record
        self._label: Make = labeller(card)
        self._move: Make | None = sampler(card, begin)
        self._packages = packages_of(card.calculator.factory)
        self._rng = self._generator()
        self._atoms = begin.copy()
        # drawn anew where the walk starts or starts again; placed where it goes on
        self._fresh = not record.random

    def go_on(self) -> None:
        """Walk to the next frame and keep it.

        Raises:
            WalkError: it cannot be reached.
        """
        record, walk = self._record, self._walk
        if self._fresh:
            self._draw()
            first = walk.equilibration if not record.frames else walk.spacing
        else:
            record.place(self._atoms, self._rng)
            first = walk.spacing
        if self._atoms.calc is None:
            self._atoms.calc = (self._move or self._label)()
        counts = bool(record.frames) or not walk.equilibration
        self._advance(first, counts)
        tries = 0
        while (overlap := self._overlap()) is not None and abs(overlap) > walk.correlation:
            record.passed_over += 1
            tries += 1
            if tries > walk.patience:
                raise WalkError(f"forces stay like those of the last frame: overlap {overlap:.2f}")
            self._advance(walk.spacing / 4, counts)
        self._keep()
        self._fresh = False

    def fail(self, reason: str) -> None:
        """Record a failure; the walk starts again from the last frame, or ends."""
        record = self._record
        record.failures.append({"frame": len(record.frames), "reason": reason})
        record.attempt += 1
        record.random = {}
        self._fresh = True
        self._atoms.calc = None
        record.ended = len(record.failures) > self._walk.failures

    def _generator(self) -> np.random.Generator:
        return np.random.default_rng((self._walk.seed, self._trajectory.index, self._record.attempt))

    def _draw(self) -> None:
        """Start from the last frame, or from a rattled start structure, with new momenta."""
        self._rng = self._generator()
        if self._record.frames:
            self._atoms.set_positions(np.array(self._record.frames[-1].positions))
        else:
            noise = self._rng.normal(scale=self._trajectory.rattle, size=self._begin.positions.shape)
            self._atoms.set_positions(self._begin.positions + noise)
        spread = np.sqrt(self._atoms.get_masses() * units.kB * self._trajectory.temperature)
        self._atoms.set_momenta(spread[:, None] * self._rng.standard_normal(self._begin.positions.shape))

    def _advance(self, duration: float, counts: bool) -> None:
        """Move for some femtoseconds, one step at least unless there are none to go."""
        walk, record, atoms = self._walk, self._record, self._atoms
        dynamics = Langevin(
            atoms,
            walk.time_step * units.fs,
            temperature_K=self._trajectory.temperature,
            friction=walk.friction / (1000.0 * units.fs),
            fixcm=False,
            rng=self._rng,
        )
        for _ in range(math.ceil(duration / walk.time_step - 1e-9)):
            _guarded(dynamics.step)
            record.steps += 1
            hot = float(atoms.get_temperature())
            if not hot < RUNAWAY * self._trajectory.temperature:
                raise WalkError(f"exploded: {hot:.3g} K after {record.steps} steps")
            if counts:
                record.kinetic += hot
                record.counted += 1

    def _overlap(self) -> float | None:
        """Of the forces here with those of the last frame; None if there is none."""
        if not self._record.frames:
            return None
        here = _forces(self._atoms if self._move is None else self._labelled())
        last = np.array(self._record.frames[-1].forces)
        size = float(np.linalg.norm(here) * np.linalg.norm(last))
        return float((here * last).sum()) / size if size > 0.0 else 1.0

    def _labelled(self) -> Atoms:
        """The structure with a calculator that has seen no other."""
        atoms = self._atoms.copy()
        atoms.calc = self._label()
        return atoms

    def _keep(self) -> None:
        record = self._record
        atoms = self._labelled()
        forces = _forces(atoms)
        correlation = None
        if record.frames:
            last = np.array(record.frames[-1].forces)
            correlation = float((forces * last).sum() / (np.linalg.norm(forces) * np.linalg.norm(last)))
        energy = float(_guarded(lambda: atoms.get_potential_energy(force_consistent=_knows(atoms, "free_energy"))))
        if not math.isfinite(energy):
            raise WalkError(f"the energy is {energy}")
        record.frames.append(
            Frame(
                self._atoms.positions.tolist(),
                energy,
                forces.tolist(),
                _stress(atoms),
                correlation,
                self._packages,
                record.tally,
            )
        )
        record.momenta = self._atoms.get_momenta().tolist()
        record.random = dict(self._rng.bit_generator.state)
        if self._move is None:
            self._atoms.calc = atoms.calc


def _forces(atoms: Atoms) -> NDArray[np.float64]:
    forces = np.array(_guarded(atoms.get_forces), dtype=float)
    if not np.isfinite(forces).all():
        raise WalkError("a force is not finite")
    return forces


def _stress(atoms: Atoms) -> list[float] | None:
    if not atoms.pbc.all() or not _knows(atoms, "stress"):
        return None
    try:
        stress = np.array(atoms.get_stress(), dtype=float)
    # a set may do without
    except NotImplementedError:
        return None
    except Exception as error:
        raise _failed(error) from error
    return stress.tolist() if np.isfinite(stress).all() else None


def _knows(atoms: Atoms, label: str) -> bool:
    calculator: Calculator = atoms.calc
    return label in calculator.implemented_properties


def _guarded(act: Callable[[], Any]) -> Any:
    """What an act of a calculator gives.

    Raises:
        WalkError: it failed, in whatever way.
    """
    try:
        return act()
    except (CardError, PropertyNotImplementedError):
        raise
    except Exception as error:
        raise _failed(error) from error


def _failed(error: Exception) -> WalkError:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return WalkError(f"{type(error).__name__}: {said}")
