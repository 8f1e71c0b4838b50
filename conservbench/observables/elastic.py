"""Elastic constants of a crystal, with its atoms relaxed within the strained cell.

With U the energy of positions r (1 + e) + u in the cell h (1 + e), e symmetric, and V the volume at e = 0,

    C = V^-1 [d2U/de de - (d2U/de du) H^-1 (d2U/du de)],    H = d2U/du du without translations.

Forces are f = -dU/du, and with the generalised stress g = dU/de the same is

    C = V^-1 [dg/de - (dg/du) J^-1 (df/de)],    J = df/du,

which also says what a direct force f makes of the only stress that a model has, that of its energy: the atoms follow
the direct force, and the stress is the energy's. C is then not symmetric. The given cell and positions are taken as
they are. Where the stress s is not zero, C is the second derivative of U by e nonetheless; it differs from the
stress-strain coefficients ds/de by terms in s (Barron and Klein, Proc. Phys. Soc. 85, 523, 1965).

Matrices are in Mandel's basis, xx, yy, zz, yz, xz, xy with the shears over sqrt(2), which is orthonormal: a norm of C
is that of the tensor, and the entry 44 is 2 C_yzyz.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from conservbench.models.base import InvalidPredictionError, Model, UnsupportedError, check_support, is_attached
from conservbench.scheme import Channel
from conservbench.state import State, select

_STRAIN_STEP: Final = 1e-3
"""Of finite differences by strain, dimensionless: errors are of second order in it, 1e-4 relative for silicon."""

_MOVE_STEP: Final = 5e-3
"""Å, of finite differences by displacement."""

_SHEAR: Final = math.sqrt(0.5)

_BASIS: Final = (
    ((1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    ((0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)),
    ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    ((0.0, 0.0, 0.0), (0.0, 0.0, _SHEAR), (0.0, _SHEAR, 0.0)),
    ((0.0, 0.0, _SHEAR), (0.0, 0.0, 0.0), (_SHEAR, 0.0, 0.0)),
    ((0.0, _SHEAR, 0.0), (_SHEAR, 0.0, 0.0), (0.0, 0.0, 0.0)),
)
"""Mandel's orthonormal basis of the symmetric tensors."""


