"""Features of structures and their derivatives by positions, all by ``torch.func``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vmap

from conservbench.models.kernel.descriptors import Descriptor
from conservbench.neighbors import Pairs, find_pairs
from conservbench.state import State, select

_DIRECTIONS_AT_ONCE = 64
"""Bounds the memory of derivatives along many directions."""


@dataclass(frozen=True)
class Jets:
    """Features of the centers of some structures that are alike, with derivatives.

    A center is an atom under a local descriptor; under one of the whole structure there is one.

    Attributes:
        features: (n_structures, n_centers, n_features).
        slopes: (n_structures, n_centers, n_features, 3 n_atoms), derivatives by positions, 1/Å.
        species: (n_centers,), what centers must share to be compared.
    """

    features: Tensor
    slopes: Tensor
    species: Tensor


def features_of(descriptor: Descriptor, learned: Mapping[str, Tensor], state: State, pairs: Pairs | None) -> Features:
    """The function that gives the features of a batch; see :class:`Features`."""
    return Features(descriptor, {**descriptor.fixed, **learned}, state, pairs)


@dataclass(frozen=True)
class Features:
    """Features (n_rows, n_features) of a batch as a function of positions and cell.

    Attributes:
        descriptor: what describes it.
        parameters: of the descriptor, all of them.
        state: the batch; its own positions and cell are not read.
        pairs: neighbours, where the descriptor is local.
    """

    descriptor: Descriptor
    parameters: Mapping[str, Any]
    state: State
    pairs: Pairs | None

    @property
    def system(self) -> Tensor:
        """(n_rows,) system of each row."""
        if self.descriptor.is_local:
            return self.state.system
        return torch.arange(self.state.n_systems, device=self.state.system.device)

    @property
    def species(self) -> Tensor:
        """(n_rows,) what rows must share to be compared."""
        return self.state.numbers if self.descriptor.is_local else torch.zeros_like(self.system)

    def __call__(self, positions: Tensor, cell: Tensor) -> Tensor:
        """Evaluate at positions (n_atoms, 3) and cell (n_systems, 3, 3)."""
        state, function = self.state, self.descriptor.function
        if self.pairs is not None:
            vectors = self.pairs.vectors(positions, cell, state.system)
            return function(vectors, self.pairs.first, self.pairs.second, state.numbers, **self.parameters)
        numbers = state.numbers.view(state.n_systems, -1)[0]

        def one(x: Tensor, h: Tensor, periodic: Tensor) -> Tensor:
            return function(x, numbers, h, periodic, **self.parameters)

        if state.n_systems == 1:
            return one(positions, cell[0], state.pbc[0])[None]
        return vmap(one)(positions.view(state.n_systems, -1, 3), cell, state.pbc)


def jets_of(
    descriptor: Descriptor,
    learned: Mapping[str, Tensor],
    state: State,
    *,
    order: Sequence[int] | None = None,
    along: Tensor | None = None,
) -> tuple[Jets, Jets | None]:
    """Jets of structures that are alike, and their derivative along a direction of each.

    Args:
        descriptor: what describes them.
        learned: its parameters that are tensors.
        state: the structures; one only, where the descriptor is local.
        order: permutation: atom ``order[k]`` is put in place k before the structure is described; derivatives remain
            those by the atoms in their own order.
        along: (n_atoms, 3), a direction of each structure.

    Returns:
        Jets, and their derivative along the direction; None without one.
    """
    n_atoms = state.n_atoms // state.n_systems
    pairs = find_pairs(state, descriptor.cutoff) if descriptor.cutoff is not None else None
    features = features_of(descriptor, learned, state, pairs)
    width = 3 * n_atoms
    basis = torch.eye(width, dtype=state.positions.dtype, device=state.positions.device)
    chosen = torch.arange(n_atoms) if order is None else torch.as_tensor(list(order))

    def rows(positions: Tensor) -> Tensor:
        placed = positions.view(state.n_systems, n_atoms, 3)[:, chosen].reshape(-1, 3)
        return features(placed, state.cell)

    def both(positions: Tensor) -> tuple[Tensor, Tensor]:
        def slope(direction: Tensor) -> Tensor:
            everywhere = direction.view(1, n_atoms, 3).expand(state.n_systems, -1, -1).reshape(-1, 3)
            return jvp(rows, (positions,), (everywhere,))[1]

        return rows(positions), vmap(slope, out_dims=-1, chunk_size=_DIRECTIONS_AT_ONCE)(basis)

    if along is None:
        values, slopes = both(state.positions)
        return _jets(values, slopes, features), None
    (values, slopes), (by_value, by_slope) = jvp(both, (state.positions,), (along,))  # type: ignore[misc]
    return _jets(values, slopes, features), _jets(by_value, by_slope, features)


def _jets(values: Tensor, slopes: Tensor, features: Features) -> Jets:
    n = features.state.n_systems
    return Jets(
        values.view(n, -1, values.shape[-1]),
        slopes.view(n, -1, *slopes.shape[-2:]),
        features.species[: len(features.species) // n],
    )


def alike(descriptor: Descriptor, state: State) -> list[State]:
    """A batch in parts that jets can be taken of at once: all of it; structure by structure where they are local."""
    if not descriptor.is_local:
        return [state]
    return [select(state, [index]) for index in range(state.n_systems)]
