"""The radial distribution function: by an ensemble that is reweighted, or by trajectories that are differentiated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, final

import torch
from torch import Tensor

from conservbench.dynamics.integrator import integrator
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.dynamics.simulate import advance
from conservbench.dynamics.thermostat import in_bath, thermostat
from conservbench.models.base import InvalidPredictionError, Model, Tunable, in_precision_of
from conservbench.observables.rdf import smeared_rdf
from conservbench.observables.temperature import cooler_than
from conservbench.outcome import Outcome
from conservbench.scheme import Scheme
from conservbench.state import State, from_atoms
from conservbench.training.reversible import ReversibleAdjoint
from conservbench.training.reweight import Ensemble, Reweighting, Sampling
from conservbench.training.route import Objective, Sensitivity, of_average
from conservbench.training.terms import ATOMS
from conservbench.training.tuning_recipe import RDF
from conservbench.units import FEMTOSECOND, PICOSECOND

if TYPE_CHECKING:
    from conservbench.references import Profile
    from conservbench.systems import System

EXPLOSION_FACTOR: Final = 20.0
"""Temperature over that of the system beyond which a replica is lost."""


@final
class EnsembleRDF:
    """Squared distance of the g(r) of a reweighted ensemble to the reference.

    Args:
        model: evaluated at the parameters of the step.
        scheme: its forces.
        system: its snapshots are the start, its temperature the target.
        profile: the reference.
        settings: of the target.
        seed: of momenta and bath.
    """

    name = "rdf"

    def __init__(
        self, model: Tunable, scheme: Scheme, system: System, profile: Profile, settings: RDF, seed: int
    ) -> None:
        ensemble = settings.ensemble
        self.model = model
        self.scheme = scheme
        self.start = _start(system, ensemble.replicas, model)
        self.objective = Objective(_smeared(profile), of_average(_distance(profile, settings.weight)))
        sampling = Sampling(
            temperature=system.temperature,
            time_step=ensemble.time_step,
            frames=ensemble.frames,
            interval=ensemble.interval,
            equilibration=ensemble.equilibration,
            settling=ensemble.settling,
            tau=ensemble.tau,
            seed=seed,
        )
        self.route = Reweighting(sampling, min_effective=ensemble.min_effective)

    def __call__(self, parameters: Mapping[str, Tensor], step: int) -> Sensitivity:  # noqa: ARG002 - all terms take it
        """See :meth:`conservbench.training.terms.Term.__call__`."""
        found = self.route(self.model, self.scheme, self.objective, self.start, in_precision_of(self.model, parameters))
        calls = found.record.get("model_calls", 0.0)
        return _finished(parameters, found, calls * self.start.n_atoms / ATOMS)

    def memory(self) -> dict[str, Any]:
        """See :meth:`conservbench.training.terms.Term.memory`."""
        return {} if self.route.ensemble is None else self.route.ensemble.to_dict()

    def remember(self, memory: Mapping[str, Any]) -> None:
        """See :meth:`conservbench.training.terms.Term.remember`."""
        self.route.ensemble = Ensemble.from_dict(memory) if memory else None


@final
class TrajectoryRDF:
    """Squared distance of the g(r) along short trajectories to the reference.

    Replicas are held at the temperature of the system by a Langevin bath between the trajectories, which are at
    constant energy. The few frames of one trajectory are noisy: what is compared with the reference is the average g of
    the last trajectories, and the gradient is that of the product of g with its residual.

    Args:
        model: evaluated at the parameters of the step.
        scheme: its forces.
        system: its snapshots are the start, its temperature that of the bath.
        profile: the reference.
        settings: of the target.
        seed: of momenta and bath.
    """

    name = "rdf"

    def __init__(
        self, model: Tunable, scheme: Scheme, system: System, profile: Profile, settings: RDF, seed: int
    ) -> None:
        self.model = model
        self.scheme = scheme
        self.system = system
        self.profile = profile
        self.settings = settings.trajectory
        self._distance = _distance(profile, settings.weight)
        self.seed = seed
        self.start = _start(system, self.settings.replicas, model)
        self.route = ReversibleAdjoint(
            time_step=self.settings.time_step,
            n_steps=round(self.settings.duration / self.settings.time_step),
            interval=round(self.settings.interval / self.settings.time_step),
        )
        self._moving: State | None = None
        self._average: Tensor | None = None
        self._taken = 0

    def __call__(self, parameters: Mapping[str, Tensor], step: int) -> Sensitivity:
        """See :meth:`conservbench.training.terms.Term.__call__`."""
        cast = in_precision_of(self.model, parameters)
        start, evaluations = self._settled(self.model.at(cast), step)
        if start is None:
            lost = f"a replica left the physical range before the trajectory at {self.system.temperature:g} K"
            return Sensitivity(Outcome.EXPLODED, lost, record={"evaluations": evaluations})
        seen: list[Tensor] = []
        objective = Objective(_smeared(self.profile), of_average(lambda g: self._surrogate(g, seen)))
        found = self.route(self.model, self.scheme, objective, start, cast)
        # one plain call and one that is differentiated once more, a step
        evaluations += 1.5 * found.record.get("model_calls", 0.0) * start.n_atoms / ATOMS
        if found.outcome is Outcome.COMPLETED:
            self._moving = start
            self._average, self._taken = self._averaged(seen[-1]), self._taken + 1
            found = replace(found, loss=float(self._distance(self._average)))
        return _finished(parameters, found, evaluations)

    def memory(self) -> dict[str, Any]:
        """See :meth:`conservbench.training.terms.Term.memory`."""
        if self._moving is None or self._average is None:
            return {}
        moving = {"positions": self._moving.positions, "momenta": self._moving.momenta}
        return {**moving, "average": self._average, "taken": self._taken}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """See :meth:`conservbench.training.terms.Term.remember`."""
        self._moving = self._average = None
        self._taken = 0
        if memory:
            self._moving = self.start.replace(positions=memory["positions"], momenta=memory["momenta"])
            self._average, self._taken = memory["average"], memory["taken"]

    def _surrogate(self, g: Tensor, seen: list[Tensor]) -> Tensor:
        """Has the gradient of the distance with the average residual in place of that of these few frames."""
        seen.append(g.detach())
        average = self._averaged(g.detach()).requires_grad_(True)
        (slope,) = torch.autograd.grad(self._distance(average), average)
        return (slope * g).sum()

    def _averaged(self, g: Tensor) -> Tensor:
        if self._average is None:
            return g
        share = max(1.0 / self.settings.memory, 1.0 / (self._taken + 1))
        return self._average + share * (g - self._average)

    def _settled(self, model: Model, step: int) -> tuple[State | None, float]:
        """Frames in equilibrium to start from, or None if one is lost; and the evaluations that took."""
        settings, kelvin = self.settings, self.system.temperature
        noise = Noise(self.seed, step)
        fresh = self._moving is None
        start = self.start.replace(momenta=draw_momenta(self.start, kelvin, noise)) if fresh else self._moving
        assert start is not None  # noqa: S101 - of the two one is there
        engine = integrator(model, self.scheme)
        outer = settings.time_step * self.scheme.stride
        lasting = settings.equilibration if fresh else settings.settling
        n_steps = round(lasting * PICOSECOND / (outer * FEMTOSECOND))
        bath = thermostat("langevin", kelvin, settings.tau * FEMTOSECOND, noise)

        move = in_bath(engine, bath, settings.time_step * FEMTOSECOND)
        evaluations = n_steps * self.scheme.stride * start.n_atoms / ATOMS
        try:
            md = advance(
                engine.init(start),
                move,
                n_steps,
                n_replicas=start.n_systems,
                healthy=cooler_than(EXPLOSION_FACTOR * kelvin),
            )
        except InvalidPredictionError:
            return None, evaluations
        if md is None or md.n_systems < start.n_systems:
            return None, evaluations
        return self.start.replace(positions=md.positions, momenta=md.momenta), evaluations


def _start(system: System, replicas: int, model: Model) -> State:
    frames = [system.snapshots[index % len(system.snapshots)] for index in range(replicas)]
    return from_atoms(frames, device=model.device)


def _smeared(profile: Profile) -> Callable[[Model, State], Tensor]:
    return lambda _, state: smeared_rdf(state, profile.r, profile.width)


def _distance(profile: Profile, weight: float) -> Callable[[Tensor], Tensor]:
    wanted = torch.as_tensor(profile.g)

    def distance(g: Tensor) -> Tensor:
        reference = wanted.to(g.device)
        return weight * (g - reference).square().sum() / reference.square().sum()

    return distance


def _finished(parameters: Mapping[str, Tensor], found: Sensitivity, evaluations: float) -> Sensitivity:
    """The gradient in the precision of the parameters, and what it cost."""
    gradient = {name: slope.to(parameters[name].dtype) for name, slope in found.gradient.items()}
    return replace(found, gradient=gradient, record={**found.record, "evaluations": evaluations})
