"""Fit a two-headed MACE to energies and forces, resumably.

The loss of a step is the mean over atoms of the Euclidean norm of each channel's force error plus the mean absolute
energy error per atom, each with its stage's weight. Direct forces first and gradient forces after is the recipe of
Bigi, Langer and Ceriotti (arXiv 2412.11569) and of eSEN (arXiv 2502.12147).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
from ase import Atoms
from torch import Tensor

from conservbench.data.catalogue import find_data_set
from conservbench.data.frames import Split, load_frames
from conservbench.elements import SYMBOLS
from conservbench.models.base import Prediction
from conservbench.models.mace import NetworkSettings, TwoHeadedMACE, save_checkpoint
from conservbench.neighbors import Pairs, find_pairs
from conservbench.scheme import CHANNELS, Channel
from conservbench.training.labelled import Labelled, join, label
from conservbench.training.recipe import Recipe, Stage

Progress = Callable[[int, int, str], None]
"""Called after each epoch with the epochs done, the epochs in all and a line about the last one."""


@dataclass(frozen=True)
class Sample(Labelled):
    """A labelled frame, its neighbours found once."""

    pairs: Pairs


@dataclass(frozen=True)
class Errors:
    """Mean absolute errors over a set of samples: energy meV/atom (None of atoms of one element), forces meV/Å."""

    energy: float | None
    gradient: float
    direct: float


@dataclass(frozen=True)
class _Residuals:
    """Absolute errors of one sample: eV/atom, and eV/Å (n_atoms, 3) of each channel."""

    sample: Sample
    energy: Tensor
    gradient: Tensor
    direct: Tensor


def make_samples(frames: Sequence[Atoms], cutoff: float, device: str) -> list[Sample]:
    """Samples of labelled frames (see :func:`conservbench.training.labelled.label`)."""
    labelled = [label(atoms, device) for atoms in frames]
    return [Sample(**vars(each), pairs=find_pairs(each.state, cutoff)) for each in labelled]


def join_samples(samples: Sequence[Sample]) -> Sample:
    """One batch of several samples."""
    offsets = np.cumsum([0, *(sample.state.n_atoms for sample in samples)])[:-1].tolist()
    pairs = Pairs(
        torch.cat([sample.pairs.first + offset for sample, offset in zip(samples, offsets, strict=True)]),
        torch.cat([sample.pairs.second + offset for sample, offset in zip(samples, offsets, strict=True)]),
        torch.cat([sample.pairs.shift for sample in samples]),
    )
    return Sample(**vars(join(samples)), pairs=pairs)


def loss_of(network: TwoHeadedMACE, sample: Sample, stage: Stage) -> Tensor:
    """Loss of one batch under a stage's weights."""
    weights: dict[Channel, float] = {"gradient": stage.gradient, "direct": stage.direct}
    wanted = [channel for channel, weight in weights.items() if weight > 0]
    prediction = network.predict(sample.state, sample.pairs, forces=wanted, graph=True)
    per_atom = (_energy(prediction) - sample.energy) / sample.state.counts
    loss = stage.energy * per_atom.abs().mean()
    for channel in wanted:
        loss = loss + weights[channel] * _mean_norm(prediction.forces[channel] - sample.forces)
    return loss


def _energy(prediction: Prediction) -> Tensor:
    return cast("Tensor", prediction.energy)


def _mean_norm(errors: Tensor) -> Tensor:
    # the small constant keeps the derivative finite at a vanishing error
    return (errors.square().sum(-1) + 1e-12).sqrt().mean()


def errors_of(network: TwoHeadedMACE, samples: Sequence[Sample]) -> Errors:
    """Mean absolute errors: energy over frames, forces over all components."""
    return _mean([_residuals(network, sample) for sample in samples])


def _residuals(network: TwoHeadedMACE, sample: Sample) -> _Residuals:
    prediction = network.predict(sample.state, sample.pairs, forces=CHANNELS)
    return _Residuals(
        sample=sample,
        energy=(_energy(prediction) - sample.energy).abs() / sample.state.n_atoms,
        gradient=(prediction.forces["gradient"] - sample.forces).abs(),
        direct=(prediction.forces["direct"] - sample.forces).abs(),
    )


