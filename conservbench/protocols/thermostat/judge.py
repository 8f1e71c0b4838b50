"""Judge trajectories under heat baths: temperatures, heat, ensemble, structure and diffusion. No torch.

Each replica gives one number to a metric; values and intervals are over replicas. The key of a metric ends with the
name of its bath. Replicas that exploded give none, and every finding that misses them says so by its outcome and
reason; where power comes in and the temperature still rises under a bath, its findings have not converged, and say so.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from conservbench.observables.msd import diffusion
from conservbench.observables.rdf_comparison import first_peak
from conservbench.observables.vdos import vibrational_density
from conservbench.outcome import Outcome
from conservbench.protocols.base import Finding
from conservbench.protocols.survivors import first_explosion, never_exploded, of_survivors
from conservbench.statistics import (
    Interval,
    distance_interval,
    mean_interval,
    ratio_interval,
    slope_interval,
)
from conservbench.units import BOLTZMANN, MILLI

UNITS: Final = {
    "temperature_error": "K",
    "species_error": "K",
    "steady_error": "K",
    "injected_power": "meV/atom/ps",
    "species_split": "K",
    "equipartition": "K",
    "kinetic_distribution": "1",
    "ensemble": "1",
    "diffusion": "Å^2/ps",
    "diffusion_ratio": "1",
    "explosion_time": "ps",
    "rdf_distance": "1",
    "rdf_peak_shift": "Å",
    "vdos_distance": "1",
}
"""Unit of each metric, by its key without the bath."""

FIT: Final = 0.25
"""The mean squared displacement is fitted from this part of the longest lag on: before, atoms fly freely."""

RISE: Final = 0.02
"""Part of the target by which the temperature must rise over a record before that is remarked on."""

SAMPLES: Final = 20
"""Decorrelated kinetic energies that a test of their distribution needs."""

PAIRS: Final = 50
"""Decorrelated potential energies at each of two temperatures that a test of their ratio needs."""

_RELAXATIONS: Final = {"langevin": 1.0, "svr": 2.0}
"""tau over the time in which the heat of a bath makes up for a temperature error, by its kind."""

MEMORY: Final = 3.0
"""Samples are decorrelated once an error of the energy has had so many of these times to be made up for."""

_PERIOD: Final = 2.0 * math.pi
"""Period over tau in which a Nosé-Hoover chain and the energy of weakly coupled oscillators swing."""

_UNITS: Final = (BOLTZMANN, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
"""Of physical_validation, for energies in eV and temperatures in K; it is asked for nothing that has another unit."""

Series = NDArray[np.float64]


def judge(data: xr.Dataset) -> list[Finding]:
    """Findings of one cell, by the metrics of the protocol card.

    Args:
        data: what :func:`conservbench.protocols.thermostat.measure.measure` returned.
    """
    findings = []
    for bath in data.bath.values:
        findings += _of_bath(data, str(bath))
    return [*findings, _explosion_time(data)]


def compare(data: xr.Dataset, twin: xr.Dataset) -> list[Finding]:
    """Findings from the structure and the vibrations of a cell and of the same cell with gradient forces.

    Replicas are compared in pairs, which share their starts. The distance of two noisy curves is freed of the noise:
    that of two samples of one ensemble is zero on average.

    Args:
        data: what was measured.
        twin: what was measured with the gradient forces of the same network, under the same settings.
    """
    findings = []
    for bath in map(str, data.bath.values):
        pair = [each.sel(bath=bath) for each in (data, twin)]
        lasted = np.logical_and(*(each.explosion_time.isnull().values for each in pair))
        sound = [each.isel(replica=np.flatnonzero(lasted)) for each in pair]
        statistics: dict[str, Callable[[xr.Dataset, xr.Dataset], Interval]] = {"vdos_distance": _vdos_distance}
        if all("rdf" in each for each in pair):
            statistics |= {"rdf_distance": _rdf_distance, "rdf_peak_shift": _rdf_peak_shift}
        else:
            reason = "only periodic systems have a g(r)"
            findings += [_none(m, bath, Outcome.UNSUPPORTED, reason) for m in ("rdf_distance", "rdf_peak_shift")]
        findings += [
            _finding(metric, bath, lasted, partial(statistic, *sound)) for metric, statistic in statistics.items()
        ]
    return findings


def _rdf_distance(sound: xr.Dataset, twin: xr.Dataset) -> Interval:
    return distance_interval(sound.rdf, twin.rdf)


def _rdf_peak_shift(sound: xr.Dataset, twin: xr.Dataset) -> Interval:
    peaks = np.array([[first_peak(each.r, g) for g in each.rdf.values] for each in (sound, twin)])
    return mean_interval(peaks[0] - peaks[1])


def _vdos_distance(sound: xr.Dataset, twin: xr.Dataset) -> Interval:
    return distance_interval(_densities(sound), _densities(twin))


def _densities(sound: xr.Dataset) -> Series:
    """(n_replicas, n_frequencies) vibrational density of states."""
    interval = 1e3 * float(sound.lag[1] - sound.lag[0])
    return np.array([vibrational_density(each, interval)[1] for each in sound.velocity_autocorrelation.values])


def _of_bath(data: xr.Dataset, bath: str) -> list[Finding]:
    """All that one bath says."""
    mine = data.sel(bath=bath)
    lasted = mine.explosion_time.isnull().values
    sound = mine.isel(replica=np.flatnonzero(lasted))
    target = float(data.attrs["target_temperature"])
    warming = _warming(sound, target)

    def found(metric: str, statistic: Callable[[], Interval]) -> Finding:
        return _finding(metric, bath, lasted, statistic, warming)

    findings = [found("temperature_error", partial(mean_interval, sound.temperature.mean("time") - target))]
    kind = str(mine.kind.values)
    if kind in _RELAXATIONS:
        findings.append(found("steady_error", lambda: _steady_error(sound, data.attrs)))
    findings.append(found("injected_power", lambda: _injected_power(sound)))
    findings += _of_species(sound, bath, target, found)
    if "band_temperature" in data:
        findings.append(found("equipartition", lambda: _between(sound.band_temperature, "band", "low", "high")))
    else:
        findings.append(_none("equipartition", bath, Outcome.UNSUPPORTED, str(data.attrs["modes"])))
    findings.append(found("kinetic_distribution", lambda: _kinetic_distribution(sound, data.attrs)))
    if "ensemble_bath" in data.coords and bath in data.ensemble_bath.values:
        findings.append(_of_ensemble(data, bath, warming))
    gentle = _gentlest(data)
    if reason := _no_diffusion(data):
        metrics = ("diffusion",) if bath == gentle else ("diffusion", "diffusion_ratio")
        return [*findings, *(_none(metric, bath, Outcome.UNSUPPORTED, reason) for metric in metrics)]
    findings.append(found("diffusion", lambda: mean_interval(_diffusion(sound))))
    if bath == gentle:
        return findings
    reference = data.sel(bath=gentle)
    both = lasted & reference.explosion_time.isnull().values
    pairs = [each.isel(replica=np.flatnonzero(both)) for each in (mine, reference)]
    return [
        *findings,
        _finding("diffusion_ratio", bath, both, lambda: ratio_interval(*(_diffusion(each) for each in pairs)), warming),
    ]


def _of_species(
    sound: xr.Dataset, bath: str, target: float, found: Callable[[str, Callable[[], Interval]], Finding]
) -> list[Finding]:
    """The error of each species, the largest of them, and the lightest one's temperature less the heaviest one's."""
    if sound.sizes["species"] < 2:
        reason = "the system has one species"
        return [_none(metric, bath, Outcome.UNSUPPORTED, reason) for metric in ("species_split", "species_error")]
    light, heavy = (str(sound.species.values[index(sound.mass.values)]) for index in (np.argmin, np.argmax))
    findings = [found("species_split", lambda: _between(sound.species_temperature, "species", heavy, light))]
    errors = []
    for symbol in map(str, sound.species.values):
        means = sound.species_temperature.sel(species=symbol).mean("time") - target
        finding = found("temperature_error", partial(mean_interval, means))
        errors.append(replace(finding, metric=f"{finding.metric}_{symbol}"))
    farthest = max(errors, key=lambda each: 0.0 if each.interval is None else abs(each.interval.value))
    reason = farthest.reason
    if farthest.interval is not None:
        reason = "; ".join(filter(None, (f"of {farthest.metric.rpartition('_')[2]}", reason)))
    return [*findings, *errors, replace(farthest, metric=f"species_error_{bath}", reason=reason)]


def _between(temperatures: xr.DataArray, dim: str, low: str, high: str) -> Interval:
    means = temperatures.mean("time")
    return mean_interval(means.sel({dim: high}) - means.sel({dim: low}))


def _injected_power(sound: xr.Dataset) -> Interval:
    """Slope of the conserved quantity; without an energy, of minus the heat, which is the same in a steady state."""
    gain = sound.conserved_energy if "conserved_energy" in sound else -sound.heat
    return slope_interval(sound.time, gain).scaled(MILLI)


def _capacity(attributes: Mapping[str, float]) -> float:
    """n_dof k_B in meV/atom/K: twice what warms the kinetic energy alone."""
    return MILLI * BOLTZMANN * attributes["n_dof"] / attributes["n_atoms"]


def _steady_error(sound: xr.Dataset, attributes: Mapping[str, float]) -> Interval:
    """T - T_0 = P tau / (n_dof k_B) in the steady state under Langevin, twice that under stochastic rescaling.

    A bath takes (n_dof k_B / tau) (T - T_0) on average, and it takes what is injected. Unlike the mean temperature, the
    power does not feel the noise of the bath.
    """
    factor = _RELAXATIONS[str(sound.kind.values)] * 1e-3 * float(sound.tau) / _capacity(attributes)
    return _injected_power(sound).scaled(factor)


def _no_diffusion(data: xr.Dataset) -> str:
    """Why atoms do not diffuse, or not within the lags of the record; empty where they do."""
    if "rdf" not in data:
        return "only periodic systems have room to diffuse"
    if data.attrs["is_crystal"] == "true":
        return "atoms of a crystal stay at their sites"
    # results of before this was asked do not have it
    longest, after = float(data.lag[-1]), float(data.attrs.get("diffusive_after", 0.0))
    return f"motion within {longest:g} ps is no diffusion: that takes {after:g} ps here" if longest < after else ""


def _diffusion(sound: xr.Dataset) -> Series:
    longest = float(sound.lag[-1])
    return diffusion(sound.lag, sound.mean_squared_displacement, (FIT * longest, longest))


def _gentlest(data: xr.Dataset) -> str:
    """The bath that changes the dynamics least: the slowest Langevin bath, or else the slowest of all."""
    local = data.isel(bath=np.flatnonzero(data.kind.values == "langevin"))
    candidates = local if local.sizes["bath"] else data
    return str(candidates.bath.values[int(np.argmax(candidates.tau.values))])


def _kinetic_distribution(sound: xr.Dataset, attributes: dict[str, float]) -> Interval:
    """The p value of the Kolmogorov-Smirnov test of decorrelated kinetic energies against their gamma distribution.

    Merz and Shirts, PLoS ONE 13, e0202764 (2018), by physical_validation.

    Raises:
        ValueError: too few samples are left.
    """
    kinetic = sound.kinetic_energy.values * attributes["n_atoms"]
    samples = decorrelated(kinetic, memory(sound))
    if len(samples) < SAMPLES:
        raise ValueError(f"{len(samples)} decorrelated samples of the kinetic energy, {SAMPLES} are needed")
    with _silence():
        import physical_validation as pv  # type: ignore[import-untyped, unused-ignore]

        n_atoms = int(attributes["n_atoms"])
        p = pv.kinetic_energy.distribution(
            pv.data.SimulationData(
                units=pv.data.UnitData(*_UNITS),
                system=pv.data.SystemData(
                    natoms=n_atoms,
                    nconstraints=0,
                    ndof_reduction_tra=3 * n_atoms - attributes["n_dof"],
                    ndof_reduction_rot=0,
                ),
                ensemble=pv.data.EnsembleData(
                    "NVT", natoms=n_atoms, volume=1.0, temperature=attributes["target_temperature"]
                ),
                observables=pv.data.ObservableData(kinetic_energy=samples),
            ),
            strict=True,
            verbosity=0,
            data_is_uncorrelated=True,
        )
    return Interval(float(p), float(p), float(p), len(samples))


def _of_ensemble(data: xr.Dataset, bath: str, warming: str) -> Finding:
    if "potential_energy" not in data:
        return _none("ensemble", bath, Outcome.UNSUPPORTED, "the model has no energy")
    if "second_potential_energy" not in data:
        return _none("ensemble", bath, Outcome.UNSUPPORTED, "this tier has no runs at a second temperature")
    first, second = data.sel(bath=bath), data.sel(ensemble_bath=bath)
    lasted = np.isnan(first.explosion_time.values) & np.isnan(second.second_explosion_time.values)
    energies = [
        each.values[lasted] * data.attrs["n_atoms"] for each in (first.potential_energy, second.second_potential_energy)
    ]
    kelvins = [float(data.attrs[key]) for key in ("target_temperature", "second_temperature")]
    return _finding("ensemble", bath, lasted, lambda: _ensemble(energies, kelvins, memory(first)), warming)


def _ensemble(energies: Sequence[Series], kelvins: Sequence[float], remembered: float) -> Interval:
    """By how many standard errors ln P_2(U) / P_1(U) misses the slope 1 / k_B T_1 - 1 / k_B T_2.

    By physical_validation, which fits the slope by maximum likelihood; its error is that of the fit, so that nothing is
    drawn at random. Shirts, J. Chem. Theory Comput. 9, 909 (2013).

    Args:
        energies: (n_replicas, n_times) potential energies of the whole system at each temperature, eV.
        kelvins: the temperatures.
        remembered: samples for which the bath may remember an energy.

    Raises:
        ValueError: too few samples are left, or they do not overlap.
    """
    samples = [decorrelated(series, remembered) for series in energies]
    counts = [len(each) for each in samples]
    if min(counts) < PAIRS:
        raise ValueError(f"{min(counts)} decorrelated samples of the potential energy, {PAIRS} are needed")
    lowest = min(each.min() for each in samples)
    with _silence():
        import physical_validation as pv

        runs = [
            pv.data.SimulationData(
                units=pv.data.UnitData(*_UNITS),
                ensemble=pv.data.EnsembleData("NVT", natoms=1, volume=1.0, temperature=kelvin),
                # the slope does not depend on the zero of energy, the conditioning of the fit does
                observables=pv.data.ObservableData(potential_energy=each - lowest),
            )
            for each, kelvin in zip(samples, kelvins, strict=True)
        ]
        try:
            deviation = float(pv.ensemble.check(*runs, verbosity=0, data_is_uncorrelated=True)[0])
        except pv.util.error.InputError:
            raise ValueError("energies at the two temperatures do not overlap: too narrow, or of two phases") from None
    return Interval(deviation, deviation, deviation, sum(counts))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without what a library prints, logs and warns of when it is imported and used."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(action="ignore"),
        ):
            yield
    finally:
        logging.disable(before)


def memory(data: xr.Dataset) -> float:
    """Samples for which a bath may remember an energy, however short the record that is to show it.

    The energy of weakly damped oscillators goes to that of the bath in tau under Langevin and in 2 tau under stochastic
    rescaling, and :data:`MEMORY` times as much passes between two samples. A chain does not damp: it swings with a
    period of 2 pi tau, and what forgets is the system, in a liquid within about one of them, in a harmonic crystal
    never.

    Args:
        data: of one bath.
    """
    interval = 1e3 * float(data.time[1] - data.time[0])
    kind = str(data.kind.values)
    times = MEMORY * _RELAXATIONS[kind] if kind in _RELAXATIONS else _PERIOD
    return times * float(data.tau) / interval


def decorrelated(series: ArrayLike, remembered: float) -> Series:
    """Samples of all replicas that are as far apart as their inefficiency and the memory of their bath ask for.

    They are counted back from the end of the record, farthest from what replicas were before it.

    Args:
        series: (n_replicas, n_times).
        remembered: samples, see :func:`memory`; beyond the record, one sample a replica is left: replicas are
            independent.

    Returns:
        (n,).
    """
    values = np.asarray(series, dtype=float)
    return values[:, :: -math.ceil(max(inefficiency(values), remembered))].ravel()


def inefficiency(series: ArrayLike) -> float:
    """Samples that count for one, by blocking: the largest b var(means of blocks of b) / var over lengths b.

    Variances are about the mean of all replicas, so that what a replica does not forget counts; an oscillation, of
    which blocks see nothing, does not hide what is slower. Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989).

    Args:
        series: (n_replicas, n_times).

    Returns:
        1 or more; blocks are up to a quarter of the series long, and nothing that is slower is seen.
    """
    values = np.asarray(series, dtype=float)
    deviations = values - values.mean()
    n = values.shape[1]
    spread = float((deviations**2).mean())
    found = 1.0
    length = 2
    while spread > 0 and 4 * length <= n:
        blocks = deviations[:, : n // length * length].reshape(len(values), -1, length).mean(2)
        found = max(found, length * float((blocks**2).mean()) / spread)
        length *= 2
    return found


def _warming(sound: xr.Dataset, target: float) -> str:
    """Why there is no steady state: power comes in, and the temperature rises by it, both beyond doubt."""
    if not sound.sizes["replica"]:
        return ""
    slope, power = slope_interval(sound.time, sound.temperature), _injected_power(sound)
    rise = slope.value * float(sound.time[-1])
    # kinetic energy alone asks for so much; less is the drift of an integrator, and the rise a fluctuation
    needed = 0.5 * _capacity(sound.attrs) * slope.low
    if power.low > 0 and slope.low > 0 and rise > RISE * target and power.high > needed:
        return f"no steady state: the temperature still rises by {slope.value:.3g} K/ps"
    return ""


def _finding(
    metric: str, bath: str, lasted: NDArray[np.bool_], statistic: Callable[[], Interval], warming: str = ""
) -> Finding:
    found = of_survivors(f"{metric}_{bath}", UNITS[metric], lasted, statistic)
    if not warming or found.interval is None:
        return found
    outcome = Outcome.NOT_CONVERGED if found.outcome is Outcome.COMPLETED else found.outcome
    return replace(found, outcome=outcome, reason="; ".join(filter(None, (found.reason, warming))))


def _none(metric: str, bath: str, outcome: Outcome, reason: str) -> Finding:
    return Finding(f"{metric}_{bath}", UNITS[metric], None, outcome, reason)


def _explosion_time(data: xr.Dataset) -> Finding:
    """Time of the first explosion under any bath, bracketed by samples; a lower bound where there is none."""
    ends = data.explosion_time.values
    n, lost = ends.shape[1], np.isfinite(ends)
    first = first_explosion(data.time, ends, n)
    if first is None:
        bound = never_exploded(data.time, n)
        return Finding("explosion_time", "ps", bound, reason=f"none of {n} exploded under any bath: a lower bound")
    counts = [
        f"{int(of.sum())} of {n} replicas exploded under {str(bath).replace('_', ' ')}"
        for bath, of in zip(data.bath.values, lost, strict=True)
        if of.any()
    ]
    return Finding("explosion_time", "ps", first, Outcome.EXPLODED, "; ".join(counts))
