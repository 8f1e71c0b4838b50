"""Any exported metatomic model (PET and other networks of metatrain, and more), with both of its force channels.

The gradient channel is minus the derivative of the output ``energy``, the direct channel the output
``non_conservative_force`` without its net force. The model is TorchScript: opening its file runs code of its author.
https://docs.metatensor.org/metatomic; PET: Pozdnyakov and Ceriotti, NeurIPS 2023, arXiv 2305.19302.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from conservbench.hint import did_you_mean
from conservbench.models.base import (
    InvalidPredictionError,
    Prediction,
    UnsupportedError,
    check_support,
    gradient_of_energy,
)
from conservbench.neighbors import Pairs, VerletList
from conservbench.scheme import Channel
from conservbench.state import State

if TYPE_CHECKING:
    from metatomic.torch import AtomisticModel, ModelCapabilities

    from conservbench.cards import ModelCard
    from conservbench.systems import System

# TorchScript's profiling executor rewrites a graph during its first calls: results then depend on how often a network
# was called.
torch._C._jit_set_profiling_executor(False)

_ENERGY: Final = "energy"
_FORCE: Final = ("non_conservative_force", "non_conservative_forces")
"""Names of the output: today's, and the one that models exported before 2026 declare."""

_LENGTH_UNIT: Final = "angstrom"
_ENERGY_UNIT: Final = "eV"
_FORCE_UNIT: Final = "eV/angstrom"

_PAIR: Final = ("first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c")


