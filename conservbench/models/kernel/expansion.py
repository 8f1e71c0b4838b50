"""The energy that a trained kernel model is: one sum over the training points, in the space of features.

    E(x) = c + sum_j [e_j k(x, x_j) - jvp(k(x, .), x_j; a_j) - ...]

The tangents J_j a_j of the training points do not depend on x and are taken once; kernels of distances then need two
matrix products a call. Forces are minus its gradient by one reverse pass, so that they are conservative whatever the
coefficients are. Where nothing but forces is wanted, the slope of the sum by the features of x is contracted in the
same way, and the reverse pass is through the descriptor alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.func import jvp

from conservbench.models.kernel.radial import Radial


@dataclass(frozen=True)
class Sources:
    """Terms that centers of the training points contribute.

    Attributes:
        features: (n, n_features), of the centers.
        tangents: (n, n_features), coefficients of their forces, carried to the features.
        charges: (n,), coefficients of their energies, eV; None where no energy was trained on.
    """

    features: Tensor
    tangents: Tensor
    charges: Tensor | None = None


@dataclass(frozen=True)
class Expansion:
    """Energies of rows of features.

    Attributes:
        radial: scalar kernel.
        length: its length scale.
        species: (n,), what a center and a row must share.
        sources: of energies and forces.
        moved: of derivatives of forces along directions: sources, and how they move along each.
    """

    radial: Radial
    length: Tensor
    species: Tensor
    sources: Sources
    moved: tuple[tuple[Sources, Sources], ...] = ()

    @cached_property
    def origin(self) -> Tensor:
        """(n_features,) near the middle of the training points: differences from it round less."""
        return self.sources.features.detach().mean(0)

    @cached_property
    def is_uniform(self) -> bool:
        """Whether all centers are of one species."""
        return bool((self.species == self.species[0]).all())

    def __call__(self, features: Tensor, species: Tensor) -> Tensor:
        """(n_rows,) energies in eV of features (n_rows, n_features)."""
        if self.is_uniform:
            return self._of(features, slice(None))
        rows, energies = [], []
        for kind in torch.unique(species):
            mine = torch.nonzero(species == kind)[:, 0]
            rows.append(mine)
            energies.append(self._of(features[mine], self.species == kind))
        return torch.cat(energies)[torch.argsort(torch.cat(rows))]

    def with_slopes(self, features: Tensor, species: Tensor) -> tuple[Tensor, Tensor]:
        """(n_rows,) energies in eV of features (n_rows, n_features), and their derivatives by them, without a graph."""
        if self.moved:
            return self._differentiated(features, species)
        if self.is_uniform:
            return self._tables[0][1].contract(features, self.radial)
        energies, slopes = features.new_zeros(len(features)), torch.zeros_like(features)
        for kind, table in self._tables:
            mine = torch.nonzero(species == kind)[:, 0]
            energies[mine], slopes[mine] = table.contract(features[mine], self.radial)
        return energies, slopes

    @cached_property
    def _tables(self) -> list[tuple[int, _Table]]:
        own = self.sources
        tables = []
        for kind in torch.unique(self.species).tolist():
            mine = self.species == kind
            charges = None if own.charges is None else own.charges[mine]
            table = _table(own.features[mine], own.tangents[mine], charges, self.origin, self.length)
            tables.append((kind, table))
        return tables

    def _differentiated(self, features: Tensor, species: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            rows = features.detach().requires_grad_(True)
            energies = self(rows, species)
            return energies.detach(), torch.autograd.grad(energies.sum(), rows)[0]

    def _of(self, features: Tensor, members: slice | Tensor) -> Tensor:
        own = self.sources
        q = features - self.origin
        p = own.features[members] - self.origin
        energies = self._dipoles(q, p, own.tangents[members])
        if own.charges is not None:
            scale = 1.0 / self.length**2
            energies = energies + self.radial.value(scale * _squares(q, p)) @ own.charges[members]
        for start, move in self.moved:
            at = (start.features[members] - self.origin, start.tangents[members])
            along = (move.features[members], move.tangents[members])
            energies = energies + jvp(lambda *terms: self._dipoles(q, *terms), at, along)[1]
        return energies

    def _dipoles(self, q: Tensor, p: Tensor, tangents: Tensor) -> Tensor:
        """(n_rows,) sum over centers of the derivative of their kernel along their tangent."""
        scale = 1.0 / self.length**2
        along = 2.0 * scale * ((p * tangents).sum(1) - q @ tangents.T)
        return (self.radial.slope(scale * _squares(q, p)) * along).sum(1)


@dataclass(frozen=True)
class _Table:
    """Sources of one species in units of the length scale, ready to be contracted.

    Attributes:
        origin: (n_features,), what features are differences from.
        length: the unit.
        rows: (2 n, n_features), -2 times the features and -2 times the tangents.
        bias: (2 n,), squares of the features and twice their products with the tangents.
        charges: (n,); None where no energy was trained on.
    """

    origin: Tensor
    length: Tensor
    rows: Tensor
    bias: Tensor
    charges: Tensor | None

    def contract(self, features: Tensor, radial: Radial) -> tuple[Tensor, Tensor]:
        """(n_rows,) energies, and their derivatives (n_rows, n_features) by the features."""
        q = (features - self.origin) / self.length
        squares, along = torch.addmm(self.bias, q, self.rows.T).chunk(2, 1)
        u = squares + (q * q).sum(1, keepdim=True)
        slope, curvature = radial.slopes(u)
        energies, by_square = (slope * along).sum(1), curvature * along
        if self.charges is not None:
            energies, by_square = energies + radial.value(u) @ self.charges, by_square + slope * self.charges
        by_q = torch.addmm(2.0 * by_square.sum(1, keepdim=True) * q, torch.cat((by_square, slope), 1), self.rows)
        return energies, by_q / self.length


def _table(features: Tensor, tangents: Tensor, charges: Tensor | None, origin: Tensor, length: Tensor) -> _Table:
    p, t = (features - origin) / length, tangents / length
    rows = -2.0 * torch.cat((p, t))
    bias = torch.cat(((p * p).sum(1), 2.0 * (p * t).sum(1)))
    return _Table(origin, length, rows, bias, charges)


def _squares(q: Tensor, p: Tensor) -> Tensor:
    """(n, m) squared distances of rows (n, n_features) and (m, n_features)."""
    return q.square().sum(1)[:, None] + p.square().sum(1) - 2.0 * (q @ p.T)
