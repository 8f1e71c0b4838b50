"""Force constants: second derivatives of the energy by positions, of the atoms that are asked for.

Phi[i, j, a, b] = -d f_ia / d r_jb of one force channel, eV/Å^2. A direct force is no gradient, and its constants are
the symmetric part, -(d f_ia / d r_jb + d f_jb / d r_ia) / 2. In a perfect crystal the constants of the atoms of one
primitive cell are all there are: the others follow by translation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from conservbench.models.base import InvalidPredictionError, Model, check_support, is_attached
from conservbench.observables.jacobian import difference_products
from conservbench.scheme import Channel
from conservbench.state import State, select

_STEP: Final = 0.005
"""Å, of finite differences: their error is of second order in it, below 0.01 THz for silicon."""


def force_constants(
    model: Model, channel: Channel, state: State, atoms: Sequence[int] | None = None, *, atoms_per_batch: int = 512
) -> Tensor:
    """Force constants between some atoms and all.

    Exact where the model is differentiable, and then differentiable in its parameters, in positions and in the cell, as
    far as these require a gradient; by central differences of the forces otherwise.

    Args:
        model: any model.
        channel: the force.
        state: one system.
        atoms: the atoms i; all if not given.
        atoms_per_batch: several derivatives are taken at once, in copies of the system up to this number of atoms.

    Returns:
        (n_selected, n_atoms, 3, 3), eV/Å^2.

    Raises:
        ValueError: there is more than one system.
        UnsupportedError: the model lacks the channel or an element.
        InvalidPredictionError: forces are detached from the positions, or a derivative is not finite.
    """
    if state.n_systems != 1:
        raise ValueError(f"force constants are those of one system, got {state.n_systems}")
    check_support(model, state, (channel,))
    n_atoms = state.n_atoms
    chosen = list(range(n_atoms)) if atoms is None else list(atoms)
    units = _units(state, chosen)
    if model.differentiable:
        slopes = _by_autograd(model, channel, state, units, max(1, atoms_per_batch // n_atoms))
    else:
        slopes = _by_differences(model, channel, state, chosen, atoms_per_batch)
    if not bool(slopes.isfinite().all()):
        raise InvalidPredictionError(f"derivatives of the {channel} forces are not finite")
    return -slopes.reshape(len(chosen), 3, n_atoms, 3).transpose(1, 2)


def matrix_distance(rows: Tensor, reference: Tensor, remainder: float = 0.0) -> Tensor:
    """Frobenius distance of two whole matrices of force constants, from the rows of the atoms of a primitive cell.

    With P the projection on what the symmetry of the crystal leaves, and the H of a model without preferred directions,
    ||H - H_0||^2 = ||H - P H_0||^2 + ||H_0 - P H_0||^2.

    Args:
        rows: (n_selected, n_atoms, 3, 3), of H; the same number of atoms on each site of the primitive cell.
        reference: the same rows of H_0, or of P H_0.
        remainder: ||H_0 - P H_0|| over the whole matrix.

    Returns:
        Scalar, in the unit of the force constants.
    """
    copies = rows.shape[1] / rows.shape[0]
    return (copies * (rows - reference).square().sum() + remainder**2).sqrt()


def _units(state: State, chosen: Sequence[int]) -> Tensor:
    """(3 n_selected, n_atoms, 3) unit displacements of the chosen atoms."""
    units = state.positions.new_zeros((len(chosen), 3, state.n_atoms, 3))
    for index, atom in enumerate(chosen):
        units[index, :, atom] = torch.eye(3, dtype=units.dtype, device=units.device)
    return units.flatten(0, 1)


def _by_autograd(model: Model, channel: Channel, state: State, units: Tensor, copies: int) -> Tensor:
    """(3 n_selected, n_atoms, 3): u J of the unit vectors u; the mean of u J and J u for direct forces."""
    keep = torch.is_grad_enabled() and is_attached(model, state)
    with torch.enable_grad():
        return torch.cat([_products(model, channel, state, chunk, keep=keep) for chunk in units.split(copies)])


def _products(model: Model, channel: Channel, state: State, units: Tensor, *, keep: bool) -> Tensor:
    batch = select(state, [0] * len(units))
    moves = torch.zeros_like(batch.positions, requires_grad=True)
    moved = batch.replace(positions=batch.positions + moves)
    forces = model.evaluate(moved, forces=(channel,), graph=True).forces[channel]
    if not forces.requires_grad:
        raise InvalidPredictionError(f"the {channel} forces are detached from the positions under graph=True")
    vectors = units.reshape(-1, 3)
    if channel == "gradient":
        (rows,) = torch.autograd.grad(forces, moves, vectors, create_graph=keep)
        return rows.reshape(units.shape)
    # u -> u J is linear and its transpose is J: columns come by a reverse pass through that of the rows
    cotangent = torch.zeros_like(forces, requires_grad=True)
    (pulled,) = torch.autograd.grad(forces, moves, cotangent, create_graph=True)
    (columns,) = torch.autograd.grad(pulled, cotangent, vectors, create_graph=keep, retain_graph=True)
    (rows,) = torch.autograd.grad(forces, moves, vectors, create_graph=keep)
    return 0.5 * (rows + columns).reshape(units.shape)


def _by_differences(model: Model, channel: Channel, state: State, chosen: list[int], atoms_per_batch: int) -> Tensor:
    moved = chosen if channel == "gradient" else list(range(state.n_atoms))
    columns = difference_products(model, channel, state, _units(state, moved), _STEP, atoms_per_batch=atoms_per_batch)
    if channel == "gradient":
        return columns
    size = 3 * state.n_atoms
    matrix = columns.reshape(size, size)
    both = 0.5 * (matrix + matrix.T)
    return both.reshape(state.n_atoms, 3, state.n_atoms, 3)[chosen].flatten(0, 1)
