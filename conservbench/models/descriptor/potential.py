"""A descriptor with its read-outs, behind the suite's interface."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from conservbench.hint import did_you_mean
from conservbench.models import checkpoint
from conservbench.models.base import Prediction, check_support, gradient_of_energy
from conservbench.models.descriptor.core import pair_repulsion
from conservbench.models.descriptor.invariants import Descriptor
from conservbench.models.descriptor.readout import atomic_energies, direct_forces, weight_shapes
from conservbench.models.descriptor.settings import Settings
from conservbench.neighbors import Pairs, VerletList
from conservbench.scheme import CHANNELS, Channel
from conservbench.state import State

if TYPE_CHECKING:
    from conservbench.cards import ModelCard
    from conservbench.systems import System

CONSTANTS = ("mean", "spread", "vector_spread")
"""Tensors that standardise features: not to be tuned."""


class DescriptorPotential:
    """Energies and forces of fixed descriptors (see :class:`conservbench.models.base.Tunable`).

    Args:
        settings: size and kinds of read-outs.
        tensors: weights by name (see :func:`shapes_of`), and :data:`CONSTANTS`; of one dtype and device.
        channels: those that are offered.
        descriptor: that of the settings, where it is there already: building one takes a second.
        skin: Å, of the neighbour list.

    Attributes:
        settings: as given.
        descriptor: of the settings.
        channels: those that are offered.

    Raises:
        ValueError: a tensor is missing, or one too many, or of another shape.
    """

    differentiable = True
    labelled = False

    def __init__(
        self,
        settings: Settings,
        tensors: Mapping[str, Tensor],
        *,
        channels: tuple[Channel, ...] | None = None,
        descriptor: Descriptor | None = None,
        skin: float = 0.5,
    ) -> None:
        self.settings = settings
        self.descriptor = descriptor or Descriptor(settings.basis, len(settings.elements))
        _check_shapes(tensors, shapes_of(settings, self.descriptor))
        self._constants = {name: tensors[name] for name in CONSTANTS}
        self._weights = {name: tensor for name, tensor in tensors.items() if name not in CONSTANTS}
        own: tuple[Channel, ...] = ("gradient",) if settings.head.direct == "none" else CHANNELS
        self.channels: tuple[Channel, ...] = own if channels is None else channels
        if lacking := sorted(set(self.channels) - set(own)):
            raise ValueError(f"the potential has no {' and no '.join(lacking)} forces")
        self.elements: frozenset[int] | None = frozenset(settings.elements)
        self.neighbors = VerletList(settings.basis.cutoff, skin)
        lookup = torch.full((max(settings.elements) + 1,), -1, dtype=torch.long)
        lookup[list(settings.elements)] = torch.arange(len(settings.elements))
        self._lookup = lookup.to(self.device)

    @property
    def device(self) -> torch.device:
        """See :meth:`conservbench.models.base.Model.device`."""
        return self._constants["mean"].device

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """See :meth:`conservbench.models.base.Tunable.parameters`: the weights of the read-outs."""
        return dict(self._weights)

    def at(self, parameters: Mapping[str, Tensor]) -> Self:
        """See :meth:`conservbench.models.base.Tunable.at`; descriptor and neighbour list are shared.

        Raises:
            ValueError: a name is none of a weight, or a shape is not that of the weight.
        """
        for name, value in parameters.items():
            if name not in self._weights:
                raise ValueError(f"the potential has no weight {name!r}{did_you_mean(name, self._weights)}")
            if value.shape != self._weights[name].shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}; expected {tuple(self._weights[name].shape)}")
        other = copy(self)
        other._weights = {**self._weights, **parameters}  # noqa: SLF001 - its own copy
        return other

    def save(self, path: Path) -> Mapping[str, Any]:
        """See :meth:`conservbench.models.base.Tunable.save`: ``NAME.safetensors``."""
        file = path.with_suffix(".safetensors")
        save_potential(self, file)
        return {"checkpoint": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}

    def evaluate(
        self, state: State, *, forces: Collection[Channel] = (), stress: bool = False, graph: bool = False
    ) -> Prediction:
        """See :meth:`conservbench.models.base.Model.evaluate`."""
        check_support(self, state, forces)
        pairs = self.neighbors(state)
        species = self.species_of(state)
        moments: list[Tensor] = []

        def energy_of(positions: Tensor, cell: Tensor) -> Tensor:
            moments.append(self.moments_of(state, pairs, positions, cell))
            features = self.standardised(moments[0])
            energies = atomic_energies(self.settings.head.energy, self._weights, features, species).double()
            energies = energies + self.fixed_energies(state, pairs, positions, cell)
            return state.sum(energies)

        energy, gradient, stresses = gradient_of_energy(
            energy_of, state, forces="gradient" in forces, stress=stress, graph=graph
        )
        pulls: dict[Channel, Tensor] = {} if gradient is None else {"gradient": gradient}
        if "direct" in forces:
            with torch.set_grad_enabled(graph):
                pulls["direct"] = self._direct(moments[0], state, species)
        return Prediction(energy, pulls, stresses)

    def species_of(self, state: State) -> Tensor:
        """(n_atoms,) index of the element of each atom, among those that the potential knows."""
        return self._lookup[state.numbers]

    def moments_of(self, state: State, pairs: Pairs, positions: Tensor, cell: Tensor) -> Tensor:
        """(n_atoms, n_elements * width) moments, in the dtype of the weights.

        Args:
            state: composition of the batch; its own positions and cell are not read.
            pairs: neighbours within the cutoff.
            positions: (n_atoms, 3), float64.
            cell: (n_systems, 3, 3), float64.
        """
        vectors = pairs.vectors(positions, cell, state.system).to(self._constants["mean"].dtype)
        return self.descriptor.moments(self.descriptor.one_particle(vectors), pairs, self.species_of(state))

    def standardised(self, moments: Tensor) -> Tensor:
        """(n_atoms, n_features) standardised features of moments."""
        return (self.descriptor.features(moments) - self._constants["mean"]) / self._constants["spread"]

    def standardised_vectors(self, moments: Tensor) -> Tensor:
        """(n_atoms, n_vectors, 3) standardised vectors of moments."""
        return self.descriptor.vector_features(moments) / self._constants["vector_spread"][:, None]

    def fixed_energies(self, state: State, pairs: Pairs, positions: Tensor, cell: Tensor) -> Tensor:
        """(n_atoms,) energies in eV that are not fitted: of free atoms, and the core repulsion."""
        free = torch.tensor(self.settings.atomic_energies, dtype=torch.float64, device=self.device)
        energies = free[self.species_of(state)]
        if self.settings.head.core:
            distance = torch.linalg.vector_norm(pairs.vectors(positions, cell, state.system), dim=-1)
            numbers = state.numbers[pairs.first], state.numbers[pairs.second]
            energies = energies.index_add(
                0, pairs.first, 0.5 * pair_repulsion(distance, *numbers, self.settings.head.core)
            )
        return energies

    def _direct(self, moments: Tensor, state: State, species: Tensor) -> Tensor:
        features, vectors = self.standardised(moments), self.standardised_vectors(moments)
        raw = direct_forces(self.settings.head.direct, self._weights, features, vectors, species).double()
        return raw - (state.sum(raw) / state.counts[:, None])[state.system]


def shapes_of(settings: Settings, descriptor: Descriptor) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a potential, by name."""
    head = settings.head
    sizes = (len(settings.elements), descriptor.n_features, descriptor.n_vectors)
    constants = {"mean": (sizes[1],), "spread": (sizes[1],), "vector_spread": (sizes[2],)}
    return {**constants, **weight_shapes(head.energy, head.direct, head.hidden, sizes)}