def _mean(residuals: Sequence[_Residuals]) -> Errors:
    parts = ([getattr(each, name).flatten() for each in residuals] for name in ("energy", "gradient", "direct"))
    return Errors(*(1e3 * float(torch.cat(part).mean()) for part in parts))


def _mean_of_element(residuals: Sequence[_Residuals], number: int) -> Errors:
    masks = [each.sample.state.numbers == number for each in residuals]
    gradient = torch.cat([each.gradient[mask] for each, mask in zip(residuals, masks, strict=True)])
    direct = torch.cat([each.direct[mask] for each, mask in zip(residuals, masks, strict=True)])
    return Errors(None, 1e3 * float(gradient.mean()), 1e3 * float(direct.mean()))


def network_settings(recipe: Recipe, samples: Sequence[Sample]) -> NetworkSettings:
    """Shape and normalisation of the network, from the recipe and the training samples.

    Atomic energies are the least-squares composition fit, energies are scaled by the rms force as MACE does.
    """
    elements = sorted({number for sample in samples for number in sample.state.numbers.tolist()})
    composition = np.array([[(sample.state.numbers == z).sum().item() for z in elements] for sample in samples])
    energies = np.array([sample.energy.item() for sample in samples])
    atomic_energies = np.linalg.lstsq(composition, energies, rcond=None)[0]
    rms = math.sqrt(float(torch.cat([sample.forces for sample in samples]).square().mean()))
    n_pairs = sum(len(sample.pairs.first) for sample in samples)
    n_atoms = sum(sample.state.n_atoms for sample in samples)
    return NetworkSettings(
        elements=tuple(elements),
        atomic_energies=tuple(float(value) for value in atomic_energies),
        mean_neighbors=n_pairs / n_atoms,
        energy_scale=rms,
        energy_shift=0.0,
        force_scale=rms,
        **asdict(recipe.network),
    )