def elastic_constants(model: Model, channel: Channel, state: State, *, atoms_per_batch: int = 512) -> Tensor:
    """Elastic constants at the given cell and positions; a primitive cell gives those of any of its supercells.

    Exact where the model is differentiable, and then differentiable in its parameters, in positions and in the cell, as
    far as these require a gradient; by central differences of stress and forces otherwise.

    Args:
        model: any model with an energy or a stress.
        channel: the force that relaxes the atoms.
        state: one crystal.
        atoms_per_batch: several derivatives are taken at once, in copies of the crystal up to this number of atoms.

    Returns:
        (6, 6) in Mandel's basis, eV/Å^3; not symmetric for direct forces.

    Raises:
        ValueError: there is more than one system, or it is not periodic in all directions.
        UnsupportedError: the model lacks the channel, an element, or an energy.
        InvalidPredictionError: the energy is detached from the positions or the cell, a derivative is not finite, or
            the crystal has a mode besides the translations that costs no force.
    """
    if state.n_systems != 1 or not bool(state.pbc.all()):
        raise ValueError("elastic constants are those of one system that is periodic in all directions")
    check_support(model, state, (channel,))
    copies = max(1, atoms_per_batch // state.n_atoms)
    if model.differentiable:
        response = _by_autograd(model, channel, state, copies)
    else:
        response = _by_differences(model, channel, state, copies)
    if not bool(response.isfinite().all()):
        raise InvalidPredictionError(f"derivatives of the stress or of the {channel} forces are not finite")
    stress, forces = response[:6], response[6:]
    basis = _without_translations(state)
    pulls, stiffness = basis.T @ forces[:, :6], basis.T @ forces[:, 6:] @ basis
    moves, singular = torch.linalg.solve_ex(stiffness, pulls)
    if bool(singular):
        raise InvalidPredictionError(f"the {channel} forces do not hold the atoms in place")
    return (stress[:, :6] - stress[:, 6:] @ basis @ moves) / state.volume[0]


def constants_of_strains(model: Model, state: State, force_constants: Tensor, step: float = _STRAIN_STEP) -> Tensor:
    """Elastic constants of gradient forces whose force constants are known: by twelve strained cells.

    What elastic_constants finds by 6 + 3 n derivatives, where forces cost more than symmetry: the stress that a
    displacement makes is the force that a strain makes.

    Args:
        model: any with a stress.
        state: one crystal.
        force_constants: (n_atoms, n_atoms, 3, 3) of it, eV/Å^2.
        step: strain of the cells, either way.

    Returns:
        (6, 6) in Mandel's basis, eV/Å^3.

    Raises:
        UnsupportedError: the model has no stress or gradient forces.
        InvalidPredictionError: the force constants do not hold the atoms in place.
    """
    size = 3 * state.n_atoms
    steps = torch.nn.functional.pad(step * torch.eye(6, dtype=state.positions.dtype), (0, size))
    columns = _columns(model, "gradient", state, steps.to(state.positions.device), 1)
    basis = _without_translations(state)
    pulls = basis.T @ columns[6:]
    stiffness = basis.T @ force_constants.transpose(1, 2).reshape(size, size) @ basis
    moves, singular = torch.linalg.solve_ex(stiffness, pulls)
    if bool(singular):
        raise InvalidPredictionError("the force constants do not hold the atoms in place")
    return (columns[:6] - pulls.T @ moves) / state.volume[0]


def cubic_constants(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """C11, C12 and C44 of a cubic crystal along the axes, averaged over directions.

    Args:
        matrix: (..., 6, 6) in Mandel's basis; any unit.

    Returns:
        Three tensors (...), in the same unit.
    """
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    along = diagonal[..., :3].mean(-1)
    across = (matrix[..., :3, :3].sum((-2, -1)) - 3.0 * along) / 6.0
    return along, across, 0.5 * diagonal[..., 3:].mean(-1)


def mandel_of_cubic(C11: float, C12: float, C44: float) -> Tensor:
    """(6, 6) Mandel matrix of a cubic crystal along the axes, in the unit of its constants."""
    matrix = torch.diag(torch.tensor([C11 - C12] * 3 + [2.0 * C44] * 3, dtype=torch.float64))
    matrix[:3, :3] += C12
    return matrix


def hexagonal_constants(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """C11, C12, C13, C33 and C44 of a hexagonal crystal with its axis along z, averaged over directions across it.

    C66 is (C11 - C12) / 2 by symmetry, and takes part in the average.

    Args:
        matrix: (..., 6, 6) in Mandel's basis; any unit.

    Returns:
        Five tensors (...), in the same unit.
    """
    plane = matrix[..., :2, :2]
    # C11 + C12, and C11 - C12 of both shears within the plane
    pressed = 0.5 * plane.sum((-2, -1))
    sheared = 0.5 * (plane.diagonal(dim1=-2, dim2=-1).sum(-1) - pressed + matrix[..., 5, 5])
    across = 0.25 * (matrix[..., :2, 2].sum(-1) + matrix[..., 2, :2].sum(-1))
    upright = 0.25 * (matrix[..., 3, 3] + matrix[..., 4, 4])
    return 0.5 * (pressed + sheared), 0.5 * (pressed - sheared), across, matrix[..., 2, 2], upright


def mandel_of_hexagonal(C11: float, C12: float, C13: float, C33: float, C44: float) -> Tensor:
    """(6, 6) Mandel matrix of a hexagonal crystal with its axis along z, in the unit of its constants."""
    diagonal = [C11, C11, C33, 2.0 * C44, 2.0 * C44, C11 - C12]
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    matrix[0, 1] = matrix[1, 0] = C12
    matrix[:2, 2] = matrix[2, :2] = C13
    return matrix


def _by_autograd(model: Model, channel: Channel, state: State, copies: int) -> Tensor:
    """(6 + 3 n, 6 + 3 n) derivatives of (g, f) by (e, u): each row in a copy of its own, all by one reverse pass."""
    rows = torch.arange(6 + 3 * state.n_atoms, device=state.positions.device).split(copies)
    keep = torch.is_grad_enabled() and is_attached(model, state)
    with torch.enable_grad():
        return torch.cat([_rows_by_autograd(model, channel, state, chosen, keep=keep) for chosen in rows])


def _rows_by_autograd(model: Model, channel: Channel, state: State, rows: Tensor, *, keep: bool) -> Tensor:
    strain = state.positions.new_zeros((len(rows), 6), requires_grad=True)
    moves = state.positions.new_zeros((len(rows), 3 * state.n_atoms), requires_grad=True)
    # what is asked of the model itself: its gradient forces are the derivatives taken below
    direct = tuple(name for name in (channel,) if name == "direct")
    said = model.evaluate(_deformed(state, strain, moves), forces=direct, graph=True)
    if said.energy is None:
        raise UnsupportedError("the model has no energy, and so no stress")
    if not said.energy.requires_grad:
        raise InvalidPredictionError("the energy is detached from positions and cell under graph=True")
    slopes = torch.autograd.grad(said.energy.sum(), (strain, moves), create_graph=True, materialize_grads=True)
    forces = said.forces["direct"].reshape(len(rows), -1) if direct else -slopes[1]
    wanted = torch.cat((slopes[0], forces), dim=1)[torch.arange(len(rows), device=rows.device), rows].sum()
    return torch.cat(torch.autograd.grad(wanted, (strain, moves), create_graph=keep, materialize_grads=True), dim=1)


def _by_differences(model: Model, channel: Channel, state: State, copies: int) -> Tensor:
    size = 3 * state.n_atoms
    steps = state.positions.new_tensor([_STRAIN_STEP] * 6 + [_MOVE_STEP] * size).diag()
    return _columns(model, channel, state, steps, copies)


def _columns(model: Model, channel: Channel, state: State, steps: Tensor, copies: int) -> Tensor:
    """(6 + 3 n, k) derivatives of (g, f) along k steps (k, 6 + 3 n), each of one strain or one displacement."""
    sides = []
    for signed in (steps, -steps):
        parts = []
        for chunk in signed.split(copies):
            moved = _deformed(state, chunk[:, :6], chunk[:, 6:])
            said = model.evaluate(moved, forces=(channel,), stress=True)
            if said.stress is None:
                raise UnsupportedError("the model has no stress")
            # s is the derivative by a strain on top of e, which is (1 + e)^-1 de
            inverse = torch.linalg.inv(_identity(state) + _tensors(chunk[:, :6]))
            slopes = torch.einsum("bij,bjk,mki->bm", said.stress, inverse, _basis(state)) * moved.volume[:, None]
            parts.append(torch.cat((slopes, said.forces[channel].reshape(len(chunk), -1)), dim=1))
        sides.append(torch.cat(parts))
    return ((sides[0] - sides[1]) / (2.0 * steps.sum(1)[:, None])).T


def _deformed(state: State, strain: Tensor, moves: Tensor) -> State:
    """Copies of one system with strains (n, 6) and displacements (n, 3 n_atoms): r (1 + e) + u in h (1 + e)."""
    batch = select(state, [0] * len(strain))
    tensors = _tensors(strain)
    stretched = torch.einsum("na,nab->nb", batch.positions, tensors[batch.system])
    return batch.replace(
        positions=batch.positions + stretched + moves.reshape(-1, 3), cell=batch.cell + batch.cell @ tensors
    )


def _tensors(strain: Tensor) -> Tensor:
    return torch.einsum("nm,mab->nab", strain, strain.new_tensor(_BASIS))


def _basis(state: State) -> Tensor:
    return state.positions.new_tensor(_BASIS)


def _identity(state: State) -> Tensor:
    return torch.eye(3, dtype=state.positions.dtype, device=state.positions.device)


def _without_translations(state: State) -> Tensor:
    """(3 n, 3 n - 3) orthonormal basis of the displacements that leave the mean position."""
    translations = _identity(state).repeat(state.n_atoms, 1)
    complete, _ = torch.linalg.qr(translations, mode="complete")
    return complete[:, 3:]
