"""Pictures of heat baths: temperatures they hold, energy they take out, structure and motion they leave. No torch."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr

from conservbench.plot import Axis, Line, Plot, line
from conservbench.protocols.curves import drawn, in_stretches, level, replica_lines
from conservbench.units import MILLI

TIME: Final = Axis("time", "ps")

TEMPERATURE: Final = Axis("temperature", "K")

_NAMES: Final = {"langevin": "Langevin", "svr": "SVR", "nose-hoover": "Nosé-Hoover"}

_BAND: Final = (
    "The band is the 95 % interval of the mean over replicas; of those that exploded the first is drawn by itself."
)


def plots(data: xr.Dataset) -> list[Plot]:
    """Temperatures and the energy put in against time, g(r), and mean squared displacements in liquids, by bath.

    Args:
        data: what :func:`conservbench.protocols.thermostat.measure.measure` returned.
    """
    target = level("target", data.time, float(data.attrs["target_temperature"]))
    made = [
        Plot(
            "temperature",
            "Temperature under each bath",
            TIME,
            TEMPERATURE,
            (*_by_bath(data, in_stretches(data.temperature)), target),
            f"A weak bath lets a system that is heated warm up; a strong one hides it. Means over stretches. {_BAND}",
        )
    ]
    widest = _most_global(data)
    if data.sizes["species"] > 1:
        made.append(
            Plot(
                "species",
                f"Temperature of each species, {_name(data.sel(bath=widest))}",
                TIME,
                TEMPERATURE,
                (*_parts(data, widest, in_stretches(data.species_temperature), "species"), target),
                "A bath that sees the total alone hides species that are hot and cold in opposite directions. " + _BAND,
            )
        )
    if "band_temperature" in data:
        made.append(
            Plot(
                "modes",
                f"Temperature of slow and fast modes, {_name(data.sel(bath=widest))}",
                TIME,
                TEMPERATURE,
                (*_parts(data, widest, in_stretches(data.band_temperature), "band"), target),
                f"In equilibrium all normal modes have the temperature of the bath. {_BAND}",
            )
        )
    made.append(
        Plot(
            "work",
            "Energy that the forces put in",
            TIME,
            Axis("energy", "meV/atom"),
            _by_bath(data, MILLI * _put_in(data)),
            f"Conservative forces put in none; a slope is the power that the bath must take out. {_BAND}",
        )
    )
    if "rdf" in data:
        made.append(
            Plot(
                "rdf",
                "Radial distribution function",
                Axis("r", "Å"),
                Axis("g(r)"),
                _structures(data),
                "It should not depend on the bath, and be that of the gradient twin. Means over replicas, no band.",
            )
        )
    if data.attrs["is_crystal"] == "false":
        made.append(
            Plot(
                "displacement",
                "Mean squared displacement",
                Axis("lag", "ps"),
                Axis("mean squared displacement", "Å^2"),
                _by_bath(data, data.mean_squared_displacement, "lag"),
                "The slope is six times the diffusion coefficient: a strong local bath slows atoms down. The band is "
                "the 95 % interval of the mean over replicas.",
            )
        )
    return drawn(made)


def _put_in(data: xr.Dataset) -> xr.DataArray:
    """(bath, replica, time) growth of the conserved quantity; without an energy, what the bath took out, in eV/atom."""
    if "conserved_energy" in data:
        return data.conserved_energy - data.conserved_energy.isel(time=0)
    return -data.heat


def _by_bath(data: xr.Dataset, series: xr.DataArray, along: str = "time") -> tuple[Line, ...]:
    lines: list[Line] = []
    for bath in data.bath.values:
        mine, values = data.sel(bath=bath), series.sel(bath=bath).transpose("replica", along)
        lines += replica_lines(_name(mine), series[along], values, mine.explosion_time.isnull())
    return tuple(lines)


def _parts(data: xr.Dataset, bath: str, series: xr.DataArray, dim: str) -> tuple[Line, ...]:
    lines: list[Line] = []
    for part in data[dim].values:
        mine, values = data.sel(bath=bath), series.sel({"bath": bath, dim: part})
        lines += replica_lines(str(part), series.time, values, mine.explosion_time.isnull())
    return tuple(lines)


def _structures(data: xr.Dataset) -> tuple[Line, ...]:
    """From the first distance on at which any atom sits, without bands."""
    found = data.rdf.where(data.explosion_time.isnull()).mean("replica")
    held = np.flatnonzero((found > 0).any("bath").values)
    kept = slice(max(int(held[0]) - 1, 0), None) if len(held) else slice(None)
    return tuple(
        line(_name(data.sel(bath=bath)), data.r[kept], np.round(found.sel(bath=bath)[kept].values, 3))
        for bath in data.bath.values
        if found.sel(bath=bath).notnull().any()
    )


def _most_global(data: xr.Dataset) -> str:
    """The strongest stochastic rescaling, which sees the total kinetic energy alone, or else the strongest bath."""
    rescaling = data.isel(bath=np.flatnonzero(data.kind.values == "svr"))
    candidates = rescaling if rescaling.sizes["bath"] else data
    return str(candidates.bath.values[int(np.argmin(candidates.tau.values))])


def _name(data: xr.Dataset) -> str:
    """Of one bath."""
    kind = str(data.kind.values)
    return f"{_NAMES.get(kind, kind)} {float(data.tau):g} fs"
