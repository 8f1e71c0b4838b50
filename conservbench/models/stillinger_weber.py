"""Stillinger-Weber potential for silicon, differentiable in positions, cell and parameters.

    E = sum_{i<j} eps A [B (s/r)^p - (s/r)^q] e^{s/(r - a s)}
      + sum_i sum_{j<k} eps lam (cos th_jik - c0)^2 e^{g s/(r_ij - a s) + g s/(r_ik - a s)},    c0 = -1/3

F. H. Stillinger and T. A. Weber, Phys. Rev. B 31, 5262 (1985).

The square of the cosine turns the sum over triplets into moments of the pairs of an atom: with unit vectors n_j and
h_j = e^{g s/(r_ij - a s)}, sum_{j,k} h_j h_k (n_j . n_k - c0)^2 = |M2|^2 - 2 c0 |M1|^2 + c0^2 M0^2, where M0 = sum h_j,
M1 = sum h_j n_j and M2 = sum h_j n_j n_j^T. No triplet is listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import Tensor

from conservbench.models.classical import ClassicalPotential, decay
from conservbench.neighbors import Pairs

if TYPE_CHECKING:
    from conservbench.cards import ModelCard
    from conservbench.state import State
    from conservbench.systems import System


@dataclass(frozen=True)
class Parameters:
    """Parameters of the potential; the defaults are the original ones for silicon.

    Attributes:
        epsilon: eps, eV.
        sigma: s, Å.
        a: cutoff over sigma.
        lam: strength of the three-body term.
        gamma: g, range of the three-body term.
        A: strength of the pair term.
        B: repulsion of the pair term.
        p: power of the repulsion.
        q: power of the attraction.
        cos0: c0, cosine of the preferred angle.
    """

    epsilon: float = 2.16826
    sigma: float = 2.0951
    a: float = 1.80
    lam: float = 21.0
    gamma: float = 1.20
    A: float = 7.049556277
    B: float = 0.6022245584
    p: float = 4.0
    q: float = 0.0
    cos0: float = -1.0 / 3.0


@dataclass(frozen=True)
class Options(Parameters):
    """Options of a model card: any parameter, and where the potential ends.

    Attributes:
        cutoff: Å, in place of a sigma: the end is kept when sigma changes.
    """

    cutoff: float | None = None


@final
class StillingerWeber(ClassicalPotential):
    """The potential; ``cutoff`` takes the place of a sigma, so that the end is kept while sigma changes."""

    name: ClassVar[str] = "Stillinger-Weber"
    defaults: ClassVar[Mapping[str, float]] = asdict(Parameters())

    def end(self) -> Tensor:
        """See :meth:`ClassicalPotential.end`."""
        a, sigma = self.parameters["a"], self.parameters["sigma"]
        return a * sigma if self.cutoff is None else sigma.new_tensor(self.cutoff)

    def energies(self, positions: Tensor, cell: Tensor, pairs: Pairs, state: State) -> Tensor:
        """See :meth:`ClassicalPotential.energies`."""
        p, end = self.parameters, self.end()
        vectors = pairs.vectors(positions, cell, state.system).to(end.dtype)
        distance = torch.linalg.vector_norm(vectors, dim=-1)
        inside = distance < end
        exponent = decay(distance, end, p["sigma"])
        # exponentials, not powers: torch drops the mixed derivative of x^q by x and q where q is zero
        ratio = torch.log(p["sigma"] / distance)
        shape = p["B"] * torch.exp(p["p"] * ratio) - torch.exp(p["q"] * ratio)
        bond = p["A"] * shape * torch.exp(exponent) * inside
        weight = (torch.exp(p["gamma"] * exponent) * inside)[:, None]
        unit = vectors / distance[:, None]
        weighted = weight * unit
        outer = (weighted[:, :, None] * unit[:, None, :]).flatten(1)
        terms = torch.cat((bond[:, None], weight, weighted, outer, weight.square()), dim=1)
        sums = terms.new_zeros((state.n_atoms, terms.shape[1])).index_add(0, pairs.first, terms)
        bonds, zero, one, two, own = torch.split(sums, [1, 1, 3, 9, 1], dim=1)
        c0 = p["cos0"]
        # the sum over j and k holds each triplet twice, and each j = k once
        twice = two.square().sum(1) - 2 * c0 * one.square().sum(1) + c0**2 * zero[:, 0] ** 2
        angles = twice - (1 - c0) ** 2 * own[:, 0]
        # the list is full: each pair was met from both ends
        return 0.5 * p["epsilon"] * state.sum(bonds[:, 0] + p["lam"] * angles)


def load(card: ModelCard, system: System, *, device: str = "cpu", dtype: str | None = None) -> StillingerWeber:
    """Build the potential of a model card (see :mod:`conservbench.plugins`); its options are :class:`Options`.

    Raises:
        CardError: an option is unknown or no number.
    """
    from conservbench.cards import build

    options = asdict(build(Options, card.options, f"{card.path}: [options]"))
    cutoff = options.pop("cutoff")
    return StillingerWeber(options, cutoff=cutoff, device=device, dtype=getattr(torch, dtype or card.dtype))
