"""Measure the crystal of the reference at rest, or a system in motion of which the reference has a g(r)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from conservbench.models.base import Model, UnsupportedError
from conservbench.protocols.base import Report
from conservbench.protocols.fidelity.crystal import is_crystal_of, measure_crystal
from conservbench.protocols.fidelity.liquid import measure_rdf
from conservbench.protocols.fidelity.settings import Settings
from conservbench.references import find_reference
from conservbench.scheme import Scheme

if TYPE_CHECKING:
    from conservbench.systems import System


def measure(model: Model, scheme: Scheme, system: System, settings: Settings, report: Report) -> xr.Dataset:
    """Properties of one system beside those of the reference.

    Returns:
        What :func:`conservbench.protocols.fidelity.liquid.measure_rdf` gives of a system of which the reference has a
        g(r), what :func:`conservbench.protocols.fidelity.crystal.measure_crystal` gives of its crystal; the attribute
        ``reference`` names the reference.

    Raises:
        UnsupportedError: the reference knows nothing of the system, or the model cannot be asked this.
        InvalidPredictionError: a prediction for a start structure is not finite or has a wrong shape.
    """
    reference = find_reference(settings.reference)
    profile = reference.rdf.get(system.name)
    if profile is not None:
        data = measure_rdf(model, scheme, system, profile, settings, report)
    elif is_crystal_of(system.sites, reference):
        data = measure_crystal(model, scheme, system.sites, reference)
    else:
        raise UnsupportedError(f"reference {reference.name} has neither a g(r) nor the crystal of {system.name}")
    report(1.0)
    return data.assign_attrs(reference=reference.name)
