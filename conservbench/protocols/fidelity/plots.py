"""Pictures of properties beside those of the reference: phonons, g(r), and atoms that move. No torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from conservbench.plot import MOST_POINTS, Axis, Line, Plot, line
from conservbench.protocols.curves import drawn, in_stretches, level, mean_line, replica_lines

DISTANCE: Final = Axis("r", "Å")

ACOUSTIC: Final = 3
"""Branches of a crystal whose frequency vanishes at the centre of the zone."""

_BIN: Final = 0.1
"""Å between the points of a g(r): distances are smeared by more."""

_BAND: Final = "The band is the 95 % interval of the mean over the replicas that lasted"


def plots(data: xr.Dataset) -> list[Plot]:
    """Of a crystal at rest, or of a system in motion.

    Args:
        data: what :func:`conservbench.protocols.fidelity.measure.measure` returned.
    """
    return drawn(of_motion(data) if "rdf" in data else of_crystal(data))


def of_crystal(data: xr.Dataset) -> list[Plot]:
    """Pictures of what :func:`conservbench.protocols.fidelity.crystal.measure_crystal` returned."""
    if "frequency" not in data:
        return []
    found, wanted = (np.sort(data[name].values, axis=1) for name in ("frequency", "reference_frequency"))
    path = data["distance"].values
    special = data.point.values != ""
    # as high as the reference, so that the marks of all models are the same
    lowest, highest = min(wanted.min(), 0.0), wanted.max()
    return [
        Plot(
            "phonons",
            "Phonon dispersion",
            Axis(f"wave vector, {_route(data)}", "1/Å"),
            Axis("frequency", "THz"),
            (
                *_branches("", path, found, special),
                *(replace(each, style="reference") for each in _branches("reference", path, wanted, special)),
                _marks(path[special], lowest, highest),
            ),
            "The curves should lie on the dashed ones of the reference; an imaginary frequency is drawn below 0. There "
            "is no statistical error.",
        )
    ]


def of_motion(data: xr.Dataset) -> list[Plot]:
    """Pictures of what :func:`conservbench.protocols.fidelity.liquid.measure_rdf` returned."""
    target = level("target", data.time, float(data.attrs["target_temperature"]))
    lasted = data.explosion_time.isnull()
    made = [
        _structure(data),
        difference_plot(data, "rdf_difference", "g(r) less that of the reference"),
        Plot(
            "temperature",
            "Temperature in the bath",
            Axis("time", "ps"),
            Axis("temperature", "K"),
            (*replica_lines("", *_trend(data), lasted), target),
            "A structure is compared at the temperature of the reference, or not at all. Means over stretches of time. "
            f"{_BAND}.",
        ),
    ]
    if bool(data.is_crystal):
        return made
    displacement = data.mean_squared_displacement
    return [
        *made,
        Plot(
            "displacement",
            "Mean squared displacement",
            Axis("lag", "ps"),
            Axis("mean squared displacement", "Å^2"),
            tuple(replica_lines("", data.lag, displacement, lasted)),
            f"The slope is six times the diffusion coefficient in the bath. {_BAND}.",
        ),
    ]


def difference_plot(data: xr.Dataset, key: str, title: str) -> Plot:
    """The g(r) of one system in motion less that of the reference, beside the noise of the reference.

    Args:
        data: of one condition.
        key: of the plot.
        title: of the plot.
    """
    kept, sound = _kept(data), _sound(data)
    mean = data.reference_rdf_blocks.mean("block").values
    lines = [mean_line("", data.r[kept], (sound - mean)[:, kept], MOST_POINTS)] if len(sound) else []
    noise = mean_line("reference", data.r[kept], (data.reference_rdf_blocks.values - mean)[:, kept], MOST_POINTS)
    return Plot(
        key,
        title,
        DISTANCE,
        Axis("g(r) - g_ref(r)"),
        (*lines, replace(noise, style="reference")),
        f"What leaves the band about 0, the 95 % interval of the reference, is an error. {_BAND}.",
    )


def _structure(data: xr.Dataset) -> Plot:
    kept, sound = _kept(data), _sound(data)
    lines = [mean_line("", data.r[kept], sound[:, kept], MOST_POINTS)] if len(sound) else []
    wanted = np.round(data.reference_rdf_blocks.mean("block").values[kept], 4)
    return Plot(
        "rdf",
        "Radial distribution function",
        DISTANCE,
        Axis("g(r)"),
        (*lines, line("reference", data.r[kept], wanted, style="reference")),
        f"The curve should lie on the dashed one of the reference. {_BAND}.",
    )


def _kept(data: xr.Dataset) -> NDArray[np.int64]:
    """Bins to draw: every :data:`_BIN`, from the first at which an atom sits in the measurement or the reference."""
    r = data.r.values
    height = np.nan_to_num(data.rdf.values, nan=0.0).max(0)
    held = np.flatnonzero(np.maximum(height, data.reference_rdf_blocks.max("block").values) > 1e-3)
    first = max(int(held[0]) - 1, 0) if len(held) else 0
    return np.arange(first, len(r), max(round(_BIN / float(r[1] - r[0])), 1))


def _sound(data: xr.Dataset) -> NDArray[np.float64]:
    """(n, n_bins) g(r) of the replicas that lasted."""
    return np.asarray(data.rdf.values[data.explosion_time.isnull().values])


def _trend(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    smooth = in_stretches(data.temperature)
    return smooth.time, smooth


def _branches(
    name: str, path: NDArray[np.float64], rows: NDArray[np.float64], special: NDArray[np.bool_]
) -> list[Line]:
    """Acoustic and optical branches (n_q, n_branches), three a line with gaps between: a line each would be a dozen."""
    lines = []
    for start in range(0, rows.shape[1], ACOUSTIC):
        chunk = rows[:, start : start + ACOUSTIC]
        places = _thinned(special, (MOST_POINTS + 1) // chunk.shape[1] - 1)
        x, y = np.append(path[places], path[-1]), np.vstack([chunk[places], np.full(chunk.shape[1], np.nan)])
        kind = "acoustic" if not start else "optical"
        label = " ".join(filter(None, (name, kind if start <= ACOUSTIC else f"{kind} {start // ACOUSTIC}")))
        lines.append(line(label, np.tile(x.round(3), chunk.shape[1])[:-1], y.T.ravel()[:-1].round(2)))
    return lines


def _thinned(special: NDArray[np.bool_], points: int) -> NDArray[np.int64]:
    """So many places along a path or fewer, the special points among them."""
    needed = np.flatnonzero(special)
    others = np.flatnonzero(~special)
    room = min(max(points - len(needed), 0), len(others))
    chosen = others[np.round(np.linspace(0, len(others) - 1, room)).astype(int)]
    return np.sort(np.concatenate([needed, chosen]))


def _marks(places: NDArray[np.float64], low: float, high: float) -> Line:
    """A line upwards at each special point, with gaps between."""
    x = np.repeat(np.unique(places), 3)
    return line("special points", x, np.tile([low, high, np.nan], len(x) // 3), style="reference")


def _route(data: xr.Dataset) -> str:
    """Names of the special points along the path; those at one place are parted by a bar."""
    found: dict[float, list[str]] = {}
    for place, name in zip(data["distance"].values, data.point.values, strict=True):
        if name:
            found.setdefault(round(float(place), 6), []).append(str(name))
    return "-".join("|".join(names) for names in found.values())
