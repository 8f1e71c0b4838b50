"""Differentiating a trajectory as it was computed: back through all its steps, or forwards along with them.

Backwards, the graph of every step is kept until the way back, which limits the length; in segments, only the states at
their starts are kept, and a segment is run again on the way back (Griewank and Walther, ACM Trans. Math. Softw. 26, 19,
2000). Forwards, a dual number goes with every number of the trajectory, once for each parameter, and nothing is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, final

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from conservbench.dynamics.forces import predict
from conservbench.dynamics.integrator import integrator
from conservbench.models.base import UnsupportedError
from conservbench.training.trajectory import Derivative, TrajectoryRoute, require_attached, require_finite

if TYPE_CHECKING:
    from conservbench.models.base import Tunable
    from conservbench.scheme import Channel, Scheme
    from conservbench.state import State
    from conservbench.training.route import Objective

MOST_PARAMETERS: Final = 10
"""Numbers that forward mode is for: each costs a trajectory."""

_POSITIONS: Final = ""
"""Their name beside those of parameters."""

_MOVING: Final = ("positions", "momenta", "forces", "correction")
"""What goes from one step to the next; the last only under ``mts``."""


@final
@dataclass(frozen=True)
class UnrolledReverse(TrajectoryRoute):
    """Reverse mode through the trajectory; its record holds ``model_calls``.

    Attributes:
        segment: steps whose graph is there at once; with ``n_steps``, that of the whole trajectory is kept and nothing
            is run again.

    Raises:
        ValueError: the trajectory is no whole number of segments.
    """

    segment: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.segment < 1 or self.n_steps % self.segment:
            raise ValueError(f"segment is {self.segment}; expected a divisor of the number of steps {self.n_steps}")

    def differentiate(
        self, model: Tunable, scheme: Scheme, objective: Objective, start: State, parameters: Mapping[str, Tensor]
    ) -> Derivative:
        """See :meth:`TrajectoryRoute.differentiate`."""
        if self.segment % scheme.stride:
            raise UnsupportedError(f"segments of {self.segment} steps are no multiple of the stride {scheme.stride}")
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        # the others detached, as a backward pass leaves its slopes in every leaf
        live = model.at({**{name: value.detach() for name, value in model.parameters.items()}, **leaves})
        engine = integrator(live, scheme, graph=True)
        # a segment is differentiated where something that goes into it requires a gradient
        md = engine.init(start.replace(positions=start.positions.detach().requires_grad_()))
        require_attached(md.forces)
        names = [name for name in _MOVING if hasattr(md, name)]
        values: list[Tensor] = []

        def run(first: int, *moving: Tensor) -> tuple[Tensor, ...]:
            there = _moved(md, zip(names, moving, strict=True))
            seen = []
            for step in range(first + engine.stride, first + self.segment + 1, engine.stride):
                there = engine.step(there, self.dt)
                require_finite(there, step)
                if step % self.interval == 0:
                    frame = start.replace(positions=there.positions, momenta=there.momenta)
                    seen.append(objective.observe(live, frame))
            return (*(getattr(there, name) for name in names), *seen)

        moving = tuple(getattr(md, name) for name in names)
        whole = self.segment == self.n_steps
        for first in range(0, self.n_steps, self.segment):
            # not the other kind: for each force that is a gradient it runs the segment again up to there, and it is
            # silently wrong by per cents where TorchScript still rewrites a network between two calls
            out = run(first, *moving) if whole else checkpoint(run, first, *moving, use_reentrant=True)
            moving = out[: len(names)]
            values += out[len(names) :]
        loss = objective.loss(torch.stack(values), self.weights(start))
        loss.backward()
        gradient = {
            name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.detach() for name, leaf in leaves.items()
        }
        calls = (self.n_steps + 1.0) if whole else (2.0 * self.n_steps + 1.0)
        return Derivative(loss.detach(), gradient, {"model_calls": calls})


@final
@dataclass(frozen=True)
class UnrolledForward(TrajectoryRoute):
    """Forward mode along the trajectory, for up to :data:`MOST_PARAMETERS` numbers; its record holds ``model_calls``.

    Every operator of the model needs a rule of forward differentiation, those of the forces included. Some drop
    what they should pass on and say nothing, such as parts that TorchScript differentiates by itself: so the forces of
    the start are differentiated both ways first.
    """

    def differentiate(
        self, model: Tunable, scheme: Scheme, objective: Objective, start: State, parameters: Mapping[str, Tensor]
    ) -> Derivative:
        """See :meth:`TrajectoryRoute.differentiate`."""
        n = sum(value.numel() for value in parameters.values())
        if not 1 <= n <= MOST_PARAMETERS:
            raise UnsupportedError(
                f"forward mode runs a trajectory for each of {n} parameters; at most {MOST_PARAMETERS}"
            )
        fixed = {name: value.detach() for name, value in parameters.items()}
        gradient = {name: torch.zeros_like(value) for name, value in fixed.items()}
        loss = start.positions.new_zeros(())
        try:
            _require_forward_rules(model, scheme, start, fixed)
            for name, value in fixed.items():
                for index in range(value.numel()):
                    tangent = torch.zeros_like(value)
                    tangent.view(-1)[index] = 1.0
                    loss, slope = self._along(model.at(fixed), scheme, objective, start, (name, value, tangent))
                    gradient[name].view(-1)[index] = slope
        except NotImplementedError as error:
            raise UnsupportedError(f"no forward differentiation: {str(error).splitlines()[0]}") from error
        return Derivative(loss, gradient, {"model_calls": n * (self.n_steps + 1.0) + 2.0})

    def _along(
        self, model: Tunable, scheme: Scheme, objective: Objective, start: State, direction: tuple[str, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The loss, and its derivative in one direction: name, value and tangent of a parameter."""
        name, value, tangent = direction
        with forward_ad.dual_level():
            live = model.at({name: forward_ad.make_dual(value, tangent)})
            engine = integrator(live, scheme, graph=True)
            md = _cut(engine.init(start.replace(positions=_dual_leaf(start.positions))))
            values = []
            for step in range(engine.stride, self.n_steps + 1, engine.stride):
                md = _cut(engine.step(md, self.dt))
                require_finite(md, step)
                if step % self.interval == 0:
                    frame = start.replace(positions=md.positions, momenta=md.momenta)
                    values.append(_dual_leaf(objective.observe(live, frame)))
            loss, slope = forward_ad.unpack_dual(objective.loss(torch.stack(values), self.weights(start)))
            return loss.detach(), torch.zeros_like(loss) if slope is None else slope.detach()


