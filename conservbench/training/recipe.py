"""Training recipes: the TOML card of ``conservbench train``."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True)
class NetworkRecipe:
    """Size of the two-headed network; see :class:`conservbench.models.mace.NetworkSettings`."""

    cutoff: float
    channels: int
    max_ell: int
    correlation: int
    radial_mlp: tuple[int, ...]
    n_bessel: int
    envelope: int
    direct_hidden: int


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
    network: NetworkRecipe
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
        ValueError: the file is no recipe; the message names file, key and what was expected.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not TOML: {error}") from error
    network = _build(NetworkRecipe, table.pop("network", {}), f"{path}: [network]")
    stages = tuple(_build(Stage, stage, f"{path}: [[stages]]") for stage in table.pop("stages", []))
    if not stages:
        raise ValueError(f"{path}: stages: expected at least one [[stages]] table")
    return _build(Recipe, {**table, "network": network, "stages": stages}, str(path))


def _build(kind: type[T], table: dict[str, Any], where: str) -> T:
    types = get_type_hints(kind)
    for key in table:
        if key not in types:
            near = difflib.get_close_matches(key, types, n=1)
            raise ValueError(f"{where}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    for key in types:
        if key not in table:
            raise ValueError(f"{where}: missing key {key!r}")
    return kind(**{key: _checked(value, types[key], f"{where}: {key}") for key, value in table.items()})


def _checked(value: Any, kind: Any, where: str) -> Any:
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        if not isinstance(value, list | tuple) or not all(type(item) is inner for item in value):
            raise ValueError(f"{where}: expected a list of {inner.__name__}, got {value!r}")
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where}: expected {kind.__name__}, got {value!r}")
    return value
