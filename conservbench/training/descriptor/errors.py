"""Errors of a descriptor potential on labelled frames, by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from conservbench.data.catalogue import find_data_set
from conservbench.data.frames import Split, load_frames
from conservbench.models.descriptor.potential import DescriptorPotential
from conservbench.training.labelled import Labelled, label


@dataclass(frozen=True)
class Errors:
    """Errors over a set of frames: energies in meV/atom, over frames; forces in meV/Å, over components.

    Attributes:
        energy_mean: mean absolute error of the energy.
        energy_rms: root mean square error of the energy.
        gradient_mean: mean absolute error of gradient forces.
        gradient_rms: root mean square error of gradient forces.
        direct_mean: mean absolute error of direct forces; None without any.
        direct_rms: root mean square error of direct forces; None without any.
    """

    energy_mean: float
    energy_rms: float
    gradient_mean: float
    gradient_rms: float
    direct_mean: float | None
    direct_rms: float | None


def errors_of(potential: DescriptorPotential, frames: Sequence[Labelled]) -> Errors:
    """Errors over frames."""
    channels = potential.channels
    missed: dict[str, list[Tensor]] = {name: [] for name in ("energy", *channels)}
    for frame in frames:
        prediction = potential.evaluate(frame.state, forces=channels)
        if prediction.energy is None:
            raise AssertionError("a descriptor potential has an energy")
        missed["energy"].append((prediction.energy - frame.energy) / frame.state.n_atoms)
        for channel in channels:
            missed[channel].append((prediction.forces[channel] - frame.forces).flatten())
    direct = _sizes(missed["direct"]) if "direct" in missed else (None, None)
    return Errors(*_sizes(missed["energy"]), *_sizes(missed["gradient"]), *direct)


def _sizes(parts: Sequence[Tensor]) -> tuple[float, float]:
    """Mean absolute and root mean square of errors, in thousandths of their unit."""
    errors = 1e3 * torch.cat(list(parts))
    return float(errors.abs().mean()), float(errors.square().mean().sqrt())


def split_errors(potential: DescriptorPotential, data: str, split: Split) -> dict[str, Errors]:
    """Errors on one split of a data set: all together under ``"all"``, and by group."""
    frames = [label(atoms, str(potential.device)) for atoms in load_frames(find_data_set(data), split)]
    groups = {"all": frames}
    for frame in frames:
        groups.setdefault(frame.group, []).append(frame)
    return {name: errors_of(potential, members) for name, members in groups.items()}
