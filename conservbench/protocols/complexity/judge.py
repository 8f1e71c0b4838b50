"""Judge one rung of a ladder: errors on labels, properties by those of the reference, time of a step. No torch.

What the errors of several models say of their properties is for :mod:`conservbench.leaderboard.correlation`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from conservbench.outcome import Outcome
from conservbench.protocols.base import Finding
from conservbench.protocols.fidelity import judge as fidelity
from conservbench.protocols.survivors import of_survivors
from conservbench.statistics import (
    Interval,
    distance_from_interval,
    jackknife_interval,
    mean_interval,
    median_interval,
    ratio_interval,
)

FORCE: Final = "force_error"
ENERGY: Final = "energy_error"
LITHIUM: Final = "diffusion_li"

UNITS: Final = {
    FORCE: "meV/Å",
    ENERGY: "meV/atom",
    "density_error": "1",
    "step_time": "µs/atom",
    LITHIUM: "1e-5 cm^2/s",
}
"""Unit of each metric that the fidelity protocol has not."""

BELOW: Final = {
    "rdf_below": "1",
    "spectrum_below": "1",
    "diffusion_below": "Å^2/ps",
    f"{LITHIUM}_below": UNITS[LITHIUM],
}
"""Unit of each metric that compares a system in motion with that of the model at the top of the ladder."""

_PER_SECOND: Final = 10.0
"""1e-5 cm^2/s in an Å^2/ps."""


def judge(data: xr.Dataset) -> list[Finding]:
    """Findings of one cell, by the metrics of the protocol card.

    Args:
        data: what :func:`conservbench.protocols.complexity.measure.measure` returned.
    """
    return [*of_labels(data), *_of_crystal(data), *_of_motion(data), _of_time(data)]


def of_labels(data: xr.Dataset) -> list[Finding]:
    """Root mean square errors of forces and energies on all frames, and on each group under its name.

    Intervals are those of the jackknife over trajectories, or over frames that are of none: neither atoms of one frame
    nor frames of one trajectory are independent. Trajectories at other temperatures have other errors, which makes
    intervals of several together too wide rather than too narrow.
    """
    if "labels_outcome" not in data.attrs:
        return _none((FORCE, ENERGY), "labels are compared on another system")
    outcome, reason = Outcome(data.attrs["labels_outcome"]), str(data.attrs["labels_reason"])
    if outcome is not Outcome.COMPLETED:
        return [Finding(metric, UNITS[metric], None, outcome, reason) for metric in (FORCE, ENERGY)]
    squares, counts = force_squares(data)
    findings = [
        Finding(f"{FORCE}{suffix}", UNITS[FORCE], _root(*(_summed(each[own], data, own) for each in (squares, counts))))
        for suffix, own in _groups(data)
    ]
    if "energy" not in data:
        return [*findings, *_none((ENERGY,), "the model has no energy")]
    return findings + [
        Finding(f"{ENERGY}{suffix}", UNITS[ENERGY], energy_error(data, own), reason=_ZERO)
        for suffix, own in _groups(data)
    ]


_ZERO: Final = "up to a constant for the atoms of each element"


def below(data: xr.Dataset, top: xr.Dataset) -> list[Finding]:
    """How a system moves under one model beside how it moves under the model at the top of the ladder.

    Squared distances of g(r) and of the vibrational spectrum, both freed of the noise of both; differences of diffusion
    over pairs of replicas that share their starts. Replicas that exploded under either are left out; only
    those that did under the model itself count as its explosions.

    Args:
        data: what :func:`conservbench.protocols.complexity.measure.measure` returned.
        top: likewise, of the model at the top.
    """
    if "rdf" not in data or "rdf" not in top:
        return _none(tuple(BELOW), _MOVING)
    guided = np.flatnonzero(top.explosion_time.isnull())
    if not len(guided):
        return _none(tuple(BELOW), f"all replicas of {data.attrs['top']} exploded")
    data, top = data.isel(replica=guided), top.isel(replica=guided)
    lasted = data.explosion_time.isnull().values
    mine, its = (each.isel(replica=np.flatnonzero(lasted)) for each in (data, top))
    of_curves = {"rdf_below": "rdf", "spectrum_below": "spectrum"}
    findings = [
        of_survivors(metric, BELOW[metric], lasted, partial(distance_from_interval, [mine[name]], [its[name]]))
        for metric, name in of_curves.items()
    ]
    apart = fidelity.diffusion_of(mine) - fidelity.diffusion_of(its)
    ions = f"{LITHIUM}_below"
    if bool(data.is_crystal):
        return [*findings, *_none(("diffusion_below", ions), "atoms of a crystal stay at their sites")]
    findings.append(of_survivors("diffusion_below", BELOW["diffusion_below"], lasted, partial(mean_interval, apart)))
    if "Li" not in data.element:
        return [*findings, *_none((ions,), _NO_LITHIUM)]
    difference = _PER_SECOND * (_of_lithium(mine) - _of_lithium(its))
    return [*findings, of_survivors(ions, BELOW[ions], lasted, partial(mean_interval, difference))]


_MOVING: Final = "of a system in motion, another one"
_NO_LITHIUM: Final = "there is no lithium"


def _of_lithium(data: xr.Dataset) -> NDArray[np.float64]:
    """(n_replicas,) Å^2/ps."""
    return fidelity.diffusion_of(data, data.displacement_of.sel(element="Li"))


def force_squares(data: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By frame, the sum of squared errors of force components, (meV/Å)^2, and their number."""
    n = data.sizes["frame"]
    squares = (1e6 * (data.force - data.force_label) ** 2).sum("axis").values
    places = data.frame_of_site.values
    counts = 3.0 * np.bincount(places, minlength=n).astype(float)
    return np.bincount(places, squares, n).astype(float), counts


