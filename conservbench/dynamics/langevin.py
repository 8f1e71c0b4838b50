"""White-noise Langevin dynamics by the splitting O B A B O around any propagator that knows no temperature.

O is the exact solution of dp = -p/tau dt + noise over half a step, p <- c p + sqrt(m k_B T (1 - c^2)) xi with
c = exp(-dt / 2 tau). The heat it puts in is counted: kinetic + potential energy - heat is as constant as the propagator
keeps the energy. Bussi and Parrinello, Phys. Rev. E 75, 056707 (2007).

The total momentum is neither damped nor kicked: 3 N - 3 momenta are coupled to the bath.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor

from conservbench.dynamics.maxwell_boltzmann import draw_momenta, without_drift
from conservbench.dynamics.md_state import MDState
from conservbench.dynamics.noise import Noise

_Moving = TypeVar("_Moving", bound=MDState)


@dataclass(frozen=True)
class Bath:
    """A heat bath.

    Attributes:
        temperature: K.
        tau: relaxation time of momenta, internal time.
        noise: its random numbers.
    """

    temperature: float
    tau: float
    noise: Noise


def step(md: _Moving, propagate: Callable[[_Moving], _Moving], bath: Bath, dt: float) -> _Moving:
    """One step: half a step of the bath, ``propagate`` over ``dt`` (internal time), half a step of the bath."""
    return couple(propagate(couple(md, bath, 0.5 * dt)), bath, 0.5 * dt)


def couple(md: _Moving, bath: Bath, dt: float) -> _Moving:
    """The bath alone, over ``dt`` (internal time)."""
    keep = math.exp(-dt / bath.tau)
    kicks = draw_momenta(md, bath.temperature, bath.noise, md.replica)
    change = without_drift(md, (keep - 1.0) * md.momenta) + math.sqrt(1.0 - keep**2) * kicks
    momenta = md.momenta + change
    return replace(md, momenta=momenta, heat=md.heat + _kinetic(md, momenta) - _kinetic(md, md.momenta))


def _kinetic(md: MDState, momenta: Tensor) -> Tensor:
    return md.sum(momenta.square().sum(1) / (2.0 * md.masses))
