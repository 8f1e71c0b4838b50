"""Elastic constants and force constants of the crystal, at the lattice constant of the reference.

Every atom of the ideal crystal is at rest by symmetry whatever the parameters are, so that nothing needs to be relaxed:
the derivatives of the energy that the constants are made of are differentiated once more as they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, final

import torch
from ase import Atoms
from torch import Tensor

from conservbench.models.base import Tunable
from conservbench.observables.elastic import elastic_constants, mandel_of_cubic
from conservbench.observables.force_constants import force_constants
from conservbench.outcome import Outcome
from conservbench.state import State, from_atoms
from conservbench.training.route import Sensitivity
from conservbench.training.terms import ATOMS, Forgetful
from conservbench.units import GIGAPASCAL

if TYPE_CHECKING:
    from conservbench.references import Reference, Sites
    from conservbench.scheme import Scheme

DIFFERENTIATED: Final = 8.0
"""Evaluations that a second derivative of the energy takes which is differentiated once more."""


@final
class Crystal(Forgetful):
    """The squared distance of a property of a crystal to its reference, over the square of the reference.

    Args:
        name: of the property.
        model: evaluated at the parameters of the step.
        observe: the property of a model, a tensor of any shape.
        wanted: the reference, of the same shape.
        weight: of the loss.
        evaluations: its cost.
    """

    def __init__(
        self,
        name: str,
        model: Tunable,
        observe: Callable[[Tunable], Tensor],
        wanted: Tensor,
        *,
        weight: float,
        evaluations: float,
    ) -> None:
        self.name = name
        self.model = model
        self.observe = observe
        self.wanted = wanted
        self.weight = weight
        self.evaluations = evaluations

    def __call__(self, parameters: Mapping[str, Tensor], step: int) -> Sensitivity:  # noqa: ARG002 - all terms take it
        """See :meth:`conservbench.training.terms.Term.__call__`."""
        leaves = {name: value.detach().requires_grad_(True) for name, value in parameters.items()}
        found = self.observe(self.model.at(leaves))
        loss = self.weight * (found - self.wanted).square().sum() / self.wanted.square().sum()
        slopes = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return Sensitivity(
            Outcome.COMPLETED,
            loss=float(loss.detach()),
            gradient=dict(zip(leaves, slopes, strict=True)),
            record={"evaluations": self.evaluations},
        )


def elastic(model: Tunable, scheme: Scheme, reference: Reference, weight: float) -> Crystal:
    """Elastic constants, of the primitive cell: they are those of any of its supercells."""
    cell = _state(reference.primitive, model)
    n_atoms = cell.n_atoms
    return Crystal(
        "elastic",
        model,
        lambda tuned: elastic_constants(tuned, scheme.mean_channel, cell),
        mandel_of_cubic(*reference.elastic).to(model.device) * GIGAPASCAL,
        weight=weight,
        evaluations=DIFFERENTIATED * (6 + 3 * n_atoms) * n_atoms / ATOMS,
    )


def interatomic(model: Tunable, scheme: Scheme, reference: Reference, weight: float) -> Crystal:
    """Force constants of the supercell of the reference: the rows of the primitive cell's atoms are all there are."""
    wanted = reference.force_constants
    cell = _state(wanted.supercell, model)
    rows = wanted.primitive.tolist()
    return Crystal(
        "force-constants",
        model,
        lambda tuned: force_constants(tuned, scheme.mean_channel, cell, rows),
        torch.as_tensor(wanted.rows, device=model.device),
        weight=weight,
        evaluations=DIFFERENTIATED * 3 * len(rows) * cell.n_atoms / ATOMS,
    )


def _state(sites: Sites, model: Tunable) -> State:
    atoms = Atoms(numbers=sites.numbers, positions=sites.positions, cell=sites.cell, pbc=True)
    return from_atoms(atoms, device=model.device)
