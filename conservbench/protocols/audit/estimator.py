"""How the asymmetry of a Jacobian is estimated: by autograd where the model has it, by finite differences elsewhere.

Both estimators take probes (n_groups, n_probes, n_atoms, 3) and return terms (n_groups, n_probes), independent from
group to group, and both measure their own noise: the same formula for the difference of two evaluations of J that are
equal in exact arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from conservbench.models.base import Model
from conservbench.observables.jacobian import (
    Terms,
    bilinear_terms,
    difference_products,
    jacobian,
    probe_terms,
    products,
    reordered,
)
from conservbench.observables.symmetry import translated
from conservbench.scheme import Channel
from conservbench.state import State


class Estimator(Protocol):
    """Estimates of lambda^2 of one model and channel."""

    @property
    def name(self) -> str:
        """Of the method, for the record."""
        ...

    @property
    def group_size(self) -> int:
        """Probes that make one independent entry."""
        ...

    def terms(self, state: State, probes: Tensor) -> Terms:
        """Terms (n_groups, n_probes) of one system for probes (n_groups, n_probes, n_atoms, 3)."""
        ...

    def floor(self, state: State, probes: Tensor) -> Terms:
        """Terms of the noise of :meth:`terms`, alike."""
        ...

    def matrix(self, state: State) -> Tensor:
        """The whole Jacobian (n_atoms, 3, n_atoms, 3) of one system, eV/Å^2."""
        ...


@dataclass(frozen=True)
class Autograd:
    """J v and J^T v by reverse mode; the noise is that of rounding, seen by reordering the atoms.

    A model that labels its atoms is shifted as a whole in place of that. Noise below the resolution of a double counts
    as that resolution.

    Attributes:
        seed: of the order of the atoms.
    """

    model: Model
    channel: Channel
    atoms_per_batch: int
    seed: np.random.SeedSequence
    name: str = "autograd"
    group_size: int = 1

    def terms(self, state: State, probes: Tensor) -> Terms:
        """See :meth:`Estimator.terms`."""
        forward, reverse = self._products(state, probes.flatten(0, 1))
        return _shaped(probe_terms(forward, reverse), probes)

    def floor(self, state: State, probes: Tensor) -> Terms:
        """See :meth:`Estimator.floor`."""
        vectors = probes.flatten(0, 1)
        rng = np.random.default_rng(self.seed)
        if self.model.labelled:
            again, order = translated(state, rng), torch.arange(state.n_atoms, device=vectors.device)
        else:
            again, order = reordered(state, rng)
        forward, reverse = self._products(state, vectors)
        other_forward, other_reverse = self._products(again, vectors[:, order])
        back = torch.argsort(order)
        noise = probe_terms(other_forward[:, back] - forward, other_reverse[:, back] - reverse)
        scale = probe_terms(forward, reverse).denominator
        resolution = 4.0 * np.finfo(float).eps ** 2 * scale
        return _shaped(Terms(np.maximum(noise.numerator, resolution), scale), probes)

    def matrix(self, state: State) -> Tensor:
        """See :meth:`Estimator.matrix`."""
        return jacobian(self.model, self.channel, state, atoms_per_batch=self.atoms_per_batch)

    def _products(self, state: State, vectors: Tensor) -> tuple[Tensor, Tensor]:
        return products(self.model, self.channel, state, vectors, atoms_per_batch=self.atoms_per_batch)


@dataclass(frozen=True)
class Differences:
    """J v by central differences and bilinear forms; the noise is the change from the plateau's step to the next.

    Attributes:
        step: Å, of the plateau.
        next_step: Å; the change to it holds truncation and rounding alike.
        group_size: every probe is paired with all others of its group.
    """

    model: Model
    channel: Channel
    atoms_per_batch: int
    step: float
    next_step: float
    group_size: int
    name: str = "finite differences"

    def terms(self, state: State, probes: Tensor) -> Terms:
        """See :meth:`Estimator.terms`."""
        return _joined([bilinear_terms(group, self._products(state, group, self.step)) for group in probes])

    def floor(self, state: State, probes: Tensor) -> Terms:
        """See :meth:`Estimator.floor`."""
        parts = []
        for group in probes:
            forward = self._products(state, group, self.step)
            change = bilinear_terms(group, self._products(state, group, self.next_step) - forward)
            parts.append(Terms(change.numerator, bilinear_terms(group, forward).denominator))
        return _joined(parts)

    def matrix(self, state: State) -> Tensor:
        """See :meth:`Estimator.matrix`."""
        n = state.n_atoms
        units = torch.eye(3 * n, dtype=torch.float64).reshape(3 * n, n, 3)
        return self._products(state, units, self.step).reshape(n, 3, n, 3).permute(2, 3, 0, 1)

    def _products(self, state: State, vectors: Tensor, step: float) -> Tensor:
        return difference_products(self.model, self.channel, state, vectors, step, atoms_per_batch=self.atoms_per_batch)


def _shaped(terms: Terms, probes: Tensor) -> Terms:
    shape = tuple(probes.shape[:2])
    return Terms(terms.numerator.reshape(shape), terms.denominator.reshape(shape))


def _joined(parts: list[Terms]) -> Terms:
    return Terms(np.stack([part.numerator for part in parts]), np.stack([part.denominator for part in parts]))
