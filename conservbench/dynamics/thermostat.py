"""Thermostats as one interface: half a step of the bath on either side of a propagator that knows no temperature.

The propagator is velocity Verlet or an outer step of r-RESPA. Each bath says what it has added to the energy, so that a
conserved quantity is exported beside the step: what of it changes is the error of the propagator and the work of forces
that are no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeVar, get_args

from torch import Tensor

from conservbench.dynamics import langevin, nose_hoover, svr
from conservbench.dynamics.integrator import Integrator
from conservbench.dynamics.md_state import MDState
from conservbench.dynamics.noise import Noise

_Moving = TypeVar("_Moving", bound=MDState)

Kind = Literal["langevin", "svr", "nose-hoover"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
CHAIN_LENGTH: Final = 3


@dataclass(frozen=True)
class Thermostat:
    """A heat bath.

    Attributes:
        init: gives ``bath`` of a state its start.
        couple: acts alone over a time (internal): changes momenta, ``heat`` and ``bath``.
        energy: (n_systems,) eV; kinetic + potential energy + this is the conserved quantity.
    """

    init: Callable[[Any], Any]
    couple: Callable[[Any, float], Any]
    energy: Callable[[MDState], Tensor]


def thermostat(
    kind: Kind, temperature: float, tau: float, noise: Noise, *, chain_length: int = CHAIN_LENGTH
) -> Thermostat:
    """A bath of one kind.

    Args:
        kind: ``langevin``, ``svr`` or ``nose-hoover``.
        temperature: K.
        tau: internal time; of momenta for ``langevin``, of the kinetic energy for ``svr``, of the chain for
            ``nose-hoover``.
        noise: its random numbers; a chain draws its start from them.
        chain_length: of a Nosé-Hoover chain.
    """
    if kind == "nose-hoover":
        chain = nose_hoover.Chain(temperature, tau, chain_length)
        return Thermostat(
            init=lambda md: nose_hoover.init(md, chain, noise),
            couple=lambda md, dt: nose_hoover.couple(md, chain, dt),
            energy=lambda md: nose_hoover.energy(md, chain),
        )
    stochastic = {"langevin": langevin.couple, "svr": svr.couple}[kind]
    return Thermostat(
        init=_without_variables,
        couple=lambda md, dt: stochastic(md, temperature, tau, noise, dt),
        energy=lambda md: -md.heat,
    )


def step(md: _Moving, propagate: Callable[[_Moving], _Moving], bath: Thermostat, dt: float) -> _Moving:
    """One step: half a step of the bath, ``propagate`` over ``dt`` (internal time), half a step of the bath."""
    return bath.couple(propagate(bath.couple(md, 0.5 * dt)), 0.5 * dt)


def in_bath(engine: Integrator, bath: Thermostat, dt: float) -> Callable[[Any], Any]:
    """One outer step of an integrator in a bath, a function of the batch; ``dt`` (internal time) is the inner step."""
    return lambda md: step(md, lambda free: engine.step(free, dt), bath, engine.stride * dt)


def _without_variables(md: _Moving) -> _Moving:
    return replace(md, bath=md.bath[:, :0])
