"""Kinetic energy and temperature, of whole systems and of their species."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from conservbench.state import State
from conservbench.units import BOLTZMANN


def kinetic_energy(state: State) -> Tensor:
    """(n_systems,) kinetic energy in eV."""
    return state.sum(_of_atoms(state))


def degrees_of_freedom(state: State) -> Tensor:
    """(n_systems,) 3 N - 3: every simulation here starts with the centre of mass at rest and keeps it so.

    Momenta are drawn, and direct forces applied, without what would move it (:mod:`conservbench.dynamics.forces`).
    """
    return 3.0 * (state.counts - 1).to(state.momenta.dtype)


def temperature(state: State) -> Tensor:
    """(n_systems,) kinetic temperature T = 2 K / (n_dof k_B) in K, with n_dof = 3 N - 3."""
    return 2.0 * kinetic_energy(state) / (BOLTZMANN * degrees_of_freedom(state))


def species_temperature(state: State, number: int) -> Tensor:
    """(n_systems,) kinetic temperature of the atoms of one atomic number, K; NaN for a system without any.

    With the centre of mass at rest an atom of mass m in a system of mass M holds <p^2>/2m = 3 k_B T / 2 (1 - m/M):
    degrees of freedom are counted in these parts, so that all species are at T in equilibrium.
    """
    mine = (state.numbers == number).to(state.momenta.dtype)
    share = 3.0 * (1.0 - state.masses / state.sum(state.masses)[state.system])
    return 2.0 * state.sum(mine * _of_atoms(state)) / (BOLTZMANN * state.sum(mine * share))


def cooler_than(limit: float) -> Callable[[State], Tensor]:
    """Whether the temperature of each system is a number below a limit (K): (n_systems,) bool."""

    def healthy(state: State) -> Tensor:
        # NaN compares false
        return temperature(state) < limit

    return healthy


def _of_atoms(state: State) -> Tensor:
    return state.momenta.square().sum(1) / (2.0 * state.masses)
