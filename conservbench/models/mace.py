"""Two-headed MACE: the energy of mace-torch's ScaleShiftMACE and an equivariant vector read-out for direct forces.

One forward pass gives the energy, the direct forces, or both; the gradient forces come from the energy by one reverse
pass. MACE: Batatia et al., NeurIPS 2022, arXiv 2206.07697. Two heads on one trunk: Bigi, Langer and Ceriotti, arXiv
2412.11569.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Collection, Mapping
from copy import copy, deepcopy
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from conservbench.hint import did_you_mean
from conservbench.models import checkpoint
from conservbench.models.base import Prediction, check_support, gradient_of_energy
from conservbench.neighbors import Pairs, VerletList
from conservbench.process import quiet_loading
from conservbench.scheme import CHANNELS, Channel
from conservbench.state import State

if TYPE_CHECKING:
    from conservbench.cards import ModelCard
    from conservbench.systems import System

# e3nn compiles its products with TorchScript, whose profiling executor rewrites a graph during its first calls: results
# then depend on how often a network was called, and checkpointed gradients are wrong until the third call.
torch._C._jit_set_profiling_executor(False)
# e3nn 0.4.4 reads a table of constants with torch.load, which holds slices.
torch.serialization.add_safe_globals([slice])


@dataclass(frozen=True)
class Architecture:
    """Size of a network, chosen before any data is seen.

    Attributes:
        cutoff: Å.
        channels: multiplicity of each hidden irrep (``channels``x0e + ``channels``x1o).
        max_ell: highest spherical harmonic of an edge.
        correlation: order of the product basis.
        radial_mlp: widths of the hidden layers of the radial network.
        n_bessel: radial basis functions.
        envelope: power of the polynomial cutoff function.
        direct_hidden: multiplicity of the gated layer of the vector read-out.

    Raises:
        ValueError: a value is out of range.
    """

    cutoff: float
    channels: int
    max_ell: int
    correlation: int
    radial_mlp: tuple[int, ...]
    n_bessel: int
    envelope: int
    direct_hidden: int

    def __post_init__(self) -> None:
        if not self.cutoff > 0:
            raise ValueError(f"cutoff is {self.cutoff}; expected a positive number")
        for name in ("channels", "correlation", "n_bessel", "envelope", "direct_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.max_ell < 1:
            raise ValueError(f"max_ell is {self.max_ell}; expected 1 or more, for vectors")
        if not self.radial_mlp or min(self.radial_mlp) < 1:
            raise ValueError(f"radial_mlp is {list(self.radial_mlp)}; expected positive widths")


@dataclass(frozen=True)
class NetworkSettings(Architecture):
    """Everything that fixes a network and is not a weight: its size, and the normalisation taken from the data.

    Attributes:
        elements: atomic numbers it knows, ascending.
        mean_neighbors: average number of neighbours in the training set.
        atomic_energies: eV, one an element.
        energy_scale: eV, scale of the interaction energy.
        energy_shift: eV/atom, shift of the interaction energy.
        force_scale: eV/Å, scale of the direct forces.
    """

    elements: tuple[int, ...]
    mean_neighbors: float
    atomic_energies: tuple[float, ...]
    energy_scale: float
    energy_shift: float
    force_scale: float

    @classmethod
    def from_toml(cls, text: str) -> NetworkSettings:
        """Read what :meth:`to_toml` wrote.

        Raises:
            ValueError: a key is missing or not known.
        """
        table = tomllib.loads(text)
        names = {field.name for field in fields(cls)}
        if set(table) != names:
            odd = ", ".join(sorted(set(table) ^ names))
            raise ValueError(f"network settings do not match this version of the network: {odd}")
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in table.items()}
        return cls(**values)

    def to_toml(self) -> str:
        """TOML text of the settings."""
        lines = []
        for key, value in asdict(self).items():
            shown = "[" + ", ".join(map(repr, value)) + "]" if isinstance(value, tuple) else repr(value)
            lines.append(f"{key} = {shown}")
        return "\n".join(lines) + "\n"


class DirectReadout(nn.Module):
    """Equivariant vector read-out of the node features: a gated linear layer, then a linear one to a vector.

    The net force of each system is removed, so that momentum is conserved.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        from e3nn import nn as e3nn_nn
        from e3nn import o3

        width = settings.direct_hidden
        scalars, gates, gated = (o3.Irreps(f"{width}x{irrep}") for irrep in ("0e", "0e", "1o"))
        silu = torch.nn.functional.silu
        features = o3.Irreps(f"{settings.channels}x0e + {settings.channels}x1o")
        # node features of both layers, in mace's order, and products of the gated vectors with the scalars
        self.gate = e3nn_nn.Gate(scalars, [silu], gates, [torch.sigmoid], gated)
        self.mix = o3.Linear(features + features, self.gate.irreps_in)
        self.project = o3.Linear(self.gate.irreps_out, o3.Irreps("1x1o"))
        self.register_buffer("scale", torch.tensor(settings.force_scale, dtype=torch.get_default_dtype()))

    def forward(self, features: Tensor, state: State) -> Tensor:
        """(n_atoms, 3) forces in eV/Å of node features (n_atoms, 8 channels)."""
        raw = self.project(self.gate(self.mix(features))) * self.scale
        counts = state.counts.to(raw.dtype)
        return raw - (state.sum(raw) / counts[:, None])[state.system]


