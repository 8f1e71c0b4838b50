"""L-BFGS without a line search: quasi-Newton steps from the forces of the last steps. Forces alone, no energy.

The two-loop recursion of Nocedal, Math. Comput. 35, 773 (1980), from a constant diagonal Hessian, with the limit on
the length of a step and the parameters of ASE's ``LBFGS``. Every system of a batch has its own history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from conservbench.dynamics.rows import Rows

MAX_STEP: Final = 0.2
"""Å: of the row that moves farthest; the others are shortened with it."""
MEMORY: Final = 100
"""Steps remembered."""
CURVATURE: Final = 70.0
"""eV/Å^2, of the Hessian before anything is known."""
DAMPING: Final = 1.0


@dataclass(frozen=True)
class Lbfgs:
    """What L-BFGS remembers of a batch, oldest first.

    Attributes:
        rows: whose the rows are.
        coordinates: (n_rows, 3), Å, before the last step; None before the first.
        forces: (n_rows, 3), eV/Å, there.
        steps: (n_remembered, n_rows, 3), Å.
        changes: (n_remembered, n_rows, 3), eV/Å, change of the gradient along each step.
        weights: (n_remembered, n_systems), 1/eV, 1 / (change . step); 0 takes a step out of the history.
    """

    rows: Rows
    coordinates: Tensor | None
    forces: Tensor | None
    steps: Tensor
    changes: Tensor
    weights: Tensor

    def take(self, kept: Tensor) -> Lbfgs:
        """Some systems, by a mask (n_systems,)."""
        rows, members = self.rows.take(kept)
        return Lbfgs(
            rows,
            None if self.coordinates is None else self.coordinates[members],
            None if self.forces is None else self.forces[members],
            self.steps[:, members],
            self.changes[:, members],
            self.weights[:, kept],
        )


def init(rows: Rows) -> Lbfgs:
    """Without history."""
    empty = torch.zeros((0, len(rows.system), 3), dtype=torch.float64, device=rows.system.device)
    return Lbfgs(rows, None, None, empty, empty, empty.new_zeros((0, rows.n_systems)))


def step(lbfgs: Lbfgs, coordinates: Tensor, forces: Tensor) -> tuple[Lbfgs, Tensor]:
    """One step.

    A step along which the force did not change says nothing of the curvature: it is left out, where ASE divides by
    zero.

    Args:
        lbfgs: its memory.
        coordinates: (n_rows, 3), Å, at present.
        forces: (n_rows, 3), eV/Å, there.

    Returns:
        Its memory, and the displacement (n_rows, 3) in Å.
    """
    rows, steps, changes, weights = lbfgs.rows, lbfgs.steps, lbfgs.changes, lbfgs.weights
    if lbfgs.coordinates is not None and lbfgs.forces is not None:
        last, change = coordinates - lbfgs.coordinates, lbfgs.forces - forces
        product = rows.dot(change, last)
        weight = torch.where(product == 0, 0.0, 1 / product)
        steps = torch.cat([steps, last[None]])[-MEMORY:]
        changes = torch.cat([changes, change[None]])[-MEMORY:]
        weights = torch.cat([weights, weight[None]])[-MEMORY:]
    gradient, parts = -forces, []
    for past, change, weight in zip(reversed(steps), reversed(changes), reversed(weights), strict=True):
        parts.append(weight * rows.dot(past, gradient))
        gradient = gradient - rows.spread(parts[-1]) * change
    ascent = gradient / CURVATURE
    for past, change, weight, part in zip(steps, changes, weights, reversed(parts), strict=True):
        ascent = ascent + rows.spread(part - weight * rows.dot(change, ascent)) * past
    longest = rows.longest(ascent)
    shortened = torch.where(longest >= MAX_STEP, MAX_STEP / longest, 1.0)
    move = -DAMPING * rows.spread(shortened) * ascent
    return Lbfgs(rows, coordinates, forces, steps, changes, weights), move
