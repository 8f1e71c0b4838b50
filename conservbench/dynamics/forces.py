"""What an integrator asks of a model: the forces of one channel, or of two from one call.

Direct forces come without their net force, which would accelerate the centre of mass and pass for heat. Those of a
gradient are taken as they are. With ``graph=True`` all stay attached to positions and parameters, as from
:meth:`conservbench.models.base.Model.evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from conservbench.models.base import InvalidPredictionError, Model, Prediction
from conservbench.scheme import Channel
from conservbench.state import State, select

Force = Callable[[State], tuple[Tensor, Tensor | None]]
"""Forces (n_atoms, 3) in eV/Å and energies (n_systems,) in eV, or None, of a state."""

FastAndSlow = Callable[[State], tuple[Tensor, Tensor, Tensor | None]]
"""Fast forces (n_atoms, 3), forces that are right on average (n_atoms, 3), and energies of a state."""

REACH: Final = 1e6
"""Å from the origin: an atom beyond has left every liquid and crystal."""


def force_of(model: Model, channel: Channel, *, graph: bool = False) -> Force:
    """The forces of one channel of a model; the direct ones less their mean over the atoms of each system."""

    def direct(state: State) -> tuple[Tensor, Tensor | None]:
        prediction = predict(model, state, ("direct",), graph=graph)
        return without_net_force(state, prediction.forces["direct"]), prediction.energy

    def gradient(state: State) -> tuple[Tensor, Tensor | None]:
        prediction = predict(model, state, ("gradient",), graph=graph)
        return prediction.forces["gradient"], prediction.energy

    return direct if channel == "direct" else gradient


def fast_and_slow_of(model: Model, *, graph: bool = False) -> FastAndSlow:
    """The direct forces, less their net force, as the fast ones and the gradient as the slow ones: one forward pass."""

    def forces(state: State) -> tuple[Tensor, Tensor, Tensor | None]:
        prediction = predict(model, state, ("direct", "gradient"), graph=graph)
        fast = without_net_force(state, prediction.forces["direct"])
        return fast, prediction.forces["gradient"], prediction.energy

    return forces


def without_net_force(state: State, forces: Tensor) -> Tensor:
    """Forces (n_atoms, 3), eV/Å, less their mean over the atoms of each system.

    Raises:
        InvalidPredictionError: they have another shape.
    """
    if forces.shape != state.positions.shape:
        raise InvalidPredictionError(
            f"direct forces have shape {tuple(forces.shape)}, expected {tuple(state.positions.shape)}"
        )
    return forces - (state.sum(forces) / state.counts[:, None])[state.system]


def predict(model: Model, state: State, channels: Sequence[Channel], *, graph: bool = False) -> Prediction:
    """Ask a model about the systems that are still in range; forces and energies of the others are NaN.

    A system with an atom beyond :data:`REACH`, or at a position that is no number, could only harm a neighbour search.
    """
    # NaN compares false, so that it counts as out of range
    if bool(state.positions.abs().max() < REACH):
        return model.evaluate(state, forces=channels, graph=graph)
    astray = ~(state.positions.abs().amax(1) < REACH)
    kept = torch.nonzero(state.sum(astray.double()) == 0)[:, 0].tolist()
    forces = {channel: torch.full_like(state.positions, torch.nan) for channel in channels}
    energy = state.positions.new_full((state.n_systems,), torch.nan)
    if not kept:
        return Prediction(energy, forces)
    part = model.evaluate(select(state, kept), forces=channels, graph=graph)
    members = torch.cat([torch.nonzero(state.system == index)[:, 0] for index in kept])
    forces = {channel: forces[channel].index_copy(0, members, part.forces[channel]) for channel in channels}
    if part.energy is None:
        return Prediction(None, forces)
    chosen = torch.tensor(kept, device=energy.device)
    return Prediction(energy.index_copy(0, chosen, part.energy), forces)
