"""Two-force r-RESPA: fast forces at every step, their error corrected at every ``stride``-th.

A half kick of the correction (slow - fast force) over stride x dt, then ``stride`` velocity-Verlet steps of dt under
the fast force, then the other half kick. Both forces come from one call at the boundary, so that an outer step costs
``stride`` calls. Tuckerman, Berne and Martyna, J. Chem. Phys. 97, 1990 (1992); with direct and gradient forces of one
network: Bigi, Langer and Ceriotti, arXiv 2412.11569.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from torch import Tensor

from conservbench.dynamics import verlet
from conservbench.dynamics.forces import FastAndSlow, Force
from conservbench.dynamics.md_state import MDState, require_sound, set_in_motion
from conservbench.state import State


@dataclass(frozen=True)
class RespaState(MDState):
    """A batch at the boundary of two outer steps; ``forces`` are the fast ones.

    Attributes:
        correction: (n_atoms, 3), eV/Å, slow minus fast force.
    """

    correction: Tensor

    @staticmethod
    def _forces() -> tuple[str, ...]:
        return ("forces", "correction")


def init(state: State, fast_and_slow: FastAndSlow) -> RespaState:
    """Evaluate the start; one model call.

    Raises:
        InvalidPredictionError: its forces or energies are not finite or have a wrong shape.
    """
    fast, slow, energy = fast_and_slow(state)
    require_sound("forces", slow, state.positions.shape, state.system)
    md = set_in_motion(state, fast, energy)
    return RespaState(**{field.name: getattr(md, field.name) for field in fields(MDState)}, correction=slow - fast)


def step(md: RespaState, fast: Force, fast_and_slow: FastAndSlow, dt: float, stride: int) -> RespaState:
    """One outer step of ``stride`` x ``dt`` (internal time); ``stride`` model calls."""
    half = 0.5 * stride * dt
    inner = replace(md, momenta=md.momenta + half * md.correction)
    for _ in range(stride - 1):
        inner = verlet.step(inner, fast, dt)
    slow: list[Tensor] = []

    def at_boundary(state: State) -> tuple[Tensor, Tensor | None]:
        forces, average, energy = fast_and_slow(state)
        slow.append(average)
        return forces, energy

    outer = verlet.step(inner, at_boundary, dt)
    correction = slow[0] - outer.forces
    return replace(outer, momenta=outer.momenta + half * correction, correction=correction)
