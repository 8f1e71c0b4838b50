"""Nosé-Hoover chain: deterministic friction that thermostats the kinetic energy, and is thermostatted itself.

Each system has a chain of its own, of L variables xi_j with velocities v_j and masses Q_1 = n k_B T tau^2, n = 3 N - 3,
and Q_j = k_B T tau^2:

    dp/dt = -v_1 p,   dv_j/dt = G_j - v_(j+1) v_j,
    G_1 = (2 K - n k_B T) / Q_1,   G_j = (Q_(j-1) v_(j-1)^2 - k_B T) / Q_j.

Kinetic + potential energy + sum_j Q_j v_j^2 / 2 + n k_B T xi_1 + k_B T sum_(j > 1) xi_j is conserved. Martyna, Klein
and Tuckerman, J. Chem. Phys. 97, 2635 (1992); integrated in short steps of fourth order (Suzuki, Yoshida): Martyna,
Tuckerman, Tobias and Klein, Mol. Phys. 87, 1117 (1996).

A chain sees nothing but the kinetic energy: a crystal of equal oscillators, which share no energy, is not ergodic
under it, whatever its length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import torch
from torch import Tensor

from conservbench.dynamics.md_state import MDState
from conservbench.dynamics.noise import Noise
from conservbench.dynamics.rescaling import degrees_of_freedom, internal_kinetic_energy, rescale
from conservbench.state import State
from conservbench.units import BOLTZMANN

_Moving = TypeVar("_Moving", bound=MDState)

_OUTER: Final = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
_WEIGHTS: Final = (_OUTER, 1.0 - 2.0 * _OUTER, _OUTER)
"""Steps of Yoshida's fourth-order composition (Phys. Lett. A 150, 262, 1990)."""

_FINENESS: Final = 0.125
"""Longest step of the chain, in units of tau."""


@dataclass(frozen=True)
class Chain:
    """A chain.

    Attributes:
        temperature: K.
        tau: time scale of the chain, internal time.
        length: L.

    Raises:
        ValueError: the temperature or tau is not positive, or the length is less than 1.
    """

    temperature: float
    tau: float
    length: int

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and self.tau > 0 and self.length >= 1):
            raise ValueError(
                f"temperature {self.temperature}, tau {self.tau} and length {self.length} of a Nosé-Hoover chain: "
                "expected positive numbers, and a length of 1 or more"
            )

    def masses(self, state: State) -> Tensor:
        """(n_systems, L) Q_j."""
        return self.quanta(state) * self.tau**2

    def quanta(self, state: State) -> Tensor:
        """(n_systems, L) what 2 K and each Q_j v_j^2 are on average: n k_B T, k_B T, ..."""
        quantum = BOLTZMANN * self.temperature
        first = quantum * degrees_of_freedom(state)[:, None]
        return torch.cat([first, torch.full_like(first, quantum).expand(-1, self.length - 1)], 1)


def init(md: _Moving, chain: Chain, noise: Noise) -> _Moving:
    """Chains at zero with thermal velocities, which is where canonical systems leave them: ``bath`` is (xi, v)."""
    normal = noise.normal(md.replica, chain.length).to(md.positions.device)
    velocities = (BOLTZMANN * chain.temperature / chain.masses(md)).sqrt() * normal
    return replace(md, bath=torch.cat([torch.zeros_like(velocities), velocities], 1))


def couple(md: _Moving, chain: Chain, dt: float) -> _Moving:
    """The chain alone, over ``dt`` (internal time)."""
    quanta, masses = chain.quanta(md), chain.masses(md)
    twice_kinetic = 2.0 * internal_kinetic_energy(md)
    factor = torch.ones_like(twice_kinetic)
    xi, velocities = (part.clone() for part in md.bath.split(chain.length, 1))
    v = list(velocities.unbind(1))
    q, kT = list(masses.unbind(1)), list(quanta.unbind(1))
    last = chain.length - 1

    def push(j: int, h: float) -> None:
        """v_j over h / 2 under its force and the friction of the next in the chain."""
        energy = twice_kinetic if j == 0 else q[j - 1] * v[j - 1].square()
        gain = 0.5 * h * (energy - kT[j]) / q[j]
        if j == last:
            v[j] = v[j] + gain
        else:
            friction = torch.exp(-0.25 * h * v[j + 1])
            v[j] = (v[j] * friction + gain) * friction

    pieces = math.ceil(dt / (_FINENESS * chain.tau))
    for weight in _WEIGHTS * pieces:
        h = weight * dt / pieces
        for j in reversed(range(chain.length)):
            push(j, h)
        shrink = torch.exp(-h * v[0])
        factor, twice_kinetic = factor * shrink, twice_kinetic * shrink.square()
        xi = xi + h * torch.stack(v, 1)
        for j in range(chain.length):
            push(j, h)
    return rescale(replace(md, bath=torch.cat([xi, torch.stack(v, 1)], 1)), factor)


def energy(md: MDState, chain: Chain) -> Tensor:
    """(n_systems,) energy of the chains in eV: kinetic + potential energy + this is conserved."""
    xi, velocities = md.bath.split(chain.length, 1)
    return (0.5 * chain.masses(md) * velocities.square() + chain.quanta(md) * xi).sum(1)
