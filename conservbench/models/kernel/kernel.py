"""A kernel of structures, and what is trained with it: points, coefficients and the matrix between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from conservbench.models.kernel.covariance import with_directions
from conservbench.models.kernel.descriptors import Descriptor
from conservbench.models.kernel.expansion import Expansion, Sources
from conservbench.models.kernel.jets import Jets, alike, jets_of
from conservbench.models.kernel.radial import Radial
from conservbench.state import State

_NUMBERS_AT_ONCE = 2e7
"""Bounds the intermediate arrays of a block of the matrix."""


@dataclass(frozen=True)
class Kernel:
    """A kernel of structures: k(x, x') = kappa(|phi(x) - phi(x')|^2 / l^2), averaged over permutations of x'.

    Under a local descriptor it is summed over pairs of atoms of one element, and there are no permutations.

    Attributes:
        descriptor: phi.
        learned: parameters of phi that are tensors.
        radial: kappa.
        length: l, a scalar tensor.
        permutations: a group of permutations of the atoms, the identity among them.
    """

    descriptor: Descriptor
    learned: Mapping[str, Tensor]
    radial: Radial
    length: Tensor
    permutations: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Points:
    """Structures, and the directions along which derivatives of their forces are taken.

    Attributes:
        state: the structures.
        directions: (n_directions, n_atoms, 3), one of each structure.
        has_energies: whether their energies count.
    """

    state: State
    directions: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 3, dtype=torch.float64))
    has_energies: bool = False

    @property
    def widths(self) -> list[int]:
        """Numbers that each structure stands for, in the order: energy, forces, derivatives of forces."""
        return [int(self.has_energies) + 3 * int(n) * (1 + len(self.directions)) for n in self.state.counts]


@dataclass(frozen=True)
class Part:
    """Structures whose jets were taken together: their places, and jets for each permutation."""

    first: int
    jets: list[tuple[Jets, list[Jets]]]


def matrix(kernel: Kernel, rows: Points, columns: Points | None = None) -> Tensor:
    """Covariance of what two sets of points stand for, (sum of widths, sum of widths).

    Args:
        kernel: the kernel.
        rows: points.
        columns: other points; None for the symmetric matrix of the rows.
    """
    others = rows if columns is None else columns
    there = parts_of(kernel, others, permuted=True)
    shared = columns is None and not kernel.permutations
    here = there if shared else parts_of(kernel, rows, permuted=False)
    whole = rows.state.positions.new_empty(sum(rows.widths), sum(others.widths))
    energies = (rows.has_energies, others.has_energies)
    start = 0
    for part in there:
        for k in range(len(part.jets[0][0].features)):
            index = part.first + k
            one = _gathered([(_pick(jets, [k]), [_pick(m, [k]) for m in moves]) for jets, moves in part.jets])
            skip = index if columns is None else 0
            pieces = [_strip(kernel, each, one, skip, energies) for each in here]
            strip = torch.cat([piece for piece in pieces if len(piece)])
            end = start + others.widths[index]
            # one copy in memory: what lies above the diagonal is what was made below it
            whole[len(whole) - len(strip) :, start:end] = strip
            if columns is None:
                whole[start:end, end:] = strip[end - start :].T
            start = end
    return whole


def _strip(kernel: Kernel, part: Part, one: tuple[Jets, list[Jets]], skip: int, energies: tuple[bool, bool]) -> Tensor:
    """Rows of the structures of a part, but for those before ``skip``, and columns of one structure."""
    jets, moves = part.jets[0]
    n = len(jets.features)
    chosen = list(range(max(0, skip - part.first), n))
    weight = (jets.species[:, None] == one[0].species).to(jets.features.dtype) / max(1, len(kernel.permutations))
    a, b, d = len(jets.species), len(one[0].species), jets.features.shape[-1]
    x, y = jets.slopes.shape[-1], one[0].slopes.shape[-1]
    moved = (1 + len(moves)) * (1 + len(one[1]))
    step = max(1, int(_NUMBERS_AT_ONCE / (moved * (a * b * (d + x + y) + a * d * y))))
    pieces = []
    for start in range(0, len(chosen), step):
        some = chosen[start : start + step]
        here = (_pick(jets, some), [_pick(move, some) for move in moves])
        made = with_directions(kernel.radial, kernel.length, here, one, weight)
        made = made[:, int(not energies[0]) :, int(not energies[1]) :]
        pieces.append(made.reshape(-1, made.shape[-1]))
    return torch.cat(pieces) if pieces else jets.features.new_zeros(0, 0)


def expansion(
    kernel: Kernel, points: Points, coefficients: tuple[Tensor | None, Tensor, Tensor], parts: Sequence[Part]
) -> Expansion:
    """The energy that points with coefficients make.

    Args:
        kernel: the kernel.
        points: the structures.
        coefficients: of energies (n_structures,) or None, of forces (n_atoms, 3), and of their derivatives
            (n_directions, n_atoms, 3).
        parts: :func:`parts_of` the points, permuted.
    """
    energies, forces, derivatives = coefficients
    share = 1.0 / max(1, len(kernel.permutations))
    features, tangents, charges, species = [], [], [], []
    moved: list[list[tuple[Sources, Sources]]] = [[] for _ in points.directions]
    first_atom = 0
    for part in parts:
        n_atoms = 0
        for jets, moves in part.jets:
            n, centers, _, width = jets.slopes.shape
            n_atoms = n * width // 3
            mine = slice(first_atom, first_atom + n_atoms)

            features.append(jets.features.flatten(0, 1))
            tangents.append(_carried(jets.slopes, -share * forces[mine]))
            species.append(jets.species.repeat(n))
            if energies is not None:
                own = energies[part.first : part.first + n]
                charges.append(share * own.repeat_interleave(centers))
            for index, move in enumerate(moves):
                weights = -share * derivatives[index, mine]
                moved[index].append(
                    (
                        Sources(features[-1], _carried(jets.slopes, weights)),
                        Sources(move.features.flatten(0, 1), _carried(move.slopes, weights)),
                    )
                )
        first_atom += n_atoms
    sources = Sources(torch.cat(features), torch.cat(tangents), torch.cat(charges) if charges else None)
    return Expansion(
        kernel.radial,
        kernel.length,
        torch.cat(species),
        sources,
        tuple((_joined([s for s, _ in each]), _joined([m for _, m in each])) for each in moved),
    )


def _carried(slopes: Tensor, values: Tensor) -> Tensor:
    """Coefficients (n_atoms, 3) of positions carried to the features of all centers, (n, n_features)."""
    return torch.einsum("gadx,gx->gad", slopes, values.reshape(len(slopes), -1)).flatten(0, 1)


def _joined(parts: Sequence[Sources]) -> Sources:
    return Sources(torch.cat([each.features for each in parts]), torch.cat([each.tangents for each in parts]))


def parts_of(kernel: Kernel, points: Points, *, permuted: bool) -> list[Part]:
    """Jets of points, which coefficients and length scale do not change; with permutations, those of each."""
    parts, first, atom = [], 0, 0
    for state in alike(kernel.descriptor, points.state):
        orders = kernel.permutations if permuted and kernel.permutations else (None,)
        directions = points.directions[:, atom : atom + state.n_atoms] if len(points.directions) else ()
        jets = [_with_moves(kernel, state, order, list(directions)) for order in orders]
        parts.append(Part(first, jets))
        first += state.n_systems
        atom += state.n_atoms
    return parts


def _with_moves(
    kernel: Kernel, state: State, order: Sequence[int] | None, directions: Sequence[Tensor]
) -> tuple[Jets, list[Jets]]:
    moves = []
    for direction in directions:
        _, move = jets_of(kernel.descriptor, kernel.learned, state, order=order, along=direction)
        if move is not None:
            moves.append(move)
    return jets_of(kernel.descriptor, kernel.learned, state, order=order)[0], moves


def _pick(jets: Jets, which: Sequence[int]) -> Jets:
    return Jets(jets.features[which], jets.slopes[which], jets.species)


def _gathered(permuted: list[tuple[Jets, list[Jets]]]) -> tuple[Jets, list[Jets]]:
    """Jets of one structure with its permutations as further centers."""

    def join(parts: Sequence[Jets]) -> Jets:
        return Jets(
            torch.cat([each.features for each in parts], 1),
            torch.cat([each.slopes for each in parts], 1),
            torch.cat([each.species for each in parts]),
        )

    jets = join([each for each, _ in permuted])
    return jets, [join(moves) for moves in zip(*(each for _, each in permuted), strict=True)]
