"""Gradients through a minimum: implicit differentiation, for properties of relaxed structures.

A relaxed structure x(theta) is where the forces vanish, f(x, theta) = 0, whatever way led there. With the Jacobian
J = df/dx the structure follows the parameters by dx/dtheta = -J^-1 df/dtheta, and

    dL/dtheta = d_theta L - mu . df/dtheta,    J^T mu = d_x L:

one linear system for all parameters. The forces of an energy have J = -H, and this is d_theta L -
(d2U/dx dtheta)^T H^-1 d_x L, found by conjugate gradients on Hessian-vector products; a direct force has a J that is
not symmetric, and takes GMRES. J is singular for translations: they are projected out, so that the mean position of
the atoms is what does not follow. Nothing but products with J^T is asked of the model, each one reverse pass through
one graph. Blondel et al., NeurIPS 2022, arXiv 2105.15183.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, cg, gmres
from torch import Tensor

from conservbench.dynamics.coordinates import FixedCell
from conservbench.dynamics.forces import force_of
from conservbench.dynamics.relaxation import OPTIMIZERS, Ending, Relaxation, relax
from conservbench.models.base import InvalidPredictionError, Tunable, UnsupportedError, check_support
from conservbench.outcome import Outcome
from conservbench.scheme import Scheme
from conservbench.state import State
from conservbench.training.route import Objective, Sensitivity
from conservbench.training.trajectory import bare

_Vector = NDArray[np.float64]

_MARGIN: Final = 0.1
"""Part of the tolerance that is asked of a solver: the residual it estimates drifts from the true one."""

_KRYLOV: Final = 300
"""Directions that GMRES remembers before it starts again."""


@final
@dataclass(frozen=True)
class Implicit:
    """The route through a minimum (see :class:`conservbench.training.route.Route`), in the fixed cells of the start.

    The atoms are relaxed with the force that acts on average: under ``mts`` that of the gradient, so that the route is
    the one of ``gradient``; under ``direct`` the direct force less its net force, which need be no gradient. The frame
    that is observed is the relaxed one, its systems with equal weights. The gradient is exact at a point where the
    force vanishes: what is left of the force enters the gradient in first order.

    ``record``: ``relaxation_steps`` of the longest relaxation, ``fmax`` in eV/Å of the worst system, ``products`` with
    J^T, ``residual`` of the linear system over the norm of its right side, and ``model_calls``, those of the relaxation
    and one with a graph.

    Not converged is a relaxation that does not reach ``fmax``, a linear system that does not reach ``tolerance``, and a
    point where conjugate gradients meet a direction along which the energy does not curve upwards: no minimum.

    Attributes:
        fmax: eV/Å, longest force on an atom that is left.
        max_steps: of the relaxation.
        optimizer: a key of :data:`conservbench.dynamics.relaxation.OPTIMIZERS`.
        tolerance: residual of the linear system over the norm of its right side; that of single precision is about
            1e-4.
        max_products: with J^T.

    Raises:
        ValueError: a setting is out of range.
    """

    fmax: float = 1e-6
    max_steps: int = 1000
    optimizer: str = "lbfgs"
    tolerance: float = 1e-8
    max_products: int = 2000

    def __post_init__(self) -> None:
        if not (self.fmax > 0 and self.tolerance > 0):
            raise ValueError(f"fmax is {self.fmax!r}, tolerance is {self.tolerance!r}; expected positive numbers")
        if self.max_steps < 0 or self.max_products < 1:
            raise ValueError(
                f"max_steps is {self.max_steps}, expected 0 or more; max_products is {self.max_products}, expected 1 "
                "or more"
            )
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer is {self.optimizer!r}; expected one of {', '.join(OPTIMIZERS)}")

    def __call__(
        self, model: Tunable, scheme: Scheme, objective: Objective, start: State, parameters: Mapping[str, Tensor]
    ) -> Sensitivity:
        """See :meth:`conservbench.training.route.Route.__call__`.

        Raises:
            ValueError: a parameter is not known.
        """
        record: dict[str, float] = {}
        leaves = {name: value.detach().clone().requires_grad_(True) for name, value in parameters.items()}
        fixed, attached = model.at({name: value.detach() for name, value in leaves.items()}), model.at(leaves)
        try:
            if not model.differentiable:
                raise UnsupportedError("the model is not differentiable")
            check_support(model, start, scheme.channels)
            relaxed = self._relaxed(fixed, scheme, bare(start), record)
            loss, gradient = self._differentiated(attached, scheme, objective, relaxed, leaves, record)
        except UnsupportedError as error:
            return Sensitivity(Outcome.UNSUPPORTED, str(error), record=record)
        except _EndingError as error:
            return Sensitivity(error.outcome, str(error), record=record)
        except InvalidPredictionError as error:
            return Sensitivity(Outcome.FAILED, str(error), record=record)
        return Sensitivity(Outcome.COMPLETED, loss=loss, gradient=gradient, record=record)

    def _relaxed(self, model: Tunable, scheme: Scheme, start: State, record: dict[str, float]) -> State:
        run = relax(
            start,
            FixedCell(force_of(model, scheme.mean_channel)),
            OPTIMIZERS[self.optimizer],
            fmax=self.fmax,
            max_steps=[self.max_steps] * start.n_systems,
            window=1,
        )
        record["relaxation_steps"] = float(run.steps.max())
        record["model_calls"] = record["relaxation_steps"] + 1
        record["fmax"] = float(_last_forces(run).max())
        for outcome, endings in (
            (Outcome.EXPLODED, (Ending.EXPLODED,)),
            (Outcome.NOT_CONVERGED, (Ending.EXHAUSTED, Ending.STALLED)),
        ):
            ended = [index for index, ending in enumerate(run.ending) if ending in endings]
            if ended:
                number, steps = f"{len(ended)} of {start.n_systems}", int(run.steps[ended].max())
                left = f" at {_last_forces(run)[ended].max():.2g} eV/Å" if outcome is Outcome.NOT_CONVERGED else ""
                raise _EndingError(
                    outcome, f"{number} relaxations {run.ending[ended[0]].value} after {steps} steps{left}"
                )
        return run.final

    def _differentiated(
        self,
        model: Tunable,
        scheme: Scheme,
        objective: Objective,
        relaxed: State,
        leaves: Mapping[str, Tensor],
        record: dict[str, float],
    ) -> tuple[float, dict[str, Tensor]]:
        """Loss and gradient at a relaxed structure."""
        positions = relaxed.positions.detach().requires_grad_(True)
        state = relaxed.replace(positions=positions)
        values = objective.observe(model, state)[None]
        loss = objective.loss(values, positions.new_full((1, state.n_systems), 1.0 / state.n_systems))
        if not bool(torch.isfinite(loss)):
            raise InvalidPredictionError(f"the loss is {float(loss.detach())}")
        sources = [positions, *leaves.values()]
        by_positions, *explicit = torch.autograd.grad(loss, sources, materialize_grads=True)

        forces, _ = force_of(model, scheme.mean_channel, graph=True)(state)
        record["model_calls"] += 1
        if not forces.requires_grad:
            raise InvalidPredictionError(
                f"the {scheme.mean_channel} forces are detached from the positions under graph=True"
            )

        def product(vector: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(forces, positions, _centred(state, vector), retain_graph=True)
            return _centred(state, pulled)

        multiplier = self._solve(product, _centred(state, by_positions), scheme, record)
        implicit = torch.autograd.grad(forces, list(leaves.values()), -multiplier, materialize_grads=True)
        gradient = {name: one + other for name, one, other in zip(leaves, explicit, implicit, strict=True)}
        for name, slope in gradient.items():
            if not bool(slope.isfinite().all()):
                raise InvalidPredictionError(f"the gradient by {name} is not finite")
        return float(loss.detach()), gradient

    def _solve(
        self, product: Callable[[Tensor], Tensor], right: Tensor, scheme: Scheme, record: dict[str, float]
    ) -> Tensor:
        """The mu of J^T mu = right."""
        record |= {"products": 0.0, "residual": 0.0}
        norm = float(right.norm())
        if norm == 0:
            return torch.zeros_like(right)

        def matrix(vector: _Vector) -> _Vector:
            record["products"] += 1
            given = torch.as_tensor(vector, dtype=right.dtype, device=right.device).reshape(right.shape)
            return product(given).cpu().numpy().ravel()

        def hessian(vector: _Vector) -> _Vector:
            curved = -matrix(vector)
            # what conjugate gradients ask for are their search directions
            if not float(vector @ curved) > 0:
                raise _EndingError(
                    Outcome.NOT_CONVERGED, "the energy does not curve upwards along a direction: this is no minimum"
                )
            return curved

        size, target = right.numel(), right.cpu().numpy().ravel()
        rtol = _MARGIN * self.tolerance
        if scheme.mean_channel == "gradient":
            operator = LinearOperator((size, size), hessian, dtype=np.float64)
            found, _ = cg(operator, -target, rtol=rtol, maxiter=self.max_products)
        else:
            operator = LinearOperator((size, size), matrix, dtype=np.float64)
            memory = min(size, _KRYLOV, self.max_products)
            found, _ = gmres(operator, target, rtol=rtol, restart=memory, maxiter=max(1, self.max_products // memory))
        residual = float(np.linalg.norm(matrix(found) - target)) / norm
        record["residual"] = residual
        # NaN compares false
        if not residual <= self.tolerance:
            raise _EndingError(
                Outcome.NOT_CONVERGED,
                f"the linear system has a residual of {residual:.2g} after {record['products']:.0f} products",
            )
        return torch.as_tensor(found, dtype=right.dtype, device=right.device).reshape(right.shape)


class _EndingError(Exception):
    """A relaxation or a linear system came to no good end."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


def _last_forces(run: Relaxation) -> _Vector:
    """(n_systems,) eV/Å, longest force of each system at the last step in range; NaN if no step was."""
    sound = np.isfinite(run.fmax)
    last = run.fmax.shape[1] - 1 - np.argmax(sound[:, ::-1], axis=1)
    return run.fmax[np.arange(len(last)), last]


def _centred(state: State, vector: Tensor) -> Tensor:
    """A vector (n_atoms, 3) less its mean over the atoms of each system: without translations."""
    return vector - (state.sum(vector) / state.counts[:, None])[state.system]
