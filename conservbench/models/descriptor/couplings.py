"""Which products of one-particle functions are invariant, or vectors, and linearly independent.

A product of up to four functions (s, n, l) of the neighbours - element, radial function, angular momentum - is coupled
by real Wigner 3j symbols along a fixed tree: (12), (12)3 or (12)(34). All intermediate angular momenta of the tree span
all invariants of unlike factors; where factors are alike, some of them are combinations of others, and are left out by
their values at random moments (Dusson et al., J. Comput. Phys. 454, 110946, 2022). Parity is kept: invariants have an
even sum of l, vectors an odd one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import qr

# e3nn 0.4.4 reads a table of constants with torch.load, which holds slices.
torch.serialization.add_safe_globals([slice])


@dataclass(frozen=True, order=True)
class Function:
    """A one-particle function: angular momentum, element of the neighbour, radial function."""

    ell: int
    element: int
    n: int

    @property
    def degree(self) -> int:
        """What it counts in the degree of a product."""
        return self.n + self.ell


@dataclass(frozen=True, order=True)
class Product:
    """A coupled product.

    Attributes:
        factors: in ascending order.
        through: angular momentum that the first two are coupled to; for one factor its own.
    """

    factors: tuple[Function, ...]
    through: int


def products(order: int, degree: int, n_elements: int, rank: int) -> list[Product]:
    """Independent products of one order that transform as a scalar (``rank`` 0) or a vector (``rank`` 1).

    Args:
        order: number of factors, 1 to 4; up to 3 for vectors.
        degree: highest sum of n + l over the factors.
        n_elements: elements of neighbours.
        rank: 0 or 1.
    """
    found: list[Product] = []
    for factors in _multisets(order, degree, n_elements):
        labels = _pattern(factors)
        found.extend(Product(factors, through) for through in _independent(labels, rank))
    return found


def _multisets(order: int, degree: int, n_elements: int) -> Iterator[tuple[Function, ...]]:
    functions = sorted(
        Function(ell, element, n)
        for ell in range(degree + 1)
        for n in range(degree + 1 - ell)
        for element in range(n_elements)
    )

    def grow(start: int, left: int, chosen: tuple[Function, ...]) -> Iterator[tuple[Function, ...]]:
        if len(chosen) == order:
            yield chosen
            return
        for index in range(start, len(functions)):
            if functions[index].degree <= left:
                yield from grow(index, left - functions[index].degree, (*chosen, functions[index]))

    return grow(0, degree, ())


def _pattern(factors: Sequence[Function]) -> tuple[tuple[int, int], ...]:
    """Angular momenta, and which factors are alike: all that independence depends on."""
    names: dict[Function, int] = {}
    return tuple((factor.ell, names.setdefault(factor, len(names))) for factor in factors)


@cache
def _independent(pattern: tuple[tuple[int, int], ...], rank: int) -> tuple[int, ...]:
    ls = [ell for ell, _ in pattern]
    if sum(ls) % 2 != rank:
        return ()
    candidates = _intermediates(ls, rank)
    if len(candidates) < 1 or len(set(pattern)) == len(pattern):
        return candidates
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(4 * len(candidates) + 4):
        moment = {name: generator.normal(size=2 * ell + 1) for ell, name in sorted(set(pattern))}
        moments = [moment[name] for _, name in pattern]
        rows.append(np.stack([_value(ls, moments, through, rank) for through in candidates], axis=-1))
    values = np.concatenate(rows)
    _, triangle, order = qr(values, mode="economic", pivoting=True)
    sizes = np.abs(np.diag(triangle))
    kept = order[: int((sizes > 1e-10 * len(values)).sum())]
    return tuple(candidates[index] for index in sorted(kept))


def _intermediates(ls: Sequence[int], rank: int) -> tuple[int, ...]:
    def meet(one: int, other: int) -> set[int]:
        return set(range(abs(one - other), one + other + 1))

    if len(ls) == 1:
        return (rank,) if ls[0] == rank else ()
    pair = meet(ls[0], ls[1])
    if len(ls) == 2:
        return (rank,) if rank in pair else ()
    if len(ls) == 3:
        return tuple(sorted(through for through in pair if rank in meet(through, ls[2])))
    return tuple(sorted(pair & meet(ls[2], ls[3])))


def _value(ls: Sequence[int], moments: Sequence[NDArray[np.float64]], through: int, rank: int) -> NDArray[np.float64]:
    def couple(one: NDArray[np.float64], other: NDArray[np.float64], target: int) -> NDArray[np.float64]:
        symbol = wigner_3j((len(one) - 1) // 2, (len(other) - 1) // 2, target).numpy()
        return np.einsum("a,b,abc->c", one, other, symbol)

    if len(ls) == 1:
        return moments[0]
    pair = couple(moments[0], moments[1], through)
    if len(ls) == 2:
        return pair
    if len(ls) == 3:
        return couple(pair, moments[2], rank)
    return couple(pair, couple(moments[2], moments[3], through), 0)


@cache
def wigner_3j(l1: int, l2: int, l3: int) -> torch.Tensor:
    """(2 l1 + 1, 2 l2 + 1, 2 l3 + 1) real Wigner 3j symbol of e3nn, float64, of norm one."""
    from e3nn import o3

    from conservbench.process import quiet_loading

    with quiet_loading():
        return o3.wigner_3j(l1, l2, l3, dtype=torch.float64)
