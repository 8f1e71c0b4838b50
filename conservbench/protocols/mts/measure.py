"""Measure the same starts at every stride: energy, temperature and structure in NVE, two baths, and the time taken."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import torch
import xarray as xr
from ase.data import atomic_numbers
from numpy.typing import NDArray
from torch import Tensor

from conservbench.dynamics.integrator import Integrator, integrator
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.md_state import MDState
from conservbench.dynamics.noise import Noise
from conservbench.dynamics.simulate import Observe, Recording, advance, simulate
from conservbench.dynamics.thermostat import Thermostat, step, thermostat
from conservbench.models.base import Model, check_support
from conservbench.observables.rdf import radial_distribution
from conservbench.observables.temperature import cooler_than, kinetic_energy, temperature
from conservbench.outcome import Outcome
from conservbench.protocols.base import Report, within
from conservbench.protocols.mts.settings import Settings
from conservbench.protocols.sampling import steps_lasting
from conservbench.scheme import CHANNELS, Scheme
from conservbench.state import State, from_atoms, only
from conservbench.units import FEMTOSECOND

if TYPE_CHECKING:
    from conservbench.systems import System

Healthy = Callable[[State], Tensor]

GRADIENT, DIRECT = Scheme("gradient"), Scheme("direct")

TIMED: Final = 8
"""Inner steps, or one outer step if that has more, that a time is taken of."""


def measure(model: Model, scheme: Scheme, system: System, settings: Settings, report: Report) -> xr.Dataset:
    """Equilibrate each replica under the gradient force, then run every stride from there, and the baths.

    Returns:
        Dimensions time_step (fs), stride, replica, time (ps). ``total_energy`` (eV/atom; the mean over the block that
        ends at the time; absent for a model without an energy), ``kinetic_energy`` (eV/atom) and ``temperature`` (K;
        both at the time itself, which strides share) are NaN from the block on in which a replica exploded, and so is
        its ``rdf`` (time_step, stride, replica, r), the average of g(r) over the record, which a molecule has not;
        ``explosion_time`` in ps is NaN for a replica that lasted and 0 for one that was lost before. The baths have
        ``bath_temperature``, ``bath_conserved`` and ``bath_explosion_time`` by bath, replica and bath_time (ps), at the
        stride of the scheme. ``seconds_gradient`` and ``seconds_direct`` (round) and ``seconds_mts`` (round, stride)
        are the times of one inner step of the batch.

    Raises:
        UnsupportedError: the model lacks a channel or an element.
        InvalidPredictionError: a prediction for a start structure is not finite or has a wrong shape.
    """
    frames = [system.snapshots[k % len(system.snapshots)] for k in range(settings.replicas)]
    start = from_atoms(frames, device=model.device)
    check_support(model, start, CHANNELS)
    healthy = cooler_than(max(settings.explosion_temperature, settings.explosion_factor * system.temperature))
    observables = _observables(start, settings, has_energy=model.evaluate(start).energy is not None)
    shares = _shares(settings)

    equilibrated = _equilibrate(model, start, system.temperature, settings, healthy)
    report(shares[0])
    runs: list[_Run] = []
    for time_step in settings.time_steps:
        for stride in settings.strides:
            engine = integrator(model, Scheme("mts", stride))
            part = within(report, *shares[len(runs) : len(runs) + 2])
            runs.append(_constant_energy(engine, equilibrated, time_step, settings, observables, healthy, part))
    data = _sweep_dataset(runs, settings)
    baths = _baths(model, scheme, equilibrated, system.temperature, settings, healthy)
    report(shares[-2])
    data = data.merge(baths).merge(_cost(model, equilibrated or start, settings))
    report(1.0)
    data.attrs = {
        "n_atoms": int(start.counts[0]),
        "stride": scheme.stride,
        "target_temperature": system.temperature,
        "drift_limit": settings.drift_limit,
        "temperature_limit": settings.temperature_limit,
        "rdf_limit": settings.rdf_limit,
        **_ending(data),
    }
    return data


def _shares(settings: Settings) -> list[float]:
    """Fraction done after equilibration, after each run of the sweep, after the baths and after the cost."""
    run = [
        (settings.duration + settings.settling_time) / time_step * (1.0 + 1.0 / stride)
        for time_step in settings.time_steps
        for stride in settings.strides
    ]
    first = 2.0 * settings.equilibration_time / settings.time_steps[0]
    bath = len(settings.baths) * (settings.bath_time + settings.bath_settling_time) / settings.time_steps[0]
    cost = 1e-3 * (settings.rounds + 1) * sum(max(TIMED, stride) for stride in (1, 1, *settings.strides))
    done = np.cumsum([first, *run, bath, cost])
    return list(done / done[-1])


def _equilibrate(model: Model, start: State, kelvin: float, settings: Settings, healthy: Healthy) -> MDState | None:
    """Langevin dynamics from thermal momenta; the replicas that lasted."""
    noise, dt = Noise(settings.seed), settings.time_steps[0]
    bath = thermostat("langevin", kelvin, settings.equilibration_tau * FEMTOSECOND, noise)
    engine = integrator(model, GRADIENT)
    free = _stepper(engine, dt)
    return advance(
        engine.init(start.replace(momenta=draw_momenta(start, kelvin, noise))),
        lambda md: step(md, free, bath, dt * FEMTOSECOND),
        steps_lasting(settings.equilibration_time, dt),
        n_replicas=settings.replicas,
        healthy=healthy,
    )


@dataclass(frozen=True)
class _Run:
    """A recorded run and the time between its records in ps."""

    recording: Recording[MDState]
    spacing: float

    @property
    def explosion_time(self) -> NDArray[np.float64]:
        """(n_replicas,) ps; NaN for one that lasted."""
        exploded = self.recording.exploded
        return np.where(exploded >= 0, self.spacing * exploded, np.nan)


def _constant_energy(
    engine: Integrator,
    start: MDState | None,
    time_step: float,
    settings: Settings,
    observables: dict[str, Observe],
    healthy: Healthy,
    report: Report,
) -> _Run:
    """NVE at one stride: a stretch without a record, in which it forgets where the bath left off, and the record."""
    outer = time_step * engine.stride
    stepper, interval = _stepper(engine, time_step), settings.look(outer)
    n_steps = steps_lasting(settings.settling_time, outer)
    settled = advance(_started(engine, start), stepper, n_steps, n_replicas=settings.replicas, healthy=healthy)
    recording = simulate(
        settled,
        stepper,
        n_replicas=settings.replicas,
        n_records=settings.n_samples * round(settings.sample_every / outer / interval),
        interval=interval,
        observe=observables,
        healthy=healthy,
        report=report,
    )
    return _Run(recording, 1e-3 * interval * outer)


def _baths(
    model: Model, scheme: Scheme, start: MDState | None, kelvin: float, settings: Settings, healthy: Healthy
) -> xr.Dataset:
    """Constant temperature at the stride of the card, bath by bath."""
    dt = settings.time_steps[0]
    outer = dt * scheme.stride
    engine = integrator(model, scheme)
    free = _stepper(engine, dt)
    interval = settings.look(outer)
    n_records = steps_lasting(settings.bath_time, interval * outer)
    runs = []
    for index, kind in enumerate(settings.baths):
        seed = int(np.random.SeedSequence([settings.seed, index]).generate_state(1)[0])
        bath = thermostat(kind, kelvin, settings.bath_tau * FEMTOSECOND, Noise(seed))
        coupled = _coupled(free, bath, outer)
        moving = _started(engine, start)
        observe: dict[str, Observe] = {"bath_temperature": temperature}
        if moving is not None:
            moving = bath.init(moving)
            if moving.energy is not None:
                observe["bath_conserved"] = _conserved(bath)
        n_steps = steps_lasting(settings.bath_settling_time, outer)
        settled = advance(moving, coupled, n_steps, n_replicas=settings.replicas, healthy=healthy)
        recording = simulate(
            settled,
            coupled,
            n_replicas=settings.replicas,
            n_records=n_records,
            interval=interval,
            observe=observe,
            healthy=healthy,
        )
        runs.append(_Run(recording, 1e-3 * interval * outer))
    return _bath_dataset(runs, settings)


def _coupled(free: Callable[[MDState], MDState], bath: Thermostat, outer: float) -> Callable[[MDState], MDState]:
    return lambda md: step(md, free, bath, outer * FEMTOSECOND)


def _conserved(bath: Thermostat) -> Observe:
    return lambda md: (cast(Tensor, md.energy) + kinetic_energy(md) + bath.energy(md)) / md.counts


def _cost(model: Model, start: State, settings: Settings) -> xr.Dataset:
    """Times of inner steps under each scheme, taken in turn, round by round, from one start."""
    dt = settings.time_steps[0]
    schemes = [GRADIENT, DIRECT, *(Scheme("mts", stride) for stride in settings.strides)]
    seconds = np.empty((settings.rounds, len(schemes)))
    # the first round warms up
    for number in range(-1, settings.rounds):
        for column, scheme in enumerate(schemes):
            engine = integrator(model, scheme)
            md, n_outer = engine.init(start), math.ceil(TIMED / scheme.stride)
            _wait(model.device)
            begun = time.perf_counter()
            for _ in range(n_outer):
                md = engine.step(md, dt * FEMTOSECOND)
            _wait(model.device)
            if number >= 0:
                seconds[number, column] = (time.perf_counter() - begun) / (n_outer * scheme.stride)
    return xr.Dataset(
        {
            "seconds_gradient": ("round", seconds[:, 0], _about("s", "time of a step with the gradient force")),
            "seconds_direct": ("round", seconds[:, 1], _about("s", "time of a step with the direct force")),
            "seconds_mts": (("round", "stride"), seconds[:, 2:], _about("s", "time of an inner step")),
        },
        coords={
            "round": ("round", np.arange(settings.rounds), _about("1", "round of timing")),
            "stride": _stride(settings),
        },
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _started(engine: Integrator, start: MDState | None) -> MDState | None:
    """The replicas that lasted, set in motion by another engine under their own numbers."""
    if start is None:
        return None
    return replace(engine.init(start), replica=start.replica)


def _stepper(engine: Integrator, time_step: float) -> Callable[[MDState], MDState]:
    return lambda md: engine.step(md, time_step * FEMTOSECOND)


def _observables(start: State, settings: Settings, *, has_energy: bool) -> dict[str, Observe]:
    """What is recorded, per system."""
    n_atoms = int(start.counts[0])
    edges = settings.rdf_bin * np.arange(settings.n_bins + 1)
    number = atomic_numbers[settings.element] if settings.element else 0

    def kinetic(md: MDState) -> Tensor:
        return kinetic_energy(md) / n_atoms

    def total(md: MDState) -> Tensor:
        return (cast(Tensor, md.energy) + kinetic_energy(md)) / n_atoms

    def rdf(md: MDState) -> Tensor:
        return radial_distribution(only(md, number) if number else md, edges)

    found: dict[str, Observe] = {"kinetic_energy": kinetic, "temperature": temperature}
    if has_energy:
        found["total_energy"] = total
    if bool(start.pbc.all()):
        found["rdf"] = rdf
    return found


_LABELS = {
    "total_energy": ("eV/atom", "potential plus kinetic energy, mean over the block"),
    "kinetic_energy": ("eV/atom", "kinetic energy"),
    "temperature": ("K", "kinetic temperature"),
    "bath_temperature": ("K", "kinetic temperature under a bath"),
    "bath_conserved": ("eV/atom", "total energy less the heat of the bath"),
}


def _sweep_dataset(runs: Sequence[_Run], settings: Settings) -> xr.Dataset:
    shape = (len(settings.time_steps), len(settings.strides))
    dims = ("time_step", "stride", "replica")

    def grid(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.array(values).reshape(*shape, *values[0].shape)

    recorded = [name for name in runs[0].recording.series if name != "rdf"]
    data = xr.Dataset(
        {
            name: (
                (*dims, "time"),
                grid([_of_blocks(name, run.recording.series[name], settings) for run in runs]),
                _about(*_LABELS[name]),
            )
            for name in recorded
        },
        coords={
            "time_step": ("time_step", list(settings.time_steps), _about("fs", "inner time step")),
            "stride": _stride(settings),
            "replica": ("replica", np.arange(settings.replicas), _about("1", "replica")),
            "time": (
                "time",
                1e-3 * settings.sample_every * np.arange(1, settings.n_samples + 1),
                _about("ps", "end of the block, since the start of the record"),
            ),
        },
    )
    if all("rdf" in run.recording.series for run in runs):
        middles = settings.rdf_bin * (np.arange(settings.n_bins) + 0.5)
        data = data.assign_coords(r=("r", middles, _about("Å", "middle of the bin")))
        data["rdf"] = (
            (*dims, "r"),
            grid([_mean_rdf(run.recording.series["rdf"], settings) for run in runs]),
            _about("1", "radial distribution function, mean over the ends of the blocks"),
        )
    data["explosion_time"] = (dims, grid([run.explosion_time for run in runs]), _FOUND)
    return data


def _of_blocks(name: str, series: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """(n_replicas, n_blocks) of the records (n_replicas, n_records + 1): means of the energy, the ends of all else."""
    blocks = series[:, 1:].reshape(len(series), settings.n_samples, -1)
    return blocks.mean(-1) if name == "total_energy" else blocks[:, :, -1]


def _mean_rdf(series: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """(n_replicas, n_bins) mean over the ends of the blocks, NaN for a replica that exploded."""
    if series.ndim < 3:  # none started
        return np.full((settings.replicas, settings.n_bins), np.nan)
    records = (series.shape[1] - 1) // settings.n_samples
    return series[:, records::records].mean(1)


def _bath_dataset(runs: Sequence[_Run], settings: Settings) -> xr.Dataset:
    if not runs:
        return xr.Dataset()
    series = {name: [run.recording.series[name] for run in runs] for name in runs[0].recording.series}
    times = runs[0].spacing * np.arange(next(iter(series.values()))[0].shape[1])
    dims = ("bath", "replica")
    data = xr.Dataset(
        {name: ((*dims, "bath_time"), np.array(values), _about(*_LABELS[name])) for name, values in series.items()},
        coords={
            "bath": ("bath", list(settings.baths), _about("1", "thermostat")),
            "bath_time": ("bath_time", times, _about("ps", "time since the start of the record")),
        },
    )
    data["bath_explosion_time"] = (dims, np.array([run.explosion_time for run in runs]), _FOUND)
    return data


def _stride(settings: Settings) -> tuple[str, list[int], dict[str, str]]:
    return "stride", list(settings.strides), _about("1", "inner steps to one outer step")


def _about(units: str, long_name: str) -> dict[str, str]:
    return {"units": units, "long_name": long_name}


_FOUND: Final = _about("ps", "sample at which the replica was found exploded")


def _ending(data: xr.Dataset) -> dict[str, str]:
    lost = data.explosion_time.notnull().sum("replica")
    n = data.sizes["replica"]
    reasons = [
        f"{int(lost.sel(time_step=time_step, stride=stride))} of {n} replicas exploded at stride {stride} x"
        f" {time_step:g} fs"
        for time_step in data.time_step.values
        for stride in data.stride.values
        if lost.sel(time_step=time_step, stride=stride)
    ]
    for bath in data.get("bath", []):
        gone = int(data.bath_explosion_time.sel(bath=bath).notnull().sum())
        reasons += [f"{gone} of {n} replicas exploded under {bath.item()}"] if gone else []
    outcome = Outcome.EXPLODED if reasons else Outcome.COMPLETED
    return {"outcome": str(outcome), "outcome_reason": "; ".join(reasons)}
