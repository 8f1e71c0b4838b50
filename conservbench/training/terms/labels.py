"""Energies and forces of labelled frames: what a tuning must not forget, and all that its control has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from conservbench.models.base import Prediction, Tunable, UnsupportedError, in_precision_of
from conservbench.outcome import Outcome
from conservbench.scheme import Channel
from conservbench.training.labelled import Labelled, join
from conservbench.training.route import Sensitivity
from conservbench.training.terms import ATOMS, Forgetful
from conservbench.training.tuning_recipe import Errors
from conservbench.units import MILLI


@final
class Labels(Forgetful):
    """Mean squared errors of energies and of the forces of each channel, over a few frames a step.

    Every frame is drawn once before any is drawn again.

    Args:
        model: evaluated at the parameters of the step.
        samples: the labelled frames.
        weights: of energies and channels; a channel that the model does not have has none.
        seed: of the order of the frames.
    """

    name = "labels"

    def __init__(self, model: Tunable, samples: Sequence[Labelled], weights: Errors, seed: int) -> None:
        self.model = model
        self.samples = samples
        self.weights = weights
        self.seed = seed
        by_channel: dict[Channel, float] = {"gradient": weights.gradient, "direct": weights.direct}
        self.channels = {name: weight for name, weight in by_channel.items() if weight and name in model.channels}

    def __call__(self, parameters: Mapping[str, Tensor], step: int) -> Sensitivity:
        """See :meth:`conservbench.training.terms.Term.__call__`."""
        batch = join([self.samples[index] for index in self._drawn(step)])
        leaves = {name: value.detach().requires_grad_(True) for name, value in parameters.items()}
        prediction = self.model.at(in_precision_of(self.model, leaves)).evaluate(
            batch.state, forces=list(self.channels), graph=True
        )
        per_atom = (_energy(prediction) - batch.energy) / batch.state.counts
        loss = self.weights.energy * per_atom.square().mean()
        for channel, weight in self.channels.items():
            loss = loss + weight * (prediction.forces[channel] - batch.forces).square().mean()
        slopes = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        cells = batch.state.n_atoms / ATOMS
        return Sensitivity(
            Outcome.COMPLETED,
            loss=float(loss.detach()),
            gradient=dict(zip(leaves, slopes, strict=True)),
            record={"evaluations": cells * (2 + 2 * ("gradient" in self.channels) + ("direct" in self.channels))},
        )

    def _drawn(self, step: int) -> list[int]:
        n = len(self.samples)
        place = step * self.weights.batch + np.arange(self.weights.batch)
        orders = {p: np.random.default_rng((self.seed, int(p))).permutation(n) for p in set((place // n).tolist())}
        return [int(orders[int(p // n)][p % n]) for p in place]


def energy_offset(model: Tunable, frames: Sequence[Labelled]) -> float:
    """Mean of the model's energy less that of the label, eV/atom."""
    offsets = [(_energy(model.evaluate(frame.state)) - frame.energy) / frame.state.n_atoms for frame in frames]
    return float(torch.cat(offsets).mean())


def label_errors(model: Tunable, frames: Sequence[Labelled], *, energy: bool = True) -> dict[str, float]:
    """Mean absolute errors: ``energy`` in meV/atom, and in meV/Å the forces of each channel that the model has.

    Args:
        model: at the parameters that are judged.
        frames: labelled, such as the test frames of a data set.
        energy: whether energies are counted from the same zero, so that their error means something.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in (*(("energy",) if energy else ()), *model.channels)}
    for frame in frames:
        prediction = model.evaluate(frame.state, forces=model.channels)
        if energy:
            found["energy"].append((_energy(prediction) - frame.energy).abs() / frame.state.n_atoms)
        for channel in model.channels:
            found[channel].append((prediction.forces[channel] - frame.forces).abs().flatten())
    return {name: float(torch.cat(parts).mean()) * MILLI for name, parts in found.items()}


def _energy(prediction: Prediction) -> Tensor:
    if prediction.energy is None:
        raise UnsupportedError("the model has no energy")
    return prediction.energy
