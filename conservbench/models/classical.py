"""Common frame of the classical potentials: named parameters, a neighbour list, forces by gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from conservbench.models.base import Prediction, check_support, gradient_of_energy
from conservbench.neighbors import Pairs, VerletList
from conservbench.scheme import Channel

if TYPE_CHECKING:
    from conservbench.state import State


class ClassicalPotential(ABC):
    """A potential with named parameters behind the suite's interface (:class:`conservbench.models.base.Model`).

    Energies are differentiable to any order in positions, cell and parameters; with ``graph=True`` so are forces and
    stress.

    Args:
        parameters: by name, those that differ from :attr:`defaults`: numbers, or scalar tensors that may require a
            gradient.
        cutoff: Å, where the potential ends if it shall not follow from the parameters.
        skin: Å, of the neighbour list.
        device: where it computes.
        dtype: in which it computes.

    Attributes:
        parameters: scalar tensor of every parameter, by name; put others in their place to change the potential.

    Raises:
        ValueError: a parameter is not known.
    """

    name: ClassVar[str]
    defaults: ClassVar[Mapping[str, float]]
    channels: tuple[Channel, ...] = ("gradient",)
    elements: frozenset[int] | None = frozenset({14})
    differentiable: bool = True
    labelled: bool = False

    def __init__(
        self,
        parameters: Mapping[str, Tensor | float] | None = None,
        *,
        cutoff: float | None = None,
        skin: float = 0.5,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        given = dict(parameters or {})
        self._check_names(given)
        self.parameters: dict[str, Tensor] = {
            name: torch.as_tensor(value, dtype=dtype, device=device)
            for name, value in {**self.defaults, **given}.items()
        }
        self.cutoff = cutoff
        self.skin = skin
        self._neighbors: VerletList | None = None

    @property
    def device(self) -> torch.device:
        """See :meth:`conservbench.models.base.Model.device`."""
        return next(iter(self.parameters.values())).device

    def at(self, parameters: Mapping[str, Tensor]) -> Self:
        """See :meth:`conservbench.models.base.Tunable.at`; the neighbour list is shared.

        Raises:
            ValueError: a parameter is not known.
        """
        self._check_names(parameters)
        other = copy(self)
        other.parameters = {**self.parameters, **parameters}
        return other

    def save(self, path: Path) -> Mapping[str, Any]:  # noqa: ARG002 - numbers that a card holds itself
        """See :meth:`conservbench.models.base.Tunable.save`."""
        return {"options": {name: float(value) for name, value in self.parameters.items()}}

    def _check_names(self, given: Mapping[str, object]) -> None:
        if unknown := sorted(set(given) - set(self.defaults)):
            raise ValueError(f"{self.name} has no parameter {', '.join(unknown)}; expected {', '.join(self.defaults)}")

    @abstractmethod
    def end(self) -> Tensor:
        """Scalar distance in Å beyond which atoms do not see each other, differentiable in the parameters."""

    @abstractmethod
    def energies(self, positions: Tensor, cell: Tensor, pairs: Pairs, state: State) -> Tensor:
        """(n_systems,) energies in eV, differentiable to any order in positions, cell and parameters.

        Args:
            positions: (n_atoms, 3), Å.
            cell: (n_systems, 3, 3), Å.
            pairs: full list of pairs, sorted by the central atom; those beyond the cutoff add nothing.
            state: tells the atoms of one system from those of another; its own positions and cell are not read.
        """

    def _list(self) -> VerletList:
        reach = float(self.end().detach())
        if self._neighbors is None or self._neighbors.cutoff != reach:
            self._neighbors = VerletList(reach, self.skin)
        return self._neighbors

    def evaluate(
        self, state: State, *, forces: Collection[Channel] = (), stress: bool = False, graph: bool = False
    ) -> Prediction:
        """See :meth:`conservbench.models.base.Model.evaluate`."""
        check_support(self, state, forces)
        pairs = self._list()(state)

        def energy_of(positions: Tensor, cell: Tensor) -> Tensor:
            return self.energies(positions, cell, pairs, state).double()

        energy, gradient, stresses = gradient_of_energy(
            energy_of, state, forces="gradient" in forces, stress=stress, graph=graph
        )
        return Prediction(energy, {} if gradient is None else {"gradient": gradient}, stresses)


def decay(distance: Tensor, end: Tensor, length: Tensor) -> Tensor:
    """Exponent ``length / (distance - end)`` of a smooth end: its exponential and all derivatives vanish at ``end``.

    Distances beyond the end give a harmless number, to be masked: infinity times zero would be NaN in the gradient.
    """
    return length / torch.where(distance < end, distance - end, -end)