class TwoHeadedMACE(nn.Module):
    """ScaleShiftMACE that keeps the vectors of its last layer, and a :class:`DirectReadout` of them."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.settings = settings
        with quiet_loading():
            self.trunk = _trunk(settings)
            self.direct = DirectReadout(settings)
        lookup = torch.full((max(settings.elements) + 1,), -1, dtype=torch.long)
        lookup[list(settings.elements)] = torch.arange(len(settings.elements))
        self.species: Tensor
        self.register_buffer("species", lookup, persistent=False)

    @property
    def weight(self) -> Tensor:
        """A tensor of the dtype and device of all weights."""
        return next(self.parameters())

    def forward(self, state: State, pairs: Pairs, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Energy (n_systems,) and node features, in the network's dtype.

        Args:
            state: composition of the batch; its own positions and cell are not read.
            pairs: neighbours within the cutoff.
            positions: (n_atoms, 3), float64.
            cell: (n_systems, 3, 3), float64.
        """
        dtype = self.weight.dtype
        # differences are taken in float64: rounding then does not grow with the distance from the origin
        vectors = pairs.vectors(positions, cell, state.system).to(dtype)
        # mace rebuilds vectors as positions[j] - positions[i] + shifts: zero positions leave ours as they are
        n_atoms = state.n_atoms
        species = torch.nn.functional.one_hot(self.species[state.numbers], len(self.settings.elements)).to(dtype)
        data = {
            "positions": vectors.new_zeros((n_atoms, 3)),
            "edge_index": torch.stack((pairs.first, pairs.second)),
            "shifts": vectors,
            "unit_shifts": pairs.shift.to(dtype),
            "node_attrs": species,
            "batch": state.system,
            "ptr": torch.nn.functional.pad(torch.cumsum(state.counts, 0), (1, 0)),
            "cell": cell.to(dtype),
        }
        out = self.trunk(data, compute_force=False)
        return out["energy"], out["node_feats"]

    def predict(
        self, state: State, pairs: Pairs, *, forces: Collection[Channel], stress: bool = False, graph: bool = False
    ) -> Prediction:
        """Energies, and forces of the channels asked for, from one forward pass; all float64.

        Args:
            state: the batch.
            pairs: its neighbours within the cutoff.
            forces: the channels wanted.
            stress: whether the stress of the gradient channel is wanted.
            graph: keep the graph of everything.
        """
        features: list[Tensor] = []

        def energy_of(positions: Tensor, cell: Tensor) -> Tensor:
            energy, node_features = self(state, pairs, positions, cell)
            features.append(node_features)
            return energy.double()

        energy, gradient, stresses = gradient_of_energy(
            energy_of, state, forces="gradient" in forces, stress=stress, graph=graph
        )
        pulls: dict[Channel, Tensor] = {}
        if gradient is not None:
            pulls["gradient"] = gradient
        if "direct" in forces:
            with torch.set_grad_enabled(graph):
                pulls["direct"] = self.direct(features[0], state).double()
        return Prediction(energy, pulls, stresses)