def fit(recipe: Recipe, folder: Path, *, device: str = "cpu", progress: Progress | None = None) -> Path:
    """Train as the recipe says, going on from whatever epoch ``folder`` holds.

    A resumed training equals an uninterrupted one bit for bit on one machine with the same threads.

    Args:
        recipe: what to train.
        folder: where ``NAME.safetensors`` (averaged weights), ``NAME.metrics.nc`` (errors of every epoch) and
            ``NAME.state.pt`` (where to go on) are written, each atomically.
        device: torch device.
        progress: told of each epoch.

    Returns:
        Path of the checkpoint.

    Raises:
        ValueError: the data set is unknown or has a wrong checksum, or ``folder`` holds the state of another recipe.
    """
    data_set = find_data_set(recipe.data)
    train, held_out = _split(make_samples(load_frames(data_set, "train"), recipe.network.cutoff, device), recipe)
    torch.manual_seed(recipe.seed)
    network = TwoHeadedMACE(network_settings(recipe, train)).to(device)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema)
    )
    averaged = cast("TwoHeadedMACE", average.module)
    optimizer = torch.optim.Adam(network.parameters(), lr=1.0, amsgrad=True)
    n_batches = math.ceil(len(train) / recipe.batch)
    folder.mkdir(parents=True, exist_ok=True)
    state_file = state_path(recipe, folder)
    history: list[dict[str, float]] = []
    if state_file.exists():
        saved = _read_state(state_file, device)
        if saved["recipe"] != repr(recipe):
            raise ValueError(f"{state_file}: belongs to another version of this recipe; remove it to start anew")
        network.load_state_dict(saved["network"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        history = saved["history"]

    for epoch in range(len(history), recipe.epochs):
        stage, index = recipe.stage_of(epoch)
        order = np.random.default_rng((recipe.seed, epoch)).permutation(len(train))
        total = 0.0
        for step in range(n_batches):
            rate = _learning_rate(stage, index * n_batches + step, stage.epochs * n_batches)
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = join_samples([train[i] for i in order[step * recipe.batch : (step + 1) * recipe.batch]])
            loss = loss_of(network, batch, stage)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
            optimizer.step()
            average.update_parameters(network)
            total += loss.item()
        errors = errors_of(averaged, held_out)
        history.append({"loss": total / n_batches, "learning_rate": rate, **vars(errors)})
        _save(
            {
                "recipe": repr(recipe),
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "history": history,
            },
            state_file,
        )
        _write_metrics(history, folder / f"{recipe.name}.metrics.nc")
        if progress is not None:
            line = f"loss {total / n_batches:.4f}  E {errors.energy:.1f} meV/atom  "
            line += f"F gradient {errors.gradient:.0f}  direct {errors.direct:.0f} meV/Å"
            progress(epoch + 1, recipe.epochs, line)

    checkpoint = folder / f"{recipe.name}.safetensors"
    save_checkpoint(averaged, checkpoint)
    return checkpoint


def state_path(recipe: Recipe, folder: Path) -> Path:
    """Where the state of a training is kept: its last epoch, from which the same call goes on."""
    return folder / f"{recipe.name}.state.pt"


def split_errors(network: TwoHeadedMACE, data: str, split: Split, device: str = "cpu") -> dict[str, Errors]:
    """Errors on one split of a data set: all together under ``"all"``, by group, and of forces on ``"atoms of O"``."""
    samples = make_samples(load_frames(find_data_set(data), split), network.settings.cutoff, device)
    every = [_residuals(network, sample) for sample in samples]
    groups = {"all": every}
    for each in every:
        groups.setdefault(each.sample.group, []).append(each)
    errors = {name: _mean(members) for name, members in groups.items()}
    numbers = sorted({number for sample in samples for number in sample.state.numbers.tolist()})
    if len(numbers) > 1:
        errors |= {f"atoms of {SYMBOLS[number - 1]}": _mean_of_element(every, number) for number in numbers}
    return errors


def _split(samples: list[Sample], recipe: Recipe) -> tuple[list[Sample], list[Sample]]:
    if recipe.validation >= len(samples):
        raise ValueError(f"validation is {recipe.validation}; {recipe.data} has {len(samples)} training frames in all")
    order = np.random.default_rng(recipe.seed).permutation(len(samples))
    held_out = [samples[i] for i in order[: recipe.validation]]
    return [samples[i] for i in order[recipe.validation :]], held_out


def _learning_rate(stage: Stage, step: int, n_steps: int) -> float:
    """Linear warm-up over 2 % of the stage, then half a cosine down to 0.5 % of the peak."""
    warm_up = max(1, n_steps // 50)
    if step < warm_up:
        return stage.learning_rate * (step + 1) / warm_up
    phase = (step - warm_up) / max(1, n_steps - warm_up)
    return stage.learning_rate * (0.005 + 0.995 * 0.5 * (1.0 + math.cos(math.pi * phase)))


def _read_state(path: Path, device: str) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a broken file may raise anything
        raise ValueError(f"{path}: not the state of a training; remove it to start anew") from error
    return saved


def _save(saved: dict[str, Any], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(saved, temporary)
    os.replace(temporary, path)


_METRICS = {
    "loss": ("1", "mean training loss"),
    "learning_rate": ("1", "learning rate of the last step"),
    "energy": ("meV/atom", "mean absolute energy error on held-out frames"),
    "gradient": ("meV/Å", "mean absolute error of the gradient forces on held-out frames"),
    "direct": ("meV/Å", "mean absolute error of the direct forces on held-out frames"),
}


def _write_metrics(history: list[dict[str, float]], path: Path) -> None:
    variables = {
        name: ("epoch", np.array([row[name] for row in history]), {"units": units, "long_name": long_name})
        for name, (units, long_name) in _METRICS.items()
    }
    metrics = xr.Dataset(variables, coords={"epoch": np.arange(1, len(history) + 1)})
    temporary = path.with_suffix(".tmp")
    metrics.to_netcdf(temporary, engine="h5netcdf")
    os.replace(temporary, path)
