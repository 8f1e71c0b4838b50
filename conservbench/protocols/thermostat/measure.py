"""Measure trajectories under heat baths that share their starts: temperatures, heat, structure and correlations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

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
from conservbench.models.base import InvalidPredictionError, Model, UnsupportedError, check_support
from conservbench.observables.msd import squared_displacement
from conservbench.observables.normal_modes import mode_kinetic_energy, normal_modes
from conservbench.observables.rdf import radial_distribution
from conservbench.observables.temperature import (
    cooler_than,
    degrees_of_freedom,
    kinetic_energy,
    species_temperature,
    temperature,
)
from conservbench.observables.vdos import velocity_autocorrelation
from conservbench.outcome import Outcome
from conservbench.protocols.base import Report, within
from conservbench.protocols.crystals import is_crystal
from conservbench.protocols.sampling import steps_lasting, whole_steps
from conservbench.protocols.thermostat.settings import Bath, Settings
from conservbench.scheme import Scheme
from conservbench.state import State, from_atoms, only
from conservbench.units import BOLTZMANN, FEMTOSECOND

if TYPE_CHECKING:
    from conservbench.systems import System

BANDS = ("low", "middle", "high")
"""Thirds of the normal modes, by frequency."""

_Run = Recording[MDState]


def measure(model: Model, scheme: Scheme, system: System, settings: Settings, report: Report) -> xr.Dataset:
    """Equilibrate each replica under the scheme's own forces, then run it from there under every bath.

    Returns:
        Dimensions bath, replica, time (ps), and species, band, r (Å) and lag (ps) where a variable has them. Energies
        are in eV/atom. ``potential_energy`` and ``conserved_energy`` are there for a model with an energy,
        ``band_temperature`` and the coordinate ``frequency`` for crystals, ``rdf`` for periodic systems. Series are NaN
        once a replica has exploded, and ``rdf``, ``velocity_autocorrelation`` and ``mean_squared_displacement``, which
        are means over the record, are NaN for it altogether. ``explosion_time`` (bath, replica) in ps is NaN for a
        replica that lasted and 0 for one that was lost before the record. Where there is a second temperature,
        ``second_potential_energy`` and ``second_explosion_time`` are those of the runs at it, from the same starts,
        with a dimension ensemble_bath in place of bath; its attribute ``second_temperature`` is in K.

    Raises:
        UnsupportedError: the model lacks a channel or an element, or the stride does not fit the sampling.
        InvalidPredictionError: a prediction for a start structure is not finite or has a wrong shape.
    """
    outer = settings.time_step * scheme.stride
    interval = whole_steps(settings.sample_every, outer)
    if interval is None:
        raise UnsupportedError(
            f"stride {scheme.stride} x {settings.time_step:g} fs does not divide "
            f"sample_every = {settings.sample_every:g} fs"
        )
    frames = [system.snapshots[k % len(system.snapshots)] for k in range(settings.replicas)]
    start = from_atoms(frames, device=model.device)
    check_support(model, start, scheme.channels)
    engine = integrator(model, scheme)
    healthy = cooler_than(max(settings.explosion_temperature, settings.explosion_factor * system.temperature))
    modes = _modes(model, scheme, system)
    observables = _observables(start, settings, modes, has_energy=model.evaluate(start).energy is not None)

    noise = Noise(settings.seed)
    strong = thermostat("langevin", system.temperature, settings.equilibration_tau * FEMTOSECOND, noise)
    repeated = settings.ensemble_baths if settings.second_temperature and "potential_energy" in observables else ()
    n_runs = len(settings.baths) + len(repeated)
    stretches = [settings.equilibration_time, *n_runs * [settings.settling_time + settings.duration]]
    shares = np.cumsum(stretches) / sum(stretches)
    equilibrated = _advance(
        engine.init(start.replace(momenta=draw_momenta(start, system.temperature, noise))),
        engine,
        strong,
        settings,
        settings.equilibration_time,
        healthy,
    )
    report(float(shares[0]))

    def run(bath: Bath, kelvin: float, index: int, observe: Callable[[Thermostat], dict[str, Observe]]) -> _Run:
        # stage 0 was the equilibration
        noise = Noise(settings.seed, index + 1)
        heat_bath = thermostat(bath.kind, kelvin, bath.tau * FEMTOSECOND, noise, chain_length=settings.chain_length)
        settled = _advance(
            None if equilibrated is None else heat_bath.init(equilibrated),
            engine,
            heat_bath,
            settings,
            settings.settling_time,
            healthy,
        )
        return simulate(
            None if settled is None else replace(settled, heat=torch.zeros_like(settled.heat)),
            _mover(engine, heat_bath, settings),
            n_replicas=settings.replicas,
            n_records=settings.n_samples,
            interval=interval,
            observe=observe(heat_bath),
            healthy=healthy,
            report=within(report, float(shares[index]), float(shares[index + 1])),
        )

    def everything(bath: Thermostat) -> dict[str, Observe]:
        return observables | _balance(bath, start, has_energy="potential_energy" in observables)

    recordings = []
    for index, bath in enumerate(settings.baths):
        recording = run(bath, system.temperature, index, everything)
        recordings.append(_reduced(recording, start, settings))
    data = _dataset(recordings, start, settings, modes)
    if settings.ensemble_baths:
        label = {"units": "1", "long_name": "heat bath whose ensemble is tested"}
        data = data.assign_coords(ensemble_bath=("ensemble_bath", list(settings.ensemble_baths), label))
    if repeated:
        second = settings.second_temperature * system.temperature
        energies = {"potential_energy": observables["potential_energy"]}
        baths = [bath for name in repeated for bath in settings.baths if bath.name == name]
        repeats = [
            run(bath, second, len(settings.baths) + index, lambda _: energies) for index, bath in enumerate(baths)
        ]
        data = data.assign(_second(repeats, data.time.values))
        data.attrs["second_temperature"] = second
    data.attrs |= {
        "n_atoms": int(start.counts[0]),
        "n_dof": float(degrees_of_freedom(start)[0]),
        "scheme": scheme.kind,
        "stride": scheme.stride,
        "target_temperature": system.temperature,
        "is_crystal": str(is_crystal(system)).lower(),
        "element": settings.element,
        "diffusive_after": settings.diffusive_after,
        **_ending(data),
    }
    return data


def _mover(engine: Integrator, bath: Thermostat, settings: Settings) -> Callable[[Any], Any]:
    inner = settings.time_step * FEMTOSECOND
    return lambda md: step(md, lambda free: engine.step(free, inner), bath, engine.stride * inner)


def _advance(
    start: MDState | None,
    engine: Integrator,
    bath: Thermostat,
    settings: Settings,
    picoseconds: float,
    healthy: Callable[[State], Tensor],
) -> MDState | None:
    """The replicas that last so long, which are not recorded."""
    n_steps = steps_lasting(picoseconds, settings.time_step * engine.stride)
    return advance(start, _mover(engine, bath, settings), n_steps, n_replicas=settings.replicas, healthy=healthy)


def _modes(model: Model, scheme: Scheme, system: System) -> tuple[Tensor, Tensor] | str:
    """Frequencies and vectors at the sites of a crystal, or why there are none."""
    if not is_crystal(system):
        return "not a crystal: it has no normal modes"
    try:
        return normal_modes(model, scheme.mean_channel, from_atoms(system.sites, device=model.device))
    except InvalidPredictionError as error:
        return str(error)


def _observables(
    start: State, settings: Settings, modes: tuple[Tensor, Tensor] | str, *, has_energy: bool
) -> dict[str, Observe]:
    """What is recorded, per system, whatever the bath."""
    n_atoms = int(start.counts[0])
    numbers = _species(start)
    masses = start.masses[:n_atoms]
    edges = settings.rdf_width * np.arange(settings.n_bins + 1)
    found: dict[str, Observe] = {
        "kinetic_energy": lambda md: kinetic_energy(md) / n_atoms,
        "temperature": temperature,
        "species_temperature": lambda md: torch.stack([species_temperature(md, number) for number in numbers], 1),
        "heat": lambda md: md.heat / n_atoms,
        "positions": lambda md: md.positions.view(-1, n_atoms, 3),
        "velocities": lambda md: md.velocities.view(-1, n_atoms, 3),
    }
    if has_energy:
        found["potential_energy"] = lambda md: cast(Tensor, md.energy) / n_atoms
    if bool(start.pbc.all()):
        chosen = atomic_numbers[settings.element] if settings.element else 0
        found["rdf"] = lambda md: radial_distribution(only(md, chosen) if chosen else md, edges)
    if not isinstance(modes, str):
        vectors = modes[1]

        def band_temperature(md: MDState) -> Tensor:
            kinetic = mode_kinetic_energy(md.momenta.view(-1, n_atoms, 3), masses, vectors)
            thirds = torch.tensor_split(2.0 / BOLTZMANN * kinetic, len(BANDS), dim=1)
            return torch.stack([third.mean(1) for third in thirds], 1)

        found["band_temperature"] = band_temperature
    return found


def _balance(bath: Thermostat, start: State, *, has_energy: bool) -> dict[str, Observe]:
    if not has_energy:
        return {}
    n_atoms = int(start.counts[0])

    def conserved(md: MDState) -> Tensor:
        return (cast(Tensor, md.energy) + kinetic_energy(md) + bath.energy(md)) / n_atoms

    return {"conserved_energy": conserved}


def _species(start: State) -> list[int]:
    return sorted(set(start.numbers.tolist()))


def _walkers(start: State, element: str) -> NDArray[np.intp]:
    """Atoms of a system whose displacement is recorded."""
    numbers = start.numbers[: int(start.counts[0])].cpu().numpy()
    return np.flatnonzero(numbers == atomic_numbers[element]) if element else np.arange(len(numbers))


def _reduced(recording: Recording[MDState], start: State, settings: Settings) -> dict[str, NDArray[np.float64]]:
    """Series by name, with means over the record in place of positions, velocities and instantaneous g(r)."""
    series = dict(recording.series)
    positions, velocities = series.pop("positions"), series.pop("velocities")
    n_atoms = int(start.counts[0])
    masses = start.masses[:n_atoms].cpu().numpy()
    walkers = _walkers(start, settings.element)
    times = np.arange(settings.n_samples + 1) * settings.sample_every * 1e-3
    lags = np.full((settings.replicas, settings.n_lags), np.nan)
    found: dict[str, NDArray[np.float64]] = {
        "velocity_autocorrelation": lags,
        "mean_squared_displacement": lags.copy(),
        "explosion_time": np.where(recording.exploded >= 0, times[recording.exploded], np.nan),
    }
    for replica in np.flatnonzero(recording.exploded < 0):
        correlation = velocity_autocorrelation(velocities[replica], masses)
        found["velocity_autocorrelation"][replica] = correlation[: settings.n_lags]
        # the motion of the centre of mass is no diffusion
        places = positions[replica] - np.average(positions[replica], axis=1, weights=masses)[:, None]
        squares = squared_displacement(places[:, walkers])
        found["mean_squared_displacement"][replica] = squares[: settings.n_lags]
    if "rdf" in series:
        found["rdf"] = series.pop("rdf").mean(1)
    return series | found


_SERIES = ("bath", "replica", "time")
_LABELS: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "kinetic_energy": (_SERIES, "eV/atom", "kinetic energy"),
    "potential_energy": (_SERIES, "eV/atom", "potential energy"),
    "conserved_energy": (_SERIES, "eV/atom", "kinetic plus potential energy plus that of the bath"),
    "heat": (_SERIES, "eV/atom", "kinetic energy that the bath has put in since the start of the record"),
    "temperature": (_SERIES, "K", "kinetic temperature"),
    "species_temperature": ((*_SERIES, "species"), "K", "kinetic temperature of the atoms of a species"),
    "band_temperature": ((*_SERIES, "band"), "K", "kinetic temperature of a third of the normal modes"),
    "rdf": (("bath", "replica", "r"), "1", "radial distribution function, mean over the record"),
    "velocity_autocorrelation": (("bath", "replica", "lag"), "eV", "sum over atoms of m v(0) . v(t)"),
    "mean_squared_displacement": (("bath", "replica", "lag"), "Å^2", "mean squared displacement"),
    "explosion_time": (("bath", "replica"), "ps", "sample at which the replica was found exploded"),
}


def _dataset(
    recordings: Sequence[Mapping[str, NDArray[np.float64]]],
    start: State,
    settings: Settings,
    modes: tuple[Tensor, Tensor] | str,
) -> xr.Dataset:
    from ase.data import chemical_symbols

    sizes = {"species": len(_species(start)), "band": len(BANDS), "r": settings.n_bins}
    steps = settings.sample_every * 1e-3
    variables = {}
    for name in dict.fromkeys(name for recording in recordings for name in recording):
        dims, unit, label = _LABELS[name]
        arrays = [_shaped(recording[name], dims, sizes) for recording in recordings]
        variables[name] = (dims, np.stack(arrays), {"units": unit, "long_name": label})
    coords: dict[str, Any] = {
        "bath": ("bath", [bath.name for bath in settings.baths], {"units": "1", "long_name": "heat bath"}),
        "tau": ("bath", [bath.tau for bath in settings.baths], {"units": "fs", "long_name": "its time scale"}),
        "kind": ("bath", [bath.kind for bath in settings.baths], {"units": "1", "long_name": "kind of bath"}),
        "replica": ("replica", np.arange(settings.replicas), {"units": "1", "long_name": "replica"}),
        "time": (
            "time",
            np.arange(settings.n_samples + 1) * steps,
            {"units": "ps", "long_name": "time since the start of the record"},
        ),
        "lag": ("lag", np.arange(settings.n_lags) * steps, {"units": "ps", "long_name": "time between two samples"}),
        "species": (
            "species",
            [chemical_symbols[number] for number in _species(start)],
            {"units": "1", "long_name": "chemical symbol"},
        ),
        "mass": (
            "species",
            [float(start.masses[start.numbers == number][0]) for number in _species(start)],
            {"units": "amu", "long_name": "mass of an atom"},
        ),
    }
    if "rdf" in variables:
        middles = settings.rdf_width * (np.arange(settings.n_bins) + 0.5)
        coords["r"] = ("r", middles, {"units": "Å", "long_name": "distance"})
    if isinstance(modes, str):
        return xr.Dataset(variables, coords, {"modes": modes})
    thirds = torch.tensor_split(modes[0], len(BANDS))
    coords["band"] = ("band", list(BANDS), {"units": "1", "long_name": "third of the normal modes"})
    coords["frequency"] = (
        "band",
        [float(third.mean()) for third in thirds],
        {"units": "THz", "long_name": "mean frequency of the band"},
    )
    return xr.Dataset(variables, coords, {"modes": ""})


def _shaped(values: NDArray[np.float64], dims: Sequence[str], sizes: Mapping[str, int]) -> NDArray[np.float64]:
    """NaN of the right shape for a bath that no replica reached: what was observed has no shape then."""
    missing = [sizes[dim] for dim in dims[values.ndim + 1 :]]
    return np.broadcast_to(values.reshape(*values.shape, *(1 for _ in missing)), (*values.shape, *missing))


def _second(repeats: Sequence[_Run], times: NDArray[np.float64]) -> dict[str, xr.DataArray]:
    """What is kept of the runs at the second temperature, and when their replicas exploded."""
    energies = np.stack([each.series["potential_energy"] for each in repeats])
    ends = np.stack([np.where(each.exploded >= 0, times[each.exploded], np.nan) for each in repeats])
    label = "{} at the second temperature".format
    return {
        "second_potential_energy": xr.DataArray(
            energies,
            dims=("ensemble_bath", "replica", "time"),
            attrs={"units": "eV/atom", "long_name": label("potential energy")},
        ),
        "second_explosion_time": xr.DataArray(
            ends,
            dims=("ensemble_bath", "replica"),
            attrs={"units": "ps", "long_name": label("sample at which the replica was found exploded")},
        ),
    }


def _ending(data: xr.Dataset) -> dict[str, str]:
    n = data.sizes["replica"]
    lost = [(bath, "", of) for bath, of in zip(data.bath.values, data.explosion_time.values, strict=True)]
    if "second_explosion_time" in data:
        warmer = f" at {data.attrs['second_temperature']:g} K"
        ends = data.second_explosion_time.values
        lost += [(bath, warmer, of) for bath, of in zip(data.ensemble_bath.values, ends, strict=True)]
    reasons = [
        f"{int(np.isfinite(of).sum())} of {n} replicas exploded under {bath.replace('_', ' ')}{where}"
        for bath, where, of in lost
        if np.isfinite(of).any()
    ]
    outcome = Outcome.EXPLODED if reasons else Outcome.COMPLETED
    return {"outcome": str(outcome), "outcome_reason": "; ".join(reasons)}
