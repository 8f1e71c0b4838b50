"""Learning curves of kernel models of ethanol: what permutations and derivatives of forces are worth.

    python tests/speed/kernel_learning.py     # writes docs/figures/kernel-learning.json and .png; some minutes

Frames and labels are those of the data set ethanol-xtb. Products of the Hessian with random directions of unit length
are central differences of the forces of the calculator that labelled it (the extra ``xtb``); a whole Hessian is its
products with 21 directions that neither move nor turn the molecule, which leave nothing open. Each training set holds
the one before; errors are mean absolute ones of the forces of the test frames. All models are inverse distances under
the Matern 5/2 kernel and are trained on forces, or on forces and Hessian-vector products, without energies.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from conservbench.data.catalogue import find_data_set, shipped_folder
from conservbench.data.frames import load_frames
from conservbench.data.labelling.calculators import labeller
from conservbench.data.labelling.card import read_labelling
from conservbench.models.kernel.descriptors import find_descriptor
from conservbench.models.kernel.kernel import Kernel, Points
from conservbench.models.kernel.model import KernelModel
from conservbench.models.kernel.radial import find_radial
from conservbench.state import from_atoms
from conservbench.training.kernel.fit import Labels, errors_of, labels_of, train
from conservbench.training.kernel.permutations import find_permutations

FIGURES = Path(__file__).parents[2] / "docs" / "figures"
LENGTH, REGULARIZATION = 3.0, 1e-10
WHOLE = 21
"""Directions that make a whole Hessian: 27, but for three translations and three rotations."""
CURVES = {
    "forces": (False, 0, (5, 10, 20, 40, 80, 160)),
    "forces, permutations": (True, 0, (5, 10, 20, 40, 80, 160)),
    "and 1 Hessian-vector product": (True, 1, (5, 10, 20, 40, 80)),
    "and 3 Hessian-vector products": (True, 3, (5, 10, 20, 40)),
    "and the whole Hessian": (True, WHOLE, (5, 10, 20)),
}
STEP = 0.01
"""Å, of the differences of forces along a direction."""
TESTED = 60
"""Test frames, spread evenly."""


def directions_of(n_frames: int, count: int) -> np.ndarray:
    """(count, n_frames, 9, 3) random directions of unit length."""
    drawn = np.random.default_rng(1).normal(size=(n_frames, count, 9, 3)).swapaxes(0, 1)
    return drawn / np.linalg.norm(drawn, axis=(2, 3), keepdims=True)


def internal_directions_of(frames: list[Atoms]) -> np.ndarray:
    """(WHOLE, n_frames, 9, 3) directions of unit length, normal to each other, to translations and to rotations."""
    found = []
    for frame in frames:
        lever = frame.positions - frame.positions.mean(0)
        axes = np.eye(3)
        moves = [np.tile(axis, (9, 1)) for axis in axes] + [np.cross(axis, lever) for axis in axes]
        rigid = np.array(moves).reshape(6, 27)
        found.append(np.linalg.svd(rigid)[2][6:].reshape(WHOLE, 9, 3))
    return np.stack(found, 1)


def derivatives_of(frames: list[Atoms], directions: np.ndarray) -> np.ndarray:
    """(count, n_frames, 9, 3) derivatives of the forces along directions, eV/Å^2."""
    make = labeller(read_labelling(shipped_folder() / "ethanol-xtb.toml"))
    out = np.zeros_like(directions)
    for index, frame in enumerate(frames):
        for row in range(len(directions)):
            sides = []
            for sign in (1, -1):
                moved = Atoms(frame.numbers, frame.positions + sign * STEP * directions[row, index])
                moved.calc = make()
                sides.append(moved.get_forces())
            out[row, index] = (sides[0] - sides[1]) / (2 * STEP)
    return out


def error_of(frames: list[Atoms], tested: list[Atoms], permutations: tuple[tuple[int, ...], ...], count: int) -> float:
    """Mean absolute error of forces, meV/Å, of a model trained on frames."""
    descriptor = find_descriptor("inverse_distances", {})
    kernel = Kernel(descriptor, {}, find_radial("matern52"), torch.tensor(LENGTH).double(), permutations)
    labels = labels_of(frames)
    directions = torch.zeros(0, 0, 3).double()
    if count:
        along = internal_directions_of(frames) if count == WHOLE else directions_of(len(frames), count)
        derivatives = derivatives_of(frames, along)
        directions = torch.as_tensor(along).reshape(count, -1, 3)
        labels = Labels(labels.energies, labels.forces, torch.as_tensor(derivatives).reshape(count, -1, 3))
    points = Points(from_atoms(frames), directions)
    model = KernelModel(train(kernel, points, labels, REGULARIZATION, REGULARIZATION, "matern52"))
    return errors_of(model, tested).gradient


def draw(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.2), layout="constrained")
    panel = figure.subplots()
    colours = ("#d1495b", "#00798c", "#edae49", "#6a4c93", "#4d4d4d")
    for (name, rows), colour in zip(curves.items(), colours, strict=True):
        counts, errors = ([row[key] for row in rows] for key in ("frames", "force_MAE"))
        panel.plot(counts, errors, "o-", color=colour, markersize=4, label=name)
    panel.set(xlabel="training frames", ylabel="mean absolute error of forces, meV/Å", xscale="log", yscale="log")
    ticks = sorted({int(row["frames"]) for rows in curves.values() for row in rows})
    panel.set_xticks(ticks, map(str, ticks))
    panel.set_yticks((20, 50, 100, 200, 500), ("20", "50", "100", "200", "500"))
    panel.minorticks_off()
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure every point, write the numbers, draw them."""
    torch.set_num_threads(1)
    data_set = find_data_set("ethanol-xtb")
    frames = load_frames(data_set, "train")
    frames = [frames[i] for i in np.random.default_rng(0).permutation(len(frames))]
    tested = load_frames(data_set, "test")
    tested = [tested[i] for i in np.linspace(0, len(tested) - 1, TESTED).round().astype(int)]
    group = find_permutations(np.array([frame.positions for frame in frames[:160]]), frames[0].numbers)
    print(f"{len(group)} permutations", flush=True)
    curves: dict[str, list[dict[str, float]]] = {}
    for name, (averaged, count, sizes) in CURVES.items():
        curves[name] = []
        for size in sizes:
            began = time.process_time()
            error = error_of(frames[:size], tested, group if averaged else (), count)
            spent = time.process_time() - began
            curves[name].append({"frames": size, "force_MAE": round(error, 2), "cpu_s": round(spent, 1)})
            print(name, curves[name][-1], flush=True)
    what = (
        "ethanol-xtb, inverse distances, Matern 5/2, length 3, regularisation 1e-10; mean absolute error of forces of "
        f"{TESTED} test frames, meV/Å"
    )
    text = json.dumps({"what": what, "permutations": len(group), "curves": curves}, indent=1, ensure_ascii=False)
    (FIGURES / "kernel-learning.json").write_text(text + "\n", encoding="utf-8")
    draw(curves, FIGURES / "kernel-learning.png")


if __name__ == "__main__":
    main()
