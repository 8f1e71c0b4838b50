"""Thermal momenta without motion of the centre of mass."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from conservbench.dynamics.noise import Noise
from conservbench.state import State
from conservbench.units import BOLTZMANN


def draw_momenta(state: State, temperature: float, noise: Noise, replicas: Sequence[int] | None = None) -> Tensor:
    """Momenta (n_atoms, 3) from the Maxwell-Boltzmann distribution on the states without total momentum.

    The kinetic energy has the mean (3 N - 3) k_B T / 2; it is not rescaled.

    Args:
        state: the batch.
        temperature: K.
        noise: random numbers.
        replicas: who each system is; 0, 1, ... if not told.
    """
    who = range(state.n_systems) if replicas is None else replicas
    normal = noise(who, state.counts.tolist()).to(state.positions.device)
    return without_drift(state, (state.masses * BOLTZMANN * temperature).sqrt()[:, None] * normal)


def without_drift(state: State, momenta: Tensor) -> Tensor:
    """Momenta (n_atoms, 3) less the motion of the centre of mass of each system.

    An orthogonal projection of p / sqrt(m): thermal momenta stay thermal in the 3 N - 3 that are left.
    """
    velocity = state.sum(momenta) / state.sum(state.masses)[:, None]
    return momenta - state.masses[:, None] * velocity[state.system]
