"""Pictures of an audit: where the Jacobian is asymmetric, work round loops, difference steps. No torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from conservbench.plot import Axis, Line, Plot, line
from conservbench.protocols.audit.judge import NOISE
from conservbench.protocols.curves import drawn, interval_line, mean_line
from conservbench.statistics import Interval, ratio_interval
from conservbench.units import MILLI

SMALLEST: Final = 1e-16
"""A relative number below this is drawn here where the axis is in powers of ten: double precision knows no less."""

_FLOOR: Final = f"{NOISE:g} × noise"
"""What must be exceeded to be more than noise."""


def plots(data: xr.Dataset) -> list[Plot]:
    """Asymmetry by distance where the whole Jacobian was taken, work round the loops, and the scan.

    Args:
        data: what :func:`conservbench.protocols.audit.measure.measure` returned.
    """
    made = [_by_distance(data)] if "pair_numerator" in data else []
    made += [_by_snapshot(data), _works(data)]
    if "outcome" not in data.energy.attrs:
        made.append(_unaccounted(data))
    return drawn([*made, _scan(data)])


def _by_distance(data: xr.Dataset) -> Plot:
    """lambda_ij(r) over pairs of different atoms (Bigi, Langer and Ceriotti, arXiv 2412.11569, section 3)."""
    pairs = data.isel(distance=slice(1, None))
    top, bottom = pairs.pair_numerator.values, 4.0 * pairs.pair_denominator.values
    some = np.flatnonzero(bottom.sum(0) > 0)
    distance = pairs.distance.values[some]
    # a snapshot without a pair at a distance says nothing of it
    held = bottom > 0
    found = [_root(ratio_interval(top[held[:, place], place], bottom[held[:, place], place])) for place in some]
    share = pairs.pair_count.values / data.pair_count.sum("distance").values[:, None]
    squared = _floor(data) ** 2 * 4.0 * data.exact_denominator.values[:, None] * share
    noise = NOISE * np.sqrt(squared.sum(0)[some] / bottom.sum(0)[some])
    return Plot(
        "asymmetry",
        "Asymmetry of the force Jacobian by distance of the pair",
        Axis("distance", "Å"),
        Axis("lambda_ij"),
        (
            interval_line("lambda_ij", distance, found, "curve"),
            line(_FLOOR, distance, np.minimum(noise, 1.0)),
        ),
        "A gradient force has 0 at every distance; at 1 the force between two atoms has no energy at all. The band is "
        "the 95 % interval over snapshots, and what is below three times the noise says nothing.",
    )


def _by_snapshot(data: xr.Dataset) -> Plot:
    top, bottom = (data[f"asymmetry_{part}"].sum("probe").values for part in ("numerator", "denominator"))
    found = np.sqrt(top / (4.0 * bottom))
    order = np.arange(1, len(found) + 1)
    return Plot(
        "snapshots",
        "Asymmetry of the force Jacobian on thermal snapshots, the largest first",
        Axis("snapshot"),
        Axis("lambda", log=True),
        (
            line("lambda", order, np.sort(np.maximum(found, SMALLEST))[::-1], style="points"),
            line(_FLOOR, order[[0, -1]], np.full(2, max(NOISE * _floor(data), SMALLEST))),
        ),
        "A gradient force is within three times the noise; 1 is a force of pure rotation. Each point is one "
        "snapshot, from a few probes.",
    )


def _works(data: xr.Dataset) -> Plot:
    work = np.sort(MILLI * np.abs(data.power.mean("image").values))[::-1]
    work = work[work > 0]
    return Plot(
        "loop_work",
        "Work round closed loops, the largest first",
        Axis("loop"),
        Axis("|work|", "meV", log=True),
        (line("", np.arange(1, len(work) + 1), work, style="points"),),
        "A gradient force does no work round a closed loop: what is left, many powers of ten "
        "below the work of another, is the error of the integral. Each point is one loop.",
    )


def _unaccounted(data: xr.Dataset) -> Plot:
    fraction = np.linspace(0.0, 1.0, data.sizes["image"] + 1)
    energy = data.energy.values
    change = np.concatenate([energy, energy[:, :1]], axis=1) - energy[:, :1]
    gap = MILLI * np.abs(_cumulative(data.power.values) + change)
    return Plot(
        "loop_gap",
        "Work along closed loops that the energy does not account for",
        Axis("part of the loop"),
        Axis("|work + change of the energy|", "meV"),
        (_positive(mean_line("", fraction, gap)),),
        "A gradient force has 0 all along. The curve ends at the work round the whole loop; it is the mean over loops, "
        "the band its 95 % interval.",
    )


def _scan(data: xr.Dataset) -> Plot:
    norm = data.scan_norm.sum("scan_probe").values
    lines = [line("change to the next step", data.step[:-1], _relative(data.scan_change[:-1], norm[:-1]))]
    if "outcome" not in data.scan_error.attrs:
        lines.append(line("difference from autograd", data.step, _relative(data.scan_error, norm)))
    return Plot(
        "scan",
        "Jacobian by differences against the step",
        Axis("difference step", "Å", log=True),
        Axis("relative error", log=True),
        tuple(lines),
        "Small steps lose digits, large ones see the curvature: differences are taken where the change is smallest. No "
        "band: both are sums over the same few probes.",
    )


def _relative(squares: xr.DataArray, norm: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.sqrt(squares.sum("scan_probe", skipna=False).values / norm)
    return np.maximum(relative, SMALLEST)


def _cumulative(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integral from the start of a loop to each image, and round it: (n_loops, n_images + 1).

    Exact for what the images resolve: the integral of the trigonometric interpolant, as the whole loop's is.

    Args:
        power: (n_loops, n_images) at equal distances along the loop.
    """
    n = power.shape[1]
    waves = np.fft.rfft(power) / n
    order = np.arange(waves.shape[1])
    waves[:, order == n / 2] = 0.0
    turns = 2j * np.pi * np.maximum(order, 1)
    places = np.arange(n + 1) / n
    swings = np.exp(2j * np.pi * np.outer(order, places)) - 1.0
    return waves[:, :1].real * places + 2.0 * ((waves[:, 1:] / turns[1:]) @ swings[1:]).real


def _floor(data: xr.Dataset) -> float:
    """Lambda of the noise, as the judge has it."""
    floor = ratio_interval(data.floor_numerator.values, 4.0 * data.floor_denominator.values)
    return float(np.sqrt(max(floor.value, 0.0)))


def _root(interval: Interval) -> Interval:
    return interval.map(lambda value: float(np.sqrt(min(max(value, 0.0), 1.0))))


def _positive(one: Line) -> Line:
    return replace(one, low=tuple(None if edge is None else max(edge, 0.0) for edge in one.low))
