"""How far a force breaks the symmetries of physics: rotation, translation, permutation, net force and net torque.

For the first three, a transformed system and the force it should have are compared with what the model says of it. The
last two are sums that vanish for the gradient of an energy without a preferred place or direction (Noether), and that a
direct force need not bring to zero.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from conservbench.models.base import Model
from conservbench.scheme import Channel
from conservbench.state import State, to_atoms


def forces_of(model: Model, channel: Channel, state: State) -> Tensor:
    """(n_atoms, 3) forces of one channel, eV/Å."""
    return model.evaluate(state, forces=(channel,)).forces[channel].double()


def rms(vectors: Tensor) -> float:
    """Root mean square length of vectors (n, 3)."""
    return float(vectors.square().sum(-1).mean().sqrt())


def deviation(model: Model, channel: Channel, state: State, expected: Tensor) -> float:
    """Rms over atoms of the difference between the forces of a system and those expected (n_atoms, 3), eV/Å."""
    return rms(forces_of(model, channel, state) - expected)


def rotated(state: State, rng: np.random.Generator) -> tuple[State, Tensor]:
    """Positions and cells turned by one random proper rotation.

    Returns:
        The state, and the matrix (3, 3) that turns row vectors: expected forces are ``forces @ matrix``.
    """
    turn = torch.as_tensor(Rotation.random(None, rng).as_matrix(), device=state.positions.device)
    return state.replace(positions=state.positions @ turn, cell=state.cell @ turn), turn


def translated(state: State, rng: np.random.Generator) -> State:
    """All atoms moved by one random vector of some Å; forces are expected to stay."""
    shift = torch.as_tensor(rng.normal(scale=3.0, size=3), device=state.positions.device)
    return state.replace(positions=state.positions + shift)


def wrapped(state: State, rng: np.random.Generator) -> State:
    """Each atom moved by its own random whole number of periodic cell vectors; forces are expected to stay."""
    images = torch.as_tensor(rng.integers(-1, 2, (state.n_atoms, 3)), device=state.positions.device)
    periodic = (images * state.pbc[state.system]).to(state.cell)
    moves = torch.einsum("na,nab->nb", periodic, state.cell[state.system])
    return state.replace(positions=state.positions + moves)


def permuted(state: State, rng: np.random.Generator) -> tuple[State, Tensor]:
    """The positions of like atoms of one system exchanged at random.

    Returns:
        The state, and order (n_atoms,): expected forces are ``forces[order]``.
    """
    order = torch.arange(state.n_atoms, device=state.positions.device)
    for number in state.numbers.unique():
        like = torch.nonzero(state.numbers == number)[:, 0]
        order[like] = like[torch.as_tensor(rng.permutation(len(like)), device=like.device)]
    return state.replace(positions=state.positions[order]), order


def isolated(state: State) -> State:
    """One system's atoms in vacuum: wrapped into the cell, which is then taken away.

    Torque needs an origin that every atom agrees on; a periodic system has none, the cluster cut from it has.
    """
    (atoms,) = to_atoms(state)
    atoms.wrap()
    return state.replace(
        positions=torch.as_tensor(atoms.positions, device=state.positions.device),
        cell=torch.zeros_like(state.cell),
        pbc=torch.zeros_like(state.pbc),
    )


def net_force(forces: Tensor) -> float:
    """Length of the sum of the forces (n_atoms, 3) of one system, over the number of atoms: eV/Å."""
    return float(forces.sum(0).norm()) / len(forces)


def relative_torque(positions: Tensor, forces: Tensor) -> float:
    """|sum r x f| / sum |r| |f| in [0, 1] of one isolated system, r from its centroid.

    Args:
        positions: (n_atoms, 3), Å.
        forces: (n_atoms, 3), eV/Å.
    """
    arms = positions - positions.mean(0)
    total = torch.linalg.cross(arms, forces).sum(0).norm()
    return float(total / (arms.norm(dim=-1) * forces.norm(dim=-1)).sum())
