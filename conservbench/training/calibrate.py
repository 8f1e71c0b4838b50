"""Tune the few named parameters of a classical potential to static properties, by a quasi-Newton method.

A target is a function of the model; its gradient is exact, by automatic differentiation through the property
(:mod:`conservbench.training.static_targets`). Parameters are scaled by their start values, so that those of different
units weigh alike, and the loss by its first gradient, so that the first step is a fifth of a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from conservbench.models.base import InvalidPredictionError, Tunable, UnsupportedError
from conservbench.outcome import Outcome

Loss = Callable[[Tunable], Tensor]
"""A scalar of a model, differentiable in its parameters, in any unit."""

_FIRST_STEP: Final = 0.2
_REACH: Final = 20.0
"""Parameters stay between a twentieth and twenty times their start, which keeps a line search from running away."""


@dataclass(frozen=True)
class Calibration:
    """How a calibration went.

    Attributes:
        outcome: ``completed`` at a stationary point; ``not_converged`` where the evaluations were used up, no step went
            lower, or a parameter went to the edge of its range; ``exploded`` where the loss or its gradient was not
            finite; ``unsupported`` or ``failed`` where the model could not be asked, or raised.
        reason: why it did not complete, in one line.
        start: the parameters it began with.
        start_loss: the loss there; NaN if it was not finite.
        parameters: the best that were met, and the start if none was.
        loss: the loss there.
        slope: the largest |d ln L / d ln p| of the parameters p there: by how many per cent one per cent of a parameter
            changes the loss.
        evaluations: of the loss and its gradient.
    """

    outcome: Outcome
    reason: str
    start: Mapping[str, float]
    start_loss: float
    parameters: Mapping[str, float]
    loss: float
    slope: float
    evaluations: int


def calibrate(
    model: Tunable, loss: Loss, start: Mapping[str, float], *, tolerance: float = 1e-5, evaluations: int = 200
) -> Calibration:
    """Minimise a loss by L-BFGS-B (Byrd, Lu, Nocedal and Zhu, SIAM J. Sci. Comput. 16, 1190, 1995).

    Args:
        model: the potential; parameters that are not named stay as they are.
        loss: what is minimised; above 0 at the minimum if it is a norm, which has no gradient where it vanishes.
        start: the named parameters, none of them 0.
        tolerance: of :attr:`Calibration.slope`.
        evaluations: budget.

    Raises:
        ValueError: nothing to tune, a parameter that the model does not have, or a start that is 0 or not finite.
    """
    names = list(start)
    scale = np.array([float(start[name]) for name in names])
    if not names or not np.isfinite(scale).all() or not scale.all():
        raise ValueError(f"calibration needs start values that are not 0, got {dict(start)}")
    if unknown := sorted(set(names) - set(model.parameters)):
        raise ValueError(f"the model has no parameter {', '.join(unknown)}; expected {', '.join(model.parameters)}")
    path = _Path(model, loss, names, scale)
    try:
        _descend(path, tolerance, evaluations)
    except (_NotFiniteError, InvalidPredictionError) as error:
        return path.ending(Outcome.EXPLODED, f"{error} at {path.where}")
    except UnsupportedError as error:
        return path.ending(Outcome.UNSUPPORTED, str(error))
    except Exception as error:
        return path.ending(Outcome.FAILED, f"{type(error).__name__}: {error} at {path.where}")
    if path.slope <= tolerance:
        return path.ending(Outcome.COMPLETED, "")
    if edge := [name for name, x in zip(names, path.best, strict=True) if not 1.0 / _REACH < x < _REACH]:
        return path.ending(Outcome.NOT_CONVERGED, f"{', '.join(edge)} went {_REACH:g} times off the start")
    if path.evaluations >= evaluations:
        return path.ending(Outcome.NOT_CONVERGED, f"{evaluations} evaluations left a slope of {path.slope:.2g}")
    return path.ending(Outcome.NOT_CONVERGED, f"no step went lower from a slope of {path.slope:.2g}")


def _descend(path: _Path, tolerance: float, evaluations: int) -> None:
    start = np.ones(len(path.names))
    value, first = path(start)
    if path.slope <= tolerance:
        return
    steepness = float(np.linalg.norm(first)) / _FIRST_STEP

    def scaled(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        # the start was met above
        found, gradient = (value, first) if np.array_equal(x, start) else path(x)
        return found / steepness, gradient / steepness

    def stop(_: NDArray[np.float64]) -> None:
        if path.slope <= tolerance:
            raise StopIteration

    # its own tests are off: they are absolute, and of progress
    limits = {"gtol": 0.0, "ftol": 0.0, "maxfun": evaluations - 1, "maxiter": evaluations}
    bounds = [(1.0 / _REACH, _REACH)] * len(start)
    minimize(scaled, start, jac=True, method="L-BFGS-B", bounds=bounds, callback=stop, options=limits)


def curvature(model: Tunable, loss: Loss, parameters: Mapping[str, float], *, step: float = 1e-4) -> Tensor:
    """Second derivatives of a loss by relative changes of parameters: a minimum has positive eigenvalues.

    Args:
        model: the potential.
        loss: any.
        parameters: where, by name.
        step: relative, of central differences of exact gradients.

    Returns:
        (n, n), in units of the loss, symmetric.
    """
    names = list(parameters)
    path = _Path(model, loss, names, np.array([float(parameters[name]) for name in names]))
    moves = step * np.eye(len(names))
    rows = [(path(1.0 + move)[1] - path(1.0 - move)[1]) / (2.0 * step) for move in moves]
    matrix = torch.as_tensor(np.stack(rows))
    return 0.5 * (matrix + matrix.T)


def value_and_slopes(model: Tunable, loss: Loss, parameters: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """A loss and its exact derivatives by the named parameters."""
    leaves = {
        name: torch.full_like(model.parameters[name].detach(), value, requires_grad=True)
        for name, value in parameters.items()
    }
    value = loss(model.at(leaves))
    slopes = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return float(value.detach()), {name: float(slope) for name, slope in zip(leaves, slopes, strict=True)}


class _NotFiniteError(Exception):
    """There is no number to go on with."""


class _Path:
    """The evaluations of one calibration, and the best of them.

    Args:
        model: the potential.
        loss: of it.
        names: of the parameters.
        scale: what they are in units of.
    """

    def __init__(self, model: Tunable, loss: Loss, names: list[str], scale: NDArray[np.float64]) -> None:
        self.model = model
        self.loss = loss
        self.names = names
        self.scale = scale
        self.evaluations = 0
        self.start_loss = self.best_loss = self.slope = np.nan
        self.best = self.last = np.ones(len(names))

    def __call__(self, x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Loss and gradient by the scaled parameters.

        Raises:
            _NotFiniteError: one of them is not finite.
        """
        self.last = x.copy()
        self.evaluations += 1
        value, slopes = value_and_slopes(self.model, self.loss, self._named(x))
        gradient = np.array([slopes[name] for name in self.names]) * self.scale
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            raise _NotFiniteError(f"the loss is {value:.6g} and its gradient {gradient.tolist()}")
        if self.evaluations == 1:
            self.start_loss = value
        # NaN compares false: the first is the best so far
        if not value >= self.best_loss:
            steepest = float(np.abs(gradient * x).max())
            self.best_loss, self.best, self.slope = value, self.last, steepest and steepest / abs(value)
        return value, gradient

    @property
    def where(self) -> str:
        """The parameters evaluated last."""
        return ", ".join(f"{name} {value:.6g}" for name, value in self._named(self.last).items())

    def ending(self, outcome: Outcome, reason: str) -> Calibration:
        """What is made of the path."""
        start, found = self._named(np.ones(len(self.names))), self._named(self.best)
        return Calibration(outcome, reason, start, self.start_loss, found, self.best_loss, self.slope, self.evaluations)

    def _named(self, x: NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(self.names, (x * self.scale).tolist(), strict=True))
