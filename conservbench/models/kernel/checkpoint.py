"""What a trained kernel model is on disk: one safetensors file, its settings as TOML text in the header."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from conservbench.cards import build
from conservbench.models import checkpoint
from conservbench.models.kernel.descriptors import find_descriptor
from conservbench.models.kernel.expansion import Expansion
from conservbench.models.kernel.kernel import Kernel, Part, Points, expansion, parts_of
from conservbench.models.kernel.radial import find_radial
from conservbench.state import State

LEARNED: Final = "descriptor."
"""What the names of learned parameters of a descriptor begin with."""


@dataclass(frozen=True)
class Settings:
    """Everything that fixes a kernel model and is no tensor.

    Attributes:
        descriptor: its name.
        fixed: parameters of the descriptor that are no tensors.
        radial: name of the scalar kernel.
        permutations: of the atoms.
        regularization: what was added to the diagonal for forces, and for what else has their row.
        energy_regularization: what was added for energies.
        signal: scale of the prior, by which the spread of the Gaussian process is multiplied; eV. NaN of a model that
            was tuned, which is no Gaussian process of its points.
        has_energies: whether energies were trained on.
    """

    descriptor: str
    fixed: Mapping[str, Any]
    radial: str
    permutations: tuple[tuple[int, ...], ...]
    regularization: float
    energy_regularization: float
    signal: float
    has_energies: bool


@dataclass(frozen=True)
class Trained:
    """A trained kernel model.

    Attributes:
        settings: of the kernel.
        state: the training points.
        directions: (n_directions, n_atoms, 3), along which derivatives of forces were trained on.
        parameters: ``forces`` (n_atoms, 3), ``energies`` (n_structures,) where they count, ``derivatives``
            (n_directions, n_atoms, 3) where there are any, ``offset`` in eV, ``length``, and ``descriptor.NAME``.
    """

    settings: Settings
    state: State
    directions: Tensor
    parameters: Mapping[str, Tensor]

    @cached_property
    def kernel(self) -> Kernel:
        """The kernel of structures."""
        learned = {key.removeprefix(LEARNED): v for key, v in self.parameters.items() if key.startswith(LEARNED)}
        settings = self.settings
        descriptor = find_descriptor(settings.descriptor, {**settings.fixed, **learned})
        return Kernel(
            descriptor, learned, find_radial(settings.radial), self.parameters["length"], settings.permutations
        )

    @property
    def points(self) -> Points:
        """What was trained on."""
        return Points(self.state, self.directions, self.settings.has_energies)

    def expand(self) -> Expansion:
        """The energy that it is, but for the offset."""
        return self.expand_parts(parts_of(self.kernel, self.points, permuted=True))

    def expand_parts(self, parts: Sequence[Part]) -> Expansion:
        """The same, with jets of the training points that were taken before, of the same descriptor."""
        found = self.parameters
        coefficients = (found.get("energies"), found["forces"], found.get("derivatives", self.directions))
        return expansion(self.kernel, self.points, coefficients, parts)

    def with_parameters(self, parameters: Mapping[str, Tensor]) -> Trained:
        """The same with some parameters replaced."""
        return replace(self, parameters={**self.parameters, **parameters})

    def tuned(self, parameters: Mapping[str, Tensor]) -> Trained:
        """The same with some parameters replaced, which no longer solve for the labels."""
        return replace(self.with_parameters(parameters), settings=replace(self.settings, signal=math.nan))

    def to(self, device: torch.device | str) -> Trained:
        """The same on another device."""
        moved = {key: value.to(device) for key, value in self.parameters.items()}
        return replace(self, state=self.state.to(device), directions=self.directions.to(device), parameters=moved)


_FORMAT: Final = 1
_KIND: Final = "kernel"
_STATE: Final = ("positions", "numbers", "cell", "pbc", "system")


def save_checkpoint(trained: Trained, path: Path) -> None:
    """Write settings and tensors; see :mod:`conservbench.models.checkpoint`."""
    import tomli_w

    tensors = {f"points.{key}": getattr(trained.state, key) for key in _STATE}
    tensors["points.directions"] = trained.directions
    tensors.update({f"parameters.{key}": value for key, value in trained.parameters.items()})
    # tensors that share memory cannot be written
    apart = {key: value.clone() for key, value in tensors.items()}
    checkpoint.write_checkpoint(path, _KIND, _FORMAT, tomli_w.dumps(dict(vars(trained.settings))), apart)


def read_checkpoint(path: Path) -> Trained:
    """Read what :func:`save_checkpoint` wrote; nothing is unpickled.

    Raises:
        ValueError: the file is no checkpoint of a kernel model, or of another layout.
    """
    text, tensors = checkpoint.read_checkpoint(path, _KIND, _FORMAT, "a checkpoint of a kernel model")
    settings = build(Settings, tomllib.loads(text), str(path))
    parts = {key: tensors[f"points.{key}"] for key in _STATE}
    positions = parts["positions"]
    state = State(momenta=torch.zeros_like(positions), masses=torch.ones_like(positions[:, 0]), **parts)
    parameters = {
        key.removeprefix("parameters."): value for key, value in tensors.items() if key.startswith("parameters.")
    }
    return Trained(settings, state, tensors["points.directions"], parameters)
