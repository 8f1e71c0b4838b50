"""What the gradient routes through a trajectory at constant energy share: the frames, the refusals and the endings.

The trajectory is that of the integrator of the scheme (:mod:`conservbench.dynamics.integrator`), from the positions and
momenta of the start. Frames are recorded every ``interval`` steps, the start not included, and weigh the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from conservbench.models.base import InvalidPredictionError, UnsupportedError, check_support
from conservbench.outcome import Outcome
from conservbench.state import State
from conservbench.training.route import Objective, Sensitivity
from conservbench.units import FEMTOSECOND

if TYPE_CHECKING:
    from conservbench.models.base import Tunable
    from conservbench.scheme import Scheme


class ExplosionError(Exception):
    """A trajectory left what numbers can hold."""


@dataclass(frozen=True)
class Derivative:
    """What a route through a trajectory computes; see :class:`conservbench.training.route.Sensitivity`.

    Attributes:
        loss: scalar.
        gradient: by parameter, shaped like it.
        record: numbers that tell how it went.
    """

    loss: Tensor
    gradient: Mapping[str, Tensor]
    record: Mapping[str, float]


@dataclass(frozen=True)
class TrajectoryRoute(ABC):
    """A route through a trajectory (see :class:`conservbench.training.route.Route`).

    Attributes:
        time_step: fs, of the inner step under ``mts``.
        n_steps: of the trajectory, inner steps under ``mts``.
        interval: steps from one recorded frame to the next.

    Raises:
        ValueError: a setting is not positive, or the last step is none that is recorded.
    """

    time_step: float
    n_steps: int
    interval: int

    def __post_init__(self) -> None:
        if not self.time_step > 0:
            raise ValueError(f"time_step is {self.time_step}; expected a positive number of fs")
        if self.interval < 1 or self.n_steps < 1 or self.n_steps % self.interval:
            raise ValueError(f"n_steps is {self.n_steps}; expected a positive multiple of the interval {self.interval}")

    @property
    def dt(self) -> float:
        """The time step in internal time."""
        return self.time_step * FEMTOSECOND

    @property
    def n_frames(self) -> int:
        """How many frames are recorded."""
        return self.n_steps // self.interval

    def __call__(
        self, model: Tunable, scheme: Scheme, objective: Objective, start: State, parameters: Mapping[str, Tensor]
    ) -> Sensitivity:
        """See :meth:`conservbench.training.route.Route.__call__`."""
        try:
            if not model.differentiable:
                raise UnsupportedError("the model is not differentiable")
            if self.interval % scheme.stride:
                raise UnsupportedError(
                    f"frames are {self.interval} steps apart, no multiple of the scheme's stride {scheme.stride}"
                )
            check_support(model, start, scheme.channels)
            found = self.differentiate(model, scheme, objective, bare(start), parameters)
        except UnsupportedError as error:
            return Sensitivity(Outcome.UNSUPPORTED, str(error))
        except ExplosionError as error:
            return Sensitivity(Outcome.EXPLODED, str(error))
        except InvalidPredictionError as error:
            return Sensitivity(Outcome.FAILED, str(error))
        loss = float(found.loss)
        astray = [name for name, slope in found.gradient.items() if not bool(torch.isfinite(slope).all())]
        if astray or not torch.isfinite(found.loss):
            reason = f"the gradient by {astray[0]} is not finite" if astray else f"the loss is {loss}"
            return Sensitivity(Outcome.FAILED, reason, record=found.record)
        return Sensitivity(Outcome.COMPLETED, loss=loss, gradient=found.gradient, record=found.record)

    @abstractmethod
    def differentiate(
        self, model: Tunable, scheme: Scheme, objective: Objective, start: State, parameters: Mapping[str, Tensor]
    ) -> Derivative:
        """Loss and gradient of what has passed the checks.

        Raises:
            UnsupportedError: the model cannot be differentiated in this way.
            ExplosionError: see :func:`require_finite`.
            InvalidPredictionError: the forces of the start are none.
        """

    def weights(self, start: State) -> Tensor:
        """(n_frames, n_systems) equal weights that sum to one."""
        shape = (self.n_frames, start.n_systems)
        return start.positions.new_full(shape, 1.0 / (shape[0] * shape[1]))


def bare(start: State) -> State:
    """Positions, momenta and composition of a start, whatever else it carries, detached."""
    state = State(**{field.name: getattr(start, field.name) for field in fields(State)})
    return state.replace(positions=start.positions.detach(), momenta=start.momenta.detach(), cell=start.cell.detach())


def require_finite(state: State, step: int) -> None:
    """Refuse a state from which there is no going on.

    Raises:
        ExplosionError: a position or a momentum is not finite; says the system and the step.
    """
    astray = ~(torch.isfinite(state.positions) & torch.isfinite(state.momenta)).all(1)
    if bool(astray.any()):
        system = int(state.system[torch.nonzero(astray)[0, 0]])
        raise ExplosionError(f"system {system} left the range of numbers by step {step}")


def require_attached(forces: Tensor) -> None:
    """Refuse forces, asked for with ``graph=True``, through which no gradient goes.

    Raises:
        InvalidPredictionError: they are detached from positions that require a gradient.
    """
    if not forces.requires_grad:
        raise InvalidPredictionError("the forces are detached from the positions under graph=True")
