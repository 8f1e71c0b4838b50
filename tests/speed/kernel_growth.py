"""What the bench of kernel models measured, drawn: growth with training points and atoms.

    pytest -n 0 tests/speed/test_kernel.py --benchmark-only --benchmark-timer time.process_time --benchmark-json bench.json
    python tests/speed/kernel_growth.py bench.json      # writes docs/figures/kernel-growth.json and .png

Times are the least of all rounds.
"""  # noqa: E501 - a command

from __future__ import annotations

import json
import sys
from pathlib import Path

FIGURES = Path(__file__).parents[2] / "docs" / "figures"
STYLES = {"contracted": ("o-", "#00798c"), "dense": ("s--", "#d1495b")}


def rows_of(bench: Path) -> dict[str, list[dict[str, float | str]]]:
    """Times in ms: of forces by kernel, way, atoms and points, and of matrices by frames."""
    forces, matrices = [], []
    for each in json.loads(bench.read_text(encoding="utf-8"))["benchmarks"]:
        params, least = each["params"], round(1e3 * each["stats"]["min"], 3)
        if each["name"].startswith("test_forces"):
            names = {"kernel": params["name"], "way": params["way"]}
            forces.append({**names, "atoms": params["n_atoms"], "points": params["n_points"], "ms": least})
        elif each["name"].startswith("test_assembly"):
            matrices.append({"frames": params["n_points"], "ms": least})
    return {"forces": forces, "matrices": matrices}


def draw(rows: dict[str, list[dict[str, float | str]]], path: Path) -> None:
    """A panel for each kernel and one of the matrix, all axes logarithmic."""
    from matplotlib.figure import Figure

    kernels = sorted({str(row["kernel"]) for row in rows["forces"]})
    figure = Figure(figsize=(3.1 * (len(kernels) + 1), 3.4), layout="constrained")
    panels = figure.subplots(1, len(kernels) + 1)
    for panel, kernel in zip(panels, kernels, strict=False):
        mine = [row for row in rows["forces"] if row["kernel"] == kernel]
        for way, (marker, colour) in STYLES.items():
            for atoms, filled in ((9, True), (21, False)):
                chosen = sorted(
                    (row["points"], row["ms"]) for row in mine if row["way"] == way and row["atoms"] == atoms
                )
                style = {"color": colour, "markerfacecolor": colour if filled else "white"}
                panel.plot(*zip(*chosen, strict=True), marker, **style, label=f"{way}, {atoms} atoms")
        panel.set(title=kernel, xlabel="training points", xscale="log", yscale="log", ylim=(0.2, 1e5))
        panel.set_xticks((250, 1000), ("250", "1000"))
    panels[0].set_ylabel("processor time of the forces, ms")
    panels[-1].plot(*zip(*((row["frames"], row["ms"]) for row in rows["matrices"]), strict=True), "o-", color="#555555")
    panels[-1].set(title="matrix, 9 atoms", xlabel="frames", ylabel="ms", xscale="log", yscale="log")
    ticks = [row["frames"] for row in rows["matrices"]]
    panels[-1].set_xticks(ticks, map(str, ticks))
    for panel in panels:
        panel.xaxis.minorticks_off()
        panel.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    found = rows_of(Path(sys.argv[1]))
    text = json.dumps({"what": "processor time on one thread, float64, the least of all rounds", **found}, indent=1)
    (FIGURES / "kernel-growth.json").write_text(text + "\n", encoding="utf-8")
    draw(found, FIGURES / "kernel-growth.png")
