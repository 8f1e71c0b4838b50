"""Terms of a tuning: each gives its part of the loss and of the gradient, and says how that went.

A term may remember something between steps (frames it goes on from); what it remembers can be saved and put back, so
that a tuning that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from torch import Tensor

from conservbench.training.route import Sensitivity

ATOMS: Final = 64
"""Atoms of an evaluation that is counted as one."""


class Term(Protocol):
    """One part of the loss of a tuning.

    Attributes:
        name: of its curve.
    """

    name: str

    def __call__(self, parameters: Mapping[str, Tensor], step: int) -> Sensitivity:
        """Its loss, weight included, and the gradient at these parameters (float64); ``record["evaluations"]`` is cost.

        An evaluation is an energy of 64 atoms with one derivative of it, or direct forces; to differentiate forces
        once more is another.
        """
        ...

    def memory(self) -> dict[str, Any]:
        """What it remembers between steps: tensors, numbers, text and tables of them."""
        ...

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Put back what :meth:`memory` gave."""
        ...


class Forgetful:
    """A term whose steps depend on nothing before them."""

    def memory(self) -> dict[str, Any]:
        """See :meth:`Term.memory`."""
        return {}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """See :meth:`Term.remember`."""
