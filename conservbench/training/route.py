"""What a gradient route is: a way to differentiate a simulated property by the parameters of a model.

All routes answer the same question, d loss / d parameters of an :class:`Objective`, and differ in where the frames come
from that the objective is evaluated on, and in how the gradient gets through: a minimum (``implicit``), a trajectory
(``unrolled``, ``reversible``) or an ensemble (``reweight``). What a route cannot do for a model or a force scheme, and
what breaks on the way, is an outcome with its reason, not an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from conservbench.models.base import Model, Tunable
from conservbench.outcome import Outcome
from conservbench.scheme import Scheme
from conservbench.state import State


@dataclass(frozen=True)
class Objective:
    """A loss of observables.

    Attributes:
        observe: (model, state) to values (n_systems, ...) of each system of a frame, differentiable in positions,
            momenta, cell and parameters.
        loss: (values, weights) to a scalar: values (n_frames, n_systems, ...) and weights (n_frames, n_systems) that
            sum to one, equal along a trajectory, different where an ensemble is reweighted.
    """

    observe: Callable[[Model, State], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]


def of_average(loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss of the weighted average of the values over frames and systems."""
    return lambda values, weights: loss((values.flatten(0, 1) * _beside(weights.flatten(), values)).sum(0))


def _beside(weights: Tensor, values: Tensor) -> Tensor:
    return weights.reshape(-1, *[1] * (values.ndim - 2))


@dataclass(frozen=True)
class Sensitivity:
    """What a route found.

    Attributes:
        outcome: how it ended; everything below is there only where it completed.
        reason: why it did not, in one line.
        loss: the objective; NaN without one.
        gradient: d loss / d parameter, by name, shaped like the parameters.
        record: numbers that tell how it went, by name: steps, iterations, residuals, effective samples, model calls.
    """

    outcome: Outcome
    reason: str = ""
    loss: float = float("nan")
    gradient: Mapping[str, Tensor] = field(default_factory=dict)
    record: Mapping[str, float] = field(default_factory=dict)


class Route(Protocol):
    """A way to differentiate, with its settings."""

    def __call__(
        self, model: Tunable, scheme: Scheme, objective: Objective, start: State, parameters: Mapping[str, Tensor]
    ) -> Sensitivity:
        """Loss and gradient.

        Args:
            model: any that is differentiable.
            scheme: its forces.
            objective: what is differentiated.
            start: structures, with momenta where the route moves them.
            parameters: where the gradient is taken, by name; those not named stay as the model has them.

        Returns:
            Loss and gradient, or the outcome that there is none: ``unsupported`` where the route does not apply to the
            model or the scheme, ``exploded``, ``not_converged`` or ``failed`` where it broke.
        """
        ...
