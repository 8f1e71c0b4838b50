"""Fit a descriptor potential as a recipe says: standardise, solve, and refine networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from conservbench.data.catalogue import find_data_set
from conservbench.data.frames import load_frames
from conservbench.models.descriptor.invariants import Descriptor
from conservbench.models.descriptor.potential import DescriptorPotential, save_potential, shapes_of
from conservbench.models.descriptor.settings import Settings
from conservbench.training.descriptor.design import (
    Frame,
    Slopes,
    direct_rows,
    energy_features,
    energy_rows,
    make_frames,
    rows_of_slopes,
    slopes_of,
)
from conservbench.training.descriptor.least_squares import Rows, joined, solve, triangle_of
from conservbench.training.descriptor.network import BLOCK, keep, refine
from conservbench.training.descriptor.recipe import Recipe, Weights

Progress = Callable[[int, int, str], None]
"""Told of what is done, of how much in all, and a line about the last."""

PIECES = 10
"""Times that the progress of one solution is told."""

_ROUNDING = 1e-12
"""Spread of a feature over the largest mean, or of a vector over those of all, below which it is that of rounding."""

RowsOf = Callable[[DescriptorPotential, Frame, Weights], Rows]


@dataclass(frozen=True)
class Solved:
    """Coefficients of one read-out.

    Attributes:
        ridge: the one chosen.
        validation: loss on held-out folds with that ridge, over that of no prediction.
        weights: of all frames with that ridge, (n_elements, k).
    """

    ridge: float
    validation: float
    weights: Tensor


def fit(recipe: Recipe, folder: Path, *, progress: Progress | None = None) -> Path:
    """Fit as the recipe says; an interrupted refinement of a network goes on where it was.

    Args:
        recipe: what to fit.
        folder: where ``NAME.safetensors`` and, for networks, ``NAME.state.pt`` are written, each atomically.
        progress: told of each of :func:`pieces`.

    Returns:
        Path of the checkpoint.

    Raises:
        ValueError: the data set is unknown, has a wrong checksum, too few frames, or no stress though one is weighed;
            or ``folder`` holds the state of another recipe.
    """
    frames = make_frames(load_frames(find_data_set(recipe.data), "train"), recipe.basis.cutoff)
    if recipe.weights.stress and all(frame.stress is None for frame in frames):
        raise ValueError(f"{recipe.data} has no stress to fit to; leave the weight of the stress out")
    groups = folds(frames, recipe)
    networks = recipe.steps is not None
    held_out = groups.pop(0) if networks else []
    training = [frame for group in groups for frame in group]
    potential = standardised(recipe, training)
    found: dict[str, Solved] = {}
    known: dict[int, Slopes] = {}
    for index, (name, rows) in enumerate(_solved(recipe, known).items()):
        tell = None if progress is None else _shifted(progress, index * PIECES, pieces(recipe))
        found[name] = solve_for(rows, potential, groups, recipe, tell)
    potential = potential.at({name: each.weights for name, each in found.items()})
    if networks:
        known.update(
            {id(frame): _single(slopes_of(potential, frame, energy_features(potential))) for frame in held_out}
        )
        kept = [keep(potential, group, [known.pop(id(frame)) for frame in group]) for group in (training, held_out)]
        tell = None if progress is None else _shifted(progress, len(found) * PIECES, pieces(recipe))
        potential = refine(potential, recipe, (kept[0], kept[1]), state_path(recipe, folder), tell)
    checkpoint = folder / f"{recipe.name}.safetensors"
    save_potential(potential, checkpoint)
    return checkpoint


def state_path(recipe: Recipe, folder: Path) -> Path:
    """Where the refinement of a network is kept, from which the same call goes on."""
    return folder / f"{recipe.name}.state.pt"


def pieces(recipe: Recipe) -> int:
    """How many times the progress of a fit is told."""
    blocks = 0 if recipe.steps is None else -(-recipe.steps.iterations // BLOCK)
    return len(_solved(recipe, {})) * PIECES + blocks


def folds(frames: Sequence[Frame], recipe: Recipe) -> list[list[Frame]]:
    """Frames in random order, cut into folds.

    Raises:
        ValueError: there are too few.
    """
    least = 2 if recipe.steps is None else 3
    if (least - 1) * recipe.validation >= len(frames):
        has = f"{recipe.data} has {len(frames)} training frames in all"
        raise ValueError(f"validation is {recipe.validation}; {has}, which makes fewer than {least} folds")
    order = np.random.default_rng(recipe.seed).permutation(len(frames))
    starts = range(0, len(frames), recipe.validation)
    return [[frames[i] for i in order[start : start + recipe.validation]] for start in starts]


def standardised(recipe: Recipe, frames: Sequence[Frame]) -> DescriptorPotential:
    """A potential whose features are standardised on frames, all weights zero but those of networks.

    Atomic energies are the least-squares fit of the composition.
    """
    elements = sorted({number for frame in frames for number in frame.state.numbers.tolist()})
    composition = np.array([[(frame.state.numbers == z).sum().item() for z in elements] for frame in frames])
    energies = np.array([frame.energy.item() for frame in frames])
    atomic = tuple(float(value) for value in np.linalg.lstsq(composition, energies, rcond=None)[0])
    settings = Settings(tuple(elements), atomic, recipe.basis, recipe.head)
    descriptor = Descriptor(recipe.basis, len(elements))
    shapes = shapes_of(settings, descriptor)
    generator = torch.Generator().manual_seed(recipe.seed)
    tensors = {name: _start(name, shape, recipe.head.hidden, generator) for name, shape in shapes.items()}
    plain = DescriptorPotential(settings, tensors, descriptor=descriptor)
    features, vectors = [], []
    for frame in frames:
        moments = plain.moments_of(frame.state, frame.pairs, frame.state.positions, frame.state.cell)
        features.append(descriptor.features(moments))
        vectors.append(descriptor.vector_features(moments).square().mean(-1))
    values = torch.cat(features)
    mean, spread = values.mean(0), values.std(0)
    # the constant stays one
    mean[0], spread[0] = 0.0, 1.0
    sizes = torch.cat(vectors).mean(0).sqrt()
    # what is the same for all atoms but for rounding is not to be blown up
    spread = torch.where(spread > _ROUNDING * mean.abs().max(), spread, 1.0)
    sizes = torch.where(sizes > _ROUNDING * sizes.sum(), sizes, 1.0)
    tensors |= {"mean": mean, "spread": spread, "vector_spread": sizes}
    return DescriptorPotential(settings, tensors, descriptor=descriptor)


def _start(name: str, shape: tuple[int, ...], hidden: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if name in ("spread", "vector_spread"):
        return torch.ones(shape, dtype=torch.float64)
    # the last layer of a network is zero: it starts as the linear read-out
    if ".layer" in name and name.endswith("weight") and f".layer{len(hidden)}." not in name:
        return torch.randn(shape, generator=generator, dtype=torch.float64) / shape[1] ** 0.5
    return torch.zeros(shape, dtype=torch.float64)


def _solved(recipe: Recipe, known: dict[int, Slopes]) -> dict[str, RowsOf]:
    """What is solved directly, by the name of its weights; for networks slopes are kept, by the identity of frames."""

    def kept_rows(potential: DescriptorPotential, frame: Frame, weights: Weights) -> Rows:
        slopes = slopes_of(potential, frame, energy_features(potential))
        known[id(frame)] = _single(slopes)
        return rows_of_slopes(potential, frame, weights, slopes)

    rows: dict[str, RowsOf] = {"energy.weight": energy_rows if recipe.steps is None else kept_rows}
    if recipe.head.direct != "none":
        rows["direct.weight"] = direct_rows
    return rows


def solve_for(
    rows: RowsOf,
    potential: DescriptorPotential,
    groups: Sequence[Sequence[Frame]],
    recipe: Recipe,
    progress: Progress | None = None,
) -> Solved:
    """Choose the ridge by leaving each fold out in turn, then solve for all.

    Args:
        rows: of one frame.
        potential: its descriptor and constants.
        groups: folds of frames.
        recipe: ridges and weights.
        progress: told ten times.
    """
    n_frames = sum(map(len, groups))

    def counted(group: Sequence[Frame], start: int) -> Iterator[Rows]:
        for index, frame in enumerate(group, start + 1):
            yield rows(potential, frame, recipe.weights)
            if progress is not None and index * PIECES // n_frames > (index - 1) * PIECES // n_frames:
                progress(index * PIECES // n_frames, PIECES, f"{index} of {n_frames} frames")

    starts = np.cumsum([0, *map(len, groups)]).tolist()
    triangles = [triangle_of(counted(group, start)) for group, start in zip(groups, starts[:-1], strict=True)]
    losses = np.zeros(len(recipe.ridges))
    for index, left_out in enumerate(triangles):
        others = joined(triangles[:index] + triangles[index + 1 :])
        losses += [left_out.loss(solution) for solution in solve(others, recipe.ridges)]
    best = int(np.argmin(losses))
    everything = joined(triangles)
    (solution,) = solve(everything, [recipe.ridges[best]])
    table = torch.from_numpy(solution.copy()).view(len(potential.settings.elements), -1)
    return Solved(recipe.ridges[best], float(losses[best]) / everything.target, table)


def _single(slopes: Slopes) -> Slopes:
    return Slopes(slopes.features.float(), slopes.by_pair.float())


def _shifted(progress: Progress, by: int, total: int) -> Progress:
    return lambda done, _, line: progress(done + by, total, line)
