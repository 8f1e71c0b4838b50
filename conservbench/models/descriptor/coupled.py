"""Evaluate many coupled products at once: moments are coupled in pairs, and pairs serve all products that hold them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from conservbench.models.descriptor.couplings import Function, Product, wigner_3j

Channel = Callable[[Function], int]
"""Where the moments of a function stand among those of its angular momentum."""


@dataclass(frozen=True)
class _Pairing:
    """Moments of l1 and l2 that are coupled to one angular momentum.

    Attributes:
        l1: of the first.
        l2: of the second.
        first: (n,) channels of the first.
        second: (n,) channels of the second.
        symbol: ((2 l1 + 1) (2 l2 + 1), 2 L + 1) real Wigner 3j symbol.
    """

    l1: int
    l2: int
    first: Tensor
    second: Tensor
    symbol: Tensor


@dataclass(frozen=True)
class _Group:
    """Products of one number of factors, with the same angular momenta before the last coupling.

    Attributes:
        order: number of factors.
        left: angular momentum of the first part: a moment for one or two factors, a coupled pair for more.
        right: of the second part: a moment for two or three factors, a coupled pair for four.
        first: (n,) channels or rows of the first part.
        second: (n,) likewise of the second.
        symbol: ((2 left + 1) (2 right + 1), 3) to couple both to a vector; None for an invariant, their dot product.
    """

    order: int
    left: int
    right: int
    first: Tensor
    second: Tensor
    symbol: Tensor | None


class CoupledProducts:
    """Evaluates coupled products of one rank.

    Args:
        wanted: the products.
        channel: where a function's moments stand.
        rank: 0 for invariants, 1 for vectors.

    Attributes:
        products: in the order in which they are evaluated.
    """

    def __init__(self, wanted: Sequence[Product], channel: Channel, rank: int) -> None:
        self.products = sorted(wanted, key=lambda product: (*_key(product), product))
        self.rank = rank
        rows: dict[int, dict[tuple[Function, ...], int]] = defaultdict(dict)

        def row(through: int, pair: tuple[Function, ...]) -> int:
            return rows[through].setdefault(pair, len(rows[through]))

        # rows are in the order of pairings: pairs are sorted by angular momenta before they are numbered
        for through, pairs in _pairs(self.products, rank).items():
            for pair in sorted(pairs, key=lambda pair: (pair[0].ell, pair[1].ell, pair)):
                row(through, pair)
        self._pairings = {through: _pairings(through, list(pairs), channel) for through, pairs in rows.items()}
        self._groups = []
        for (order, through, last), members in groupby(self.products, key=_key):
            first, second = [], []
            for factors in (product.factors for product in members):
                coupled = order > 2 or (order == 2 and rank == 1)
                first.append(row(through, factors[:2]) if coupled else channel(factors[0]))
                second.append(row(through, factors[2:]) if order == 4 else channel(factors[-1]))
            left = through if order > 2 or rank == 1 else last
            right = through if order == 4 else last
            symbol = wigner_3j(left, right, 1).flatten(0, 1) if (order, rank) == (3, 1) else None
            self._groups.append(_Group(order, left, right, torch.tensor(first), torch.tensor(second), symbol))

    def __call__(self, moments: Sequence[Tensor]) -> Tensor:
        """(n_atoms, n_products) invariants, or (n_atoms, n_products, 3) vectors.

        Args:
            moments: by angular momentum, (n_atoms, n_channels, 2 l + 1).
        """
        coupled = {
            through: torch.cat([_couple(pairing, moments) for pairing in pairings], dim=1)
            for through, pairings in self._pairings.items()
        }
        parts = []
        for group in self._groups:
            if group.order == 1:
                parts.append(moments[self.rank][:, group.first])
            elif group.order == 2 and self.rank == 1:
                parts.append(coupled[1][:, group.first])
            else:
                left = (moments if group.order == 2 else coupled)[group.left][:, group.first]
                right = (coupled if group.order == 4 else moments)[group.right][:, group.second]
                if group.symbol is None:
                    parts.append((left * right).sum(-1, keepdim=True))
                else:
                    outer = (left[..., :, None] * right[..., None, :]).flatten(2)
                    parts.append(outer @ group.symbol.to(outer))
        if not parts:
            return moments[0].new_zeros((len(moments[0]), 0, 2 * self.rank + 1))
        return torch.cat(parts, dim=1)


def _key(product: Product) -> tuple[int, int, int]:
    order = len(product.factors)
    return order, product.through, 0 if order == 4 else product.factors[-1].ell


def _pairs(wanted: Sequence[Product], rank: int) -> dict[int, set[tuple[Function, ...]]]:
    found: dict[int, set[tuple[Function, ...]]] = defaultdict(set)
    for product in wanted:
        order = len(product.factors)
        if order > 2 or (order == 2 and rank == 1):
            found[product.through].add(product.factors[:2])
        if order == 4:
            found[product.through].add(product.factors[2:])
    return found


def _pairings(through: int, pairs: Sequence[tuple[Function, ...]], channel: Channel) -> list[_Pairing]:
    found = []
    for (l1, l2), members in groupby(pairs, key=lambda pair: (pair[0].ell, pair[1].ell)):
        channels = torch.tensor([[channel(function) for function in pair] for pair in members])
        symbol = wigner_3j(l1, l2, through).flatten(0, 1)
        found.append(_Pairing(l1, l2, channels[:, 0], channels[:, 1], symbol))
    return found


def _couple(pairing: _Pairing, moments: Sequence[Tensor]) -> Tensor:
    first = moments[pairing.l1][:, pairing.first]
    second = moments[pairing.l2][:, pairing.second]
    outer = (first[..., :, None] * second[..., None, :]).flatten(2)
    return outer @ pairing.symbol.to(outer)
