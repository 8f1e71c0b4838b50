"""White-noise Langevin thermostat: each momentum has friction and noise of its own.

The exact solution of dp = -p/tau dt + noise over dt, p <- c p + sqrt(m k_B T (1 - c^2)) xi with c = exp(-dt / tau).
Half a step of it on either side of velocity Verlet is the splitting O B A B O. Bussi and Parrinello, Phys. Rev. E 75,
056707 (2007).

The total momentum is neither damped nor kicked: 3 N - 3 momenta are coupled to the bath.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from conservbench.dynamics.maxwell_boltzmann import draw_momenta, without_drift
from conservbench.dynamics.md_state import MDState
from conservbench.dynamics.noise import Noise

_Moving = TypeVar("_Moving", bound=MDState)


def couple(md: _Moving, temperature: float, tau: float, noise: Noise, dt: float) -> _Moving:
    """The bath alone, over ``dt``.

    Args:
        md: the batch.
        temperature: K.
        tau: relaxation time of momenta, internal time.
        noise: its random numbers.
        dt: internal time.
    """
    keep = math.exp(-dt / tau)
    kicks = draw_momenta(md, temperature, noise, md.replica)
    change = without_drift(md, (keep - 1.0) * md.momenta) + math.sqrt(1.0 - keep**2) * kicks
    momenta = md.momenta + change
    return replace(md, momenta=momenta, heat=md.heat + _kinetic(md, momenta) - _kinetic(md, md.momenta))


def _kinetic(md: MDState, momenta: Tensor) -> Tensor:
    return md.sum(momenta.square().sum(1) / (2.0 * md.masses))
