"""The integrator that goes with a model under a force scheme."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from conservbench.dynamics import respa, verlet
from conservbench.dynamics.forces import fast_and_slow_of, force_of
from conservbench.dynamics.md_state import MDState
from conservbench.models.base import Model
from conservbench.scheme import Scheme
from conservbench.state import State


@dataclass(frozen=True)
class Integrator:
    """A way to move a batch.

    Attributes:
        init: puts a batch in motion.
        step: moves it by one outer step, given the inner time step (internal time).
        stride: inner steps to one outer step.
    """

    init: Callable[[State], MDState]
    step: Callable[[Any, float], Any]
    stride: int


def integrator(model: Model, scheme: Scheme, *, graph: bool = False) -> Integrator:
    """Velocity Verlet with the channel of the scheme, or r-RESPA with both for ``mts``.

    Args:
        model: any.
        scheme: its forces.
        graph: whether a step stays attached to the state it is given and to the parameters of the model.
    """
    if scheme.kind == "mts":
        fast, both = force_of(model, "direct", graph=graph), fast_and_slow_of(model, graph=graph)
        return Integrator(
            init=lambda state: respa.init(state, both),
            step=lambda md, dt: respa.step(md, fast, both, dt, scheme.stride),
            stride=scheme.stride,
        )
    force = force_of(model, scheme.kind, graph=graph)
    return Integrator(
        init=lambda state: verlet.init(state, force), step=lambda md, dt: verlet.step(md, force, dt), stride=1
    )