def energy_error(data: xr.Dataset, own: NDArray[np.bool_]) -> Interval:
    """Root mean square error of the energies of some frames, meV/atom.

    Models have zeros of their own: the energies of the elements that fit all frames best are taken off, and fitted
    again without each trajectory that the jackknife leaves out.

    Args:
        data: what :func:`conservbench.protocols.complexity.measure.measure` returned.
        own: (n_frames,) which of them.
    """
    atoms = data.atoms_of.values.astype(float)
    sizes = atoms.sum(1, keepdims=True)
    shares, missed = atoms / sizes, 1e3 * (data.energy - data.energy_label).values / sizes[:, 0]

    def square(kept: NDArray[np.bool_]) -> float:
        zeros = np.linalg.lstsq(shares[kept], missed[kept], rcond=None)[0]
        return float(((missed - shares @ zeros)[kept & own] ** 2).mean())

    everything = np.ones(len(missed), dtype=bool)
    walks = data.trajectory.values
    named = np.unique(walks[own])
    left_out = [square(walks != walk) for walk in named] if len(named) > 1 else [math.nan]
    return jackknife_interval(square(everything), left_out).map(_to_root)


def density(frequencies: ArrayLike, at: ArrayLike, width: float) -> NDArray[np.float64]:
    """(n_points,) density of states in 1/THz: each mode a Gaussian, with an integral of one over all frequencies."""
    modes, points = np.asarray(frequencies, dtype=float).ravel(), np.asarray(at, dtype=float)
    away = (points[:, None] - modes) / width
    return np.asarray(np.exp(-0.5 * away**2).mean(1) / (math.sqrt(math.tau) * width))


def densities(data: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies in THz, and the densities of states of the model and of the reference there, from the mesh."""
    mesh, width = slice(int(data.attrs["path"]), None), float(data.attrs["density_width"])
    modes = [data[name].values[mesh] for name in ("frequency", "reference_frequency")]
    ends = min(map(np.min, modes)) - 5.0 * width, max(map(np.max, modes)) + 5.0 * width
    at = np.arange(*ends, width / 20.0)
    found, wanted = (density(each, at, width) for each in modes)
    return at, found, wanted


def along_path(data: xr.Dataset) -> xr.Dataset:
    """The crystal at rest with the wave vectors of the path alone."""
    return data.isel(q=slice(int(data.attrs["path"])))


def _of_crystal(data: xr.Dataset) -> list[Finding]:
    if "phonons_outcome" not in data.attrs:
        return _none((*fidelity.OF_CRYSTAL, "density_error"), "of the crystal at rest, another system")
    findings = fidelity.of_crystal(along_path(data))
    if "frequency" not in data:
        outcome, reason = Outcome(data.attrs["phonons_outcome"]), str(data.attrs["phonons_reason"])
        return [*findings, Finding("density_error", UNITS["density_error"], None, outcome, reason)]
    at, found, wanted = densities(data)
    apart = 0.5 * float(np.abs(found - wanted).sum() * (at[1] - at[0]))
    reason = str(data.attrs["phonons_reason"])
    return [
        *findings,
        Finding("density_error", UNITS["density_error"], Interval(apart, apart, apart, 1), reason=reason),
    ]


def _of_motion(data: xr.Dataset) -> list[Finding]:
    if "rdf" not in data:
        return _none((*fidelity.OF_MOTION, LITHIUM), _MOVING)
    findings = fidelity.of_motion(data)
    if "element" not in data or "Li" not in data.element:
        return [*findings, *_none((LITHIUM,), _NO_LITHIUM)]
    if bool(data.is_crystal):
        return [*findings, *_none((LITHIUM,), "atoms of a crystal stay at their sites")]
    lasted = data.explosion_time.isnull().values
    ions = _PER_SECOND * _of_lithium(data.isel(replica=np.flatnonzero(lasted)))
    return [*findings, of_survivors(LITHIUM, UNITS[LITHIUM], lasted, partial(mean_interval, ions))]


def _of_time(data: xr.Dataset) -> Finding:
    if "step_seconds" not in data:
        return _none(("step_time",), "timed on another system")[0]
    times = 1e6 * data.step_seconds.values / float(data.attrs["timed_atoms"])
    if not np.isfinite(times).any():
        return Finding("step_time", UNITS["step_time"], None, Outcome.EXPLODED, "a step left the physical range")
    return Finding("step_time", UNITS["step_time"], median_interval(times))


def _groups(data: xr.Dataset) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Ending of the key and frames: of all, then of each group that has a name."""
    names = data.group.values.astype(str)
    yield "", np.ones(len(names), dtype=bool)
    for name in sorted(set(names) - {"other"}):
        yield f"_{name}", names == name


def _summed(values: NDArray[np.float64], data: xr.Dataset, own: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n_trajectories,) sums of what is known by frame, over the trajectories of some frames."""
    return np.bincount(np.unique(data.trajectory.values[own], return_inverse=True)[1], values).astype(float)


def _root(squares: NDArray[np.float64], counts: NDArray[np.float64]) -> Interval:
    """Root of a mean square; an end that the jackknife puts below zero is zero, one that is open stays so."""
    return ratio_interval(squares, counts).map(_to_root)


def _to_root(square: float) -> float:
    return square if math.isinf(square) else math.sqrt(max(square, 0.0))


def _none(metrics: tuple[str, ...], reason: str) -> list[Finding]:
    units = {**fidelity.OF_CRYSTAL, **fidelity.OF_MOTION, **UNITS, **BELOW}
    return [Finding(metric, units[metric], None, Outcome.UNSUPPORTED, reason) for metric in metrics]
