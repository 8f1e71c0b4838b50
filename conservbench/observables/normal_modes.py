"""Normal modes of a structure, and how kinetic energy is spread over them.

Modes are eigenvectors of the dynamical matrix D = -M^(-1/2) (J + J^T)/2 M^(-1/2), with J = df/dr of one force channel:
symmetrised, because a force that is no gradient has no modes of its own. Translations are left out, which leaves
3 N - 3.

In mass-weighted momenta p / sqrt(m) the modes are an orthonormal basis of all motions with the centre of mass at rest.
In equilibrium every vector of such a basis holds k_B T / 2, whatever the potential: that the modes are harmonic ones is
needed to give them a frequency, not for equipartition.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from conservbench.models.base import InvalidPredictionError, Model
from conservbench.observables.jacobian import difference_products, jacobian
from conservbench.scheme import Channel
from conservbench.state import State
from conservbench.units import PICOSECOND

_STEP: Final = 0.005
"""Å, of finite differences: their error is of second order in it, below 0.01 THz for silicon."""


def normal_modes(model: Model, channel: Channel, state: State, *, atoms_per_batch: int = 256) -> tuple[Tensor, Tensor]:
    """Frequencies and vectors of the modes of one system, by autograd if the model is differentiable.

    Args:
        model: any model; by central differences if it is not differentiable.
        channel: the force whose Jacobian is taken.
        state: one system, which should be at rest: at a minimum of the energy.
        atoms_per_batch: atoms evaluated at once.

    Returns:
        Frequencies (3 N - 3,) in THz, ascending, those of imaginary modes as negative numbers; and the mass-weighted
        vectors (3 N - 3, 3 N), orthonormal, one a row, orthogonal to the translations.

    Raises:
        InvalidPredictionError: the Jacobian is not finite.
        ValueError: there is more than one system, or less than two atoms.
    """
    if state.n_systems != 1 or state.n_atoms < 2:
        raise ValueError(f"modes are those of one system of atoms, got {state.n_systems} with {state.n_atoms}")
    size = 3 * state.n_atoms
    if model.differentiable:
        matrix = jacobian(model, channel, state, atoms_per_batch=atoms_per_batch).reshape(size, size)
    else:
        moves = torch.eye(size, dtype=torch.float64).reshape(size, state.n_atoms, 3)
        columns = difference_products(model, channel, state, moves, _STEP, atoms_per_batch=atoms_per_batch)
        matrix = columns.reshape(size, size).T
    matrix = matrix.detach().double()
    if not bool(matrix.isfinite().all()):
        raise InvalidPredictionError(f"the Jacobian of the {channel} forces is not finite")
    roots = state.masses.sqrt().repeat_interleave(3)
    dynamical = -0.5 * (matrix + matrix.T) / torch.outer(roots, roots)
    basis = _without_translations(state)
    squares, vectors = torch.linalg.eigh(basis @ dynamical @ basis.T)
    frequencies = squares.sign() * squares.abs().sqrt() / (2 * torch.pi) * PICOSECOND
    return frequencies, vectors.T @ basis


def mode_kinetic_energy(momenta: Tensor, masses: Tensor, vectors: Tensor) -> Tensor:
    """Kinetic energy of each mode, eV: they add up to that of the motion without the centre of mass.

    Args:
        momenta: (..., n_atoms, 3) of one system or many alike, internal units.
        masses: (n_atoms,), amu.
        vectors: (n_modes, 3 n_atoms), mass-weighted and orthonormal.

    Returns:
        (..., n_modes).
    """
    weighted = (momenta / masses.sqrt()[:, None]).flatten(-2)
    return 0.5 * (weighted @ vectors.T).square()


def _without_translations(state: State) -> Tensor:
    """(3 N - 3, 3 N) orthonormal basis of what is orthogonal to sqrt(m_i) e_x, e_y, e_z."""
    axes = torch.eye(3, dtype=torch.float64, device=state.masses.device)
    translations = (state.masses.sqrt()[:, None, None] * axes).reshape(-1, 3)
    complete, _ = torch.linalg.qr(translations, mode="complete")
    return complete[:, 3:].T
