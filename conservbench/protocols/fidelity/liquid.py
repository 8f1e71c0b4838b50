"""Measure g(r), diffusion and the vibrational spectrum in a heat bath, with the g(r) of the reference beside them.

The bath is stochastic velocity rescaling, which holds the temperature of forces that put energy in (their power P times
2 tau over the heat capacity of the momenta is what it misses it by) and, one factor for all momenta, leaves diffusion
as it is. Replicas start from snapshots of the system, with momenta and noise that depend on the seed and their number
alone, so that those of two models are pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
import xarray as xr
from ase.data import chemical_symbols
from torch import Tensor

from conservbench.dynamics.integrator import integrator
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.md_state import MDState
from conservbench.dynamics.noise import Noise
from conservbench.dynamics.simulate import Observe, Recording, advance, simulate
from conservbench.dynamics.thermostat import in_bath, thermostat
from conservbench.models.base import Model, UnsupportedError, check_support
from conservbench.observables.msd import mean_squared_displacement, squared_displacement
from conservbench.observables.rdf import smeared_rdf
from conservbench.observables.temperature import cooler_than, temperature
from conservbench.observables.vdos import velocity_autocorrelation, vibrational_density
from conservbench.outcome import Outcome
from conservbench.protocols.base import Report, within
from conservbench.protocols.crystals import is_crystal
from conservbench.protocols.fidelity.settings import Sampling
from conservbench.protocols.sampling import steps_lasting, whole_steps
from conservbench.scheme import Scheme
from conservbench.state import State, from_atoms, select
from conservbench.units import FEMTOSECOND

if TYPE_CHECKING:
    from conservbench.references import Profile
    from conservbench.systems import System

VOLUME: Final = 2e-3
"""Relative, by which the volume of an atom may miss that of the reference, which is published to four digits."""


def measure_rdf(
    model: Model, scheme: Scheme, system: System, reference: Profile, settings: Sampling, report: Report
) -> xr.Dataset:
    """Equilibrate each replica under the scheme's own forces and the bath, then record it.

    Returns:
        Dimensions replica, time (ps), r (Å), lag (ps), vibration (THz) and element. ``rdf`` (replica, r) is the mean
        over the record of g(r), smeared like that of the reference; it, ``mean_squared_displacement`` (replica, lag),
        that of each element, ``displacement_of`` (replica, element, lag), and ``spectrum`` (replica, vibration) in
        1/THz, of velocities with lags up to the longest, are NaN for a replica that exploded, ``temperature`` (replica,
        time) from then on; ``explosion_time`` (replica) in ps is NaN for one that lasted and 0 for one that was lost
        before the record. ``reference_rdf`` (r) is the mean of ``reference_rdf_blocks`` (block, r), which are
        independent of each other; ``is_crystal`` says whether the system is one, where nothing diffuses; the attribute
        ``rdf_width`` is in Å, ``target_temperature`` in K.

    Raises:
        UnsupportedError: the model lacks a channel or an element, the stride does not fit the sampling, or the
            reference is of another temperature or density.
        InvalidPredictionError: a prediction for a start structure is not finite or has a wrong shape.
    """
    outer = settings.time_step * scheme.stride
    interval = whole_steps(settings.sample_every, outer)
    if interval is None:
        raise UnsupportedError(
            f"stride {scheme.stride} x {settings.time_step:g} fs does not divide "
            f"sample_every = {settings.sample_every:g} fs"
        )
    _require_alike(system, reference)
    frames = [system.snapshots[k % len(system.snapshots)] for k in range(settings.replicas)]
    start = from_atoms(frames, device=model.device)
    check_support(model, start, scheme.channels)
    engine = integrator(model, scheme)
    healthy = cooler_than(max(settings.explosion_temperature, settings.explosion_factor * system.temperature))
    noise = Noise(settings.seed)
    bath = thermostat("svr", system.temperature, settings.tau * FEMTOSECOND, noise)
    move = in_bath(engine, bath, settings.time_step * FEMTOSECOND)
    n_atoms = int(start.counts[0])
    share = settings.equilibration_time / (settings.equilibration_time + settings.duration)
    equilibrated = advance(
        bath.init(engine.init(start.replace(momenta=draw_momenta(start, system.temperature, noise)))),
        move,
        steps_lasting(settings.equilibration_time, outer),
        n_replicas=settings.replicas,
        healthy=healthy,
    )
    report(share)
    recording = simulate(
        equilibrated,
        move,
        n_replicas=settings.replicas,
        n_records=settings.n_samples,
        interval=interval,
        observe=_observables(n_atoms, reference),
        healthy=healthy,
        report=within(report, share, 1.0),
    )
    data = _dataset(recording, select(start, [0]), reference, settings)
    label = {"units": "1", "long_name": "whether atoms stay at their sites"}
    data["is_crystal"] = ((), is_crystal(system), label)
    data.attrs |= {
        "n_atoms": n_atoms,
        "scheme": scheme.kind,
        "stride": scheme.stride,
        "target_temperature": system.temperature,
        "rdf_width": reference.width,
        "reference_source": reference.source,
        **_ending(data),
    }
    return data


def _require_alike(system: System, reference: Profile) -> None:
    volume = float(system.sites.get_volume()) / len(system.sites)
    if abs(volume / reference.volume - 1.0) > VOLUME or abs(system.temperature - reference.temperature) > 0.5:
        raise UnsupportedError(
            f"system {system.name} has {volume:.2f} Å^3/atom at {system.temperature:g} K, "
            f"the reference {reference.volume:.2f} Å^3/atom at {reference.temperature:g} K"
        )


def _observables(n_atoms: int, reference: Profile) -> dict[str, Observe]:
    def rdf(md: MDState) -> Tensor:
        with torch.no_grad():
            return smeared_rdf(md, reference.r, reference.width)

    return {
        "rdf": rdf,
        "temperature": temperature,
        "positions": lambda md: md.positions.view(-1, n_atoms, 3),
        "velocities": lambda md: (md.momenta / md.masses[:, None]).view(-1, n_atoms, 3),
    }


def _dataset(recording: Recording[MDState], frame: State, reference: Profile, settings: Sampling) -> xr.Dataset:
    times = np.arange(settings.n_samples + 1) * settings.sample_every * 1e-3
    masses, numbers = frame.masses.cpu().numpy(), frame.numbers.cpu().numpy()
    kinds = sorted(set(numbers.tolist()))
    squares = np.full((settings.replicas, 1 + len(kinds), settings.n_lags), np.nan)
    rdf = np.full((settings.replicas, len(reference.r)), np.nan)
    frequencies, _ = vibrational_density(np.ones(settings.n_lags), settings.sample_every)
    spectra = np.full((settings.replicas, len(frequencies)), np.nan)
    for replica in np.flatnonzero(recording.exploded < 0):
        path = recording.series["positions"][replica]
        squares[replica, 0] = mean_squared_displacement(path, masses)[: settings.n_lags]
        # about the centre of all, which a bath leaves where it was
        centred = path - np.average(path, axis=1, weights=masses)[:, None]
        for index, number in enumerate(kinds, 1):
            squares[replica, index] = squared_displacement(centred[:, numbers == number])[: settings.n_lags]
        rdf[replica] = recording.series["rdf"][replica].mean(0)
        correlation = velocity_autocorrelation(recording.series["velocities"][replica], masses)
        _, spectra[replica] = vibrational_density(correlation[: settings.n_lags], settings.sample_every)
    ends = np.where(recording.exploded >= 0, times[recording.exploded], np.nan)
    return xr.Dataset(
        {
            "rdf": (
                ("replica", "r"),
                rdf,
                {"units": "1", "long_name": "radial distribution function, smeared, mean over the record"},
            ),
            "reference_rdf": ("r", reference.g, {"units": "1", "long_name": "that of the reference"}),
            "reference_rdf_blocks": (
                ("block", "r"),
                reference.blocks,
                {"units": "1", "long_name": "averages over stretches of the dynamics of the reference"},
            ),
            "temperature": (
                ("replica", "time"),
                recording.series["temperature"],
                {"units": "K", "long_name": "kinetic temperature"},
            ),
            "mean_squared_displacement": (
                ("replica", "lag"),
                squares[:, 0],
                {"units": "Å^2", "long_name": "mean squared displacement"},
            ),
            "displacement_of": (
                ("replica", "element", "lag"),
                squares[:, 1:],
                {"units": "Å^2", "long_name": "mean squared displacement of each element"},
            ),
            "spectrum": (
                ("replica", "vibration"),
                spectra,
                {"units": "1/THz", "long_name": "vibrational density of states of the trajectory"},
            ),
            "explosion_time": (
                "replica",
                ends,
                {"units": "ps", "long_name": "sample at which the replica was found exploded"},
            ),
        },
        coords={
            "replica": ("replica", np.arange(settings.replicas), {"units": "1", "long_name": "replica"}),
            "time": ("time", times, {"units": "ps", "long_name": "time since the start of the record"}),
            "lag": (
                "lag",
                times[: settings.n_lags],
                {"units": "ps", "long_name": "time between two samples"},
            ),
            "block": (
                "block",
                np.arange(len(reference.blocks)),
                {"units": "1", "long_name": "stretch of the dynamics of the reference"},
            ),
            "r": ("r", reference.r, {"units": "Å", "long_name": "distance"}),
            "element": (
                "element",
                [chemical_symbols[number] for number in kinds],
                {"units": "1", "long_name": "element"},
            ),
            "vibration": ("vibration", frequencies, {"units": "THz", "long_name": "frequency of a vibration"}),
        },
    )


def _ending(data: xr.Dataset) -> dict[str, str]:
    lost = int(np.isfinite(data.explosion_time.values).sum())
    if not lost:
        return {"outcome": str(Outcome.COMPLETED), "outcome_reason": ""}
    reason = f"{lost} of {data.sizes['replica']} replicas exploded"
    return {"outcome": str(Outcome.EXPLODED), "outcome_reason": reason}
