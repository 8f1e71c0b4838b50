"""Judge the properties of a simulation by those of the reference that lie beside them in the file. No torch.

What is known of a crystal at rest has no statistical error: its interval is a point. What is known of a system in
motion comes from replicas, one number each; those that exploded give none, and the findings that miss them say so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from conservbench.observables.msd import diffusion
from conservbench.outcome import Outcome
from conservbench.protocols.base import Finding
from conservbench.protocols.survivors import of_survivors
from conservbench.statistics import Interval, distance_change_interval, distance_from_interval, mean_interval

IMAGINARY: Final = 0.05
"""THz; a frequency below minus this is imaginary, one above may be zero within the arithmetic of a model."""

FIT: Final = 0.25
"""The mean squared displacement is fitted from this part of the longest lag on: before, atoms fly freely."""

NEAR: Final = 0.5
"""Å about the first peak of the reference in which that of a model is looked for; the second is 1.4 Å further out."""

OF_CRYSTAL: Final = {
    "lattice_error": "Å",
    "elastic_error": "GPa",
    "c11": "GPa",
    "c12": "GPa",
    "c44": "GPa",
    "elastic_stability": "GPa",
    "phonon_error": "THz",
    "phonon_scale": "1",
    "imaginary_modes": "1",
}
"""Unit of each metric of a crystal at rest, whatever its family."""

OF_HEXAGONAL: Final = {"lattice_c_error": "Å", "internal_error": "1", "c13": "GPa", "c33": "GPa"}
"""Unit of each metric of a hexagonal crystal alone."""

_UNITS: Final = {**OF_CRYSTAL, **OF_HEXAGONAL}

OF_MOTION: Final = {
    "rdf_error": "1",
    "rdf_floor": "1",
    "peak_shift": "Å",
    "temperature_error": "K",
    "diffusion": "Å^2/ps",
}
"""Unit of each metric of a system in motion."""

Series = NDArray[np.float64]


class Curve(Protocol):
    """A g(r) of the reference, as a file or the reference itself holds it."""

    @property
    def r(self) -> Series:
        """(n_bins,) Å."""
        ...

    @property
    def blocks(self) -> Series:
        """(n_blocks, n_bins), independent of each other."""
        ...

    @property
    def width(self) -> float:
        """Å, standard deviation of the Gaussian that distances were smeared by."""
        ...


@dataclass(frozen=True)
class _Filed:
    r: Series
    blocks: Series
    width: float


def judge(data: xr.Dataset) -> list[Finding]:
    """Findings of one cell, by the metrics of the protocol card.

    Args:
        data: what :func:`conservbench.protocols.fidelity.measure.measure` returned.
    """
    if "rdf" in data:
        return [*_none(OF_CRYSTAL, "of the crystal at rest, another system"), *of_motion(data)]
    return [*of_crystal(data), *_none(OF_MOTION, "of a system in motion, another one")]


def of_crystal(data: xr.Dataset) -> list[Finding]:
    """Findings of what :func:`conservbench.protocols.fidelity.crystal.measure_crystal` returned."""
    return [*_of_lattice(data), *_of_elastic(data), *_of_phonons(data)]


def of_motion(data: xr.Dataset) -> list[Finding]:
    """Findings of what :func:`conservbench.protocols.fidelity.liquid.measure_rdf` returned."""
    lasted = data.explosion_time.isnull().values
    sound = data.isel(replica=np.flatnonzero(lasted))
    reference = reference_of(data)

    def found(metric: str, statistic: Callable[[], Interval]) -> Finding:
        return of_survivors(metric, OF_MOTION[metric], lasted, statistic)

    return [
        found("rdf_error", lambda: rdf_error(sound.rdf, reference)),
        Finding("rdf_floor", OF_MOTION["rdf_floor"], _exact(rdf_floor(reference))),
        found("peak_shift", lambda: peak_shift(sound.rdf, reference)),
        found("temperature_error", lambda: _temperature_error(sound)),
        _of_diffusion(sound, found),
    ]


def reference_of(data: xr.Dataset) -> Curve:
    """The g(r) of the reference that lies beside a measured one."""
    return _Filed(r=data.r.values, blocks=data.reference_rdf_blocks.values, width=float(data.attrs["rdf_width"]))


def rdf_error(g: ArrayLike, reference: Curve) -> Interval:
    """Squared distance of the mean g(r) of replicas from that of the reference, sum (g - g_ref)^2 / sum g_ref^2.

    Freed of the noise of both, so that a model that is the reference has zero on average: what noise is left is in the
    interval, that of the reference by its blocks.

    Args:
        g: (n_replicas, n_bins).
        reference: at the same r.

    Raises:
        ValueError: there are fewer than two replicas.
    """
    return distance_from_interval([g], [reference.blocks])


def rdf_floor(reference: Curve) -> float:
    """What the noise of the reference alone would add to the error of g(r), were it not taken off."""
    blocks = reference.blocks
    return float(blocks.var(0, ddof=1).sum() / len(blocks) / (blocks.mean(0) ** 2).sum())


def rdf_change(g: ArrayLike, before: ArrayLike, reference: Curve) -> Interval:
    """How much :func:`rdf_error` changed from one model to another, over pairs of replicas that share their starts.

    Args:
        g: (n_replicas, n_bins).
        before: likewise, of the model it is compared with.
        reference: at the same r.

    Returns:
        Negative where the error fell.

    Raises:
        ValueError: there are fewer than two replicas.
    """
    return distance_change_interval([g], [before], [reference.blocks])


def peak_shift(g: ArrayLike, reference: Curve) -> Interval:
    """Position of the first peak less that of the reference, Å, mean over replicas (n_replicas, n_bins).

    That of the reference is its first maximum above 1, that of a replica the highest point within :data:`NEAR` of it;
    each is placed by the least-squares parabola through the bins within the width of the smearing: closer by there is
    no structure.

    Raises:
        ValueError: the reference has no peak.
    """
    height = reference.blocks.mean(0)
    tops = np.flatnonzero((height[1:-1] > 1.0) & (height[1:-1] >= height[:-2]) & (height[1:-1] > height[2:])) + 1
    if not len(tops):
        raise ValueError("the g(r) of the reference has no peak")
    place = _apex(reference, height, int(tops[0]))
    near = np.abs(reference.r - place) <= NEAR
    profiles = np.asarray(g, dtype=float)
    found = [_apex(reference, each, int(np.argmax(np.where(near, each, -np.inf)))) for each in profiles]
    return mean_interval(np.array(found) - place)


def _apex(reference: Curve, g: Series, top: int) -> float:
    offset = reference.r - reference.r[top]
    part = np.abs(offset) <= reference.width
    bend, slope, _ = np.polyfit(offset[part], g[part], 2)
    return float(reference.r[top] - slope / (2.0 * bend)) if bend < 0 else float("nan")


def elastic_error(matrix: ArrayLike, reference: ArrayLike) -> float:
    """Frobenius norm of the difference of two (6, 6) Mandel matrices, in their unit: that of the tensors."""
    return float(np.linalg.norm(np.asarray(matrix, dtype=float) - np.asarray(reference, dtype=float)))


def phonon_error(frequencies: ArrayLike, reference: ArrayLike) -> float:
    """Mean absolute difference of frequencies (n_q, n_branches) in ascending order, in their unit."""
    found, wanted = (np.sort(np.asarray(each, dtype=float), axis=-1) for each in (frequencies, reference))
    return float(np.abs(found - wanted).mean())


def cubic_constants(matrix: ArrayLike) -> tuple[float, float, float]:
    """C11, C12 and C44 of a (6, 6) Mandel matrix, averaged over the axes of the cube."""
    c = np.asarray(matrix, dtype=float)
    across = c[:3, :3].sum() - np.trace(c[:3, :3])
    return float(np.trace(c[:3, :3]) / 3), float(across / 6), float(np.trace(c[3:, 3:]) / 6)


def hexagonal_constants(matrix: ArrayLike) -> tuple[float, float, float, float, float]:
    """C11, C12, C44, C13 and C33 of a (6, 6) Mandel matrix, averaged over directions across the axis, which is z."""
    c = np.asarray(matrix, dtype=float)
    pressed, sheared = c[:2, :2].sum() / 2, (c[0, 0] + c[1, 1] - c[0, 1] - c[1, 0]) / 2
    sheared = (sheared + c[5, 5]) / 2
    across = (c[:2, 2].sum() + c[2, :2].sum()) / 4
    upright = (c[3, 3] + c[4, 4]) / 4
    return float(pressed + sheared) / 2, float(pressed - sheared) / 2, float(upright), float(across), float(c[2, 2])


def _of_lattice(data: xr.Dataset) -> list[Finding]:
    metrics = {metric: name for metric, name in _LENGTHS.items() if f"reference_{name}" in data}
    if "lattice_constant" not in data:
        return _ended(data, "lattice", tuple(metrics))
    return [
        _sure(metric, float(data[name] - data[f"reference_{name}"]), data, "lattice")
        for metric, name in metrics.items()
    ]


_LENGTHS: Final = {
    "lattice_error": "lattice_constant",
    "lattice_c_error": "lattice_constant_c",
    "internal_error": "internal_parameter",
}
"""Metric of each length that a crystal may be free to have."""


def _of_elastic(data: xr.Dataset) -> list[Finding]:
    hexagonal = data.attrs.get("family") == "hexagonal"
    metrics = ("elastic_error", "c11", "c12", "c44", *(("c13", "c33") if hexagonal else ()), "elastic_stability")
    if "elastic_constants" not in data:
        return _ended(data, "elastic", metrics)
    c = data.elastic_constants.values
    # Born: a crystal is stable where no strain lowers its energy
    softest = float(np.linalg.eigvalsh(0.5 * (c + c.T))[0])
    constants = hexagonal_constants(c) if hexagonal else cubic_constants(c)
    values = (elastic_error(c, data.reference_elastic_constants), *constants, softest)
    return [_sure(metric, value, data, "elastic") for metric, value in zip(metrics, values, strict=True)]


def _of_phonons(data: xr.Dataset) -> list[Finding]:
    metrics = ("phonon_error", "phonon_scale", "imaginary_modes")
    if "frequency" not in data:
        return _ended(data, "phonons", metrics)
    found, wanted = data.frequency.values, data.reference_frequency.values
    scale = float((found * wanted).sum() / (wanted**2).sum())
    values = (phonon_error(found, wanted), scale, float((found < -IMAGINARY).sum()))
    return [_sure(metric, value, data, "phonons") for metric, value in zip(metrics, values, strict=True)]


def _temperature_error(sound: xr.Dataset) -> Interval:
    return mean_interval(sound.temperature.mean("time") - float(sound.attrs["target_temperature"]))


def _of_diffusion(sound: xr.Dataset, found: Callable[[str, Callable[[], Interval]], Finding]) -> Finding:
    if "is_crystal" in sound and bool(sound.is_crystal):
        reason = "atoms of a crystal stay at their sites"
        return Finding("diffusion", OF_MOTION["diffusion"], None, Outcome.UNSUPPORTED, reason)
    return found("diffusion", lambda: mean_interval(diffusion_of(sound)))


def diffusion_of(data: xr.Dataset, displacement: xr.DataArray | None = None) -> Series:
    """(n_replicas,) diffusion coefficient, Å^2/ps, of all atoms or of a mean squared displacement (replica, lag)."""
    longest = float(data.lag[-1])
    squares = data.mean_squared_displacement if displacement is None else displacement
    return diffusion(data.lag, squares, (FIT * longest, longest))


def _exact(value: float) -> Interval:
    return Interval(value, value, value, 1)


def _sure(metric: str, value: float, data: xr.Dataset, part: str) -> Finding:
    return Finding(metric, _UNITS[metric], _exact(value), reason=str(data.attrs.get(f"{part}_reason", "")))


def _ended(data: xr.Dataset, part: str, metrics: tuple[str, ...]) -> list[Finding]:
    outcome, reason = Outcome(data.attrs[f"{part}_outcome"]), str(data.attrs[f"{part}_reason"])
    return [Finding(metric, _UNITS[metric], None, outcome, reason) for metric in metrics]


def _none(metrics: dict[str, str], reason: str) -> list[Finding]:
    return [Finding(metric, unit, None, Outcome.UNSUPPORTED, reason) for metric, unit in metrics.items()]
