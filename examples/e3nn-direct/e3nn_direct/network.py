"""The network: rounds of equivariant messages, and a vector of each atom as its force.

A message is the tensor product of a neighbour's features with the spherical harmonics of the bond, weighted by a
network of its length (Thomas et al., arXiv 1802.08219; Batzner et al., Nat. Commun. 13, 2453, 2022). There is no
energy: a linear layer makes the forces, and nothing makes their Jacobian symmetric.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from conservbench.neighbors import Pairs
from conservbench.state import State

# e3nn 0.4 reads a table of constants with torch.load, which holds slices
torch.serialization.add_safe_globals([slice])

from e3nn import get_optimization_defaults, o3, set_optimization_defaults  # noqa: E402 - after the line above
from e3nn.nn import Gate  # noqa: E402 - likewise


@dataclass(frozen=True)
class Settings:
    """All that fixes a network and is no weight.

    Attributes:
        elements: atomic numbers it knows, ascending.
        cutoff: Å.
        hidden: features of an atom, irreps as e3nn spells them.
        lmax: highest spherical harmonic of a bond.
        n_radial: radial functions.
        width: of the hidden layer of the radial network.
        n_blocks: rounds of messages.
        mean_neighbors: of an atom in the training set.
        force_scale: eV/Å, root mean square of the components of the forces in the training set.
    """

    elements: tuple[int, ...]
    cutoff: float
    hidden: str
    lmax: int
    n_radial: int
    width: int
    n_blocks: int
    mean_neighbors: float
    force_scale: float


class Network(nn.Module):
    """Forces of a batch, without the net force of each system; in double precision until it is moved to another."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        hidden = o3.Irreps(settings.hidden)
        self.harmonics = o3.Irreps.spherical_harmonics(settings.lmax)
        scalars, vectors = (o3.Irreps([(hidden.count(irrep), irrep)]) for irrep in ("0e", "1o"))
        # nobody reads the other irreps of the last block
        sizes = [scalars, *[hidden] * (settings.n_blocks - 1), vectors]
        with _exact_and_plain():
            self.embedding = nn.Embedding(len(settings.elements), scalars.dim)
            self.blocks = nn.ModuleList(
                Block(before, self.harmonics, after, settings) for before, after in pairwise(sizes)
            )
            self.readout = o3.Linear(vectors, o3.Irreps("1o"))
        lookup = torch.full((max(settings.elements) + 1,), -1)
        lookup[list(settings.elements)] = torch.arange(len(settings.elements))
        self.species: Tensor
        self.register_buffer("species", lookup)

    def forward(self, state: State, pairs: Pairs) -> Tensor:
        """(n_atoms, 3) forces in eV/Å, float64.

        Args:
            state: the batch.
            pairs: its neighbours within the cutoff.
        """
        settings, dtype = self.settings, self.embedding.weight.dtype
        # differences are taken in float64: rounding then does not grow with the distance from the origin
        vectors = pairs.vectors(state.positions, state.cell, state.system).to(dtype)
        distance = torch.linalg.vector_norm(vectors, dim=1)
        bonds = o3.spherical_harmonics(self.harmonics, vectors, normalize=True, normalization="component")
        # every message is linear in its bond, and so ends as smoothly
        bonds = bonds * envelope(distance / settings.cutoff)[:, None]
        radial = bessel(distance / settings.cutoff, settings.n_radial)
        features = self.embedding(self.species[state.numbers])
        for block in self.blocks:
            features = block(features, pairs, bonds, radial)
        raw = self.readout(features).double() * settings.force_scale
        return raw - (state.sum(raw) / state.counts[:, None])[state.system]


