"""Elastic constants and force constants of the crystal, at the lattice constant of the reference.

Every atom of the ideal crystal is at rest by symmetry whatever the parameters are, so that nothing needs to be relaxed:
the derivatives of the energy that the constants are made of are differentiated once more as they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor

from conservbench.models.base import Tunable
from conservbench.outcome import Outcome
from conservbench.training.route import Sensitivity
from conservbench.training.terms import Forgetful


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
    cell = from_atoms(reference.primitive, device=model.device)
    wanted = mandel_of_cubic(*reference.elastic).to(model.device) * GIGAPASCAL
    return Crystal(
        "elastic",
        model,
        lambda tuned: elastic_constants(tuned, scheme.mean_channel, cell),
        wanted,
        weight=weight,
        # rows of the response, differentiated twice
        evaluations=4.0 * (6 + 3 * len(reference.primitive)) * len(reference.primitive) / 64,
    )
