"""Measure one rung of a ladder on one system: errors on labels, properties beside the reference, time of a step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from ase import Atoms

from conservbench.models.base import InvalidPredictionError, Model, UnsupportedError
from conservbench.observables.phonons import crystal, frequencies
from conservbench.outcome import Outcome
from conservbench.protocols.base import Report, within
from conservbench.protocols.complexity.labels import measure_labels
from conservbench.protocols.complexity.settings import Settings
from conservbench.protocols.fidelity.crystal import is_crystal_of, measure_crystal
from conservbench.protocols.fidelity.liquid import measure_rdf
from conservbench.protocols.speed import settings as speed
from conservbench.protocols.speed.measure import measure as measure_speed
from conservbench.references import Reference, find_profiles
from conservbench.references.reference import Phonons
from conservbench.scheme import Scheme

if TYPE_CHECKING:
    from conservbench.references.reference import Sites
    from conservbench.systems import System

_ON_LABELS, _TIMED = 0.1, 0.2
"""Fractions done once the errors are taken, and once the steps are timed."""


def measure(model: Model, scheme: Scheme, system: System, settings: Settings, report: Report) -> xr.Dataset:
    """What the settings ask for on this system.

    Returns:
        What :func:`conservbench.protocols.complexity.labels.measure_labels` gives; ``step_seconds`` (round), seconds of
        an inner step; and what :func:`conservbench.protocols.fidelity.liquid.measure_rdf` gives of a system of which
        the reference has a g(r), what :func:`conservbench.protocols.fidelity.crystal.measure_crystal` gives of its
        crystal, its last wave vectors being a mesh for the density of states; the first ``path`` of them are those of
        the reference. How the labels ended is in the attributes ``labels_outcome`` and ``labels_reason``; ``top`` is
        the model that systems in motion are compared with.

    Raises:
        UnsupportedError: the model lacks a channel or an element, or the reference knows nothing of the system and
            there are no labels.
        InvalidPredictionError: a prediction for a start structure is not finite or has a wrong shape.
        ValueError: there is no such reference or data set, or it has a wrong checksum.
        OSError: the data set is not here and cannot be downloaded.
    """
    parts: list[xr.Dataset] = []
    endings: dict[str, str] = {}
    if settings.labels:
        try:
            parts.append(measure_labels(model, scheme, settings, within(report, 0.0, _ON_LABELS)))
            endings = {"labels_outcome": str(Outcome.COMPLETED), "labels_reason": ""}
        except (UnsupportedError, InvalidPredictionError) as error:
            ending = Outcome.UNSUPPORTED if isinstance(error, UnsupportedError) else Outcome.FAILED
            endings = {"labels_outcome": str(ending), "labels_reason": str(error)}
    report(_ON_LABELS)
    if settings.rounds:
        parts.append(_timed(model, scheme, system, settings))
    report(_TIMED)
    if settings.reference:
        parts.append(_properties(model, scheme, system, settings, within(report, _TIMED, 1.0)))
    report(1.0)
    # what the last part says of the ending is of the whole, unless the labels failed
    attributes = {key: value for part in parts for key, value in part.attrs.items()}
    if endings.get("labels_outcome") == Outcome.FAILED:
        endings |= {"outcome": str(Outcome.FAILED), "outcome_reason": f"labels: {endings['labels_reason']}"}
    return xr.merge(parts, combine_attrs="drop", compat="no_conflicts").assign_attrs(attributes | endings)


def _properties(model: Model, scheme: Scheme, system: System, settings: Settings, report: Report) -> xr.Dataset:
    reference = find_profiles(settings.reference)
    profile = reference.rdf.get(system.name)
    if profile is not None:
        sampled = replace(system, temperature=settings.temperature or system.temperature)
        data = measure_rdf(model, scheme, sampled, profile, settings, report).assign_attrs(top=settings.top)
    elif isinstance(reference, Reference) and is_crystal_of(system.sites, reference):
        data = measure_crystal(model, scheme, system.sites, with_mesh(reference, settings.mesh))
        data.attrs |= {"path": len(reference.phonons.points), "density_width": settings.width}
    elif settings.labels:
        return xr.Dataset(attrs={"outcome": str(Outcome.COMPLETED), "outcome_reason": ""})
    else:
        raise UnsupportedError(f"reference {reference.name} has neither a g(r) nor the crystal of {system.name}")
    return data.assign_attrs(reference=reference.name)


def with_mesh(reference: Reference, n: int) -> Reference:
    """The reference with n^3 more wave vectors after its path, so that both take one set of force constants.

    The mesh is shifted by half a step (Monkhorst and Pack, Phys. Rev. B 13, 5188, 1976), so that none is at the centre
    of the zone. Its frequencies are those of the force constants of the reference.
    """
    ticks = (np.arange(n) + 0.5) / n
    mesh = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 3)
    constants = reference.force_constants
    supercell = _atoms(constants.supercell)
    frame = crystal(_placed(reference, supercell, int(constants.primitive[0])), supercell)
    rows = torch.as_tensor(constants.matrix[frame.atoms])
    old = reference.phonons
    return replace(
        reference,
        phonons=Phonons(
            points=np.concatenate([old.points, mesh]),
            distance=np.concatenate([old.distance, np.full(len(mesh), old.distance[-1])]),
            labels=old.labels,
            frequencies=np.concatenate([old.frequencies, frequencies(rows, frame, mesh).numpy()]),
        ),
    )


def _atoms(sites: Sites) -> Atoms:
    return Atoms(numbers=sites.numbers, positions=sites.positions, cell=sites.cell, pbc=True)


def _placed(reference: Reference, supercell: Atoms, first: int) -> Atoms:
    """The primitive cell of the reference with its first atom at the site of an atom of the supercell."""
    primitive = _atoms(reference.primitive)
    primitive.translate(supercell.positions[first] - primitive.positions[0])
    return primitive


def _timed(model: Model, scheme: Scheme, system: System, settings: Settings) -> xr.Dataset:
    """Seconds of a step of the system itself, by the clock of the protocol that times."""
    asked = speed.Settings(
        repeats=((1, 1, 1),),
        replicas=1,
        rounds=settings.rounds,
        steps=settings.steps,
        trials=1,
        time_step=settings.time_step,
        seed=settings.seed,
    )
    taken = measure_speed(model, scheme, system, asked, lambda _: None)
    seconds = taken.step_seconds.isel(size=0, drop=True).values
    label = {"units": "s", "long_name": "time of an inner step"}
    return xr.Dataset({"step_seconds": ("round", seconds, label)}, attrs={"timed_atoms": len(system.sites)})
