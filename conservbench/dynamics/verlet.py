"""Velocity Verlet: half kick, drift, half kick (Swope, Andersen, Berens and Wilson, J. Chem. Phys. 76, 637, 1982)."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from conservbench.dynamics.forces import Force
from conservbench.dynamics.md_state import MDState, set_in_motion
from conservbench.state import State

_Moving = TypeVar("_Moving", bound=MDState)


def init(state: State, force: Force) -> MDState:
    """Evaluate the start; one model call.

    Raises:
        InvalidPredictionError: its forces or energies are not finite or have a wrong shape.
    """
    return set_in_motion(state, *force(state))


def step(md: _Moving, force: Force, dt: float) -> _Moving:
    """One step of ``dt`` (internal time); one model call."""
    momenta = md.momenta + 0.5 * dt * md.forces
    moved = replace(md, positions=md.positions + dt * momenta / md.masses[:, None])
    forces, energy = force(moved)
    return replace(moved, momenta=momenta + 0.5 * dt * forces, forces=forces, energy=energy)
