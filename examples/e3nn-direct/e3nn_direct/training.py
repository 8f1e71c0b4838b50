"""Training: frames, normalisation, loss and steps; pure functions that :mod:`e3nn_direct.train` calls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from conservbench.data.catalogue import find_data_set
from conservbench.data.frames import load_frames
from conservbench.neighbors import find_pairs
from conservbench.state import State, concatenate, from_atoms
from e3nn_direct.network import Network, Settings


@dataclass(frozen=True)
class Frame:
    """A labelled structure.

    Attributes:
        state: the structure.
        forces: (n_atoms, 3), eV/Å, without their mean, a residue of the electronic solver.
    """

    state: State
    forces: Tensor


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: times that each frame is seen.
        batch: frames a step.
        learning_rate: of Adam, at the start; it falls to 0 by half a cosine.
        average: share that the running average of the weights keeps in a step.
        clip: longest gradient of a step.
        seed: of the first weights and of the order of the frames.
    """

    epochs: int
    batch: int = 2
    learning_rate: float = 0.01
    average: float = 0.995
    clip: float = 10.0
    seed: int = 20251101


def load_split(data: str, split: str) -> list[Frame]:
    """The labelled frames of a data set in the catalogue.

    Raises:
        ValueError: there is no such data set, or a checksum is wrong.
        OSError: it is not in the local folder and cannot be downloaded.
    """
    frames = []
    for atoms in load_frames(find_data_set(data), split):
        forces = torch.as_tensor(atoms.get_forces())
        frames.append(Frame(from_atoms(atoms), forces - forces.mean(0)))
    return frames


def settings_of(frames: Sequence[Frame]) -> Settings:
    """The network's size, and its normalisation by the training frames."""
    state, cutoff = concatenate([frame.state for frame in frames]), 4.5
    return Settings(
        elements=tuple(sorted(set(state.numbers.tolist()))),
        cutoff=cutoff,
        hidden="16x0e + 16x1o + 8x2e",
        lmax=2,
        n_radial=8,
        width=32,
        n_blocks=2,
        mean_neighbors=len(find_pairs(state, cutoff).first) / state.n_atoms,
        force_scale=float(torch.cat([frame.forces for frame in frames]).square().mean().sqrt()),
    )


def errors_of(network: Network, frames: Sequence[Frame]) -> Tensor:
    """(n_atoms, 3) predicted forces less the labels of all frames, eV/Å."""
    state = concatenate([frame.state for frame in frames])
    labels = torch.cat([frame.forces for frame in frames])
    return network(state, find_pairs(state, network.settings.cutoff)) - labels


def mean_error(network: Network, frames: Sequence[Frame]) -> float:
    """Mean absolute error of the components of the forces, meV/Å."""
    with torch.no_grad():
        return 1e3 * float(torch.cat([errors_of(network, [frame]) for frame in frames]).abs().mean())


def train(frames: Sequence[Frame], settings: Settings, recipe: Recipe) -> Iterator[Network]:
    """Train a network on frames, in single precision.

    Yields:
        After each epoch, the network with averaged weights.
    """
    torch.manual_seed(recipe.seed)
    network = Network(settings).float()
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.average))
    optimizer = torch.optim.Adam(network.parameters(), amsgrad=True)
    starts = range(0, len(frames), recipe.batch)
    for epoch in range(recipe.epochs):
        order = np.random.default_rng((recipe.seed, epoch)).permutation(len(frames))
        for step, start in enumerate(starts):
            phase = (epoch + step / len(starts)) / recipe.epochs
            optimizer.param_groups[0]["lr"] = recipe.learning_rate * math.cos(0.5 * math.pi * phase) ** 2
            errors = errors_of(network, [frames[index] for index in order[start : start + recipe.batch]])
            # the small constant keeps the derivative finite at a vanishing error
            loss = (errors.square().sum(1) + 1e-12).sqrt().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
            optimizer.step()
            average.update_parameters(network)
        yield cast("Network", average.module)
