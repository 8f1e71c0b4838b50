"""Measure a model, tuned or not, where the reference is known: the crystal at rest, and g(r) under every condition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from conservbench.models.base import Model, UnsupportedError
from conservbench.outcome import Outcome
from conservbench.protocols.base import Report, within
from conservbench.protocols.fidelity.crystal import measure_crystal
from conservbench.protocols.fidelity.liquid import measure_rdf
from conservbench.protocols.finetune.settings import Settings
from conservbench.references import find_reference
from conservbench.scheme import Scheme
from conservbench.systems import find_system

if TYPE_CHECKING:
    from conservbench.references import Profile, Reference
    from conservbench.systems import System

_AT_REST = 0.2
"""Fraction done once the crystal is measured."""


def measure(model: Model, scheme: Scheme, system: System, settings: Settings, report: Report) -> xr.Dataset:
    """Measure the crystal ``system``, then g(r) under one condition after the other.

    Returns:
        What :func:`conservbench.protocols.fidelity.crystal.measure_crystal` gives, and what
        :func:`conservbench.protocols.fidelity.liquid.measure_rdf` gives with a first dimension ``condition``, the name
        of a system, of which ``target_temperature`` (K) and ``n_atoms`` are too; blocks that the reference of one
        lacks are NaN. The attribute ``tuned_at`` is the
        condition that models are tuned at.

    Raises:
        UnsupportedError: the model lacks a channel or an element, or a condition is not one of the reference.
        InvalidPredictionError: a prediction for a start structure is not finite or has a wrong shape.
        ValueError: there is no such reference or system.
    """
    reference = find_reference(settings.reference)
    places = [find_system(name) for name in settings.conditions]
    profiles = [_profile(reference, place) for place in places]
    at_rest = measure_crystal(model, scheme, system.sites, reference)
    report(_AT_REST)
    sizes = np.cumsum([0, *(len(place.sites) for place in places)])
    shares = _AT_REST + (1.0 - _AT_REST) * sizes / sizes[-1]
    sampled = []
    for place, profile, begin, end in zip(places, profiles, shares, shares[1:], strict=False):
        sampled.append(measure_rdf(model, scheme, place, profile, settings, within(report, begin, end)))
    return _together(at_rest, sampled, places, settings)


def _profile(reference: Reference, place: System) -> Profile:
    if place.name not in reference.rdf:
        known = ", ".join(sorted(reference.rdf))
        raise UnsupportedError(f"reference {reference.name} has no g(r) of {place.name}; it has those of {known}")
    return reference.rdf[place.name]


def _together(at_rest: xr.Dataset, sampled: list[xr.Dataset], places: list[System], settings: Settings) -> xr.Dataset:
    labels = xr.DataArray(
        [place.name for place in places],
        dims="condition",
        name="condition",
        attrs={"units": "1", "long_name": "system that was sampled"},
    )
    # a file has one number of blocks: those that a reference lacks are NaN
    most = max((each.block for each in sampled), key=len)
    motion = xr.concat(
        [each.reindex(block=most) for each in sampled],
        labels,
        data_vars="all",
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="override",
    )
    kelvins = [place.temperature for place in places]
    counts = [len(place.sites) for place in places]
    data = at_rest.merge(motion, combine_attrs="override").assign(
        target_temperature=("condition", kelvins, {"units": "K", "long_name": "temperature of the bath"}),
        n_atoms=("condition", counts, {"units": "1", "long_name": "number of atoms"}),
    )
    shared = {key: sampled[0].attrs[key] for key in ("scheme", "stride", "rdf_width")}
    return data.assign_attrs(
        at_rest.attrs
        | shared
        | {"reference": settings.reference, "tuned_at": settings.tuned_at}
        | _ending(at_rest, sampled, places)
    )


def _ending(at_rest: xr.Dataset, sampled: list[xr.Dataset], places: list[System]) -> dict[str, str]:
    """Failed where a part of the crystal did, or else exploded where any replica did, under whatever condition."""
    endings = {
        "at rest": at_rest.attrs,
        **{place.name: each.attrs for place, each in zip(places, sampled, strict=True)},
    }
    outcomes = [Outcome(each["outcome"]) for each in endings.values()]
    # what the crystal alone cannot be asked is said of its metrics
    worst = next((each for each in (Outcome.FAILED, Outcome.EXPLODED) if each in outcomes), Outcome.COMPLETED)
    reasons = [f"{part}: {each['outcome_reason']}" for part, each in endings.items() if each["outcome"] == worst]
    return {"outcome": str(worst), "outcome_reason": "; ".join(reasons) if worst is not Outcome.COMPLETED else ""}
