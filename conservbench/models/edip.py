"""Environment-dependent interatomic potential for silicon, differentiable in positions, cell and parameters.

    E_i = sum_{j != i} V2(r_ij, Z_i) + sum_{j<k} V3(r_ij, r_ik, cos th_jik, Z_i),    Z_i = sum_j f(r_ij)
    V2  = A [(B/r)^rho - e^{-beta Z^2}] e^{sigma/(r - a)}
    V3  = lam e^{gamma/(r_ij - a) + gamma/(r_ik - a)} [1 - e^{-Q (l + tau)^2} + eta Q (l + tau)^2],    l = cos th
    Q   = Q0 e^{-mu Z},    tau = u1 + u2 (u3 e^{-u4 Z} - e^{-2 u4 Z})
    f   = 1 for r < c,    e^{alpha/(1 - x^-3)} for c < r < a,    x = (r - c)/(a - c)

M. Z. Bazant, E. Kaxiras and J. F. Justo, Phys. Rev. B 56, 8542 (1997); J. F. Justo, M. Z. Bazant, E. Kaxiras,
V. V. Bulatov and S. Yip, Phys. Rev. B 58, 2539 (1998).
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
    """Parameters of the potential; the defaults are those of Justo et al. for silicon.

    Attributes:
        A: strength of the pair term, eV.
        B: length of the repulsion, Å.
        a: where every term ends, Å.
        c: where the coordination begins to fall, Å.
        alpha: shape of the coordination function.
        beta: how the bond order falls with coordination.
        eta: share of the harmonic angular term.
        gamma: range of the three-body term, Å.
        lam: strength of the three-body term, eV.
        mu: how the angular stiffness falls with coordination.
        rho: power of the repulsion.
        sigma: range of the pair term, Å.
        Q0: angular stiffness.
        u1: preferred angle, first constant of tau.
        u2: second constant of tau.
        u3: third constant of tau.
        u4: fourth constant of tau.
    """

    A: float = 7.9821730
    B: float = 1.5075463
    a: float = 3.1213820
    c: float = 2.5609104
    alpha: float = 3.1083847
    beta: float = 0.0070975
    eta: float = 0.2523244
    gamma: float = 1.1247945
    lam: float = 1.4533108
    mu: float = 0.6966326
    rho: float = 1.2085196
    sigma: float = 0.5774108
    Q0: float = 312.1341346
    u1: float = -0.165799
    u2: float = 32.557
    u3: float = 0.286198
    u4: float = 0.66


@final
class EDIP(ClassicalPotential):
    """The potential."""

    name: ClassVar[str] = "EDIP"
    defaults: ClassVar[Mapping[str, float]] = asdict(Parameters())

    def end(self) -> Tensor:
        """See :meth:`ClassicalPotential.end`."""
        return self.parameters["a"]

    def energies(self, positions: Tensor, cell: Tensor, pairs: Pairs, state: State) -> Tensor:
        """See :meth:`ClassicalPotential.energies`."""
        p, end = self.parameters, self.end()
        vectors = pairs.vectors(positions, cell, state.system).to(end.dtype)
        distance = torch.linalg.vector_norm(vectors, dim=-1)
        inside = distance < end
        # alpha / (1 - x^-3) as alpha x^3 / (x^3 - 1), which is smooth where x is zero
        between = inside & (distance > p["c"])
        cube = torch.where(between, (distance - p["c"]) / (end - p["c"]), torch.zeros_like(distance)) ** 3
        share = torch.exp(p["alpha"] * cube / (cube - 1)) * inside
        coordination = share.new_zeros(state.n_atoms).index_add(0, pairs.first, share)
        order = torch.exp(-p["beta"] * coordination.square())
        stiffness = p["Q0"] * torch.exp(-p["mu"] * coordination)
        fall = torch.exp(-p["u4"] * coordination)
        angle = p["u1"] + p["u2"] * (p["u3"] * fall - fall.square())

        repulsion = (p["B"] / distance) ** p["rho"]
        bond = p["A"] * (repulsion - order[pairs.first]) * torch.exp(decay(distance, end, p["sigma"])) * inside

        left, right = _triplets(pairs.first, state.n_atoms)
        centre = pairs.first[left]
        weight = torch.exp(decay(distance, end, p["gamma"])) * inside
        unit = vectors / distance[:, None]
        away = (unit[left] * unit[right]).sum(-1) + angle[centre]
        harmonic = stiffness[centre] * away.square()
        bend = p["lam"] * weight[left] * weight[right] * (-torch.expm1(-harmonic) + p["eta"] * harmonic)
        local = bond.new_zeros(state.n_atoms).index_add(0, pairs.first, bond).index_add(0, centre, bend)
        return state.sum(local)


def _triplets(first: Tensor, n_atoms: int) -> tuple[Tensor, Tensor]:
    """Indices (left, right) of all couples left < right of pairs that share their first atom; ``first`` is sorted."""
    index = torch.arange(len(first), device=first.device)
    ends = torch.cumsum(torch.bincount(first, minlength=n_atoms), 0)
    later = ends[first] - index - 1
    left = torch.repeat_interleave(index, later)
    starts = torch.cumsum(later, 0) - later
    right = torch.arange(len(left), device=first.device) - starts[left] + left + 1
    return left, right


def load(card: ModelCard, system: System, *, device: str = "cpu", dtype: str | None = None) -> EDIP:
    """Build the potential of a model card (see :mod:`conservbench.plugins`); its options are :class:`Parameters`.

    Raises:
        CardError: an option is unknown or no number.
    """
    from conservbench.cards import build

    options = asdict(build(Parameters, card.options, f"{card.path}: [options]"))
    return EDIP(options, device=device, dtype=getattr(torch, dtype or card.dtype))
