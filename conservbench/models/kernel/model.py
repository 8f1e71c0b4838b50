"""Kernel models behind the suite's interface: conservative by construction."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import torch
from torch import Tensor
from torch.autograd import forward_ad

from conservbench.hint import did_you_mean
from conservbench.models.base import Prediction, UnsupportedError, check_support, gradient_of_energy
from conservbench.models.kernel.atom_order import AtomOrder
from conservbench.models.kernel.checkpoint import LEARNED, Trained, read_checkpoint, save_checkpoint
from conservbench.models.kernel.contracted import Contracted, Recorder
from conservbench.models.kernel.expansion import Expansion
from conservbench.models.kernel.jets import features_of
from conservbench.models.kernel.kernel import Part, Points, matrix, parts_of
from conservbench.neighbors import Pairs, VerletList
from conservbench.scheme import Channel
from conservbench.state import State, select

if TYPE_CHECKING:
    from conservbench.cards import ModelCard
    from conservbench.systems import System


MOST_ROWS: Final = 5000
"""Of the training matrix, up to which it is made and factored again for the uncertainty: some 0.6 GB at that."""


class KernelModel:
    """A trained kernel (see :class:`conservbench.models.base.Model`), float64 whatever is asked for.

    The coefficients of a kernel with little regularisation cancel: single precision would leave nothing of the forces.

    Args:
        trained: points, kernel and coefficients.
        skin: Å, of the neighbour list of a local descriptor.
    """

    channels: tuple[Channel, ...] = ("gradient",)
    differentiable = True

    def __init__(self, trained: Trained, *, skin: float = 0.5) -> None:
        self.trained = trained
        self.elements: frozenset[int] | None = frozenset(trained.state.numbers.tolist())
        cutoff = trained.kernel.descriptor.cutoff
        self.neighbors = None if cutoff is None else VerletList(cutoff, skin)
        self.labelled = cutoff is None
        n_atoms = int(trained.state.counts[0])
        self.order = (
            AtomOrder(trained.state.numbers[:n_atoms], trained.state.positions[:n_atoms]) if cutoff is None else None
        )
        self._expansion: Expansion | None = None
        self._recorder: Recorder | None = Recorder(self._contracted)
        self._parts: list[Part] = []

    @property
    def device(self) -> torch.device:
        """See :meth:`conservbench.models.base.Model.device`."""
        return self.trained.state.positions.device

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """See :meth:`conservbench.models.base.Tunable.parameters`: coefficients, offset, length scale, exponents."""
        return self.trained.parameters

    def at(self, parameters: Mapping[str, Tensor]) -> Self:
        """See :meth:`conservbench.models.base.Tunable.at`; training points and neighbour list are shared.

        Raises:
            ValueError: a name is not known.
        """
        for name in parameters:
            if name not in self.parameters:
                raise ValueError(f"the kernel has no parameter {name!r}{did_you_mean(name, self.parameters)}")
        other = copy(self)
        other.trained = self.trained.tuned(parameters) if parameters else self.trained
        other._expansion = None  # noqa: SLF001 - its own copy
        if any(name.startswith(LEARNED) for name in parameters):
            other._parts = []  # noqa: SLF001
        # one that is tuned lives for a step: recording it would cost more than it saves
        other._recorder = None  # noqa: SLF001
        other.__dict__.pop("_factor", None)
        return other

    def save(self, path: Path) -> Mapping[str, Any]:
        """See :meth:`conservbench.models.base.Tunable.save`: ``NAME.safetensors``."""
        file = path.with_suffix(".safetensors")
        save_checkpoint(self.trained, file)
        return {"checkpoint": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}

    def evaluate(
        self, state: State, *, forces: Collection[Channel] = (), stress: bool = False, graph: bool = False
    ) -> Prediction:
        """See :meth:`conservbench.models.base.Model.evaluate`.

        Raises:
            UnsupportedError: another molecule, another order of its atoms, or the stress of a molecule.
        """
        check_support(self, state, forces)
        self._check(state, stress=stress)
        pairs = None if self.neighbors is None else self.neighbors(state)
        if "gradient" in forces and not stress and not graph:
            return self._without_graph(state, pairs)
        kernel = self.trained.kernel
        features = features_of(kernel.descriptor, kernel.learned, state, pairs)
        self._check_forward(state)
        whole = self._expanded(graph=graph)
        offset = self.parameters["offset"]
        counts = state.counts if self.order is None else torch.ones_like(state.cell[:, 0, 0])

        def energy_of(positions: Tensor, cell: Tensor) -> Tensor:
            rows = whole(features(positions, cell), features.species)
            total = rows.new_zeros(state.n_systems).index_add(0, features.system, rows)
            return total + offset * counts

        energy, gradient, stresses = gradient_of_energy(
            energy_of, state, forces="gradient" in forces, stress=stress, graph=graph
        )
        return Prediction(energy, {} if gradient is None else {"gradient": gradient}, stresses)

    def _without_graph(self, state: State, pairs: Pairs | None) -> Prediction:
        """Energy and forces, detached."""
        with torch.no_grad():
            if self.order is None:
                energies, pulls = self._contracted(state, pairs)(state.positions, state.cell)
                return Prediction(energies + self.parameters["offset"] * state.counts, {"gradient": pulls})
            if self._recorder is None:
                energies, pulls = self._contracted(state)(state.positions, state.cell)
            else:
                energies, pulls = self._recorder(state)
            return Prediction(energies + self.parameters["offset"], {"gradient": pulls})

    def _contracted(self, state: State, pairs: Pairs | None = None) -> Contracted:
        kernel, learned = self.trained.kernel, {key: v.detach() for key, v in self.trained.kernel.learned.items()}
        return Contracted(features_of(kernel.descriptor, learned, state, pairs), self._expanded(graph=False))

    def uncertainty(self, state: State) -> Tensor:
        """Standard deviation of each component of the forces under the Gaussian process, (n_atoms, 3), eV/Å.

        The factor of the training matrix is made on the first call and kept; a call then costs one triangular solve.

        Raises:
            UnsupportedError: the model was tuned, the matrix has more than :data:`MOST_ROWS` rows, or as
                :meth:`evaluate` does.
        """
        check_support(self, state, self.channels)
        if math.isnan(self.trained.settings.signal):
            raise UnsupportedError("the model was tuned: its coefficients are no longer those of a Gaussian process")
        rows = sum(self.trained.points.widths)
        if rows > MOST_ROWS:
            raise UnsupportedError(
                f"the uncertainty needs the factor of a matrix of {rows} rows; it is made of up to {MOST_ROWS}"
            )
        self._check(state, stress=False)
        spreads = []
        kernel, trained = self.trained.kernel, self.trained
        with torch.no_grad():
            for index in range(state.n_systems):
                one = Points(select(state, [index]))
                across = matrix(kernel, one, trained.points)
                solved = torch.linalg.solve_triangular(self._factor, across.T, upper=False)
                variance = matrix(kernel, one).diagonal() - solved.square().sum(0)
                spreads.append(trained.settings.signal * variance.clamp_min(0.0).sqrt())
        return torch.cat(spreads).view(-1, 3)

    @cached_property
    def _factor(self) -> Tensor:
        settings, points = self.trained.settings, self.trained.points
        with torch.no_grad():
            noisy = matrix(self.trained.kernel, points)
            noisy.diagonal().add_(noise(points, settings.regularization, settings.energy_regularization))
            return torch.linalg.cholesky(noisy)

    def _check(self, state: State, *, stress: bool) -> None:
        if self.order is None:
            return
        if stress:
            raise UnsupportedError("the model is of a molecule: there is no stress")
        if bool(state.pbc.any()):
            raise UnsupportedError("the model is of one molecule, and was given a periodic cell")
        self.order.check(state)

    def _check_forward(self, state: State) -> None:
        """Forward differentiation is not nested by torch, and the features' derivatives are taken so."""
        nested = [value for key, value in self.parameters.items() if key.startswith(LEARNED)]
        if len(self.trained.directions):
            nested += [state.positions, *self.parameters.values()]
        if any(map(_is_dual, nested)):
            raise UnsupportedError(
                "the model cannot be differentiated forwards by parameters of its descriptor, or where it was trained "
                "on derivatives of forces"
            )

    def _expanded(self, *, graph: bool) -> Expansion:
        """The expansion, kept where no graph leads to a parameter."""
        if graph and any(map(_is_live, self.parameters.values())):
            if any(_is_live(value) for key, value in self.parameters.items() if key.startswith(LEARNED)):
                return self.trained.expand()
            if not self._parts:
                self._parts.extend(parts_of(self.trained.kernel, self.trained.points, permuted=True))
            return self.trained.expand_parts(self._parts)
        if self._expansion is None:
            plain = {key: value.detach() for key, value in self.parameters.items()}
            self._expansion = self.trained.with_parameters(plain).expand()
        return self._expansion


def _is_live(value: Tensor) -> bool:
    """Whether something is differentiated by a tensor, in either mode."""
    return value.requires_grad or _is_dual(value)


def _is_dual(value: Tensor) -> bool:
    return forward_ad.unpack_dual(value).tangent is not None


def noise(points: Points, forces: float, energies: float) -> Tensor:
    """What is added to the diagonal of the matrix of points, (sum of widths,)."""
    parts = []
    for width in points.widths:
        part = torch.full((width,), forces, dtype=torch.float64, device=points.state.cell.device)
        if points.has_energies:
            part[0] = energies
        parts.append(part)
    return torch.cat(parts)


def load(card: ModelCard, system: System, *, device: str = "cpu", dtype: str | None = None) -> KernelModel:
    """Load the checkpoint a model card names (see :mod:`conservbench.plugins`); there are no options.

    Raises:
        CardError: the card names no checkpoint, the file is missing or has another checksum, or it has options.
    """
    from conservbench.cards import checkpoint_of, exact_keys

    exact_keys(card.options, (), f"{card.path}: [options]")
    return KernelModel(read_checkpoint(checkpoint_of(card)).to(device))
