"""Tuning recipes: what ``conservbench finetune`` tunes to, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

from conservbench.cards import CardError, build, parse
from conservbench.data.catalogue import beside
from conservbench.hint import did_you_mean
from conservbench.ranges import require_at_least, require_positive

Target = Literal["rdf", "elastic", "force-constants"]
TARGETS: Final[tuple[Target, ...]] = get_args(Target)
"""Properties that a model can be tuned to, beside energies and forces."""


@dataclass(frozen=True)
class Errors:
    """Weights of the labelled frames that every tuning keeps: the control has nothing else.

    Attributes:
        batch: frames a step.
        energy: of the mean squared energy error, per (eV/atom)^2.
        gradient: of the mean squared error of the gradient forces, per (eV/Å)^2; where the model has them.
        direct: of that of the direct forces, per (eV/Å)^2; where the model has them.
    """

    batch: int
    energy: float
    gradient: float
    direct: float

    def __post_init__(self) -> None:
        require_at_least(1, self, "batch")
        require_at_least(0, self, "energy", "gradient", "direct")


@dataclass(frozen=True)
class Ensemble:
    """How g(r) is averaged over an ensemble of thermal frames, which is reweighted (see ``reweight``).

    Attributes:
        replicas: simulated side by side.
        frames: of each replica.
        interval: fs between frames.
        time_step: fs.
        tau: fs, of the Langevin bath.
        equilibration: ps before the first frame of the first ensemble.
        settling: ps before the first frame of a later ensemble.
        min_effective: effective over actual number of frames below which the ensemble is sampled anew.
    """

    replicas: int
    frames: int
    interval: float
    time_step: float
    tau: float
    equilibration: float
    settling: float
    min_effective: float

    def __post_init__(self) -> None:
        require_at_least(1, self, "replicas", "frames")
        require_positive(self, "interval", "time_step", "tau")
        require_at_least(0, self, "equilibration", "settling", "min_effective")
        if self.min_effective >= 1:
            raise ValueError(f"min_effective is {self.min_effective}; expected a number from 0 to below 1")


@dataclass(frozen=True)
class Trajectory:
    """How g(r) is averaged over short trajectories at constant energy, which are differentiated (see ``reversible``).

    Attributes:
        replicas: simulated side by side.
        duration: fs of a trajectory.
        interval: fs between its frames.
        time_step: fs.
        tau: fs, of the Langevin bath between trajectories.
        equilibration: ps in the bath before the first trajectory.
        settling: ps in the bath before each later one.
        memory: steps over which the average g(r) that is compared with the reference is taken.
    """

    replicas: int
    duration: float
    interval: float
    time_step: float
    tau: float
    equilibration: float
    settling: float
    memory: float

    def __post_init__(self) -> None:
        require_at_least(1, self, "replicas", "memory")
        require_positive(self, "duration", "interval", "time_step", "tau")
        require_at_least(0, self, "equilibration", "settling")
        for name, unit in (("interval", "time_step"), ("duration", "interval")):
            ratio = getattr(self, name) / getattr(self, unit)
            if abs(ratio - round(ratio)) > 1e-9 * ratio:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; expected a multiple of {unit} {getattr(self, unit)}"
                )


@dataclass(frozen=True)
class RDF:
    """The radial distribution function of one system.

    Attributes:
        system: name of a system whose g(r) the reference has.
        weight: of the squared distance to the reference, over the square of the reference.
        ensemble: for schemes whose forces have an energy.
        trajectory: for those that have not, or not all of them.
    """

    system: str
    weight: float
    ensemble: Ensemble
    trajectory: Trajectory

    def __post_init__(self) -> None:
        require_at_least(0, self, "weight")


@dataclass(frozen=True)
class Static:
    """A property of the crystal at the lattice constant of the reference.

    Attributes:
        weight: of the squared distance to the reference, over the square of the reference.
    """

    weight: float

    def __post_init__(self) -> None:
        require_at_least(0, self, "weight")


@dataclass(frozen=True)
class TuningRecipe:
    """All that determines a tuning, beside the model, the targets asked for, and the code.

    Attributes:
        reference: name of the reference that targets are taken from.
        data: name of the labelled data set.
        steps: of the optimiser.
        learning_rate: highest change of a parameter in one step, over the root mean square of its tensor.
        clip: largest norm of a gradient, over the median of those before.
        patience: steps in a row that may be rejected before the tuning stops.
        ema: decay of the moving average of the parameters, which is what is kept.
        seed: of frames and trajectories.
        errors: weights of energies and forces.
        rdf: settings of that target.
        elastic: likewise.
        force_constants: likewise.
        parameters: names of those that are tuned; all if there is none.
    """

    reference: str
    data: str
    steps: int
    learning_rate: float
    clip: float
    patience: int
    ema: float
    seed: int
    errors: Errors
    rdf: RDF
    elastic: Static
    force_constants: Static
    parameters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_at_least(1, self, "steps", "patience")
        require_at_least(0, self, "seed")
        require_positive(self, "learning_rate", "clip")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; expected a number from 0 to below 1")


def read_tuning_recipe(path: Path) -> TuningRecipe:
    """Read and check a recipe.

    Raises:
        CardError: the file is no recipe; the message names file, key and what was expected.
    """
    recipe = build(TuningRecipe, parse(path), str(path))
    return replace(recipe, data=beside(recipe.data, path))


def check_targets(names: tuple[str, ...]) -> tuple[Target, ...]:
    """The targets of these names, each once, in the order of :data:`TARGETS`.

    Raises:
        CardError: a name is none of a target; the message names the nearest.
    """
    for name in names:
        if name not in TARGETS:
            raise CardError(f"no target {name!r}{did_you_mean(name, TARGETS)}")
    return tuple(target for target in TARGETS if target in names)


def name_of(parent: str, targets: tuple[Target, ...]) -> str:
    """Name of a tuned model: that of its parent, and what it was tuned to."""
    if targets == TARGETS:
        return f"{parent}-all"
    return "-".join((parent, *targets)) if targets else f"{parent}-control"


def in_words(targets: Sequence[Target]) -> str:
    """Targets in words; nothing for none."""
    return ", ".join(_IN_WORDS[target] for target in targets)


_IN_WORDS: Final[Mapping[Target, str]] = {
    "rdf": "g(r)",
    "elastic": "elastic constants",
    "force-constants": "force constants",
}
