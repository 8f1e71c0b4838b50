"""The pressure: momentum carried by moving atoms, and by the forces between them."""

from __future__ import annotations

from torch import Tensor

from conservbench.observables.temperature import kinetic_energy
from conservbench.state import State
from conservbench.units import GIGAPASCAL


def pressure(state: State, stress: Tensor) -> Tensor:
    """Instantaneous pressure P = (2 K - V tr s) / 3 V, whose mean is that of the barostat's wall (virial theorem).

    The kinetic part is that of all momenta, N - 1 times k_B T / V where the centre of mass is at rest; a state with
    momenta of zero has the pressure of its atoms held in place.

    Args:
        state: periodic systems.
        stress: (n_systems, 3, 3) s, eV/Å^3, positive under tension: the derivative of the potential energy by a
            symmetric strain, over the volume (:class:`conservbench.models.base.Prediction`).

    Returns:
        (n_systems,) GPa, positive under compression; differentiable in momenta, cell and stress.
    """
    traces = stress.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (2.0 * kinetic_energy(state) / state.volume - traces) / (3.0 * GIGAPASCAL)