def _check_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    if odd := sorted(set(tensors) ^ set(expected)):
        raise ValueError(f"weights do not match the settings: {', '.join(odd)}")
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}; expected {shape}")


_FORMAT = 1
"""Layout of a checkpoint; raised when an old one would be read wrongly."""


def save_potential(potential: DescriptorPotential, path: Path) -> None:
    """Write weights and settings; see :mod:`conservbench.models.checkpoint`."""
    tensors = {**potential._constants, **potential.parameters}  # noqa: SLF001 - what only the file keeps
    checkpoint.write_checkpoint(path, "descriptor", _FORMAT, potential.settings.to_toml(), tensors)


def read_potential(
    path: Path,
    *,
    channels: tuple[Channel, ...] | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> DescriptorPotential:
    """Read what :func:`save_potential` wrote; nothing is unpickled.

    Raises:
        ValueError: the file is no checkpoint of this kind, or of another layout, or has no such channel.
    """
    settings, kept = checkpoint.read_checkpoint(path, "descriptor", _FORMAT, "a checkpoint of a descriptor potential")
    tensors = {name: tensor.to(device=device, dtype=dtype) for name, tensor in kept.items()}
    try:
        return DescriptorPotential(Settings.from_toml(settings), tensors, channels=channels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


@dataclass(frozen=True)
class Options:
    """Options of a model card.

    Attributes:
        heads: the force channels that are offered; all that the checkpoint has by default.
    """

    heads: tuple[Channel, ...] | None = None

    def __post_init__(self) -> None:
        if self.heads is not None and not self.heads:
            raise ValueError(f"heads is empty; expected some of {', '.join(CHANNELS)}")


def load(card: ModelCard, system: System, *, device: str = "cpu", dtype: str | None = None) -> DescriptorPotential:
    """Load the checkpoint a model card names (see :mod:`conservbench.plugins`); its options are :class:`Options`.

    Raises:
        CardError: the card names no checkpoint, the file is missing or has another checksum, or an option is wrong.
        ValueError: the file is no checkpoint of a descriptor potential.
    """
    from conservbench.cards import build, checkpoint_of

    options = build(Options, card.options, f"{card.path}: [options]")
    precision = getattr(torch, dtype or card.dtype)
    return read_potential(checkpoint_of(card), channels=options.heads, device=device, dtype=precision)
