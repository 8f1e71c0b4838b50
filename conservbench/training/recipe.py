"""Training recipes: the TOML card of ``conservbench train``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conservbench.cards import CardError, build, parse
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
    """

    epochs: int
    learning_rate: float
    energy: float
    gradient: float
    direct: float


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a trained checkpoint, beside the code.

    Attributes:
        name: name of the checkpoint.
        data: name of a data set of the catalogue.
        validation: number of training frames held out for the metrics of each epoch.
        batch: frames a step.
        ema: decay of the exponential moving average of the weights.
        clip: largest norm of the gradient of the loss.
        seed: of weights, split and shuffling.
        network: size of the network.
        stages: run one after the other.
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
    if not recipe.stages:
        raise CardError(f"{path}: stages: expected at least one [[stages]] table")
    return recipe
