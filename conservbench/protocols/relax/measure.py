"""Measure relaxations: the longest force at every step from every start with every optimiser, and where they end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from conservbench.dynamics.coordinates import FixedCell, UnitCell, force_and_stress_of
from conservbench.dynamics.forces import force_of
from conservbench.dynamics.handover import relax_with_handover
from conservbench.dynamics.relaxation import OPTIMIZERS, Ending, Optimizer, Relaxation, relax
from conservbench.models.base import InvalidPredictionError, Model, UnsupportedError, check_support
from conservbench.outcome import Outcome
from conservbench.protocols.base import Report, within
from conservbench.protocols.relax.orbit import closed_orbits
from conservbench.protocols.relax.settings import Settings
from conservbench.protocols.relax.starts import starts_of
from conservbench.scheme import CHANNELS, Channel, Scheme
from conservbench.state import State, from_atoms, select

if TYPE_CHECKING:
    from conservbench.systems import System

LEFT_OUT = "left_out"
"""Ending of the starts that were not relaxed: with a variable cell by any but the first optimiser, or without a stress;
in a fixed cell by an optimiser during which the model raised."""

_LOST = (Exception, SystemExit)
"""What a model may raise that costs the part being measured, and no more."""


@dataclass(frozen=True)
class _Run:
    """A relaxation of some starts, and what it cost.

    Attributes:
        relaxation: as it ended.
        handover: (n_starts,) steps with the direct force before the gradient took over; 0 where it was used from the
            start, NaN where it never was.
        calls: channel to (n_starts,) model calls.
    """

    relaxation: Relaxation
    handover: NDArray[np.float64]
    calls: dict[Channel, NDArray[np.int64]]


def measure(model: Model, scheme: Scheme, system: System, settings: Settings, report: Report) -> xr.Dataset:
    """Relax every start in a fixed cell with every optimiser, and cells with the first one.

    In fixed cells by the forces of the scheme; cells by the gradient force and its stress, if the scheme has it.
    What the model raises after the first optimiser is done in fixed cells costs the part it is raised in, and no more:
    it is recorded in ``failure`` (of an optimiser) or in the attributes ``variable_cell_outcome`` and
    ``variable_cell_reason``, and the cell has failed.

    Returns:
        Dimensions optimizer, start, step, atom, channel. ``fmax`` (eV/Å) and ``energy`` (eV/atom; absent for a model
        without one) are NaN after the end of a relaxation; ``steps``, ``ending``, final ``positions`` and ``cell``,
        ``calls`` of each channel, ``path``, ``extent``, ``recurrence`` over the last window, and whether that is a
        ``closed_orbit``. Under MTS also ``handover`` and ``call_time``.

    Raises:
        UnsupportedError: the model lacks a channel or an element.
        InvalidPredictionError: in fixed cells with the first optimiser, no start has a prediction that is finite, or
            one has a wrong shape.
    """
    starts = starts_of(system, settings)
    batch = from_atoms([start.atoms for start in starts], device=model.device)
    check_support(model, batch, scheme.channels)
    n_fixed = sum(not start.variable for start in starts)
    fixed = select(batch, range(n_fixed))
    variable = select(batch, range(n_fixed, len(starts))) if n_fixed < len(starts) else None

    runs: list[list[_Run]] = []
    failures = []
    n_runs = len(settings.optimizers) + (variable is not None)
    for done, name in enumerate(settings.optimizers):
        failure, found = "", []
        try:
            part = within(report, done / n_runs, (done + 1) / n_runs)
            run = _relax_atoms(model, scheme, fixed, OPTIMIZERS[name], settings, part)
            if not done and _is_broken(run.relaxation):
                raise InvalidPredictionError("forces of the starts are not finite, or beyond 1000 eV/Å, in all systems")
            found.append(run)
        except _LOST as error:
            if not done:
                raise
            failure = _said(error)
        runs.append(found)
        failures.append(failure)
    outcome, reason = "", ""
    if variable is not None:
        try:
            part = within(report, 1.0 - 1.0 / n_runs, 1.0)
            optimizer = OPTIMIZERS[settings.optimizers[0]]
            runs[0].append(_relax_cells(model, scheme, variable, optimizer, settings, part))
        except UnsupportedError as error:
            outcome, reason = str(Outcome.UNSUPPORTED), str(error)
        except _LOST as error:
            outcome, reason = str(Outcome.FAILED), _said(error)
    data = _dataset(runs, batch, settings)
    data["failure"] = ("optimizer", failures, _about("1", "what the model raised in fixed cells; empty if nothing"))
    data = data.assign_coords(
        threshold=("threshold", list(settings.thresholds), _about("eV/Å", "longest force of a converged relaxation")),
        kind=("start", [start.kind for start in starts], _about("1", "what took the start out of equilibrium")),
        amplitude=(
            "start",
            [start.amplitude for start in starts],
            _about("Å (rattled), K (thermal), 1 (strained)", "how far"),
        ),
        variable_cell=(
            "start",
            np.array([start.variable for start in starts], dtype=np.int8),
            _about("1", "1 where the cell is relaxed, too"),
        ),
    )
    if scheme.kind == "mts":
        data["call_time"] = (
            ("channel", "repeat"),
            _call_times(model, fixed, settings.timed_calls),
            _about("s", "wall time of one call for all starts in fixed cells, the channels in turn"),
        )
    data.attrs = {
        "n_atoms": int(batch.counts[0]),
        "scheme": scheme.kind,
        "max_steps": settings.max_steps,
        "window": settings.window,
        "variable_cell_outcome": outcome,
        "variable_cell_reason": reason,
    }
    data.attrs |= _ending(data)
    report(1.0)
    return data


def _relax_atoms(
    model: Model, scheme: Scheme, start: State, optimizer: Optimizer, settings: Settings, report: Report
) -> _Run:
    fmax, budget = settings.thresholds[-1], settings.max_steps
    zeros = np.zeros(start.n_systems, dtype=np.int64)
    if scheme.kind == "mts":
        run = relax_with_handover(
            start,
            FixedCell(force_of(model, "direct")),
            FixedCell(force_of(model, "gradient")),
            optimizer,
            handover_fmax=settings.handover_fmax,
            patience=settings.patience,
            fmax=fmax,
            max_steps=budget,
            window=settings.window,
            report=report,
        )
        handover = np.where(run.slow_calls > 0, run.at, np.nan)
        return _Run(run.whole, handover, {"direct": run.fast_calls, "gradient": run.slow_calls})
    relaxation = relax(
        start,
        FixedCell(force_of(model, scheme.kind)),
        optimizer,
        fmax=fmax,
        max_steps=[budget] * start.n_systems,
        window=settings.window,
        report=report,
    )
    calls: dict[Channel, NDArray[np.int64]] = dict.fromkeys(CHANNELS, zeros)
    return _Run(relaxation, zeros.astype(float), calls | {scheme.kind: relaxation.steps + 1})


def _relax_cells(
    model: Model, scheme: Scheme, start: State, optimizer: Optimizer, settings: Settings, report: Report
) -> _Run:
    if scheme.kind == "direct":
        raise UnsupportedError("a direct force has no stress that goes with it")
    relaxation = relax(
        start,
        UnitCell(force_and_stress_of(model), start.cell),
        optimizer,
        fmax=settings.thresholds[-1],
        max_steps=[settings.max_steps] * start.n_systems,
        window=settings.window,
        report=report,
    )
    if _is_broken(relaxation):
        stress = force_and_stress_of(model)(start)[1]
        what = "forces on atoms and cells" if bool(stress.isfinite().all()) else "stresses"
        raise InvalidPredictionError(f"{what} of the starts are not finite, or beyond 1000 eV/Å, in all systems")
    zeros = np.zeros(start.n_systems, dtype=np.int64)
    return _Run(relaxation, zeros.astype(float), {"direct": zeros, "gradient": relaxation.steps + 1})


def _is_broken(relaxation: Relaxation) -> bool:
    """Whether no start has a prediction in range: that is no explosion."""
    return all(end is Ending.EXPLODED for end in relaxation.ending) and not relaxation.steps.any()


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _call_times(model: Model, batch: State, repeats: int) -> NDArray[np.float64]:
    """(n_channels, repeats) s: both channels side by side, so that what slows the machine slows both.

    NaN where a call raises.
    """
    forces = {channel: force_of(model, channel) for channel in CHANNELS}
    times = np.empty((len(CHANNELS), repeats))
    for repeat in range(-1, repeats):  # the first pair warms up
        for index, channel in enumerate(CHANNELS):
            begin = time.perf_counter()
            try:
                forces[channel](batch)[0].cpu()
            except _LOST:
                return np.full_like(times, np.nan)
            times[index, repeat] = time.perf_counter() - begin
    return times


def _about(units: str, long_name: str) -> dict[str, str]:
    return {"units": units, "long_name": long_name}


def _dataset(runs: Sequence[Sequence[_Run]], batch: State, settings: Settings) -> xr.Dataset:
    """Series and endings of all runs; the starts that no run relaxed are NaN, their ending :data:`LEFT_OUT`."""
    n_starts, n_atoms = batch.n_systems, int(batch.counts[0])
    n_steps = max(run.relaxation.fmax.shape[1] for parts in runs for run in parts)
    shape = (len(runs), n_starts)
    series = {name: np.full((*shape, n_steps), np.nan) for name in ("fmax", "energy")}
    numbers = {name: np.full(shape, np.nan) for name in ("steps", "path", "extent", "recurrence", "handover")}
    orbits = np.zeros(shape, dtype=np.int8)
    endings = np.full(shape, LEFT_OUT, dtype=object)
    calls = np.zeros((len(CHANNELS), *shape), dtype=np.int64)
    positions, cells = np.full((*shape, n_atoms, 3), np.nan), np.full((*shape, 3, 3), np.nan)
    has_energy = False
    for index, parts in enumerate(runs):
        begin = 0
        for run in parts:
            done = run.relaxation
            here = (index, slice(begin, begin + len(done.steps)))
            series["fmax"][here][:, : done.fmax.shape[1]] = done.fmax
            if done.energy is not None:
                has_energy = True
                series["energy"][here][:, : done.energy.shape[1]] = done.energy / n_atoms
            for name in ("steps", "path", "extent", "recurrence"):
                numbers[name][here] = getattr(done, name)
            numbers["handover"][here] = run.handover
            # a window across the handover would mix two forces
            alone = done.steps - np.nan_to_num(run.handover, nan=np.inf)
            orbit = closed_orbits(done.fmax, done.steps, done.path, done.extent, done.recurrence, settings.window)
            orbits[here] = orbit & (alone >= settings.window) & _unfinished(done)
            endings[here] = [str(end) for end in done.ending]
            for channel in CHANNELS:
                calls[(CHANNELS.index(channel), *here)] = run.calls[channel]
            positions[here] = done.final.positions.cpu().numpy().reshape(-1, n_atoms, 3)
            cells[here] = done.final.cell.cpu().numpy()
            begin += len(done.steps)
    dims = ("optimizer", "start")
    data = xr.Dataset(
        {
            "fmax": ((*dims, "step"), series["fmax"], _about("eV/Å", "longest generalised force")),
            "steps": (dims, numbers["steps"], _about("1", "steps made")),
            "ending": (dims, endings.astype(str), _about("1", "how the relaxation ended")),
            "closed_orbit": (dims, orbits, _about("1", "1 where it ended in a closed orbit")),
            "path": (dims, numbers["path"], _about("Å", "length of the path of all coordinates in the last window")),
            "extent": (dims, numbers["extent"], _about("Å", "farthest from the end within it")),
            "recurrence": (dims, numbers["recurrence"], _about("Å", "nearest to the end within it after being far")),
            "handover": (dims, numbers["handover"], _about("1", "steps before the force that finishes took over")),
            "calls": (("channel", *dims), calls, _about("1", "model calls of each force channel")),
            "positions": ((*dims, "atom", "axis"), positions, _about("Å", "final positions")),
            "cell": ((*dims, "vector", "axis"), cells, _about("Å", "final cell vectors")),
        },
        coords={
            "optimizer": ("optimizer", list(settings.optimizers), _about("1", "optimiser")),
            "start": ("start", np.arange(n_starts), _about("1", "start")),
            "step": ("step", np.arange(n_steps), _about("1", "steps made")),
            "channel": ("channel", list(CHANNELS), _about("1", "force channel")),
            "number": ("atom", batch.numbers[:n_atoms].cpu().numpy(), _about("1", "atomic number")),
        },
    )
    if has_energy:
        data["energy"] = ((*dims, "step"), series["energy"], _about("eV/atom", "energy of the model"))
    return data


def _unfinished(relaxation: Relaxation) -> NDArray[np.bool_]:
    return np.array([end is Ending.EXHAUSTED for end in relaxation.ending])


def _ending(data: xr.Dataset) -> dict[str, str]:
    """Outcome of the cell: what raised before explosions, and these before what ended without converging."""
    reasons, outcome = [], Outcome.COMPLETED
    failures = {str(name): str(data.failure.sel(optimizer=name).item()) for name in data.optimizer.values}
    if data.attrs["variable_cell_outcome"] == Outcome.FAILED:
        failures["variable cells"] = data.attrs["variable_cell_reason"]
    if "call_time" in data and bool(data.call_time.isnull().any()):
        failures["costs"] = "calls could not be timed"
    for name in data.optimizer.values:
        run = data.sel(optimizer=name)
        asked = int((run.ending != LEFT_OUT).sum())
        lost, stuck = int((run.ending == Ending.EXPLODED).sum()), int((run.ending == Ending.EXHAUSTED).sum())
        orbits = int(run.closed_orbit.sum())
        if lost:
            outcome = Outcome.EXPLODED
            reasons.append(f"{name}: {lost} of {asked} exploded")
        if stuck:
            outcome = outcome if outcome is Outcome.EXPLODED else Outcome.NOT_CONVERGED
            going_round = f", {orbits} in closed orbits" if orbits else ""
            reasons.append(f"{name}: {stuck} of {asked} not converged{going_round}")
    raised = [f"{part}: {failure}" for part, failure in failures.items() if failure]
    outcome = Outcome.FAILED if raised else outcome
    return {"outcome": str(outcome), "outcome_reason": "; ".join([*raised, *reasons])}
