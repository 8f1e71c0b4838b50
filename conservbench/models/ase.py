"""Any ASE calculator as a model, system by system.

A calculator has one force, the channel of its card's scheme, and no graph: its forces cannot be differentiated.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast, final

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import ArrayLike, NDArray

from conservbench.models.base import InvalidPredictionError, Prediction, UnsupportedError, check_support
from conservbench.scheme import Channel
from conservbench.state import State

if TYPE_CHECKING:
    from conservbench.cards import ModelCard
    from conservbench.systems import System


class Calculator(Protocol):
    """What is asked of an ASE calculator."""

    def get_forces(self, atoms: Atoms) -> ArrayLike:
        """(n_atoms, 3), eV/Å."""
        ...

    def get_stress(self, atoms: Atoms) -> ArrayLike:
        """(6,) in Voigt order or (3, 3), eV/Å^3."""
        ...

    def get_potential_energy(self, atoms: Atoms, force_consistent: bool = False) -> float:
        """In eV."""
        ...


@final
class ASEModel:
    """An ASE calculator behind the suite's interface (see :class:`conservbench.models.base.Model`).

    The energy is the one consistent with the forces (``free_energy``) where the calculator has it. A calculator without
    an energy is taken for direct forces only.

    Args:
        calculator: the calculator.
        channel: the channel its forces are.
        name: what error messages call it.
    """

    elements: frozenset[int] | None = None
    differentiable: bool = False
    labelled: bool = False

    def __init__(self, calculator: Calculator, *, channel: Channel = "gradient", name: str = "") -> None:
        self.calculator = calculator
        self.channels: tuple[Channel, ...] = (channel,)
        self.name = name or type(calculator).__name__
        self._frames: list[Atoms] = []

    @property
    def device(self) -> torch.device:
        """See :meth:`conservbench.models.base.Model.device`."""
        return torch.device("cpu")

    def evaluate(
        self, state: State, *, forces: Collection[Channel] = (), stress: bool = False, graph: bool = False
    ) -> Prediction:
        """See :meth:`conservbench.models.base.Model.evaluate`.

        Raises:
            UnsupportedError: a graph is asked for, a channel or property the calculator does not have, or a structure
                that it says it does not implement.
            InvalidPredictionError: an array has the wrong shape.
        """
        check_support(self, state, forces)
        if graph:
            raise UnsupportedError(f"{self.name} is an ASE calculator: its forces cannot be differentiated")
        if stress and "gradient" not in self.channels:
            raise UnsupportedError(f"{self.name} is run for its direct forces: it has no stress of an energy")
        # forces first: most calculators then have the energy at hand
        results = [self._evaluate(index, atoms, forces, stress) for index, atoms in enumerate(self._update(state))]

        def tensor(arrays: list[NDArray[np.float64]]) -> torch.Tensor:
            return torch.from_numpy(np.concatenate(arrays)).to(state.positions.device)

        energies = [result.energy for result in results]
        return Prediction(
            energy=None if any(energy is None for energy in energies) else tensor([np.array([e]) for e in energies]),
            forces={channel: tensor([result.forces for result in results]) for channel in forces},
            stress=tensor([result.stress[None] for result in results]) if stress else None,
        )

    def _evaluate(self, index: int, atoms: Atoms, forces: Collection[Channel], stress: bool) -> _Result:
        where = f"{self.name}, system {index}"
        result = _Result()
        if stress:
            try:
                tensor = np.array(self.calculator.get_stress(atoms), dtype=float)
            except NotImplementedError as error:
                raise self._unsupported("stress", error) from error
            full = voigt_6_to_full_3x3_stress(tensor) if tensor.shape == (6,) else tensor
            result.stress = _shaped(full, (3, 3), f"{where}: stress")
        if forces:
            try:
                pulls = self.calculator.get_forces(atoms)
            except NotImplementedError as error:
                raise self._unsupported("forces", error) from error
            result.forces = _shaped(pulls, (len(atoms), 3), f"{where}: forces")
        energy = self._energy(atoms)
        if energy is not None:
            result.energy = float(_shaped(np.squeeze(energy), (), f"{where}: energy"))
        return result

    def _energy(self, atoms: Atoms) -> ArrayLike | None:
        try:
            if "free_energy" in self._properties():
                return self.calculator.get_potential_energy(atoms, force_consistent=True)
            return self.calculator.get_potential_energy(atoms)
        except NotImplementedError as error:
            if not self._lacks("energy", error):
                raise self._unsupported("energy", error) from error
            if "gradient" in self.channels:
                raise UnsupportedError(f'{self.name} has no energy: its card needs scheme = "direct"') from error
            return None

    def _properties(self) -> Collection[str]:
        return getattr(self.calculator, "implemented_properties", ())

    def _lacks(self, name: str, error: NotImplementedError) -> bool:
        """Whether the calculator never has the property; if not, it is this structure that it does not know."""
        return isinstance(error, PropertyNotImplementedError) or name not in self._properties()

    def _unsupported(self, name: str, error: NotImplementedError) -> UnsupportedError:
        if self._lacks(name, error):
            return UnsupportedError(f"{self.name} has no {name}")
        said = " ".join(str(error).split()) or "not implemented"
        return UnsupportedError(f"{self.name} gives no {name} here: {said}")

    def _update(self, state: State) -> list[Atoms]:
        """The state as ASE structures; those of the last call are moved, not made again."""
        ends = np.cumsum(state.counts.cpu().numpy())
        positions = np.split(state.positions.detach().cpu().numpy(), ends[:-1])
        numbers = np.split(state.numbers.cpu().numpy(), ends[:-1])
        cells, pbc = state.cell.detach().cpu().numpy(), state.pbc.cpu().numpy()
        frames = []
        for index in range(state.n_systems):
            known = self._frames[index] if index < len(self._frames) else None
            if known is None or not np.array_equal(known.numbers, numbers[index]):
                known = Atoms(numbers=numbers[index], positions=positions[index])
            known.set_positions(positions[index])
            known.set_cell(cells[index])
            known.set_pbc(pbc[index])
            frames.append(known)
        self._frames = frames
        return frames


@dataclass
class _Result:
    energy: float | None = None
    forces: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)))
    stress: NDArray[np.float64] = field(default_factory=lambda: np.empty((3, 3)))


def _shaped(value: ArrayLike, shape: tuple[int, ...], where: str) -> NDArray[np.float64]:
    """A copy as float64; a value that is not finite is left for the caller to judge.

    Raises:
        InvalidPredictionError: it has another shape.
    """
    array = np.array(value, dtype=float)
    if array.shape != shape:
        raise InvalidPredictionError(f"{where}: shape is {array.shape}, expected {shape}")
    return array


def import_factory(path: str) -> Callable[..., Any]:
    """The callable that ``package.module:attribute`` names; modules in the current folder are found too.

    Raises:
        CardError: the path is not of that form, or the module or attribute is not there or not callable.
    """
    from conservbench.cards import CardError, look_in_current_folder

    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise CardError(f"factory is {path!r}; expected package.module:factory")
    look_in_current_folder()
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise CardError(f"factory {path!r}: cannot import {module_name}: {error}") from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise CardError(f"factory {path!r}: {module_name} has no {part!r}{hint}")
        found = getattr(found, part)
    if not callable(found):
        raise CardError(f"factory {path!r}: is a {type(found).__name__}, expected a callable that returns a calculator")
    return cast("Callable[..., Any]", found)


@dataclass(frozen=True)
class Options:
    """Options of a model card.

    Attributes:
        factory: ``package.module:factory``, a callable that returns a calculator.
        arguments: keyword arguments of the factory.
    """

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def load(card: ModelCard, system: System, *, device: str = "cpu", dtype: str | None = None) -> ASEModel:
    """Build the calculator of a model card (see :mod:`conservbench.plugins`); its options are :class:`Options`.

    The calculator chooses its own device and precision: name them in ``arguments``.

    Raises:
        CardError: an option is wrong, the scheme needs two channels, or the factory makes no calculator.
    """
    from conservbench.cards import CardError, build

    options = build(Options, card.options, f"{card.path}: [options]")
    if card.scheme.kind == "mts" and card.fast is None:
        raise CardError(
            f"{card.path}: scheme is 'mts'; an ASE calculator has one force: name the card of another model as 'fast'"
        )
    factory = import_factory(options.factory)
    try:
        calculator = factory(**options.arguments)
    except TypeError as error:
        raise CardError(f"{card.path}: factory {options.factory!r} does not take its arguments: {error}") from error
    if not (hasattr(calculator, "get_forces") and hasattr(calculator, "get_potential_energy")):
        raise CardError(
            f"{card.path}: factory {options.factory!r} made a {type(calculator).__name__}, expected an ASE calculator"
        )
    return ASEModel(calculator, channel=card.scheme.mean_channel, name=options.factory)
