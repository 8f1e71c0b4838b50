"""Training recipes: the TOML card of ``conservbench train``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from conservbench.cards import build, parse
from conservbench.data.catalogue import beside
from conservbench.models.mace import Architecture


@dataclass(frozen=True)
class Stage:
    """One stage of training; a weight of zero leaves its term out, and saves its cost.

    Attributes:
        epochs: passes over the training frames.
        learning_rate: peak of the stage's one-cosine schedule.
        energy: weight of the energy error, per (eV/atom).
        gradient: weight of the gradient-force error, per (eV/Å).
        direct: weight of the direct-force error, per (eV/Å).

    Raises:
        ValueError: a value is out of range.
    """

    epochs: int
    learning_rate: float
    energy: float
    gradient: float
    direct: float

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}; expected 1 or more")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; expected a positive number")
        if min(self.energy, self.gradient, self.direct) < 0 or not self.energy + self.gradient + self.direct > 0:
            raise ValueError("weights energy, gradient and direct must not be negative, nor all zero")


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a trained checkpoint, beside the code.

    Attributes:
        name: name of the checkpoint.
        data: name of a data set of the catalogue, or the path of an extended XYZ file; in the recipe relative to it.
        validation: number of training frames held out for the metrics of each epoch.
        batch: frames a step.
        ema: decay of the exponential moving average of the weights.
        clip: largest norm of the gradient of the loss.
        seed: of weights, split and shuffling.
        network: size of the network.
        stages: run one after the other.

    Raises:
        ValueError: a value is out of range.
    """

    name: str
    data: str
    validation: int
    batch: int
    ema: float
    clip: float
    seed: int
    network: Architecture
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        for name in ("validation", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; expected a number from 0 to below 1")
        if not self.clip > 0:
            raise ValueError(f"clip is {self.clip}; expected a positive number")
        if not self.stages:
            raise ValueError("stages: expected at least one [[stages]] table")

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def stage_of(self, epoch: int) -> tuple[Stage, int]:
        """The stage that an epoch belongs to, and the epoch's index in it."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage, epoch
            epoch -= stage.epochs
        raise IndexError("past the last epoch")


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        CardError: the file is no recipe; the message names file, key and what was expected.
    """
    recipe = build(Recipe, parse(path), str(path))
    return replace(recipe, data=beside(recipe.data, path))