class Block(nn.Module):
    """One round of messages: sent, added up, mixed with the atom's own features, and gated."""

    def __init__(self, before: o3.Irreps, harmonics: o3.Irreps, after: o3.Irreps, settings: Settings) -> None:
        super().__init__()
        scalars = o3.Irreps([(mul, ir) for mul, ir in after if ir.l == 0])
        vectors = o3.Irreps([(mul, ir) for mul, ir in after if ir.l > 0])
        gates = o3.Irreps([(mul, "0e") for mul, _ in vectors])
        self.gate = Gate(scalars, [nn.functional.silu] * len(scalars), gates, [torch.sigmoid] * len(gates), vectors)
        self.product = depthwise(before, harmonics, self.gate.irreps_in)
        self.radial = nn.Sequential(
            nn.Linear(settings.n_radial, settings.width),
            nn.SiLU(),
            nn.Linear(settings.width, self.product.weight_numel),
        )
        self.own = o3.Linear(before, self.gate.irreps_in)
        self.mix = o3.Linear(self.product.irreps_out.simplify(), self.gate.irreps_in)
        self.norm = settings.mean_neighbors**-0.5

    def forward(self, features: Tensor, pairs: Pairs, bonds: Tensor, radial: Tensor) -> Tensor:
        """New features of all atoms.

        Args:
            features: (n_atoms, n), in the irreps before the block.
            pairs: who hears whom.
            bonds: (n_pairs, k), harmonics of the bonds.
            radial: (n_pairs, n_radial), radial functions of their lengths.
        """
        messages = self.product(features[pairs.second], bonds, self.radial(radial))
        heard = messages.new_zeros((len(features), messages.shape[1])).index_add(0, pairs.first, messages)
        return self.gate(self.own(features) + self.mix(heard * self.norm))


def depthwise(features: o3.Irreps, harmonics: o3.Irreps, wanted: o3.Irreps) -> o3.TensorProduct:
    """Every product of features with harmonics that gives a wanted irrep, each channel on its own."""
    paths = [
        (first, second, product, mul)
        for first, (mul, ir) in enumerate(features)
        for second, (_, harmonic) in enumerate(harmonics)
        for product in ir * harmonic
        if product in [ir for _, ir in wanted]
    ]
    # like irreps side by side, so that a linear layer sees each kind once
    paths.sort(key=lambda path: path[2])
    given = o3.Irreps([(mul, product) for *_, product, mul in paths])
    instructions = [(first, second, slot, "uvu", True) for slot, (first, second, *_) in enumerate(paths)]
    return o3.TensorProduct(features, harmonics, given, instructions, shared_weights=False, internal_weights=False)


def envelope(x: Tensor) -> Tensor:
    """1 at x = 0, and 0 with its first two derivatives from x = 1 on."""
    return torch.where(x < 1.0, 1.0 - x**3 * (10.0 - 15.0 * x + 6.0 * x**2), 0.0)


def bessel(x: Tensor, n: int) -> Tensor:
    """(n_pairs, n) radial functions sqrt(2) sin(k pi x) / x of x (n_pairs,) (Gasteiger et al., arXiv 2003.03123)."""
    order = torch.arange(1, n + 1, dtype=x.dtype, device=x.device)
    return math.sqrt(2.0) * torch.sin(math.pi * order * x[:, None]) / x[:, None]


@contextmanager
def _exact_and_plain() -> Iterator[None]:
    """Let e3nn keep its constants in double precision and make no TorchScript.

    In single precision they would leave a network that is made double later equivariant to eight digits. TorchScript
    rewrites a graph during its first calls, so that answers depend on their number.
    """
    dtype, defaults = torch.get_default_dtype(), get_optimization_defaults()
    torch.set_default_dtype(torch.float64)
    set_optimization_defaults(jit_script_fx=False)
    try:
        yield
    finally:
        set_optimization_defaults(**defaults)
        torch.set_default_dtype(dtype)


def save_network(network: Network, path: Path) -> None:
    """Write weights and settings to one safetensors file, atomically.

    Parameters alone: what else e3nn keeps in a module differs between its versions, and is made anew.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in network.named_parameters()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(save(weights, metadata={"e3nn-direct": json.dumps(asdict(network.settings))}))
    os.replace(temporary, path)


def read_network(path: Path) -> Network:
    """Read what :func:`save_network` wrote; nothing is unpickled.

    Raises:
        ValueError: the file holds no such network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, str] = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from error
    if "e3nn-direct" not in header:
        raise ValueError(f"{path}: not a checkpoint of e3nn-direct")
    settings: dict[str, Any] = json.loads(header["e3nn-direct"])
    network = Network(Settings(**{**settings, "elements": tuple(settings["elements"])}))
    known = dict(network.named_parameters())
    if set(weights) != set(known):
        raise ValueError(f"{path}: weights of another network: {', '.join(sorted(set(weights) ^ set(known)))}")
    with torch.no_grad():
        for name, parameter in known.items():
            parameter.copy_(weights[name])
    return network
