"""Refine networks of descriptors by L-BFGS, all frames at once, from the linear solution.

Features are fixed, so that their slopes are taken once and kept, in single precision: a step costs two passes through
the read-out and a product, not a pass through the descriptor. Memory grows with pairs times features.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conservbench.models.descriptor.potential import DescriptorPotential
from conservbench.models.descriptor.readout import atomic_energies, direct_forces
from conservbench.training.descriptor.design import Frame, Slopes, fixed_part
from conservbench.training.descriptor.recipe import Recipe, Steps

Progress = Callable[[int, int, str], None]

BLOCK = 10
"""Iterations between two looks at the held-out frames, and two saved states."""

_HISTORY = 20
"""Steps that L-BFGS remembers."""


@dataclass(frozen=True)
class Kept:
    """All that a read-out of some frames depends on, and their labels; single precision but for energies.

    Attributes:
        features: (n_atoms, k) standardised.
        vectors: (n_atoms, n_vectors, 3) standardised.
        by_pair: (n_pairs, 3, k) slopes of the features of the central atom by the pair vector.
        first: (n_pairs,) central atoms.
        second: (n_pairs,) neighbours.
        species: (n_atoms,) index of the element.
        system: (n_atoms,) index of the frame.
        counts: (n_frames,) atoms of each.
        energy: (n_frames,) eV, without what is fixed.
        forces: (n_atoms, 3) eV/Å, without what is fixed.
        vectors_to: (n_pairs, 3) Å, to the neighbours.
        virial: (n_frames, 3, 3) eV, stress times volume, without what is fixed; NaN where it is not labelled.
        pulls: (n_atoms, 3) eV/Å, all of them.
    """

    features: Tensor
    vectors: Tensor
    by_pair: Tensor
    first: Tensor
    second: Tensor
    species: Tensor
    system: Tensor
    counts: Tensor
    energy: Tensor
    forces: Tensor
    vectors_to: Tensor
    virial: Tensor
    pulls: Tensor


def keep(potential: DescriptorPotential, frames: Sequence[Frame], known: Sequence[Slopes]) -> Kept:
    """What a read-out of frames depends on, with their slopes."""
    parts: dict[str, list[Tensor]] = {name: [] for name in Kept.__annotations__}
    start = 0
    for index, (frame, slopes) in enumerate(zip(frames, known, strict=True)):
        state = frame.state
        moments = potential.moments_of(state, frame.pairs, state.positions, state.cell)
        energy, forces, stress = fixed_part(potential, frame)
        unknown = torch.full_like(stress, torch.nan)
        virial = unknown if frame.stress is None else state.volume * (frame.stress - stress)
        own = {
            "features": slopes.features.float(),
            "vectors": potential.standardised_vectors(moments).float(),
            "by_pair": slopes.by_pair.float(),
            "first": frame.pairs.first + start,
            "second": frame.pairs.second + start,
            "species": potential.species_of(state),
            "system": torch.full((state.n_atoms,), index),
            "counts": torch.tensor([state.n_atoms]),
            "energy": frame.energy - energy,
            "forces": (frame.forces - forces).float(),
            "vectors_to": frame.pairs.vectors(state.positions, state.cell, state.system).float(),
            "virial": virial[None],
            "pulls": frame.forces.float(),
        }
        for name, value in own.items():
            parts[name].append(value)
        start += state.n_atoms
    return Kept(**{name: torch.cat(each) for name, each in parts.items()})


def loss_of(potential: DescriptorPotential, weights: Mapping[str, Tensor], kept: Kept, recipe: Recipe) -> Tensor:
    """Mean over frames of the squares of weighted errors; direct forces count as gradient forces do.

    Args:
        potential: kinds of its read-outs.
        weights: of the read-outs, single precision.
        kept: the frames.
        recipe: weights of errors.
    """
    head, n_frames = potential.settings.head, len(kept.counts)
    features = kept.features.detach().requires_grad_(True)
    energies = atomic_energies(head.energy, weights, features, kept.species)
    (slope,) = torch.autograd.grad(energies.sum(), features, create_graph=True)
    per_frame = energies.new_zeros(n_frames, dtype=torch.float64).index_add(0, kept.system, energies.double())
    loss = ((per_frame - kept.energy) / kept.counts).square().mean() * recipe.weights.energy**2
    by_vector = torch.einsum("pxk,pk->px", kept.by_pair, slope[kept.first])
    forces = torch.zeros_like(kept.forces).index_add(0, kept.first, by_vector).index_add(0, kept.second, -by_vector)
    by_atom = recipe.weights.forces**2 / (3 * n_frames * kept.counts[kept.system])
    loss = loss + ((forces - kept.forces).square().sum(1) * by_atom).sum()
    if recipe.weights.stress:
        by_frame = torch.einsum("px,py->pxy", kept.vectors_to, by_vector).double()
        virials = by_frame.new_zeros((n_frames, 3, 3)).index_add(0, kept.system[kept.first], by_frame)
        missed = 0.5 * (virials + virials.transpose(1, 2)) - kept.virial
        # what is not labelled counts as no error
        missed = torch.where(kept.virial.isnan(), 0.0, missed) / kept.counts[:, None, None]
        loss = loss + recipe.weights.stress**2 * missed.square().sum() / n_frames
    if head.direct != "none":
        raw = direct_forces(head.direct, weights, kept.features, kept.vectors, kept.species)
        mean = raw.new_zeros((n_frames, 3)).index_add(0, kept.system, raw) / kept.counts[:, None]
        loss = loss + ((raw - mean[kept.system] - kept.pulls).square().sum(1) * by_atom).sum()
    return loss


def refine(
    potential: DescriptorPotential,
    recipe: Recipe,
    kept: tuple[Kept, Kept],
    state_file: Path,
    progress: Progress | None = None,
) -> DescriptorPotential:
    """The potential with the weights that did best on the held-out frames.

    Args:
        potential: where to begin.
        recipe: weights of errors, and steps.
        kept: frames to fit to, and frames held out.
        state_file: where to go on, and what is written every :data:`BLOCK` iterations.
        progress: told of each block.

    Raises:
        ValueError: the file is no state, or that of another recipe.
    """
    steps = recipe.steps
    if steps is None:
        raise AssertionError("only recipes of networks are refined")
    training, held_out = kept
    weights = {name: value.float().requires_grad_(True) for name, value in potential.parameters.items()}
    optimizer = _optimizer(weights, BLOCK)
    done, best, chosen = 0, float(loss_of(potential, weights, held_out, recipe).detach()), _copy(weights)
    if state_file.exists():
        saved = _read(state_file, recipe)
        for name, value in saved["weights"].items():
            weights[name].data.copy_(value)
        optimizer.load_state_dict(saved["optimizer"])
        done, best, chosen = saved["done"], saved["best"], saved["chosen"]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(potential, weights, training, recipe) + _decay(weights, steps)
        loss.backward()
        return loss.detach()

    blocks = -(-steps.iterations // BLOCK)
    for block in range(done, blocks):
        loss = float(optimizer.step(closure))
        held = float(loss_of(potential, weights, held_out, recipe).detach())
        if held < best:
            best, chosen = held, _copy(weights)
        saved = {"recipe": repr(recipe), "done": block + 1, "best": best, "chosen": chosen, "weights": _copy(weights)}
        _save({**saved, "optimizer": optimizer.state_dict()}, state_file)
        if progress is not None:
            progress(block + 1, blocks, f"loss {loss:.5f}, held out {held:.5f}")
    return potential.at({name: value.double() for name, value in chosen.items()})


def _optimizer(weights: Mapping[str, Tensor], iterations: int) -> torch.optim.LBFGS:
    return torch.optim.LBFGS(
        list(weights.values()),
        max_iter=iterations,
        history_size=_HISTORY,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )


def _decay(weights: Mapping[str, Tensor], steps: Steps) -> Tensor:
    layers = [value for name, value in weights.items() if ".layer" in name and name.endswith("weight")]
    return steps.decay * torch.stack([value.square().mean() for value in layers]).sum()


def _copy(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}


def _read(path: Path, recipe: Recipe) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True)
    except Exception as error:  # a broken file may raise anything
        raise ValueError(f"{path}: not the state of a fit; remove it to start anew") from error
    if saved["recipe"] != repr(recipe):
        raise ValueError(f"{path}: belongs to another version of this recipe; remove it to start anew")
    return saved


def _save(saved: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(saved, temporary)
    os.replace(temporary, path)
