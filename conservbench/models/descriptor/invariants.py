"""Moments of the neighbours of an atom, and their products that are invariant, or vectors.

    A_{s n l m} = sum over neighbours j of element s of R_n(r_ij) Y_lm(r_ij),

the atomic cluster expansion of Drautz (Phys. Rev. B 99, 014104, 2019). Plain tensor operations: differentiable to any
order, and forwards.
"""

from __future__ import annotations

import torch
from torch import Tensor

from conservbench.models.descriptor.coupled import CoupledProducts
from conservbench.models.descriptor.couplings import Function, Product, products
from conservbench.models.descriptor.radial import radial_basis
from conservbench.models.descriptor.settings import Basis
from conservbench.neighbors import Pairs
from conservbench.process import quiet_loading

# e3nn compiles its harmonics with TorchScript, whose profiling executor makes first gradients differ from later ones.
torch._C._jit_set_profiling_executor(False)


class Descriptor:
    """Fixed invariants of every atom, and vectors if asked for.

    Args:
        basis: size.
        n_elements: elements of neighbours.

    Attributes:
        basis: size.
        n_elements: elements of neighbours.
        invariants: what each invariant is a product of, in the order of the features; before them stands the constant.
        vectors: likewise of the vectors.
        n_features: the constant and the invariants.
        n_vectors: vectors.
        width: numbers that the moments of one element of neighbours take.
    """

    def __init__(self, basis: Basis, n_elements: int) -> None:
        self.basis = basis
        self.n_elements = n_elements
        invariants = _all_products(basis.degrees, n_elements, 0)
        vectors = _all_products(basis.vector_degrees, n_elements, 1)
        used = {(f.ell, f.n) for product in (*invariants, *vectors) for f in product.factors}
        top = max((ell for ell, _ in used), default=0)
        self._radials = [1 + max((n for ell, n in used if ell == each), default=-1) for each in range(top + 1)]
        self.width = sum(n * (2 * ell + 1) for ell, n in enumerate(self._radials))
        self._radial = radial_basis(max(self._radials), basis.cutoff, basis.length)
        self._invariant = CoupledProducts(invariants, self._channel, 0)
        self._vector = CoupledProducts(vectors, self._channel, 1)
        self.invariants: list[Product] = self._invariant.products
        self.vectors: list[Product] = self._vector.products
        self.n_features = 1 + len(self.invariants)
        self.n_vectors = len(self.vectors)
        from e3nn import o3

        with quiet_loading():
            self._harmonics = o3.SphericalHarmonics(list(range(top + 1)), normalize=False, normalization="integral")

    def one_particle(self, vectors: Tensor) -> Tensor:
        """(n_pairs, width) products R_n Y_lm of pair vectors (n_pairs, 3) in Å."""
        distance = torch.linalg.vector_norm(vectors, dim=-1)
        radial = self._radial(distance)
        harmonics = self._harmonics(vectors / distance[:, None])
        parts = []
        for ell, n in enumerate(self._radials):
            angular = harmonics[:, ell * ell : (ell + 1) ** 2]
            parts.append((radial[:, :n, None] * angular[:, None, :]).flatten(1))
        return torch.cat(parts, dim=1)

    def moments(self, values: Tensor, pairs: Pairs, species: Tensor) -> Tensor:
        """(n_atoms, n_elements * width) moments: sums of one-particle values over the neighbours.

        Args:
            values: (n_pairs, width).
            pairs: of the batch.
            species: (n_atoms,) index of the element of each atom.
        """
        rows = pairs.first * self.n_elements + species[pairs.second]
        sums = values.new_zeros((len(species) * self.n_elements, self.width)).index_add(0, rows, values)
        return sums.view(len(species), self.n_elements * self.width)

    def features(self, moments: Tensor) -> Tensor:
        """(n_atoms, n_features): one, and the invariants, of moments (n_atoms, n_elements * width)."""
        values = self._invariant(self._by_l(moments))[..., 0]
        return torch.cat((torch.ones_like(moments[:, :1]), values), dim=1)

    def vector_features(self, moments: Tensor) -> Tensor:
        """(n_atoms, n_vectors, 3) vectors of moments (n_atoms, n_elements * width)."""
        return self._vector(self._by_l(moments))

    def _by_l(self, moments: Tensor) -> list[Tensor]:
        """Per l, (n_atoms, n_elements * n_radial, 2 l + 1)."""
        table = moments.view(len(moments), self.n_elements, self.width)
        parts, start = [], 0
        for ell, n in enumerate(self._radials):
            size = n * (2 * ell + 1)
            parts.append(table[:, :, start : start + size].reshape(len(moments), self.n_elements * n, 2 * ell + 1))
            start += size
        return parts

    def _channel(self, function: Function) -> int:
        return function.element * self._radials[function.ell] + function.n


def _all_products(degrees: tuple[int, ...], n_elements: int, rank: int) -> list[Product]:
    return [product for order, degree in enumerate(degrees, 1) for product in products(order, degree, n_elements, rank)]
