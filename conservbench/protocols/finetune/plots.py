"""Pictures of tuned models, to lie over those of what they were tuned from: g(r) by condition, phonons. No torch."""

from __future__ import annotations

import xarray as xr

from conservbench.plot import Plot
from conservbench.protocols.curves import drawn
from conservbench.protocols.fidelity.plots import difference_plot, of_crystal
from conservbench.protocols.finetune.judge import at


def plots(data: xr.Dataset) -> list[Plot]:
    """How far g(r) is from the reference under each condition, and phonons: differences are what tuning changes.

    Args:
        data: what :func:`conservbench.protocols.finetune.measure.measure` returned.
    """
    return drawn([*(_under(data, str(condition)) for condition in data.condition.values), *of_crystal(data)])


def _under(data: xr.Dataset, condition: str) -> Plot:
    mine = at(data, condition)
    where = "the condition of the tuning" if condition == data.attrs["tuned_at"] else "held out from the tuning"
    kelvin = float(mine.target_temperature)
    title = f"g(r) less that of the reference, {condition} at {kelvin:.0f} K, {where}"
    return difference_plot(mine, f"rdf_{condition}", title)
