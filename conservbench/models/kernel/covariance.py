"""Covariances between energies, forces and their directional derivatives: the kernel matrix, contracted.

A kernel of energies makes one of all their derivatives. Blocks of forces are d_x d_x' k, of which only the derivatives
of the scalar kernel and of the features enter: the matrix of its derivatives by pairs of features is never made
(Schmitz, Mueller and Chmiela, arXiv 2208.12104). Directional derivatives of forces, which are Hessian-vector products,
need no formula: their blocks are forward derivatives of the block of forces.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import jvp, vmap

from conservbench.models.kernel.jets import Jets
from conservbench.models.kernel.radial import Radial


def block(
    radial: Radial,
    length: Tensor,
    here: tuple[Tensor, Tensor],
    there: tuple[Tensor, Tensor],
    weight: Tensor,
) -> Tensor:
    """Covariance of energy and forces of some structures with those of another.

    Args:
        radial: scalar kernel.
        length: its length scale.
        here: features (G, A, D) and slopes (G, A, D, X) of G structures.
        there: features (B, D) and slopes (B, D, Y) of one structure, all its centers, and permutations.
        weight: (A, B) of pairs of centers.

    Returns:
        (G, 1 + X, 1 + Y); forces are minus derivatives.
    """
    (q, q_slopes), (p, p_slopes) = here, there
    scale = 1.0 / length**2
    apart = q[:, :, None] - p
    u = scale * apart.square().sum(-1)
    value, slope, curvature = (weight * order(u) for order in (radial.value, radial.slope, radial.curvature))
    # derivatives of u by positions
    by_x = 2.0 * scale * torch.einsum("gabd,gadx->gabx", apart, q_slopes)
    by_y = -2.0 * scale * torch.einsum("gabd,bdy->gaby", apart, p_slopes)
    energies = value.sum((1, 2))[:, None]
    to_force = -torch.einsum("gab,gaby->gy", slope, by_y)
    from_force = -torch.einsum("gab,gabx->gx", slope, by_x)
    pulled = torch.einsum("gab,bdy->gady", slope, p_slopes)
    forces = -2.0 * scale * torch.einsum("gadx,gady->gxy", q_slopes, pulled)
    forces = forces + torch.einsum("gabx,gaby->gxy", by_x * curvature[..., None], by_y)
    top = torch.cat((energies, to_force), 1)[:, None]
    return torch.cat((top, torch.cat((from_force[..., None], forces), 2)), 1)


def with_directions(
    radial: Radial,
    length: Tensor,
    here: tuple[Jets, Sequence[Jets]],
    there: tuple[Jets, Sequence[Jets]],
    weight: Tensor,
) -> Tensor:
    """:func:`block` with rows and columns for derivatives of the forces along directions.

    Args:
        radial: scalar kernel.
        length: its length scale.
        here: jets of some structures, and their derivatives along each direction.
        there: jets of one structure, centers and permutations along the second axis, and likewise.
        weight: (A, B) of pairs of centers.

    Returns:
        (G, 1 + X + Q X, 1 + Y + P Y) for Q and P directions.
    """
    x = (here[0].features, here[0].slopes)
    y = (there[0].features[0], there[0].slopes[0])

    def plain(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
        return block(radial, length, a, b, weight)

    def extended(a: tuple[Tensor, Tensor]) -> Tensor:
        own = plain(a, y)
        if not there[1]:
            return own

        def along(*move: Tensor) -> Tensor:
            return jvp(lambda b: plain(a, b), (y,), (move,))[1][:, :, 1:]

        moved = vmap(along)(*(each[:, 0] for each in _stacked(there[1])))
        return torch.cat((own, moved.permute(1, 2, 0, 3).flatten(2)), 2)

    rows = extended(x)
    if not here[1]:
        return rows

    def tilted(*move: Tensor) -> Tensor:
        return jvp(extended, (x,), (move,))[1][:, 1:]

    moved = vmap(tilted)(*_stacked(here[1]))
    return torch.cat((rows, moved.transpose(0, 1).flatten(1, 2)), 1)


def _stacked(moves: Sequence[Jets]) -> tuple[Tensor, Tensor]:
    """Features and slopes of jets, those of each direction along the first axis."""
    return torch.stack([jets.features for jets in moves]), torch.stack([jets.slopes for jets in moves])
