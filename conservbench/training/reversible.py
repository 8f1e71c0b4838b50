"""Reversible adjoint: the gradient through a trajectory that is run back, in memory that does not grow with its length.

Velocity Verlet, x' = x + dt p/m with a half kick I(x) = dt/2 f(x) before and after, is reversible for any f(x),
conservative or not: the states need not be kept. Going back, with a = dL/dx, b = dL/dp and the seeds of a recorded
frame added where it was recorded, both half kicks at a position are one product with the transposed Jacobian,

    q = b + b_after (b of the half kicks before and after),  a += (dI/dx)^T q,  dL/dtheta += (dI/dtheta)^T q,

and the drift is b += dt a/m. The same call gives the I(x) that the states are rebuilt with, so that a step costs one
plain call on the way there and one differentiated call on the way back. Two-force r-RESPA is the same scheme with
I = dt/2 ((1 - M) f_fast + M f_slow) at every M-th position. J. G. Greener, PNAS 122, e2426058122 (2025).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from conservbench.dynamics.forces import fast_and_slow_of, force_of
from conservbench.dynamics.integrator import integrator
from conservbench.training.trajectory import Derivative, TrajectoryRoute, require_attached, require_finite

if TYPE_CHECKING:
    from conservbench.models.base import Model, Tunable
    from conservbench.scheme import Scheme
    from conservbench.state import State
    from conservbench.training.route import Objective


@final
@dataclass(frozen=True)
class ReversibleAdjoint(TrajectoryRoute):
    """The route; its record holds ``model_calls`` and ``reversal_error``, Å.

    The reversal error is the largest distance in a coordinate between a state that was rebuilt and the recorded one
    it should be, the start among them; the way back goes on from the recorded one.
    """

    def differentiate(
        self, model: Tunable, scheme: Scheme, objective: Objective, start: State, parameters: Mapping[str, Tensor]
    ) -> Derivative:
        """See :meth:`TrajectoryRoute.differentiate`."""
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        fixed = model.at({name: value.detach() for name, value in parameters.items()})
        frames, values = self._record(fixed, scheme, objective, start)
        values.requires_grad_()
        loss = objective.loss(values, self.weights(start))
        (pulls,) = torch.autograd.grad(loss, values)
        error = self._return(model.at(leaves), scheme, objective, start, frames, pulls, list(leaves.values()))
        gradient = {
            name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.detach() for name, leaf in leaves.items()
        }
        calls = 2.0 * (self.n_steps + 1)
        return Derivative(loss.detach(), gradient, {"model_calls": calls, "reversal_error": error})

    def _record(
        self, model: Model, scheme: Scheme, objective: Objective, start: State
    ) -> tuple[Sequence[State], Tensor]:
        """The recorded frames, and what is observed of them: (n_frames, n_systems, ...)."""
        engine = integrator(model, scheme)
        md = engine.init(start)
        frames, values = [], []
        for step in range(engine.stride, self.n_steps + 1, engine.stride):
            md = engine.step(md, self.dt)
            require_finite(md, step)
            if step % self.interval == 0:
                frames.append(start.replace(positions=md.positions, momenta=md.momenta))
                values.append(objective.observe(model, frames[-1]).detach())
        return frames, torch.stack(values)

    def _return(
        self,
        model: Model,
        scheme: Scheme,
        objective: Objective,
        start: State,
        frames: Sequence[State],
        pulls: Tensor,
        leaves: list[Tensor],
    ) -> float:
        """Go back from the last frame to the start, and leave d loss / d parameter in the leaves.

        Returns:
            The reversal error, Å.
        """
        half_kick = _half_kick(model, scheme, self.dt)
        drift = self.dt / start.masses[:, None]
        positions, after = frames[-1].positions, torch.zeros_like(start.momenta)
        slope_x, slope_p = torch.zeros_like(positions), torch.zeros_like(positions)
        error = 0.0
        for step in range(self.n_steps, 0, -1):
            before = slope_p
            at_record = step % self.interval == 0
            if at_record:
                frame = step // self.interval - 1
                recorded = frames[frame]
                error = max(error, _largest(positions - recorded.positions))
                positions = recorded.positions
                seed_x, seed_p = _seeds(objective, model, recorded, pulls[frame], leaves)
                slope_x, before = slope_x + seed_x, slope_p + seed_p
            kick, pulled = _pull(half_kick, start.replace(positions=positions), step, slope_p + before, leaves)
            half_way = (recorded.momenta if at_record else after - kick) - kick
            slope_x = slope_x + pulled
            slope_p = before + drift * slope_x
            positions, after = positions - drift * half_way, half_way
        _pull(half_kick, start, 0, slope_p, leaves)
        return max(error, _largest(positions - start.positions))


def _half_kick(model: Model, scheme: Scheme, dt: float) -> Callable[[State, int], Tensor]:
    """Momentum (n_atoms, 3) of a half kick at the position of a step, attached to positions and parameters."""
    half = 0.5 * dt
    fast = force_of(model, "direct" if scheme.kind == "mts" else scheme.kind, graph=True)
    both = fast_and_slow_of(model, graph=True)

    def kick(state: State, step: int) -> Tensor:
        if scheme.kind != "mts" or step % scheme.stride:
            return half * fast(state)[0]
        fast_force, slow_force, _ = both(state)
        return half * ((1 - scheme.stride) * fast_force + scheme.stride * slow_force)

    return kick


def _pull(
    half_kick: Callable[[State, int], Tensor], state: State, step: int, cotangent: Tensor, leaves: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """The half kick, and the cotangent pulled back through it: to positions, and, summed up there, to the leaves."""
    positions = state.positions.detach().requires_grad_()
    kick = half_kick(state.replace(positions=positions), step)
    require_attached(kick)
    torch.autograd.backward(kick, cotangent, inputs=[positions, *leaves])
    return kick.detach(), _slope(positions)


def _seeds(
    objective: Objective, model: Model, frame: State, pull: Tensor, leaves: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """What a recorded frame adds to d loss / d positions and d loss / d momenta, and, in place, to the leaves."""
    positions, momenta = (vector.detach().requires_grad_() for vector in (frame.positions, frame.momenta))
    values = objective.observe(model, frame.replace(positions=positions, momenta=momenta))
    if values.requires_grad:
        torch.autograd.backward(values, pull, inputs=[positions, momenta, *leaves])
    return _slope(positions), _slope(momenta)


def _slope(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _largest(distance: Tensor) -> float:
    return float(distance.abs().max())
