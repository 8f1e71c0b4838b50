"""What a model is to the suite: something that evaluates a batched state, and says which force channels it has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from conservbench.scheme import Channel
from conservbench.state import State


class UnsupportedError(Exception):
    """The model cannot be asked this, such as an element or a channel it does not have: an outcome, no crash."""


class InvalidPredictionError(Exception):
    """A model returned something that is no prediction: a wrong shape, or a value that is not finite."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of a batch.

    Attributes:
        energy: (n_systems,) eV, or None for a model without one.
        forces: channel to (n_atoms, 3), eV/Å; the channels that were asked for.
        stress: (n_systems, 3, 3), eV/Å^3, positive under tension, of the gradient channel; None unless asked for.
    """

    energy: Tensor | None
    forces: Mapping[Channel, Tensor] = field(default_factory=dict)
    stress: Tensor | None = None


@runtime_checkable
class Model(Protocol):
    """The interface of every potential.

    Attributes:
        channels: force channels the model has.
        elements: atomic numbers it knows; None where it takes any.
        differentiable: whether ``graph=True`` works: predictions stay attached to ``state.positions``.
        labelled: whether atoms are told apart by their index, so that permuting equal atoms changes the forces.
    """

    channels: tuple[Channel, ...]
    elements: frozenset[int] | None
    differentiable: bool
    labelled: bool

    @property
    def device(self) -> torch.device:
        """Where it computes, and where the states given to it live."""
        ...

    def evaluate(
        self, state: State, *, forces: Collection[Channel] = (), stress: bool = False, graph: bool = False
    ) -> Prediction:
        """Energies, and forces of the channels asked for, in one forward pass.

        Args:
            state: any batch; positions are float64, the model casts to its own dtype and back.
            forces: the channels wanted.
            stress: whether the stress of the gradient channel is wanted.
            graph: keep the graph, so that forces can be differentiated by positions and by parameters.

        Raises:
            UnsupportedError: a channel, an element, stress or graph that the model does not have.
        """
        ...


@runtime_checkable
class Tunable(Model, Protocol):
    """A model whose parameters can be read, replaced and differentiated."""

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """What can be tuned, by name."""
        ...

    def at(self, parameters: Mapping[str, Tensor]) -> Self:
        """The same model with some parameters replaced, and nothing copied that is not.

        With ``graph=True`` its predictions stay attached to these tensors, which may be leaves, functions of others, or
        dual numbers of forward differentiation.

        Args:
            parameters: those to replace, by name; like those they replace in shape, dtype and device.

        Raises:
            ValueError: a name is not known.
        """
        ...

    def save(self, path: Path) -> Mapping[str, Any]:
        """Keep the parameters where a model card can name them.

        Args:
            path: of the card; files are written beside it, under its name.

        Returns:
            The keys of the card that load these parameters; a table adds to the one that was there.
        """
        ...


@runtime_checkable
class Uncertain(Model, Protocol):
    """A model that says how uncertain its forces of the gradient channel are."""

    def uncertainty(self, state: State) -> Tensor:
        """Standard deviation of each component of the forces, (n_atoms, 3), eV/Å.

        Args:
            state: any batch.

        Raises:
            UnsupportedError: it cannot be asked this, or not within reasonable time and memory.
        """
        ...


def in_precision_of(model: Tunable, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters in the precision of a model's own, attached to those given."""
    own = model.parameters
    return {name: value.to(own[name].dtype) for name, value in parameters.items()}


def is_attached(model: Model, state: State) -> bool:
    """Whether anything that a prediction depends on requires a gradient: positions, cell or parameters."""
    sources = [state.positions, state.cell]
    if isinstance(model, Tunable):
        sources.extend(model.parameters.values())
    return any(source.requires_grad for source in sources)


def check_support(model: Model, state: State, forces: Collection[Channel]) -> None:
    """Check channels and elements before a run.

    Raises:
        UnsupportedError: the model lacks a channel, or does not know an element of the state.
    """
    for channel in forces:
        if channel not in model.channels:
            raise UnsupportedError(f"the model has no {channel} forces (it has: {', '.join(model.channels)})")
    if model.elements is not None:
        unknown = sorted(set(state.numbers.tolist()) - model.elements)
        if unknown:
            from ase.data import chemical_symbols

            names = ", ".join(chemical_symbols[number] for number in unknown)
            known = ", ".join(chemical_symbols[number] for number in sorted(model.elements))
            raise UnsupportedError(f"the model does not know {names} (it knows: {known})")


def gradient_of_energy(
    energy_of: EnergyFunction, state: State, *, forces: bool, stress: bool, graph: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Energy, forces and stress of an energy function by one reverse pass.

    The stress is the derivative by a symmetric strain e of positions r (1 + e) and cell h (1 + e), over the volume
    (Knuth et al., Comput. Phys. Commun. 190, 33, 2015).

    Args:
        energy_of: energies (n_systems,) of positions (n_atoms, 3) and cell (n_systems, 3, 3), differentiable.
        state: the batch.
        forces: whether forces are wanted.
        stress: whether the stress is wanted.
        graph: keep the graph of all three.

    Returns:
        Energy (n_systems,), forces (n_atoms, 3) or None, stress (n_systems, 3, 3) or None.
    """
    with torch.set_grad_enabled(graph or forces or stress):
        positions = state.positions
        if forces and not positions.requires_grad:
            positions = positions.detach().requires_grad_(True)
        if stress:
            strain = torch.zeros_like(state.cell, requires_grad=True)
            symmetric = 0.5 * (strain + strain.transpose(-1, -2))
            moved = positions + torch.einsum("na,nab->nb", positions, symmetric[state.system])
            energy = energy_of(moved, state.cell + state.cell @ symmetric)
        else:
            energy = energy_of(positions, state.cell)
        wanted = ([positions] if forces else []) + ([strain] if stress else [])
        if not wanted:
            return energy, None, None
        slopes = list(torch.autograd.grad(energy.sum(), wanted, create_graph=graph))
        stresses = slopes.pop() / state.volume[:, None, None] if stress else None
        pulls = -slopes.pop() if forces else None
    return (energy if graph else energy.detach()), pulls, stresses


class EnergyFunction(Protocol):
    """Energies (n_systems,) in eV of positions (n_atoms, 3) and cell (n_systems, 3, 3) in Å."""

    def __call__(self, positions: Tensor, cell: Tensor) -> Tensor:
        """Evaluate."""
        ...
