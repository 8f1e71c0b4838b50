"""Ask a model about the test frames of a data set, by the force that acts under the scheme."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from ase import Atoms
from ase.data import chemical_symbols

from conservbench.data.catalogue import find_data_set
from conservbench.data.frames import load_frames
from conservbench.models.base import InvalidPredictionError, Model, UnsupportedError, check_support
from conservbench.protocols.base import Report
from conservbench.protocols.complexity.settings import Settings
from conservbench.scheme import Scheme
from conservbench.training.labelled import label


def measure_labels(model: Model, scheme: Scheme, settings: Settings, report: Report) -> xr.Dataset:
    """Energies and forces of labelled frames, one after the other, beside what they are labelled with.

    The net force of direct forces is taken out, as it is in a simulation, and that of the labels, a residue of the
    electronic solver.

    Returns:
        ``energy_label`` and, of a model that has one, ``energy`` (frame) in eV; ``force_label`` and ``force`` (site,
        axis) in eV/Å of the atoms of all frames in one row; ``frame_of_site`` (site); ``atoms_of`` (frame,
        label_element); ``group`` (frame), by the settings; ``trajectory`` (frame), frames of one of which are not
        independent, each its own where the data set names none.

    Raises:
        UnsupportedError: the model lacks the channel or an element, or tells atoms apart by their sites.
        InvalidPredictionError: a prediction is not finite or has a wrong shape.
        ValueError: there is no such data set, it has a wrong checksum, or no frame is of a group of the settings.
        OSError: it is not here and cannot be downloaded.
    """
    if model.labelled:
        raise UnsupportedError("the model ties atoms to their sites: it has no forces for frames of other systems")
    channel = scheme.mean_channel
    # a result names no folder
    name = Path(settings.labels).name
    frames = load_frames(find_data_set(settings.labels), "test")
    texts = [_text(atoms) for atoms in frames]
    groups = [settings.group_of(text) for text in texts]
    if empty := [name for name, _ in settings.groups if name not in groups]:
        raise ValueError(f"no test frame of {name} is of group {empty[0]!r}; frames are such as {texts[0]!r}")
    numbers = sorted({int(number) for atoms in frames for number in atoms.numbers})
    energies: list[float] = []
    forces, wanted = [], []
    for index, atoms in enumerate(frames):
        frame = label(atoms, str(model.device))
        check_support(model, frame.state, (channel,))
        said = model.evaluate(frame.state, forces=(channel,))
        pulls = said.forces[channel].detach()
        if pulls.shape != frame.forces.shape or not bool(torch.isfinite(pulls).all()):
            raise InvalidPredictionError(f"frame {index} of {name}: forces are not finite, or too few")
        if said.energy is not None:
            energies.append(float(said.energy.detach()))
        forces.append((pulls - pulls.mean(0) if channel == "direct" else pulls).cpu().double().numpy())
        wanted.append(frame.forces.cpu().numpy())
        report((index + 1) / len(frames))
    data = xr.Dataset(
        {
            "energy_label": _variable("frame", [atoms.get_potential_energy() for atoms in frames], "eV", "its energy"),
            "force_label": _variable(("site", "axis"), np.concatenate(wanted), "eV/Å", "labelled force"),
            "force": _variable(("site", "axis"), np.concatenate(forces), "eV/Å", "force of the model"),
            "frame_of_site": _variable(
                "site", np.repeat(np.arange(len(frames)), [len(atoms) for atoms in frames]), "1", "frame of the atom"
            ),
            "atoms_of": _variable(
                ("frame", "label_element"),
                np.array([[(atoms.numbers == number).sum() for number in numbers] for atoms in frames]),
                "1",
                "number of atoms",
            ),
            "group": _variable("frame", groups, "1", "group of the frame"),
            "trajectory": _variable("frame", _trajectories(frames), "1", "trajectory of the frame"),
        },
        coords={
            "label_element": _variable(
                "label_element", [chemical_symbols[number] for number in numbers], "1", "element"
            )
        },
        attrs={"labels": name},
    )
    if energies:
        data["energy"] = _variable("frame", energies, "eV", "energy of the model")
    return data


def _text(atoms: Atoms) -> str:
    """Group and description of a frame, as the data set has them."""
    return " ".join(f"{atoms.info.get('group', '')} {atoms.info.get('description', '')}".split())


def _trajectories(frames: Sequence[Atoms]) -> list[int]:
    known: dict[tuple[object, ...], int] = {}
    keys = [
        (atoms.info["group"], atoms.info["trajectory"]) if "trajectory" in atoms.info else (index,)
        for index, atoms in enumerate(frames)
    ]
    return [known.setdefault(key, len(known)) for key in keys]


def _variable(
    dims: str | tuple[str, ...], values: object, unit: str, name: str
) -> tuple[str | tuple[str, ...], object, dict[str, str]]:
    return dims, values, {"units": unit, "long_name": name}