@dataclass(frozen=True)
class Outputs:
    """Names of the outputs that are read; None for one that the model does not have.

    Attributes:
        energy: of the output that is an energy.
        direct: of the output that is a force on each atom.
    """

    energy: str | None
    direct: str | None

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The force channels that they give."""
        gradient: tuple[Channel, ...] = ("gradient",) if self.energy is not None else ()
        direct: tuple[Channel, ...] = ("direct",) if self.direct is not None else ()
        return gradient + direct


def find_outputs(declared: Collection[str], variant: str = "") -> Outputs:
    """What a model has of energy and direct forces.

    Args:
        declared: names of all outputs of the model, such as ``energy`` or ``energy/pbe``.
        variant: which of several outputs of one kind, such as ``pbe``; empty for the one without a variant.

    Raises:
        ValueError: the model has neither, or no such variant, or none at all.
    """
    suffix = f"/{variant}" if variant else ""
    energy = f"{_ENERGY}{suffix}"
    direct = next((name + suffix for name in _FORCE if name + suffix in declared), None)
    if energy in declared or direct is not None:
        return Outputs(energy if energy in declared else None, direct)
    kinds = (_ENERGY, *_FORCE)
    variants = {name.partition("/")[2] for name in declared if name.partition("/")[0] in kinds} - {""}
    if variants:
        what = f"variant {variant!r}" if variant else "output without a variant"
        raise ValueError(f"the model has no {what}{did_you_mean(variant, variants)}")
    if variant and not set(kinds).isdisjoint(declared):
        raise ValueError(f"the model has no variants: leave out variant = {variant!r}")
    raise ValueError(f"the model has neither {_ENERGY!r} nor {_FORCE[0]!r}; it has: {', '.join(sorted(declared))}")


def _unit_of(capabilities: ModelCapabilities, name: str) -> str:
    """Unit of an output; where none is declared eV, and of a force that of the energy over that of lengths."""
    declared = capabilities.outputs
    if declared[name].unit:
        return declared[name].unit
    energies = [output.unit for other, output in declared.items() if other.partition("/")[0] == _ENERGY]
    energy = next(filter(None, energies), _ENERGY_UNIT)
    return energy if name.partition("/")[0] == _ENERGY else f"({energy})/{capabilities.length_unit}"


class MetatomicModel:
    """An exported metatomic model behind the suite's interface (see :class:`conservbench.models.base.Model`).

    Args:
        exported: what :func:`read_exported` returns, on its device and in its precision.
        variant: which of several outputs of one kind is read, such as ``pbe``; empty for the one without a variant.
        skin: of the neighbour lists, Å.

    Raises:
        ValueError: the model has no energy and no direct force, no such variant, no unit of length, or needs inputs
            other than atoms and neighbours.
    """

    differentiable = True
    labelled = False

    def __init__(self, exported: AtomisticModel, *, variant: str = "", skin: float = 0.5) -> None:
        from metatomic.torch import unit_conversion_factor

        if extra := sorted(exported.requested_inputs(use_new_names=True)):
            raise ValueError(f"the model needs what no system here has: {', '.join(extra)}")
        capabilities = exported.capabilities()
        self.exported = exported
        self.outputs = find_outputs(capabilities.outputs, variant)
        self.channels = self.outputs.channels
        self.elements: frozenset[int] | None = frozenset(capabilities.atomic_types)
        if not capabilities.length_unit:
            raise ValueError("the model does not say its unit of length; export it with a length_unit")
        self._factors = {
            name: unit_conversion_factor(_unit_of(capabilities, name), own)
            for name, own in ((self.outputs.energy, _ENERGY_UNIT), (self.outputs.direct, _FORCE_UNIT))
            if name is not None
        }
        requests = exported.requested_neighbor_lists()
        self.neighbors = [(request, VerletList(request.engine_cutoff(_LENGTH_UNIT), skin)) for request in requests]
        weight = next(exported.parameters(), torch.zeros((), dtype=getattr(torch, capabilities.dtype)))
        self._dtype, self._device = weight.dtype, weight.device

    @property
    def device(self) -> torch.device:
        """See :meth:`conservbench.models.base.Model.device`."""
        return self._device

    def evaluate(
        self, state: State, *, forces: Collection[Channel] = (), stress: bool = False, graph: bool = False
    ) -> Prediction:
        """See :meth:`conservbench.models.base.Model.evaluate`.

        Raises:
            UnsupportedError: a channel or an element that the model does not have, or a stress without an energy.
            InvalidPredictionError: an output is not one number a system, or not one vector an atom.
        """
        check_support(self, state, forces)
        if stress and self.outputs.energy is None:
            raise UnsupportedError("the model has no energy, and so no stress")
        pairs = [lists(state) for _, lists in self.neighbors]
        names = [] if self.outputs.energy is None else [self.outputs.energy]
        if "direct" in forces and self.outputs.direct is not None:
            names.append(self.outputs.direct)
        said: dict[str, Tensor] = {}

        def energy_of(positions: Tensor, cell: Tensor) -> Tensor:
            said.update(self._run(names, state, pairs, positions, cell))
            return said[names[0]]

        energy = gradient = stresses = None
        with _any_derivative() if graph else nullcontext():
            if self.outputs.energy is not None:
                energy, gradient, stresses = gradient_of_energy(
                    energy_of, state, forces="gradient" in forces, stress=stress, graph=graph
                )
            elif names:
                with torch.set_grad_enabled(graph):
                    energy_of(state.positions, state.cell)
        pulls: dict[Channel, Tensor] = {}
        if gradient is not None:
            pulls["gradient"] = gradient
        if "direct" in forces:
            raw = said[names[-1]] if graph else said[names[-1]].detach()
            pulls["direct"] = raw - (state.sum(raw) / state.counts[:, None])[state.system]
        return Prediction(energy, pulls, stresses)

    def _run(
        self, names: list[str], state: State, pairs: list[Pairs], positions: Tensor, cell: Tensor
    ) -> dict[str, Tensor]:
        """The outputs of these names in the suite's units, float64: (n_systems,) or (n_atoms, 3)."""
        from metatomic.torch import ModelEvaluationOptions, ModelOutput

        # without a unit nothing is converted, which metatomic would do in place
        asked = {
            name: ModelOutput(unit="", sample_kind="system" if name == self.outputs.energy else "atom")
            for name in names
        }
        options = ModelEvaluationOptions(length_unit=_LENGTH_UNIT, outputs=asked)
        systems = self._systems(state, pairs, positions, cell)
        answer = self.exported(systems, options, check_consistency=False)
        return {
            name: self._factors[name] * _in_order(name, answer[name], state, whole=name == self.outputs.energy)
            for name in names
        }

    def _systems(self, state: State, pairs: list[Pairs], positions: Tensor, cell: Tensor) -> list[Any]:
        """The batch as metatomic has it, system by system, attached to positions and cell."""
        from metatomic.torch import System

        # metatomic wants no cell vector where a system is not periodic
        cells = torch.where(state.pbc[:, :, None], cell, 0.0)
        ends = state.counts.cumsum(0)
        numbers, places, boxes = state.numbers.to(torch.int32), positions.to(self._dtype), cells.to(self._dtype)
        starts, stops = (ends - state.counts).tolist(), ends.tolist()
        systems = [
            System(numbers[start:stop], places[start:stop], box, periodic)
            for start, stop, box, periodic in zip(starts, stops, boxes, state.pbc, strict=True)
        ]
        for (request, _), found in zip(self.neighbors, pairs, strict=True):
            listed = found if request.full_list else _half(found)
            vectors = listed.vectors(positions, cells, state.system).to(self._dtype)
            first = (ends - state.counts)[state.system[listed.first]]
            samples = torch.stack((listed.first - first, listed.second - first), 1)
            samples = torch.cat((samples, listed.shift), 1).to(torch.int32)
            # pairs are sorted by their central atom
            cuts = [0, *torch.searchsorted(listed.first, ends).tolist()]
            for system, start, stop in zip(systems, cuts[:-1], cuts[1:], strict=True):
                system.add_neighbor_list(request, _block(samples[start:stop], vectors[start:stop]))
        return systems


