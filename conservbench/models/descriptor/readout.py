"""Read-outs of a descriptor: atomic energies of the invariants, direct forces of the vectors.

All take standardised features: every invariant less its mean over the training atoms, over its spread; every vector
over its root mean square. The first feature is the constant one. Weights are one set an element of the central atom.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor

from conservbench.models.descriptor.settings import Readout

Weights = Mapping[str, Tensor]


def quadratic_features(features: Tensor) -> Tensor:
    """(n_atoms, n (n + 1) / 2) products of all pairs of features (n_atoms, n), the constant among them."""
    first, second = torch.triu_indices(features.shape[1], features.shape[1], device=features.device)
    return features[:, first] * features[:, second]


def gated_vectors(features: Tensor, vectors: Tensor) -> Tensor:
    """(n_atoms, n_features n_vectors, 3) products of all features with all vectors (n_atoms, n_vectors, 3)."""
    return (features[:, :, None, None] * vectors[:, None]).flatten(1, 2)


def atomic_energies(kind: Readout, weights: Weights, features: Tensor, species: Tensor) -> Tensor:
    """(n_atoms,) energies in eV.

    Args:
        kind: of the read-out; a network adds to the linear one.
        weights: ``energy.*``.
        features: (n_atoms, n_features) standardised.
        species: (n_atoms,) index of the element.
    """
    if kind == "quadratic":
        n = features.shape[1]
        first, second = torch.triu_indices(n, n, device=features.device)
        table = weights["energy.weight"]
        square = table.new_zeros((len(table), n, n)).index_put((_all_rows(table), first, second), table)
        return _by_element(species, len(table), features, lambda index, own: ((own @ square[index]) * own).sum(1))
    energy = (weights["energy.weight"][species] * features).sum(1)
    if kind == "network":
        energy = energy + network("energy", weights, features, species)[:, 0]
    return energy


def _all_rows(table: Tensor) -> Tensor:
    """(n, 1) index of all rows, to be combined with others."""
    return torch.arange(len(table), device=table.device)[:, None]


def direct_forces(kind: Readout, weights: Weights, features: Tensor, vectors: Tensor, species: Tensor) -> Tensor:
    """(n_atoms, 3) forces in eV/Å, before the net force is removed.

    Args:
        kind: of the read-out.
        weights: ``direct.*``.
        features: (n_atoms, n_features) standardised.
        vectors: (n_atoms, n_vectors, 3) standardised.
        species: (n_atoms,) index of the element.
    """
    gates = weights["direct.weight"][species]
    if kind == "quadratic":
        gates = torch.einsum("af,afv->av", features, gates.view(len(gates), features.shape[1], vectors.shape[1]))
    elif kind == "network":
        gates = gates + network("direct", weights, features, species)
    return torch.einsum("av,avx->ax", gates, vectors)


def network(name: str, weights: Weights, features: Tensor, species: Tensor) -> Tensor:
    """(n_atoms, n_out) outputs of a network with tanh layers, one set of weights an element."""
    layers = sum(key.startswith(f"{name}.layer") and key.endswith("weight") for key in weights)

    def run(index: int, own: Tensor) -> Tensor:
        for layer in range(layers):
            key = f"{name}.layer{layer}"
            own = own @ weights[f"{key}.weight"][index] + weights[f"{key}.bias"][index]
            if layer < layers - 1:
                own = torch.tanh(own)
        return own

    return _by_element(species, len(weights[f"{name}.layer0.weight"]), features, run)


def _by_element(species: Tensor, n: int, features: Tensor, run: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Run a function on the atoms of each element, and put its results in their order."""
    if n == 1:
        return run(0, features)
    members = [torch.nonzero(species == index)[:, 0] for index in range(n)]
    order = torch.argsort(torch.cat(members))
    return torch.cat([run(index, features[own]) for index, own in enumerate(members)])[order]


def weight_shapes(
    energy: Readout, direct: Readout, hidden: tuple[int, ...], sizes: tuple[int, int, int]
) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights by name.

    Args:
        energy: read-out of the energy.
        direct: read-out of the direct forces.
        hidden: widths of hidden layers.
        sizes: numbers of elements, features and vectors.
    """
    n, features, vectors = sizes
    shapes: dict[str, tuple[int, ...]] = {
        "energy.weight": (n, features * (features + 1) // 2 if energy == "quadratic" else features)
    }
    if energy == "network":
        shapes |= _layers("energy", (n, features), hidden, 1)
    if direct != "none":
        shapes["direct.weight"] = (n, features * vectors if direct == "quadratic" else vectors)
    if direct == "network":
        shapes |= _layers("direct", (n, features), hidden, vectors)
    return shapes


def _layers(name: str, inputs: tuple[int, int], hidden: tuple[int, ...], outputs: int) -> dict[str, tuple[int, ...]]:
    n, features = inputs
    shapes: dict[str, tuple[int, ...]] = {}
    widths = (features, *hidden, outputs)
    for layer, (before, after) in enumerate(pairwise(widths)):
        shapes[f"{name}.layer{layer}.weight"] = (n, before, after)
        shapes[f"{name}.layer{layer}.bias"] = (n, after)
    return shapes
