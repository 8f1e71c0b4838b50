"""Training PET through metatrain: frames of the catalogue, then ``mtt train``, resumed where it stopped.

    python -m conservbench.training.metatrain models/recipes/pet-si runs/pet-si

leaves ``pet-si.pt``, which the loader ``metatomic`` runs, and checkpoints of training under ``outputs/``. Needs the
extra ``metatrain``. A recipe is a folder with ``frames.toml`` (see :class:`Frames`) and ``options.yaml``, metatrain's
own; a folder that holds checkpoints is not trained on by another one. ``mtt export outputs/.../model_100.ckpt -o
pet-si-100.pt`` makes a model of a checkpoint.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from ase import Atoms
from ase.io import read, write

from conservbench.cards import build, parse
from conservbench.data.catalogue import beside, find_data_set
from conservbench.data.frames import load_frames
from conservbench.result import write_bytes

RECIPE: Final = ("frames.toml", "options.yaml")
"""Files of a recipe."""


@dataclass(frozen=True)
class Frames:
    """What a recipe trains on.

    Attributes:
        data: name of a data set of the catalogue.
        validation: number of training frames held out, which choose the best epoch.
        seed: of that choice.
        augmentation: whether each structure is turned at random whenever it is seen.

    Raises:
        ValueError: no frame is held out.
    """

    data: str
    validation: int
    seed: int
    augmentation: bool

    def __post_init__(self) -> None:
        if self.validation < 1:
            raise ValueError(f"validation is {self.validation}; expected 1 or more")


def read_frames(recipe: Path) -> Frames:
    """The ``frames.toml`` of a recipe.

    Raises:
        CardError: it is not as it must be.
        OSError: it is not there.
    """
    path = recipe / "frames.toml"
    frames = build(Frames, parse(path), str(path))
    return replace(frames, data=beside(frames.data, path))


def prepare(recipe: Path, folder: Path) -> Frames:
    """Fill a folder with what ``mtt train options.yaml`` reads there: options, and frames as extended XYZ.

    The recipe lies there, too: a folder with checkpoints takes no other one, whose frames to validate with may be among
    those trained on.

    Args:
        recipe: folder of the recipe.
        folder: where training runs; made if it is not there.

    Raises:
        ValueError: the recipe or its data set is not there or not as it must be, or the folder holds checkpoints of
            another recipe.
        OSError: a file is missing or cannot be downloaded.
    """
    frames = read_frames(recipe)
    data = find_data_set(frames.data)
    known = load_frames(data, "train")
    if len(known) <= frames.validation:
        raise ValueError(
            f"{recipe}: validation is {frames.validation} of {len(known)} frames; none is left to train on"
        )
    order = np.random.default_rng(frames.seed).permutation(len(known))
    held = set(order[: frames.validation].tolist())
    parts = {
        "train.xyz": [atoms for index, atoms in enumerate(known) if index not in held],
        "validation.xyz": [known[index] for index in sorted(held)],
        "test.xyz": load_frames(data, "test"),
    }
    if last_checkpoint(folder) is not None:
        _refuse_another(recipe, folder, parts)
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        write_labels(folder / name, part)
    for name in RECIPE:
        write_bytes((recipe / name).read_bytes(), folder / name)
    return frames


def _refuse_another(recipe: Path, folder: Path, parts: Mapping[str, Sequence[Atoms]]) -> None:
    """Refuse a recipe that is not the one that a folder was trained by.

    What lies there is compared: comments count for nothing, and a file that is not there (older releases left no
    ``frames.toml``) for nothing either.

    Raises:
        ValueError: with the file that differs.
    """
    other = [name for name in RECIPE if (folder / name).is_file() and _bare(folder / name) != _bare(recipe / name)]
    trained = ("train.xyz", "validation.xyz")
    other += [name for name in trained if (folder / name).is_file() and not _same(folder / name, parts[name])]
    if other:
        raise ValueError(
            f"{folder}: its checkpoints belong to another version of this recipe ({', '.join(other)} differ);"
            " train in another folder, or remove this one to start anew"
        )


def _bare(path: Path) -> list[str]:
    """The lines of a file without comments."""
    lines = (re.sub(r"(^|\s)#.*", "", line).rstrip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _same(path: Path, frames: Sequence[Atoms]) -> bool:
    """Whether a file holds these structures, in this order."""
    there = read(path, ":", format="extxyz")
    return len(there) == len(frames) and all(
        np.array_equal(one.numbers, other.numbers)
        and np.allclose(one.positions, other.positions, atol=1e-6)
        and np.isclose(one.get_potential_energy(), other.get_potential_energy(), rtol=0.0, atol=1e-6)
        for one, other in zip(there, frames, strict=True)
    )


def write_labels(path: Path, frames: Sequence[Atoms]) -> None:
    """Write structures with energy (eV) and forces (eV/Å) as extended XYZ under these two keys.

    The net force of each is removed: it is noise of its labels, and neither channel can have one.
    """
    bare = []
    for atoms in frames:
        copy = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        forces = atoms.get_forces()
        copy.info["energy"] = float(atoms.get_potential_energy())
        copy.arrays["forces"] = forces - forces.mean(0)
        bare.append(copy)
    write(path, bare, format="extxyz")


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the highest epoch that training left in a folder; None if it left none."""
    found = [path for path in folder.glob("outputs/*/*/model_*.ckpt") if re.fullmatch(r"model_\d+", path.stem)]
    return max(found, key=lambda path: (int(path.stem.removeprefix("model_")), path.stat().st_mtime), default=None)