def _half(pairs: Pairs) -> Pairs:
    """One of the two directions of each pair."""
    step = pairs.second - pairs.first
    for axis in range(3):
        step = torch.where(step == 0, pairs.shift[:, axis], step)
    kept = torch.nonzero(step > 0)[:, 0]
    return Pairs(pairs.first[kept], pairs.second[kept], pairs.shift[kept])


def _block(samples: Tensor, vectors: Tensor) -> Any:
    """A neighbour list (n_pairs, 5) with its vectors (n_pairs, 3)."""
    from metatensor.torch import Labels, TensorBlock

    device = samples.device
    return TensorBlock(
        values=vectors[:, :, None],
        samples=Labels(list(_PAIR), samples, assume_unique=True),
        components=[Labels(["xyz"], torch.arange(3, dtype=torch.int32, device=device)[:, None], assume_unique=True)],
        properties=Labels(["distance"], torch.zeros((1, 1), dtype=torch.int32, device=device), assume_unique=True),
    )


def _in_order(name: str, answer: Any, state: State, *, whole: bool) -> Tensor:
    """The values of an output, float64, in the order of the state: (n_systems,) or (n_atoms, 3).

    Raises:
        InvalidPredictionError: there are more or fewer than one a system, or one an atom.
    """
    expected = (state.n_systems, 1) if whole else (state.n_atoms, 3, 1)
    values = answer.block().values if len(answer) == 1 else torch.empty(0)
    if tuple(values.shape) != expected:
        raise InvalidPredictionError(f"{name}: shape is {tuple(values.shape)}, expected {expected}")
    samples = answer.block().samples
    index = samples.column("system").long()
    if not whole:
        index = (state.counts.cumsum(0) - state.counts)[index] + samples.column("atom").long()
    return values[..., 0].double()[torch.argsort(index)]


@contextmanager
def _any_derivative() -> Iterator[None]:
    """Attention by matrix products: torch's fused kernels have a first derivative and no second."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


@dataclass(frozen=True)
class Options:
    """Options of a model card.

    Attributes:
        variant: which of several outputs of one kind is read, such as ``pbe`` for ``energy/pbe``.
        trust: open a checkpoint whose card states no checksum; an exported model runs code of its author.
    """

    variant: str = ""
    trust: bool = False


def read_exported(path: Path) -> AtomisticModel:
    """Open an exported model, which runs code of its author.

    Raises:
        ImportError: metatomic is not installed.
        ValueError: the file is no exported model, or one that this version of metatomic cannot open.
    """
    from metatomic.torch import load_atomistic_model

    try:
        return load_atomistic_model(path)
    except (RuntimeError, ValueError) as error:
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"{path}: no metatomic model that can be opened here: {said}") from error


def load(card: ModelCard, system: System, *, device: str = "cpu", dtype: str | None = None) -> MetatomicModel:
    """Load the exported model a model card names (see :mod:`conservbench.plugins`); its options are :class:`Options`.

    Raises:
        CardError: the card names no checkpoint, states no checksum and no trust, the file is missing or another one, it
            is no model that can be read here, it lacks the device, metatomic is not installed, or an option is wrong.
    """
    from conservbench.cards import CardError, build, checkpoint_of

    options = build(Options, card.options, f"{card.path}: [options]")
    path = checkpoint_of(card)
    if card.sha256 is None and not options.trust:
        raise CardError(
            f"{card.path}: opening {path.name} runs code of its author: state its sha256, or trust = true in [options]"
        )
    try:
        exported = read_exported(path)
        capabilities = exported.capabilities()
        if torch.device(device).type not in capabilities.supported_devices:
            known = ", ".join(capabilities.supported_devices)
            raise ValueError(f"{path}: the model does not run on {device!r}; expected one of: {known}")
        wanted = dtype or card.dtype
        # parts that a model keeps in double precision stay so where nothing has to change
        exported = exported.to(device) if wanted == capabilities.dtype else exported.to(device, getattr(torch, wanted))
        return MetatomicModel(exported, variant=options.variant)
    except ImportError as error:
        # its libraries are compiled for some versions of torch, and refuse others so
        raise CardError(
            f"{card.path}: loader 'metatomic' cannot import metatomic beside torch {torch.__version__}: {error}"
        ) from error
    except ValueError as error:
        raise CardError(f"{card.path}: {error}") from error
