"""The card of ``conservbench data label``: what is moved, by what, at which temperatures and strains.

Units are fs, K and Å; strains are fractions. A trajectory is for training or for testing as a whole, as the card says.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conservbench.cards import (
    CardError,
    ModelCard,
    build,
    canonical_json,
    check_name,
    file_digest,
    find_model,
    look_in_current_folder,
    parse,
    source_file,
)

Shear = tuple[float, float, float]


@dataclass(frozen=True)
class Start:
    """The structure that every trajectory starts from.

    Attributes:
        factory: ``package.module:function`` that returns a structure, such as ``ase.build:bulk``.
        arguments: keyword arguments of the factory.
        file: a file that ASE reads; in the card relative to the card.
        repeats: of the cell, along its vectors.

    Raises:
        ValueError: there is not exactly one of factory and file, or a repeat is below one.
    """

    factory: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    file: str = ""
    repeats: tuple[int, int, int] = (1, 1, 1)

    def __post_init__(self) -> None:
        if bool(self.factory) == bool(self.file):
            raise ValueError("expected one of factory and file")
        if min(self.repeats) < 1:
            raise ValueError(f"repeats is {list(self.repeats)}; expected whole numbers of 1 or more")


@dataclass(frozen=True)
class CalculatorChoice:
    """An ASE calculator.

    Attributes:
        factory: ``package.module:factory`` that returns one, such as ``tblite.ase:TBLite``.
        arguments: keyword arguments of the factory.
    """

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Walk:
    """How structures are moved: Langevin dynamics, as ASE has it.

    Attributes:
        time_step: fs.
        friction: 1/ps.
        equilibration: fs, before the first frame of a trajectory.
        spacing: fs from a frame to the next.
        correlation: the largest normalised overlap of the forces of two successive frames, in size; where it is larger,
            the walk goes on by a quarter of the spacing until it is not.
        patience: how often it goes on before that counts as a failure.
        failures: how many a trajectory may have; then it ends with the frames it has.
        seed: of everything random.

    Raises:
        ValueError: a value is out of range.
    """

    time_step: float
    friction: float
    equilibration: float
    spacing: float
    correlation: float
    seed: int
    patience: int = 40
    failures: int = 5

    def __post_init__(self) -> None:
        for name in ("time_step", "friction", "spacing"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number")
        if not 0 <= self.equilibration < math.inf:
            raise ValueError(f"equilibration is {self.equilibration}; expected 0 or more")
        if not 0 < self.correlation <= 1:
            raise ValueError(f"correlation is {self.correlation}; expected a number from above 0 to 1")
        for name in ("seed", "patience", "failures"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")


@dataclass(frozen=True)
class Stretch:
    """A part of the schedule: one trajectory for each strain, isotropic ones before shears, at one temperature.

    Attributes:
        temperature: K.
        frames: of each trajectory.
        isotropic: strains of all lengths alike; the same strain twice makes two trajectories.
        shear: engineering strains (yz, xz, xy).
        rattle: Å, standard deviation of the random displacements that a trajectory starts from.
        test: which of the trajectories are for testing, counted from 0.
        group: what their frames are called; the temperature if nothing is said.

    Raises:
        ValueError: a value is out of range.
    """

    temperature: float
    frames: int
    isotropic: tuple[float, ...] = (0.0,)
    shear: tuple[Shear, ...] = ()
    rattle: float = 0.0
    test: tuple[int, ...] = ()
    group: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; expected a positive number of K")
        if self.frames < 1:
            raise ValueError(f"frames is {self.frames}; expected 1 or more")
        if not 0 <= self.rattle < 1:
            raise ValueError(f"rattle is {self.rattle}; expected a number of Å from 0 to below 1")
        strains = [*self.isotropic, *(each for shear in self.shear for each in shear)]
        if not all(abs(strain) < 0.5 for strain in strains):
            raise ValueError(f"strains are {strains}; expected fractions, between -0.5 and 0.5")
        if any(not 0 <= index < self.trajectories for index in self.test):
            raise ValueError(f"test is {list(self.test)}; expected indices of {self.trajectories} trajectories, from 0")

    @property
    def trajectories(self) -> int:
        """How many there are."""
        return len(self.isotropic) + len(self.shear)


@dataclass(frozen=True)
class Trajectory:
    """One trajectory of the plan: the unit of work, of resume and of the split.

    Attributes:
        index: in the plan.
        group: what its frames are called.
        temperature: K.
        strain: (xx, yy, zz, yz, xz, xy), engineering strains.
        rattle: Å.
        frames: to be kept.
        test: whether they are for testing.
    """

    index: int
    group: str
    temperature: float
    strain: tuple[float, float, float, float, float, float]
    rattle: float
    frames: int
    test: bool

    @property
    def split(self) -> str:
        """``train`` or ``test``."""
        return "test" if self.test else "train"


@dataclass(frozen=True)
class Labelling:
    """A card: everything that determines a labelled set, beside the code.

    Attributes:
        name: of the set; equal to the name of the file.
        version: raised by hand whenever the set changes.
        title: one line.
        license: of the set.
        citation: of the method behind the labels.
        doi: likewise.
        home: of the set, or of the method behind the labels.
        start: what every trajectory starts from.
        calculator: what labels, and moves if there is no sampler.
        schedule: stretches of the plan.
        walk: how structures are moved.
        sampler: a model of this suite, by name or path of its card, that moves the atoms instead.
        notes: what a reader must know.
        path: the card itself.

    Raises:
        ValueError: the schedule is empty, or leaves nothing for training or for testing.
    """

    name: str
    version: int
    title: str
    license: str
    citation: str
    start: Start
    calculator: CalculatorChoice
    schedule: tuple[Stretch, ...]
    walk: Walk
    path: Path
    doi: str = ""
    home: str = ""
    sampler: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        sides = {trajectory.test for trajectory in self.plan()}
        if len(sides) < 2:
            side = "testing" if False in sides else "training"
            raise ValueError(f"schedule leaves no trajectory for {side}; name some of them in 'test'")

    def plan(self) -> tuple[Trajectory, ...]:
        """All trajectories, in the order of the schedule."""
        found: list[Trajectory] = []
        for stretch in self.schedule:
            strains = [(value, value, value, 0.0, 0.0, 0.0) for value in stretch.isotropic]
            strains += [(0.0, 0.0, 0.0, *shear) for shear in stretch.shear]
            for order, strain in enumerate(strains):
                found.append(
                    Trajectory(
                        index=len(found),
                        group=stretch.group or f"{stretch.temperature:g} K",
                        temperature=stretch.temperature,
                        strain=strain,
                        rattle=stretch.rattle,
                        frames=stretch.frames,
                        test=order in stretch.test,
                    )
                )
        return tuple(found)

    @property
    def frames(self) -> int:
        """Frames of the whole plan."""
        return sum(trajectory.frames for trajectory in self.plan())

    @property
    def digest(self) -> str:
        """SHA-256 of what determines the set."""
        parts = [self._begin(), self._calculator(), asdict(self.walk)]
        table = [*parts, *(asdict(stretch) for stretch in self.schedule), self._mover()]
        return hashlib.sha256(canonical_json(table).encode()).hexdigest()

    def digest_of(self, trajectory: Trajectory) -> str:
        """SHA-256 of what determines the walk of one trajectory: more frames, or another split, are the same walk."""
        same = asdict(replace(trajectory, frames=0, test=False, group=""))
        table = [self._begin(), self._calculator(), asdict(self.walk), self._mover(), same]
        return hashlib.sha256(canonical_json(table).encode()).hexdigest()

    def sampler_card(self) -> ModelCard | None:
        """The card of the model that moves the atoms; None where the calculator does.

        Raises:
            CardError: there is no such model, or it must be run under multiple time steps.
        """
        if not self.sampler:
            return None
        named = str(self.path.parent / self.sampler) if self.sampler.endswith(".toml") else self.sampler
        try:
            card = find_model(named)
        except CardError as error:
            raise CardError(f"{self.path}: sampler: {error}") from error
        if card.scheme.kind == "mts":
            raise CardError(f"{self.path}: sampler: {self.sampler!r} has two forces; name its gradient or direct row")
        return card

    def _mover(self) -> str:
        """What moves the atoms: nothing of its own, or a model as it is now."""
        card = self.sampler_card()
        return self.sampler if card is None else f"{self.sampler} {card.digest}"

    def _calculator(self) -> dict[str, Any]:
        """The calculator; of one that no package brings, and so has no version, also its source."""
        source = _own_source(self.calculator.factory)
        return asdict(self.calculator) | ({} if source is None else {"sha256": file_digest(source)})

    def _begin(self) -> dict[str, Any]:
        """The start, of a file also what is in it."""
        file = self.path.parent / self.start.file
        return asdict(self.start) | ({"sha256": file_digest(file)} if self.start.file and file.is_file() else {})


def distributions(factory: str) -> tuple[str, ...]:
    """Names of the installed packages that bring ``package.module:factory``; none for a module of one's own."""
    return tuple(sorted(set(_installed().get(factory.partition(":")[0].partition(".")[0], ()))))


@cache
def _installed() -> Mapping[str, list[str]]:
    return packages_distributions()


def _own_source(factory: str) -> Path | None:
    if distributions(factory):
        return None
    look_in_current_folder()
    try:
        spec = find_spec(factory.partition(":")[0])
    except Exception:  # a package above it is imported, and may raise anything: whoever makes the calculator tells
        return None
    return None if spec is None else source_file(spec)


def read_labelling(path: Path) -> Labelling:
    """Read and check a card.

    Raises:
        CardError: the file is no such card; the message names file, key and what was expected.
    """
    card = build(Labelling, {**_without_path(path), "path": path}, str(path))
    check_name(card.name, f"{path}: name")
    if card.name != path.stem:
        raise CardError(f"{path}: name is {card.name!r}; expected the name of the file")
    return card


def _without_path(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CardError(f"no card {path}")
    table = parse(path)
    if "path" in table:
        raise CardError(f"{path}: unknown key 'path'")
    return table
