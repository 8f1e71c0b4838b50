"""Measure the conservation laws of one force channel on thermal snapshots of a system."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from conservbench.models.base import InvalidPredictionError, Model, Uncertain, UnsupportedError, check_support
from conservbench.observables import symmetry
from conservbench.observables.jacobian import (
    PairTerms,
    Terms,
    difference_products,
    matrix_terms,
    minimum_image_distances,
    pair_terms,
    products,
    rademacher,
)
from conservbench.observables.work import periodic_slope, thermal_loop, traverse
from conservbench.outcome import Outcome
from conservbench.protocols.audit.estimator import Autograd, Differences, Estimator
from conservbench.protocols.audit.settings import Settings
from conservbench.protocols.base import Report
from conservbench.scheme import Channel, Scheme
from conservbench.state import State, from_atoms

if TYPE_CHECKING:
    from conservbench.systems import System

Variables = dict[str, tuple[tuple[str, ...], NDArray[Any], dict[str, str]]]

_SQUARE = "(eV/Å^2)^2"
_STREAMS = ("probe", "floor", "site", "scan", "loop", "trial", "order")


@dataclass(frozen=True)
class _Audit:
    """What every part of the measurement is about."""

    model: Model
    channel: Channel
    snapshots: Sequence[State]
    sites: State | None
    settings: Settings

    def seed(self, stream: str, *key: int) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.settings.seed, spawn_key=(_STREAMS.index(stream), *key))

    def probes(self, stream: str, *key: int, count: int) -> Tensor:
        """(count, n_atoms, 3) Rademacher vectors."""
        return rademacher([self.seed(stream, *key, k) for k in range(count)], self.snapshots[0].n_atoms)


def measure(model: Model, scheme: Scheme, system: System, settings: Settings, report: Report) -> xr.Dataset:
    """Audit the force that acts on average under the scheme.

    Returns:
        Numerators and denominators of lambda^2 on the snapshots (snapshot, probe), of their noise (floor_group,
        floor_probe), at the ideal sites of a crystal (site_group, site_probe) and, where the whole Jacobian was taken,
        (exact,) and by distance (exact, distance); the scan of finite-difference steps (step, scan_probe); power and
        energy along loops (loop, image); deviations from the symmetries (snapshot, trial), net force and torque
        (snapshot,), and the uncertainty that the model itself gives (snapshot,). A variable that could not be measured
        is NaN and carries ``outcome`` and ``outcome_reason``.

    Raises:
        UnsupportedError: the model lacks the channel or an element.
        InvalidPredictionError: the forces on a snapshot have a wrong shape or are not finite.
    """
    channel = scheme.mean_channel
    snapshots = [from_atoms(atoms, device=model.device) for atoms in system.snapshots[: settings.n_snapshots]]
    check_support(model, snapshots[0], (channel,))
    ideal = not np.array_equal(system.sites.positions, system.snapshots[0].positions)
    sites = from_atoms(system.sites, device=model.device) if ideal else None
    audit = _Audit(model, channel, snapshots, sites, settings)

    variables = _symmetries(audit) | _uncertainty(audit)
    report(0.1)
    variables |= _loops(audit)
    report(0.4)
    scan = _scan(audit)
    variables |= scan
    plateau = _plateau(scan)
    estimator = _estimator(audit, plateau)
    report(0.45)
    variables |= _asymmetry(audit, estimator)
    report(0.7)
    variables |= _site_asymmetry(audit, estimator)
    report(0.75)
    variables |= _exact(audit, estimator)
    report(1.0)
    data = xr.Dataset(variables)
    data = data.assign_coords(step=("step", list(settings.steps), {"units": "Å", "long_name": "difference step"}))
    if "pair_numerator" in data:
        centres = (np.arange(data.sizes["distance"]) + 0.5) * settings.bin_width
        label = {"units": "Å", "long_name": "minimum-image distance, centre of the bin"}
        data = data.assign_coords(distance=("distance", centres, label))
    data.attrs = {
        "channel": channel,
        "scheme": scheme.kind,
        "stride": scheme.stride,
        "n_atoms": snapshots[0].n_atoms,
        "estimator": estimator.name,
        "plateau": plateau,
    }
    return data


def _symmetries(audit: _Audit) -> Variables:
    model, channel = audit.model, audit.channel
    forces = [_checked(symmetry.forces_of(model, channel, state), state) for state in audit.snapshots]

    def turn(state: State, reference: Tensor, rng: np.random.Generator) -> float:
        turned, matrix = symmetry.rotated(state, rng)
        return symmetry.deviation(model, channel, turned, reference @ matrix)

    def shift(state: State, reference: Tensor, rng: np.random.Generator) -> float:
        moved = symmetry.translated(state, rng)
        # atoms told apart by their index may be tied to one image of their neighbours
        moved = moved if model.labelled else symmetry.wrapped(moved, rng)
        return symmetry.deviation(model, channel, moved, reference)

    def swap(state: State, reference: Tensor, rng: np.random.Generator) -> float:
        if model.labelled:
            raise UnsupportedError("atoms are labelled")
        swapped, order = symmetry.permuted(state, rng)
        return symmetry.deviation(model, channel, swapped, reference[order])

    def trials(kind: int, deviate: Callable[[State, Tensor, np.random.Generator], float]) -> NDArray[np.float64]:
        return np.array(
            [
                [
                    deviate(state, reference, np.random.default_rng(audit.seed("trial", kind, index, trial)))
                    for trial in range(audit.settings.n_trials)
                ]
                for index, (state, reference) in enumerate(zip(audit.snapshots, forces, strict=True))
            ]
        )

    def torques() -> NDArray[np.float64]:
        if model.labelled:
            raise UnsupportedError("atoms are labelled")
        clusters = [symmetry.isolated(state) for state in audit.snapshots]
        return np.array(
            [symmetry.relative_torque(one.positions, symmetry.forces_of(model, channel, one)) for one in clusters]
        )

    both = ("snapshot", "trial")
    shape = (len(audit.snapshots), audit.settings.n_trials)
    one = ("snapshot",)
    return {
        "force_rms": (one, np.array([symmetry.rms(each) for each in forces]), _label("eV/Å", "rms force of an atom")),
        "net_force": (
            one,
            np.array([symmetry.net_force(each) for each in forces]),
            _label("eV/Å", "length of the sum of forces over the number of atoms"),
        ),
        "rotation_deviation": _try(
            lambda: trials(0, turn), both, shape, "eV/Å", "rms of f(R x) - R f(x), random rotations of atoms and cell"
        ),
        "translation_deviation": _try(
            lambda: trials(1, shift), both, shape, "eV/Å", "rms of f(x + t) - f(x), atoms wrapped at random"
        ),
        "permutation_deviation": _try(
            lambda: trials(2, swap), both, shape, "eV/Å", "rms of f(P x) - P f(x), like atoms exchanged"
        ),
        "relative_torque": _try(
            torques, one, shape[:1], "1", "|sum r x f| / sum |r| |f| of the same atoms as a cluster in vacuum"
        ),
    }


def _uncertainty(audit: _Audit) -> Variables:
    def spreads() -> NDArray[np.float64]:
        model = audit.model
        if not isinstance(model, Uncertain) or audit.channel != "gradient":
            raise UnsupportedError("the model gives no uncertainty of these forces")
        return np.array([float(model.uncertainty(state).square().mean().sqrt()) for state in audit.snapshots])

    what = "rms over components of the standard deviation of a force that the model gives"
    return {"force_spread": _try(spreads, ("snapshot",), (len(audit.snapshots),), "eV/Å", what)}


def _loops(audit: _Audit) -> Variables:
    settings = audit.settings
    runs = []
    for index in range(settings.n_loops):
        state = audit.snapshots[index % len(audit.snapshots)]
        rng = np.random.default_rng(audit.seed("loop", index))
        loop = thermal_loop(rng, state.n_atoms, settings.n_modes, settings.amplitude)
        runs.append(
            traverse(
                audit.model,
                audit.channel,
                state,
                loop,
                settings.n_images,
                atoms_per_batch=settings.atoms_per_batch,
            )
        )

    def energies() -> NDArray[np.float64]:
        if any(run.energy is None for run in runs):
            raise UnsupportedError("the model has no energy")
        return np.stack([run.energy for run in runs if run.energy is not None])

    dims, shape = ("loop", "image"), (settings.n_loops, settings.n_images)
    power = np.stack([run.power for run in runs])
    return {
        "power": (dims, power, _label("eV", "f . dr/ds along a closed loop, s from 0 to 1")),
        "energy": _try(energies, dims, shape, "eV", "energy along the loop"),
        "energy_slope": _try(
            lambda: np.stack([periodic_slope(row) for row in energies()]), dims, shape, "eV", "dE/ds along the loop"
        ),
    }


def _scan(audit: _Audit) -> Variables:
    """J v by differences at each step, on the first snapshot."""
    settings, state = audit.settings, audit.snapshots[0]
    vectors = audit.probes("scan", count=settings.n_scan_probes)
    by_step = torch.stack(
        [
            difference_products(
                audit.model, audit.channel, state, vectors, step, atoms_per_batch=settings.atoms_per_batch
            )
            for step in settings.steps
        ]
    )

    def squares(difference: Tensor) -> NDArray[np.float64]:
        return difference.square().sum((-1, -2)).cpu().numpy()

    def errors() -> NDArray[np.float64]:
        if not audit.model.differentiable:
            raise UnsupportedError("the model cannot be differentiated")
        exact, _ = products(audit.model, audit.channel, state, vectors, atoms_per_batch=settings.atoms_per_batch)
        return squares(by_step - exact)

    dims, shape = ("step", "scan_probe"), (len(settings.steps), settings.n_scan_probes)
    changes = np.full(shape, np.nan)
    changes[:-1] = squares(by_step[1:] - by_step[:-1])
    return {
        "scan_norm": (dims, squares(by_step), _label(_SQUARE, "||J v||^2 by central differences")),
        "scan_change": (dims, changes, _label(_SQUARE, "squared change of J v to the next step")),
        "scan_error": _try(errors, dims, shape, _SQUARE, "squared difference of J v from that by autograd"),
    }


def _plateau(scan: Variables) -> int:
    """Index of the step from which J v changes least to the next."""
    changes = scan["scan_change"][1][:-1].sum(1)
    if not np.isfinite(changes).any():
        raise InvalidPredictionError("forces next to a snapshot are not finite")
    return int(np.nanargmin(changes))


def _estimator(audit: _Audit, plateau: int) -> Estimator:
    settings = audit.settings
    if audit.model.differentiable:
        return Autograd(audit.model, audit.channel, settings.atoms_per_batch, audit.seed("order"))
    return Differences(
        audit.model,
        audit.channel,
        settings.atoms_per_batch,
        step=settings.steps[plateau],
        next_step=settings.steps[plateau + 1],
        group_size=settings.n_probes,
    )


def _asymmetry(audit: _Audit, estimator: Estimator) -> Variables:
    count = audit.settings.n_probes
    parts = [
        estimator.terms(state, audit.probes("probe", index, count=count)[None])
        for index, state in enumerate(audit.snapshots)
    ]
    floor = estimator.floor(audit.snapshots[0], _groups(audit, estimator, "floor"))
    whole = Terms(np.concatenate([p.numerator for p in parts]), np.concatenate([p.denominator for p in parts]))
    return _terms("asymmetry", ("snapshot", "probe"), whole, "thermal snapshots") | _terms(
        "floor", ("floor_group", "floor_probe"), floor, "noise of the first snapshot"
    )


def _site_asymmetry(audit: _Audit, estimator: Estimator) -> Variables:
    if audit.sites is None:
        return _missing("site", ("site_group", "site_probe"), "the system has no ideal sites")
    terms = estimator.terms(audit.sites, _groups(audit, estimator, "site"))
    return _terms("site", ("site_group", "site_probe"), terms, "ideal sites")


def _exact(audit: _Audit, estimator: Estimator) -> Variables:
    settings, n_atoms = audit.settings, audit.snapshots[0].n_atoms
    if settings.n_exact == 0:
        return _missing("exact", ("exact",), "this tier takes no whole Jacobian")
    if n_atoms > settings.exact_atoms:
        return _missing("exact", ("exact",), f"{n_atoms} atoms; taken up to {settings.exact_atoms} only")
    wholes: list[Terms] = []
    by_distance: list[PairTerms] = []
    for state in audit.snapshots[: settings.n_exact]:
        matrix = estimator.matrix(state)
        wholes.append(matrix_terms(matrix))
        by_distance.append(pair_terms(matrix, minimum_image_distances(state), settings.bin_width))
    n_bins = max(len(pairs.count) for pairs in by_distance)

    def padded(name: str) -> NDArray[np.float64]:
        rows = [getattr(pairs, name).astype(float) for pairs in by_distance]
        return np.stack([np.pad(row, (0, n_bins - len(row))) for row in rows])

    whole = Terms(*(np.concatenate([getattr(t, name) for t in wholes]) for name in ("numerator", "denominator")))
    dims = ("exact", "distance")
    return _terms("exact", ("exact",), whole, "whole Jacobian of the first snapshots") | {
        "pair_numerator": (dims, padded("numerator"), _label(_SQUARE, "sum of ||J_ij - J_ji^T||_F^2 by distance")),
        "pair_denominator": (dims, padded("denominator"), _label(_SQUARE, "sum of ||J_ij||_F^2 by distance")),
        "pair_count": (dims, padded("count"), _label("1", "ordered pairs, the first bin with i = j")),
    }


def _groups(audit: _Audit, estimator: Estimator, stream: str) -> Tensor:
    """(n_probes groups, group size, n_atoms, 3): as many independent entries as a snapshot has probes."""
    groups = range(audit.settings.n_probes)
    return torch.stack([audit.probes(stream, group, count=estimator.group_size) for group in groups])


def _terms(name: str, dims: tuple[str, ...], terms: Terms, where: str) -> Variables:
    return {
        f"{name}_numerator": (dims, terms.numerator, _label(_SQUARE, f"||(J - J^T) v||^2, {where}")),
        f"{name}_denominator": (dims, terms.denominator, _label(_SQUARE, f"||J v||^2, {where}")),
    }


def _missing(name: str, dims: tuple[str, ...], reason: str) -> Variables:
    empty = np.full((1,) * len(dims), np.nan)
    # the model was not asked: nothing of it is unsupported
    attrs = {"outcome": Outcome.COMPLETED.value, "outcome_reason": reason}
    return {
        key: (each_dims, values, {**label, **attrs})
        for key, (each_dims, values, label) in _terms(name, dims, Terms(empty, empty), reason).items()
    }


def _try(
    make: Callable[[], NDArray[np.float64]], dims: tuple[str, ...], shape: tuple[int, ...], units: str, long_name: str
) -> tuple[tuple[str, ...], NDArray[np.float64], dict[str, str]]:
    """The variable, or NaN and the reason why the model cannot be asked for it."""
    label = _label(units, long_name)
    try:
        return dims, make(), label
    except UnsupportedError as error:
        attrs = {"outcome": Outcome.UNSUPPORTED.value, "outcome_reason": str(error)}
        return dims, np.full(shape, np.nan), {**label, **attrs}


def _label(units: str, long_name: str) -> dict[str, str]:
    return {"units": units, "long_name": long_name}


def _checked(forces: Tensor, state: State) -> Tensor:
    if forces.shape != state.positions.shape:
        raise InvalidPredictionError(f"forces have shape {list(forces.shape)}; expected {list(state.positions.shape)}")
    if not forces.isfinite().all():
        raise InvalidPredictionError("forces on a snapshot are not finite")
    return forces