def _require_forward_rules(model: Tunable, scheme: Scheme, start: State, parameters: Mapping[str, Tensor]) -> None:
    """Differentiate the forces of the start forwards along all inputs at once, and compare with the reverse.

    With the Jacobian J of forces by positions and parameters, a direction v of these and one u of the forces, the
    tangent of the forces is J v and the reverse pass gives J^T u: u . (J v) = (J^T u) . v.

    Raises:
        UnsupportedError: they differ by more than the root of the precision of the coarsest number.
    """
    noise = torch.Generator().manual_seed(0)

    def like(vector: Tensor) -> Tensor:
        return torch.randn(vector.shape, generator=noise, dtype=torch.float64).to(vector)

    inputs = {_POSITIONS: start.positions.detach(), **parameters}
    tangents = {name: like(value) for name, value in inputs.items()}
    leaves = {name: value.detach().requires_grad_() for name, value in inputs.items()}
    forces = _forces(model, scheme, start, leaves)
    with forward_ad.dual_level():
        # they require a gradient as those of a trajectory do
        duals = {name: forward_ad.make_dual(value, tangents[name]) for name, value in inputs.items()}
        duals[_POSITIONS] = forward_ad.make_dual(leaves[_POSITIONS].detach().requires_grad_(), tangents[_POSITIONS])
        pushed = {c: forward_ad.unpack_dual(f).tangent for c, f in _forces(model, scheme, start, duals).items()}
    tolerance = max(torch.finfo(value.dtype).eps for value in inputs.values()) ** 0.5
    for channel, pulls in forces.items():
        require_attached(pulls)
        u = like(pulls)
        slopes = torch.autograd.grad(pulls, list(leaves.values()), u, retain_graph=True, allow_unused=True)
        terms = [slope * v for slope, v in zip(slopes, tangents.values(), strict=True) if slope is not None]
        reverse, size = (sum(float(function(term).sum()) for term in terms) for function in (torch.clone, torch.abs))
        tangent = pushed[channel]
        forward = 0.0 if tangent is None else float((u * tangent.detach()).sum())
        if abs(forward - reverse) > tolerance * size:
            raise UnsupportedError(
                f"the {channel} forces change by {forward:.6g} in forward mode where reverse mode says {reverse:.6g}: "
                "an operator of the model drops its tangent"
            )


def _forces(model: Tunable, scheme: Scheme, start: State, inputs: Mapping[str, Tensor]) -> Mapping[Channel, Tensor]:
    given = dict(inputs)
    moved = start.replace(positions=given.pop(_POSITIONS))
    return predict(model.at(given), moved, scheme.channels, graph=True).forces


def _cut(md: Any) -> Any:
    """The same values and tangents without the graph that forces are taken by."""
    return _moved(md, ((name, _dual_leaf(getattr(md, name))) for name in _MOVING if hasattr(md, name)))


def _moved(md: Any, vectors: Iterable[tuple[str, Tensor]]) -> Any:
    return replace(md, **dict(vectors))


def _dual_leaf(vector: Tensor) -> Tensor:
    # a leaf that requires a gradient, as a model detaches others from their tangents before it takes one
    value, tangent = forward_ad.unpack_dual(vector)
    leaf = value.detach().requires_grad_()
    return leaf if tangent is None else forward_ad.make_dual(leaf, tangent.detach())
