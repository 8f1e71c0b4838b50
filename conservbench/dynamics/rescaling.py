"""Rescaling all momenta of a system by one factor: what global thermostats do. The centre of mass is left out of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from conservbench.dynamics.maxwell_boltzmann import without_drift
from conservbench.dynamics.md_state import MDState
from conservbench.state import State

_Moving = TypeVar("_Moving", bound=MDState)


def degrees_of_freedom(state: State) -> Tensor:
    """(n_systems,) 3 N - 3 momenta that a global thermostat rescales."""
    return 3.0 * (state.counts - 1).to(state.momenta.dtype)


def internal_kinetic_energy(state: State) -> Tensor:
    """(n_systems,) kinetic energy in eV, without that of the centre of mass."""
    momenta = without_drift(state, state.momenta)
    return state.sum(momenta.square().sum(1) / (2.0 * state.masses))


def rescale(md: _Moving, factor: Tensor) -> _Moving:
    """Momenta relative to the centre of mass, times a factor (n_systems,); the heat that this takes is counted."""
    gain = (factor.square() - 1.0) * internal_kinetic_energy(md)
    change = (factor - 1.0)[md.system, None] * without_drift(md, md.momenta)
    return replace(md, momenta=md.momenta + change, heat=md.heat + gain)
