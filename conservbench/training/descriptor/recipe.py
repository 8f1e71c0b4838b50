"""Recipes of descriptor potentials: the TOML card of ``conservbench train`` with ``model = "descriptor"``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from conservbench.cards import build, check_name, parse
from conservbench.data.catalogue import beside
from conservbench.models.descriptor.settings import Basis, Head, check_together


@dataclass(frozen=True)
class Weights:
    """Weights of the errors; the loss of a frame is the sum of the squares of weight times error.

    Attributes:
        energy: of the energy error, per (eV/atom).
        forces: of the root mean square force error, per (eV/Å).
        stress: of the error of stress times volume, per (eV/atom), of frames that have one; 0 leaves it out.

    Raises:
        ValueError: a weight is negative, or both energy and forces have none.
    """

    energy: float
    forces: float
    stress: float = 0.0

    def __post_init__(self) -> None:
        if min(self.energy, self.forces, self.stress) < 0 or not self.energy + self.forces > 0:
            raise ValueError("weights must not be negative, and energy or forces need one")


@dataclass(frozen=True)
class Steps:
    """Quasi-Newton steps of a network, after the linear part is solved.

    Attributes:
        iterations: in all; taken in blocks, the last of which is completed.
        decay: weight of the mean square of the network's weights in the loss.

    Raises:
        ValueError: a value is out of range.
    """

    iterations: int
    decay: float = 0.0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations is {self.iterations}; expected 1 or more")
        if self.decay < 0:
            raise ValueError(f"decay is {self.decay}; expected 0 or more")


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a fitted checkpoint, beside the code.

    Attributes:
        model: "descriptor".
        name: name of the checkpoint.
        data: name of a data set of the catalogue.
        validation: number of training frames in a fold: the ridge is chosen by leaving each fold out in turn; one fold
            more is held out to choose the weights of networks.
        seed: of the folds, and of a network's first weights.
        ridges: what is chosen from (see :func:`conservbench.training.descriptor.least_squares.solve`).
        basis: size of the descriptor.
        head: what it is read out to.
        weights: of the errors.
        steps: of a network.

    Raises:
        ValueError: a value is out of range, or steps and networks do not go together.
    """

    model: Literal["descriptor"]
    name: str
    data: str
    validation: int
    seed: int
    ridges: tuple[float, ...]
    basis: Basis
    head: Head
    weights: Weights
    steps: Steps | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        if self.validation < 1:
            raise ValueError(f"validation is {self.validation}; expected 1 or more")
        if not self.ridges or min(self.ridges) < 0:
            raise ValueError(f"ridges is {list(self.ridges)}; expected numbers of 0 or more")
        check_together(self.basis, self.head)
        if ("network" in (self.head.energy, self.head.direct)) != (self.steps is not None):
            raise ValueError("networks and [steps] belong together: give both or none")


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        CardError: the file is no recipe; the message names file, key and what was expected.
    """
    recipe = build(Recipe, parse(path), str(path))
    return replace(recipe, data=beside(recipe.data, path))