def train(recipe: Path, folder: Path) -> Path:
    """Train, or go on training, the network of a recipe.

    Args:
        recipe: folder of the recipe; its name is that of the network.
        folder: where training runs and leaves its files.

    Returns:
        The exported model, ``NAME.pt``.

    Raises:
        ValueError: the recipe is not as it must be or not the one that the folder was trained by, or metatrain is not
            installed.
        OSError: a file is missing or cannot be downloaded.
        SystemExit: metatrain stopped with an error, which it has told.
    """
    try:
        from metatrain.__main__ import main as mtt
    except ImportError as error:
        raise ValueError("training PET needs metatrain: install conservbench[metatrain]") from error
    recipe, folder = recipe.resolve(), folder.resolve()
    frames = prepare(recipe, folder)
    checkpoint = last_checkpoint(folder)
    resumed = [] if checkpoint is None else ["--restart", str(checkpoint)]
    words = ["mtt", "train", "options.yaml", "--output", f"{recipe.name}.pt", *resumed]
    home = Path.cwd()
    os.chdir(folder)
    try:
        with patch.object(sys, "argv", words), _turned(at_random=frames.augmentation):
            mtt()
    finally:
        os.chdir(home)
    return folder / f"{recipe.name}.pt"


@contextmanager
def _turned(*, at_random: bool) -> Iterator[None]:
    """Let metatrain turn what PET sees, or not: it has no option for that."""
    if at_random:
        yield
        return
    from metatrain.utils.augmentation import O3Augmenter

    def as_it_is(_: O3Augmenter, systems: Any, targets: Any, extra_data: Any = None) -> tuple[Any, Any, Any]:
        return systems, targets, extra_data or {}

    with patch.object(O3Augmenter, "apply_random_augmentations", as_it_is):
        yield


if __name__ == "__main__":
    import torch

    # more threads wait for each other: a network this small gains nothing by them
    torch.set_num_threads(1)
    if len(sys.argv) != 3:
        sys.exit("usage: python -m conservbench.training.metatrain RECIPE FOLDER")
    try:
        print(train(Path(sys.argv[1]), Path(sys.argv[2])))  # noqa: T201 - the answer of the command
    except (ValueError, OSError) as problem:
        sys.exit(f"error: {problem}")
