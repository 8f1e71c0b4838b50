"""Ticks: a random walk that asks the model at every step, and reads no force."""

import torch
import xarray as xr


def measure(model, scheme, system, settings, report):
    """A seeded random walk."""
    walk = torch.randn(settings.steps, dtype=torch.float64).cumsum(0)
    for step in range(settings.steps):
        model.tick()
        report((step + 1) / settings.steps)
    outcome = "exploded" if model.act == "explode" else "completed"
    walk = xr.Variable("time", walk.numpy(), {"units": "eV", "long_name": "a walk"})
    return xr.Dataset({"walk": walk}, attrs={"outcome": outcome})
