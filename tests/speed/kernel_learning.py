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
from conservbench.data.labelling.card import read_labelling
from conservbench.models.kernel.descriptors import find_descriptor
from conservbench.models.kernel.kernel import Kernel, Points
from conservbench.models.kernel.model import KernelModel
from conservbench.models.kernel.radial import find_radial
from conservbench.state import from_atoms
from conservbench.training.kernel.fit import errors_of, labels_of, train, with_hessian
from conservbench.training.kernel.permutations import find_permutations
from conservbench.training.kernel.recipe import Hessian

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
CALCULATOR = read_labelling(shipped_folder() / "ethanol-xtb.toml").calculator
TESTED = 60
"""Test frames, spread evenly."""


def error_of(frames: list[Atoms], tested: list[Atoms], permutations: tuple[tuple[int, ...], ...], count: int) -> float:
    """Mean absolute error of forces, meV/Å, of a model trained on frames."""
    descriptor = find_descriptor("inverse_distances", {})
    kernel = Kernel(descriptor, {}, find_radial("matern52"), torch.tensor(LENGTH).double(), permutations)
    labels = labels_of(frames)
    points = Points(from_atoms(frames))
    if count:
        hessian = Hessian(CALCULATOR.factory, CALCULATOR.arguments, directions=0 if count == WHOLE else count)
        points, labels = with_hessian(points, labels, frames, hessian)
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
