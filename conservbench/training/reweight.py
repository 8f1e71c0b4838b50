"""Gradients through an ensemble: reweighting (DiffTRe), for properties that are averages in equilibrium.

Frames sampled with the energy U_0 are an ensemble of the energy U too, with the weights

    w_i = exp(-(U_i - U_0,i) / k_B T) / sum_j exp(-(U_j - U_0,j) / k_B T),

as long as enough of them count: N_eff = exp(-sum_i w_i ln w_i) of N. Derivatives go through the weights and no step of
the dynamics is differentiated, d<O> = <dO> - (<O dU> - <O><dU>) / k_B T, so that the length of the sampling costs no
memory and chaos does no harm. Thaler and Zavadlav, Nat. Commun. 12, 6884 (2021).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

import torch
from torch import Tensor

from conservbench.dynamics.integrator import integrator
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.md_state import MDState
from conservbench.dynamics.noise import Noise
from conservbench.dynamics.simulate import advance
from conservbench.dynamics.thermostat import KINDS, Kind, in_bath, thermostat
from conservbench.models.base import InvalidPredictionError, Model, Tunable, UnsupportedError, check_support
from conservbench.observables.temperature import cooler_than, temperature
from conservbench.outcome import Outcome
from conservbench.scheme import Scheme
from conservbench.state import State, concatenate
from conservbench.training.route import Objective, Sensitivity
from conservbench.training.trajectory import bare
from conservbench.units import BOLTZMANN, FEMTOSECOND

_DIVISION: Final = 1e-9
"""Relative, by which a length of time may miss a whole number of steps."""


@dataclass(frozen=True)
class Sampling:
    """How an ensemble is sampled: NVT, one trajectory from each system of the start.

    Attributes:
        temperature: K.
        time_step: fs; under MTS the inner one.
        frames: taken from each trajectory.
        interval: fs from one frame to the next; long enough that frames are independent.
        equilibration: ps before the first ensemble, from momenta drawn anew.
        settling: ps before each later one, which goes on from the last frames of the one before.
        bath: kind of the thermostat (:mod:`conservbench.dynamics.thermostat`).
        tau: fs, its relaxation time.
        explosion_temperature: K; a replica that is hotter, and hotter than ``explosion_factor`` times the temperature,
            has exploded.
        explosion_factor: see ``explosion_temperature``.
        seed: of momenta and of the noise of the bath; 0 or more.

    Raises:
        ValueError: a value is out of range.
    """

    temperature: float
    time_step: float
    frames: int
    interval: float
    equilibration: float
    settling: float
    bath: Kind = "langevin"
    tau: float = 100.0
    explosion_temperature: float = 10000.0
    explosion_factor: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("temperature", "time_step", "interval", "tau", "explosion_temperature", "explosion_factor"):
            if not (value := getattr(self, name)) > 0 or not math.isfinite(value):
                raise ValueError(f"{name} is {value!r}; expected a positive number")
        for name in ("equilibration", "settling", "seed"):
            if not (value := getattr(self, name)) >= 0 or not math.isfinite(value):
                raise ValueError(f"{name} is {value!r}; expected 0 or more")
        if self.frames < 1:
            raise ValueError(f"frames is {self.frames}; expected 1 or more")
        if self.bath not in KINDS:
            raise ValueError(f"bath is {self.bath!r}; expected one of {', '.join(KINDS)}")


@dataclass(frozen=True)
class Ensemble:
    """Frames in equilibrium, and the energies that they were sampled with.

    Attributes:
        frames: a batch of all replicas, momenta included, at each time.
        energy: (n_frames, n_replicas), eV, at the parameters of the sampling.
        parameters: digest of those.
        origin: digest of start, scheme and sampling; the ensemble stands for no others.
        stage: how many ensembles were sampled before it, one from the end of another.
    """

    frames: tuple[State, ...]
    energy: Tensor
    parameters: str
    origin: str
    stage: int

    @property
    def size(self) -> int:
        """Frames of all replicas."""
        return self.energy.numel()

    def temperature(self) -> float:
        """Mean kinetic temperature, K."""
        return float(torch.stack([temperature(frame) for frame in self.frames]).mean())

    def to_dict(self) -> dict[str, Any]:
        """Tensors, strings and numbers, which ``torch.load`` takes back with ``weights_only=True``."""
        first = self.frames[0]
        return {
            **{field.name: getattr(first, field.name) for field in fields(State)},
            "positions": torch.stack([frame.positions for frame in self.frames]),
            "momenta": torch.stack([frame.momenta for frame in self.frames]),
            "energy": self.energy,
            "parameters": self.parameters,
            "origin": self.origin,
            "stage": self.stage,
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """The ensemble that :meth:`to_dict` gave, bit for bit."""
        same = {field.name: saved[field.name] for field in fields(State)}
        frames = tuple(
            State(**{**same, "positions": positions, "momenta": momenta})
            for positions, momenta in zip(saved["positions"], saved["momenta"], strict=True)
        )
        return cls(frames, saved["energy"], saved["parameters"], saved["origin"], saved["stage"])


def log_weights(energy: Tensor, reference: Tensor, kelvin: float) -> Tensor:
    """Logarithms of the weights, whose exponentials add up to one.

    Args:
        energy: U of all frames, eV, of any shape.
        reference: U_0, of the same shape.
        kelvin: temperature of the ensemble.
    """
    exponents = (reference - energy) / (BOLTZMANN * kelvin)
    return exponents - torch.logsumexp(exponents.flatten(), 0)


def effective_number(logarithms: Tensor) -> float:
    """N_eff = exp(-sum w ln w) of the logarithms of weights: how many frames count; NaN if a weight is."""
    weights = logarithms.exp()
    # a weight of zero adds nothing, though its logarithm is infinite
    terms = torch.where(weights == 0, 0.0, weights * logarithms)
    return math.exp(-float(terms.sum()))


class Reweighting:
    """The route through an ensemble (see :class:`conservbench.training.route.Route`).

    The frames are those of NVT trajectories under the scheme's own forces. Under ``gradient`` that is the ensemble of
    the energy; under ``mts`` that of the energy of the slow force, up to the error of the integrator. Direct forces
    have no energy whose Boltzmann weights could be told: unsupported. Errors of the time step stay in the frames; they
    are not differentiated.

    An ensemble serves until fewer than ``min_effective`` of its frames count; it is then sampled again, at the
    parameters asked for. It is a cache: what the route returns depends on the parameters asked for before only within
    the statistical error of the sampling. All that it goes on from is in :attr:`ensemble`; a route that is given it
    goes on bit for bit.

    ``record``: ``effective`` is N_eff / N of the weights used and ``effective_before`` that of the ensemble that was
    there, NaN if there was none; ``resampled`` is 1 where it was sampled, else 0; ``frames`` of all replicas;
    ``temperature`` is their mean kinetic one in K; ``model_calls`` counts evaluations of one batch of all replicas,
    with or without graph; ``stride`` is that of the scheme. Where replicas exploded, ``exploded`` is their number and
    ``explosion_time`` (ps) bounds when, from the start of the sampling that failed; the last good ensemble is kept.

    Args:
        sampling: how an ensemble is made, of systems of the same atoms in the same cell.
        min_effective: part of the frames that must count.
        batch: systems evaluated at once, at least one replica each; the memory of a gradient grows with it.
        ensemble: to go on from.

    Attributes:
        ensemble: that of the last call; None before the first.

    Raises:
        ValueError: ``min_effective`` or ``batch`` is out of range.
    """

    def __init__(
        self, sampling: Sampling, *, min_effective: float = 0.9, batch: int = 16, ensemble: Ensemble | None = None
    ) -> None:
        if not 0 <= min_effective < 1:
            raise ValueError(f"min_effective is {min_effective!r}; expected 0 or more, below 1")
        if batch < 1:
            raise ValueError(f"batch is {batch}; expected 1 or more")
        self.sampling = sampling
        self.min_effective = min_effective
        self.batch = batch
        self.ensemble = ensemble
        self._observed: tuple[Ensemble, Callable[[Model, State], Tensor], Tensor] | None = None

    def __call__(
        self, model: Tunable, scheme: Scheme, objective: Objective, start: State, parameters: Mapping[str, Tensor]
    ) -> Sensitivity:
        """See :meth:`conservbench.training.route.Route.__call__`; only positions and cells of the start are read.

        Raises:
            ValueError: a parameter is not known.
        """
        leaves = {name: value.detach().clone().requires_grad_(True) for name, value in parameters.items()}
        attached, fixed = model.at(leaves), model.at({name: value.detach() for name, value in leaves.items()})
        record: dict[str, float] = {"model_calls": 0.0, "stride": float(scheme.stride)}
        try:
            _require(fixed, scheme, start)
            ensemble, energy = self._ensemble_at(fixed, scheme, bare(start), record)
        except UnsupportedError as error:
            return Sensitivity(Outcome.UNSUPPORTED, str(error), record=record)
        except InvalidPredictionError as error:
            return Sensitivity(Outcome.FAILED, str(error), record=record)
        except _ExplosionError as error:
            return Sensitivity(Outcome.EXPLODED, str(error), record=record)
        self.ensemble = ensemble
        logarithms = log_weights(energy, ensemble.energy, self.sampling.temperature)
        record |= {
            "effective": effective_number(logarithms) / ensemble.size,
            "frames": float(ensemble.size),
            "temperature": ensemble.temperature(),
        }
        values, depends = self._values(attached, objective, ensemble)
        values.requires_grad_(depends)
        energy = energy.clone().requires_grad_(True)
        weights = log_weights(energy, ensemble.energy, self.sampling.temperature).exp()
        loss = objective.loss(values, weights)
        if not bool(torch.isfinite(loss)):
            return Sensitivity(Outcome.FAILED, "the loss is not finite", record=record)
        sources = [energy, values] if depends else [energy]
        by_energy, *rest = torch.autograd.grad(loss, sources, materialize_grads=True)
        by_values = rest[0] if depends else None
        gradient = self._pulled_back(attached, objective, ensemble, leaves, by_energy, by_values)
        record["model_calls"] += len(ensemble.frames)
        for name, slope in gradient.items():
            if not bool(slope.isfinite().all()):
                return Sensitivity(Outcome.FAILED, f"the gradient by {name} is not finite", record=record)
        return Sensitivity(Outcome.COMPLETED, loss=float(loss.detach()), gradient=gradient, record=record)

    def _ensemble_at(
        self, model: Tunable, scheme: Scheme, start: State, record: dict[str, float]
    ) -> tuple[Ensemble, Tensor]:
        """An ensemble of which enough frames count, and their energies at the parameters of the model."""
        here, origin = _digest(model.parameters), _origin(start, scheme, self.sampling)
        last = self.ensemble if self.ensemble is not None and self.ensemble.origin == origin else None
        record |= {"resampled": 0.0, "effective_before": math.nan}
        if last is not None:
            energy = last.energy
            if last.parameters != here:
                energy = self._energies(model, last.frames)
                record["model_calls"] += len(last.frames)
            part = effective_number(log_weights(energy, last.energy, self.sampling.temperature)) / last.size
            record["effective_before"] = part
            # NaN compares false
            if part >= self.min_effective:
                return last, energy
        record["resampled"] = 1.0
        frames = _sample(model, scheme, self.sampling, start, last, record)
        energy = self._energies(model, frames)
        record["model_calls"] += len(frames)
        if not bool(energy.isfinite().all()):
            raise InvalidPredictionError("energies of sampled frames are not all finite")
        return Ensemble(frames, energy, here, origin, 0 if last is None else last.stage + 1), energy

    def _chunks(self, frames: tuple[State, ...]) -> Iterator[tuple[slice, State]]:
        """Frames that are evaluated at once, as one batch: which ones, and they."""
        n_together = max(1, self.batch // frames[0].n_systems)
        for first in range(0, len(frames), n_together):
            which = slice(first, first + n_together)
            yield which, concatenate(frames[which])

    def _energies(self, model: Tunable, frames: tuple[State, ...]) -> Tensor:
        """(n_frames, n_replicas), eV."""
        parts = [_energy(model, chunk, graph=False) for _, chunk in self._chunks(frames)]
        return torch.cat(parts).reshape(len(frames), -1)

    def _values(self, attached: Tunable, objective: Objective, ensemble: Ensemble) -> tuple[Tensor, bool]:
        """Observed values (n_frames, n_replicas, ...), detached, and whether they depend on the parameters.

        Those that do not are kept as long as the ensemble is.
        """
        if self._observed is not None:
            of, observe, values = self._observed
            if of is ensemble and observe is objective.observe:
                return values.detach(), False
        parts, depends = [], False
        for _, chunk in self._chunks(ensemble.frames):
            part = objective.observe(attached, chunk)
            depends = depends or part.requires_grad
            parts.append(part.detach())
        values = torch.cat(parts)
        values = values.reshape(*ensemble.energy.shape, *values.shape[1:])
        self._observed = None if depends else (ensemble, objective.observe, values)
        return values, depends

    def _pulled_back(
        self,
        attached: Tunable,
        objective: Objective,
        ensemble: Ensemble,
        leaves: Mapping[str, Tensor],
        by_energy: Tensor,
        by_values: Tensor | None,
    ) -> dict[str, Tensor]:
        """The derivatives by energies, and by values that depend on the parameters, taken on to the parameters."""
        gradient = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        for which, chunk in self._chunks(ensemble.frames):
            pulled = (by_energy[which].flatten() * _energy(attached, chunk, graph=True)).sum()
            if by_values is not None:
                observed = objective.observe(attached, chunk)
                pulled = pulled + (by_values[which].reshape(observed.shape) * observed).sum()
            slopes = torch.autograd.grad(pulled, list(leaves.values()), allow_unused=True)
            for name, slope in zip(leaves, slopes, strict=True):
                if slope is not None:
                    gradient[name] += slope
        return gradient


class _ExplosionError(Exception):
    """Replicas left the physical range while they were sampled."""


def _require(model: Tunable, scheme: Scheme, start: State) -> None:
    if scheme.kind == "direct":
        raise UnsupportedError("a direct force has no energy whose Boltzmann weights could be reweighted")
    check_support(model, start, scheme.channels)
    if not model.differentiable:
        raise UnsupportedError("the model is not differentiable")
    n_atoms = start.n_atoms // start.n_systems
    alike = bool((start.counts == n_atoms).all()) and all(
        torch.equal(each, each[:1].expand_as(each))
        for each in (start.numbers.view(-1, n_atoms), start.masses.view(-1, n_atoms), start.cell, start.pbc)
    )
    if not alike:
        raise UnsupportedError("systems that differ in atoms or cell are not one ensemble")


def _energy(model: Tunable, state: State, *, graph: bool) -> Tensor:
    energy = model.evaluate(state, graph=graph).energy
    if energy is None:
        raise UnsupportedError("the model has no energy whose Boltzmann weights could be reweighted")
    return energy


def _sample(
    model: Tunable,
    scheme: Scheme,
    sampling: Sampling,
    start: State,
    last: Ensemble | None,
    record: dict[str, float],
) -> tuple[State, ...]:
    """Frames of NVT trajectories, from the start or from the end of an ensemble."""
    outer = sampling.time_step * scheme.stride
    interval = round(sampling.interval / outer)
    if abs(interval * outer - sampling.interval) > _DIVISION * sampling.interval:
        raise UnsupportedError(
            f"stride {scheme.stride} x {sampling.time_step:g} fs does not divide interval = {sampling.interval:g} fs"
        )
    noise = Noise(sampling.seed, 0 if last is None else last.stage + 1)
    if last is None:
        begin = start.replace(momenta=draw_momenta(start, sampling.temperature, noise))
        wait = sampling.equilibration
    else:
        begin, wait = last.frames[-1], sampling.settling
    _energy(model, begin, graph=False)
    engine = integrator(model, scheme)
    bath = thermostat(sampling.bath, sampling.temperature, sampling.tau * FEMTOSECOND, noise)
    move = in_bath(engine, bath, sampling.time_step * FEMTOSECOND)
    healthy = cooler_than(max(sampling.explosion_temperature, sampling.explosion_factor * sampling.temperature))
    md: MDState | None = engine.init(begin)
    record["model_calls"] += 2
    frames: list[State] = []
    done = 0
    for n_steps in [math.ceil(1e3 * wait / outer - _DIVISION), *sampling.frames * [interval]]:
        md = advance(md, move, n_steps, n_replicas=begin.n_systems, healthy=healthy)
        done += n_steps
        record["model_calls"] += n_steps * scheme.stride
        lost = begin.n_systems - (0 if md is None else md.n_systems)
        if md is None or lost:
            time = 1e-3 * done * outer
            record |= {"exploded": float(lost), "explosion_time": time}
            raise _ExplosionError(f"{lost} of {begin.n_systems} replicas exploded within {time:g} ps of sampling")
        frames.append(State(**{field.name: getattr(md, field.name) for field in fields(State)}))
    # the first is the end of the equilibration
    return tuple(frames[1:])


def _digest(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()


def _origin(start: State, scheme: Scheme, sampling: Sampling) -> str:
    """Digest of all that fixes an ensemble but the parameters; momenta of the start are not read."""
    settings = repr(sorted({**asdict(scheme), **asdict(sampling)}.items()))
    tensors = {field.name: getattr(start, field.name) for field in fields(State) if field.name != "momenta"}
    return hashlib.sha256((settings + _digest(tensors)).encode()).hexdigest()
