"""Measure total energy and temperature along NVE trajectories that share their starts between time steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import xarray as xr
from torch import Tensor

from conservbench.dynamics.integrator import Integrator, integrator
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.md_state import MDState
from conservbench.dynamics.noise import Noise
from conservbench.dynamics.simulate import Observe, Recording, advance, simulate
from conservbench.dynamics.thermostat import step, thermostat
from conservbench.models.base import Model, UnsupportedError, check_support
from conservbench.observables.temperature import cooler_than, degrees_of_freedom, kinetic_energy, temperature
from conservbench.outcome import Outcome
from conservbench.protocols.base import Report, within
from conservbench.protocols.nve.settings import Settings
from conservbench.protocols.sampling import steps_lasting, whole_steps
from conservbench.scheme import Scheme
from conservbench.state import State, from_atoms
from conservbench.units import FEMTOSECOND

if TYPE_CHECKING:
    from conservbench.systems import System


def measure(model: Model, scheme: Scheme, system: System, settings: Settings, report: Report) -> xr.Dataset:
    """Equilibrate each replica under the scheme's own forces, then run NVE from there at every time step.

    Returns:
        Dimensions time_step (fs), replica, time (ps). ``total_energy`` (eV/atom; absent for a model without an energy),
        ``kinetic_energy`` (eV/atom) and ``temperature`` (K) are NaN once a replica has exploded; ``explosion_time``
        (time_step, replica) in ps is NaN for a replica that lasted and 0 for one that was lost in equilibration.

    Raises:
        UnsupportedError: the model lacks a channel or an element, or the stride does not fit the sampling.
        InvalidPredictionError: a prediction for a start structure is not finite or has a wrong shape.
    """
    intervals = [_interval(settings, scheme, time_step) for time_step in settings.time_steps]
    frames = [system.snapshots[k % len(system.snapshots)] for k in range(settings.replicas)]
    start = from_atoms(frames, device=model.device)
    check_support(model, start, scheme.channels)
    engine = integrator(model, scheme)
    healthy = cooler_than(max(settings.explosion_temperature, settings.explosion_factor * system.temperature))
    observables = _observables(start, has_energy=model.evaluate(start).energy is not None)
    # shares of the work: model calls a replica
    shares = np.cumsum(
        [1e3 * settings.equilibration_time / settings.time_steps[0]]
        + [1e3 * (settings.settling_time + settings.duration) / time_step for time_step in settings.time_steps]
    )

    equilibrated = _equilibrate(engine, start, system.temperature, settings, healthy)
    report(shares[0] / shares[-1])
    recordings = [
        simulate(
            _settle(engine, equilibrated, time_step, settings, healthy),
            _stepper(engine, time_step),
            n_replicas=settings.replicas,
            n_records=settings.n_samples,
            interval=interval,
            observe=observables,
            healthy=healthy,
            report=within(report, done / shares[-1], next_done / shares[-1]),
        )
        for time_step, interval, done, next_done in zip(
            settings.time_steps, intervals, shares[:-1], shares[1:], strict=True
        )
    ]
    data = _dataset(recordings, settings)
    data.attrs = {
        "n_atoms": int(start.counts[0]),
        "n_dof": float(degrees_of_freedom(start)[0]),
        "scheme": scheme.kind,
        "stride": scheme.stride,
        "target_temperature": system.temperature,
        **_ending(recordings, settings),
    }
    return data


def _interval(settings: Settings, scheme: Scheme, time_step: float) -> int:
    """Outer steps from one sample to the next."""
    steps = whole_steps(settings.sample_every, time_step * scheme.stride)
    if steps is None:
        raise UnsupportedError(
            f"stride {scheme.stride} x {time_step:g} fs does not divide sample_every = {settings.sample_every:g} fs"
        )
    return steps


def _equilibrate(
    engine: Integrator,
    start: State,
    kelvin: float,
    settings: Settings,
    healthy: Callable[[State], Tensor],
) -> MDState | None:
    """Langevin dynamics from thermal momenta; the replicas that lasted."""
    noise = Noise(settings.seed)
    bath = thermostat("langevin", kelvin, settings.equilibration_tau * FEMTOSECOND, noise)
    free = _stepper(engine, settings.time_steps[0])
    outer = settings.time_steps[0] * engine.stride
    return advance(
        engine.init(start.replace(momenta=draw_momenta(start, kelvin, noise))),
        lambda md: step(md, free, bath, outer * FEMTOSECOND),
        steps_lasting(settings.equilibration_time, outer),
        n_replicas=settings.replicas,
        healthy=healthy,
    )


def _settle(
    engine: Integrator,
    start: MDState | None,
    time_step: float,
    settings: Settings,
    healthy: Callable[[State], Tensor],
) -> MDState | None:
    """NVE that is not recorded: an integrator keeps a shadow energy, and forgets there where the bath left off."""
    n_steps = steps_lasting(settings.settling_time, time_step * engine.stride)
    return advance(start, _stepper(engine, time_step), n_steps, n_replicas=settings.replicas, healthy=healthy)


def _stepper(engine: Integrator, time_step: float) -> Callable[[MDState], MDState]:
    return lambda md: engine.step(md, time_step * FEMTOSECOND)


def _observables(start: State, *, has_energy: bool) -> dict[str, Observe]:
    """What is recorded, per system."""
    n_atoms = int(start.counts[0])

    def kinetic(md: MDState) -> Tensor:
        return kinetic_energy(md) / n_atoms

    def total(md: MDState) -> Tensor:
        return (cast(Tensor, md.energy) + kinetic_energy(md)) / n_atoms

    return {"kinetic_energy": kinetic, "temperature": temperature} | ({"total_energy": total} if has_energy else {})


_LABELS = {
    "total_energy": ("eV/atom", "potential plus kinetic energy"),
    "kinetic_energy": ("eV/atom", "kinetic energy"),
    "temperature": ("K", "kinetic temperature"),
}


def _dataset(recordings: Sequence[Recording[MDState]], settings: Settings) -> xr.Dataset:
    times = np.arange(settings.n_samples + 1) * settings.sample_every * 1e-3
    exploded = np.stack([recording.exploded for recording in recordings])
    data = xr.Dataset(
        {
            name: (
                ("time_step", "replica", "time"),
                np.stack([recording.series[name] for recording in recordings]),
                dict(zip(("units", "long_name"), _LABELS[name], strict=True)),
            )
            for name in recordings[0].series
        },
        coords={
            "time_step": ("time_step", list(settings.time_steps), {"units": "fs", "long_name": "inner time step"}),
            "replica": ("replica", np.arange(settings.replicas), {"units": "1", "long_name": "replica"}),
            "time": ("time", times, {"units": "ps", "long_name": "time since the start of the record"}),
        },
    )
    data["explosion_time"] = (
        ("time_step", "replica"),
        np.where(exploded >= 0, times[exploded], np.nan),
        {"units": "ps", "long_name": "sample at which the replica was found exploded"},
    )
    return data


def _ending(recordings: Sequence[Recording[MDState]], settings: Settings) -> dict[str, str]:
    lost = [int((recording.exploded >= 0).sum()) for recording in recordings]
    reasons = [
        f"{n} of {settings.replicas} replicas exploded at {time_step:g} fs"
        for n, time_step in zip(lost, settings.time_steps, strict=True)
        if n
    ]
    outcome = Outcome.EXPLODED if reasons else Outcome.COMPLETED
    return {"outcome": str(outcome), "outcome_reason": "; ".join(reasons)}
