"""The rows that an optimiser moves: three coordinates each, every row belonging to a system of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Which system each row belongs to: the atoms of a batch, and the rows of its cells where those move too.

    Attributes:
        system: (n_rows,), int64, in any order.
        n_systems: systems of the batch.
    """

    system: Tensor
    n_systems: int

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """(n_systems,) scalar products of two vectors (n_rows, 3)."""
        products = (left * right).sum(1)
        return products.new_zeros(self.n_systems).index_add(0, self.system, products)

    def longest(self, vector: Tensor) -> Tensor:
        """(n_systems,) length of the longest row of a vector (n_rows, 3); NaN where a row is not a number."""
        lengths = torch.linalg.vector_norm(vector, dim=1)
        return lengths.new_zeros(self.n_systems).scatter_reduce(0, self.system, lengths, "amax")

    def spread(self, factors: Tensor) -> Tensor:
        """(n_rows, 1) the factor (n_systems,) of each row's own system."""
        return factors[self.system, None]

    def take(self, kept: Tensor) -> tuple[Rows, Tensor]:
        """The rows of some systems, and which rows of these they are.

        Args:
            kept: (n_systems,) bool.

        Returns:
            The rows, their systems numbered from 0 in the same order, and (n_rows,) bool.
        """
        members = kept[self.system]
        numbers = torch.cumsum(kept.long(), 0) - 1
        return Rows(numbers[self.system[members]], int(kept.sum())), members
