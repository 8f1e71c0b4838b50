"""Stochastic velocity rescaling: one random factor for all momenta, so that the kinetic energy is canonical.

With c = exp(-dt / tau), k = k_B T / 2, a standard normal R and a chi-squared S of 3 N - 4 degrees of freedom, the
momenta are multiplied by a,

    a^2 = c + (k / K) (1 - c) (R^2 + S) + 2 R sqrt(c (1 - c) k / K),  sign a = sign(R + sqrt(c K / ((1 - c) k))),

the exact solution over dt of the stochastic equation of the kinetic energy K, with the sign that makes it that of the
momenta too. tau is the relaxation time of the kinetic energy. Bussi, Donadio and Parrinello, J. Chem. Phys. 126, 014101
(2007); the sign: Bussi and Parrinello, Comput. Phys. Commun. 179, 26 (2008).
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch

from conservbench.dynamics.md_state import MDState
from conservbench.dynamics.noise import Noise
from conservbench.dynamics.rescaling import degrees_of_freedom, internal_kinetic_energy, rescale
from conservbench.units import BOLTZMANN

_Moving = TypeVar("_Moving", bound=MDState)


def couple(md: _Moving, temperature: float, tau: float, noise: Noise, dt: float) -> _Moving:
    """The bath alone, over ``dt``; a system at rest stays so, as there is nothing to rescale.

    Args:
        md: the batch.
        temperature: K.
        tau: relaxation time of the kinetic energy, internal time.
        noise: its random numbers.
        dt: internal time.
    """
    keep = math.exp(-dt / tau)
    quantum = 0.5 * BOLTZMANN * temperature
    kinetic = internal_kinetic_energy(md)
    others = (degrees_of_freedom(md) - 1.0).tolist()
    normal = noise.normal(md.replica, 1)[:, 0].to(kinetic.device)
    rest = noise.chi_squared(md.replica, others).to(kinetic.device)
    # a^2 K as a sum of squares: the momentum that the noise acts along keeps its memory, the others gain fresh ones
    along = (keep * kinetic).sqrt() + math.sqrt((1.0 - keep) * quantum) * normal
    across = (1.0 - keep) * quantum * rest
    factor = along.sign() * ((along.square() + across) / kinetic).sqrt()
    return rescale(md, torch.where(kinetic > 0.0, factor, 1.0))
