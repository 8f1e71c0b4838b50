"""Recipes of kernel models: what ``conservbench train`` is told where a recipe says ``model = "kernel"``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from conservbench.cards import build, parse
from conservbench.data.catalogue import beside
from conservbench.models.kernel.descriptors import find_descriptor
from conservbench.models.kernel.radial import find_radial
from conservbench.ranges import require_at_least, require_positive

Permutations = Literal["found", "none"]


@dataclass(frozen=True)
class Outer:
    """How hyperparameters are learned: by the gradient of what the model has not seen.

    Attributes:
        learn: names of those to learn: ``length``, ``regularization``, or parameters of the descriptor.
        steps: of the optimiser.
        learning_rate: of the logarithm of each.
        validation: frames that are left out of the solution, and whose force error is lowered.
        frames: frames that the solution is of.

    Raises:
        ValueError: a value is out of range.
    """

    learn: tuple[str, ...]
    steps: int
    learning_rate: float
    validation: int
    frames: int

    def __post_init__(self) -> None:
        for name in ("steps", "validation", "frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if not self.learn:
            raise ValueError("learn is empty; expected names of hyperparameters")


@dataclass(frozen=True)
class Hessian:
    """Derivatives of forces that are trained on too, taken by differences of the calculator that labelled the frames.

    Attributes:
        factory: ``package.module:factory`` of an ASE calculator.
        arguments: its keyword arguments.
        directions: random directions of each frame, along each of which a Hessian-vector product is taken; 0 for the
            whole Hessian.
        step: Å, that atoms are moved by along a direction of unit length, to either side.
        seed: of the directions.

    Raises:
        ValueError: a value is out of range.
    """

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    directions: int = 3
    step: float = 0.01
    seed: int = 1

    def __post_init__(self) -> None:
        require_at_least(0, self, "directions", "seed")
        require_positive(self, "step")


@dataclass(frozen=True)
class KernelRecipe:
    """Everything that determines a trained kernel model, beside the code.

    Attributes:
        model: ``kernel``.
        name: of the checkpoint.
        data: name of a data set of the catalogue.
        radial: name of the scalar kernel.
        length: its length scale, in units of the descriptor.
        regularization: added to the diagonal for forces; (eV/Å)^2 over the square of the prior's scale.
        descriptor: ``name``, and its parameters.
        frames: training frames, spread evenly over those of the data set; 0 for all.
        groups: of the data set that are trained on; all where there are none.
        energies: whether energies are trained on, too.
        energy_regularization: added to the diagonal for energies.
        permutations: ``found`` in the training frames, or ``none``.
        solver: ``cholesky``, or ``iterative`` for more points than the matrix has memory for.
        tolerance: relative residual at which the iterative solver ends.
        outer: how hyperparameters are learned first; None to take them as they are.
        hessian: derivatives of forces that are trained on; None for forces alone.

    Raises:
        ValueError: a value is out of range, or a name is not known.
    """

    model: Literal["kernel"]
    name: str
    data: str
    radial: str
    length: float
    regularization: float
    descriptor: Mapping[str, Any]
    frames: int = 0
    groups: tuple[str, ...] = ()
    energies: bool = False
    energy_regularization: float = 1e-8
    permutations: Permutations = "none"
    solver: Literal["cholesky", "iterative"] = "cholesky"
    tolerance: float = 1e-8
    outer: Outer | None = field(default=None)
    hessian: Hessian | None = field(default=None)

    def __post_init__(self) -> None:
        if not self.length > 0:
            raise ValueError(f"length is {self.length}; expected a positive number")
        for name in ("regularization", "energy_regularization", "frames"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")
        find_radial(self.radial)
        if self.hessian is not None and self.solver != "cholesky":
            raise ValueError('[hessian]: derivatives of forces are solved directly alone; set solver = "cholesky"')
        if "name" not in self.descriptor:
            raise ValueError("[descriptor]: missing key 'name'")
        found = find_descriptor(self.descriptor["name"], self.parameters)
        if found.is_local and self.permutations != "none":
            raise ValueError(
                f"permutations: descriptor {found.name} is of atoms, whose order does not matter; leave them out"
            )

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of the descriptor."""
        return {key: value for key, value in self.descriptor.items() if key != "name"}


def read_recipe(path: Path) -> KernelRecipe:
    """Read and check a recipe.

    Raises:
        CardError: the file is no recipe; the message names file, key and what was expected.
    """
    recipe = build(KernelRecipe, parse(path), str(path))
    return replace(recipe, data=beside(recipe.data, path))