def _trunk(settings: NetworkSettings) -> nn.Module:
    from e3nn import o3
    from mace.modules.blocks import RealAgnosticResidualInteractionBlock
    from mace.modules.models import ScaleShiftMACE

    return ScaleShiftMACE(
        atomic_inter_scale=settings.energy_scale,
        atomic_inter_shift=settings.energy_shift,
        r_max=settings.cutoff,
        num_bessel=settings.n_bessel,
        num_polynomial_cutoff=settings.envelope,
        max_ell=settings.max_ell,
        interaction_cls=RealAgnosticResidualInteractionBlock,
        interaction_cls_first=RealAgnosticResidualInteractionBlock,
        num_interactions=2,
        num_elements=len(settings.elements),
        hidden_irreps=o3.Irreps(f"{settings.channels}x0e + {settings.channels}x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.array(settings.atomic_energies),
        avg_num_neighbors=settings.mean_neighbors,
        atomic_numbers=list(settings.elements),
        correlation=settings.correlation,
        gate=torch.nn.functional.silu,
        radial_MLP=list(settings.radial_mlp),
        keep_last_layer_irreps=True,
    )


class MACEModel:
    """A :class:`TwoHeadedMACE` behind the suite's interface (see :class:`conservbench.models.base.Model`)."""

    differentiable = True
    labelled = False

    def __init__(self, network: TwoHeadedMACE, *, channels: tuple[Channel, ...] = CHANNELS, skin: float = 0.5) -> None:
        self.network = network
        self.channels = channels
        self.elements: frozenset[int] | None = frozenset(network.settings.elements)
        self.neighbors = VerletList(network.settings.cutoff, skin)
        self._replaced: Mapping[str, Tensor] = MappingProxyType({})

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """See :meth:`conservbench.models.base.Tunable.parameters`: the weights of the network."""
        return {**dict(self.network.named_parameters()), **self._replaced}

    def at(self, parameters: Mapping[str, Tensor]) -> Self:
        """See :meth:`conservbench.models.base.Tunable.at`; network and neighbour list are shared.

        Raises:
            ValueError: a name is none of a weight.
        """
        known = dict(self.network.named_parameters())
        for name in parameters:
            if name not in known:
                raise ValueError(f"the network has no weight {name!r}{did_you_mean(name, known)}")
        other = copy(self)
        other._replaced = {**self._replaced, **parameters}  # noqa: SLF001 - its own copy
        return other

    def save(self, path: Path) -> Mapping[str, Any]:
        """See :meth:`conservbench.models.base.Tunable.save`: ``NAME.safetensors``, in the precision of the network."""
        network = deepcopy(self.network)
        network.load_state_dict(self._replaced, strict=False)
        file = path.with_suffix(".safetensors")
        save_checkpoint(network, file)
        return {"checkpoint": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}

    @property
    def device(self) -> torch.device:
        """See :meth:`conservbench.models.base.Model.device`."""
        return self.network.weight.device

    def evaluate(
        self, state: State, *, forces: Collection[Channel] = (), stress: bool = False, graph: bool = False
    ) -> Prediction:
        """See :meth:`conservbench.models.base.Model.evaluate`."""
        check_support(self, state, forces)
        pairs = self.neighbors(state)
        wanted: dict[str, Any] = {"forces": forces, "stress": stress, "graph": graph}
        if not self._replaced:
            return self.network.predict(state, pairs, **wanted)
        weights = {f"network.{name}": value for name, value in self._replaced.items()}
        return torch.func.functional_call(_Predict(self.network), weights, (state, pairs), wanted)


class _Predict(nn.Module):
    """:meth:`TwoHeadedMACE.predict` as the forward pass of a module, the one that torch can call with other weights."""

    def __init__(self, network: TwoHeadedMACE) -> None:
        super().__init__()
        self.network = network

    def forward(self, state: State, pairs: Pairs, **wanted: Any) -> Prediction:
        """Predict."""
        return self.network.predict(state, pairs, **wanted)


_FORMAT = 1
"""Layout of a checkpoint; raised when an old one would be read wrongly."""


def save_checkpoint(network: TwoHeadedMACE, path: Path) -> None:
    """Write weights and settings; see :mod:`conservbench.models.checkpoint`.

    Raises:
        conservbench.result.WriteError: the file cannot be written.
    """
    checkpoint.write_checkpoint(path, "mace", _FORMAT, network.settings.to_toml(), network.state_dict())


def read_checkpoint(path: Path) -> TwoHeadedMACE:
    """Read what :func:`save_checkpoint` wrote; nothing is unpickled.

    Raises:
        ValueError: the file is no checkpoint of this network, or of another layout.
    """
    settings, weights = checkpoint.read_checkpoint(path, "mace", _FORMAT, "a conservbench MACE checkpoint")
    network = TwoHeadedMACE(NetworkSettings.from_toml(settings))
    network.load_state_dict(weights)
    return network


@dataclass(frozen=True)
class Options:
    """Options of a model card.

    Attributes:
        heads: the force channels the training covered.
    """

    heads: tuple[Channel, ...] = CHANNELS

    def __post_init__(self) -> None:
        if not self.heads:
            raise ValueError(f"heads is empty; expected some of {', '.join(CHANNELS)}")


def load(card: ModelCard, system: System, *, device: str = "cpu", dtype: str | None = None) -> MACEModel:
    """Load the checkpoint a model card names (see :mod:`conservbench.plugins`); its options are :class:`Options`.

    Raises:
        CardError: the card names no checkpoint, the file is missing or has another checksum, or an option is wrong.
    """
    from conservbench.cards import build, checkpoint_of

    options = build(Options, card.options, f"{card.path}: [options]")
    network = read_checkpoint(checkpoint_of(card)).to(device=device, dtype=getattr(torch, dtype or card.dtype))
    return MACEModel(network.requires_grad_(False), channels=options.heads)
