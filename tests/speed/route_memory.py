"""Memory of the gradient routes against the length of the trajectory, measured and drawn.

    python tests/speed/route_memory.py        # writes docs/figures/route-memory.json and .png; some minutes

64 atoms of liquid silicon at 2000 K under the shipped network in the precision of its card, the smeared g(r) observed
every 8 steps of 1 fs. Each curve is a process of its own on one thread. What is drawn is the peak of its resident
memory less that after a step without any gradient; the peak of a process never falls, so that lengths ascend.
"""

import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import numpy as np

FIGURES = Path(__file__).parents[2] / "docs" / "figures"
INTERVAL = 8
SEGMENT = 8
STEPS = (8, 16, 32, 64, 96)
LENGTHS = {
    "unrolled": STEPS,
    f"unrolled in segments of {SEGMENT}": STEPS,
    "reversible adjoint": STEPS,
    "implicit, at a minimum": (0,),
}
SCHEMES = {"gradient": 1, "direct": 1, "mts": 8}


def measure(name: str, kind: str) -> list[dict[str, float]]:
    """Peak memory, MB, and processor time, s, of one route under one scheme, for each length."""
    import torch

    from conservbench.cards import find_model
    from conservbench.dynamics.integrator import integrator
    from conservbench.dynamics.maxwell_boltzmann import draw_momenta
    from conservbench.dynamics.noise import Noise
    from conservbench.models.mace import load
    from conservbench.observables.rdf import smeared_rdf
    from conservbench.outcome import Outcome
    from conservbench.scheme import Scheme
    from conservbench.state import from_atoms
    from conservbench.systems import find_system
    from conservbench.training.implicit import Implicit
    from conservbench.training.reversible import ReversibleAdjoint
    from conservbench.training.route import Objective, of_average
    from conservbench.training.unrolled import UnrolledReverse
    from conservbench.units import FEMTOSECOND

    torch.set_num_threads(1)
    scheme = Scheme(kind, SCHEMES[kind])
    still = name not in tuple(LENGTHS)[:3]
    system = find_system("si-64" if still else "si-liquid-64")
    model = load(find_model("si-mace-mts8"), system)
    start = from_atoms(system.snapshots[0])
    start = start.replace(momenta=draw_momenta(start, 2000.0, Noise(1)))
    centers = np.linspace(0.5, 5.5, 100)
    objective = Objective(
        lambda model, state: smeared_rdf(state, centers, 0.2), of_average(lambda g: (g - 1).square().sum())
    )
    engine = integrator(model, scheme)
    engine.step(engine.init(start), FEMTOSECOND)
    objective.observe(model, start)
    before = _peak()
    rows = []
    for length in LENGTHS[name]:
        route = {
            "unrolled": lambda n=length: UnrolledReverse(1.0, n, INTERVAL, n),
            f"unrolled in segments of {SEGMENT}": lambda n=length: UnrolledReverse(1.0, n, INTERVAL, SEGMENT),
            "reversible adjoint": lambda n=length: ReversibleAdjoint(1.0, n, INTERVAL),
            "implicit, at a minimum": lambda: Implicit(fmax=1e-3, tolerance=1e-2),
        }[name]()
        began = time.process_time()
        found = route(model, scheme, objective, start, model.parameters)
        spent = time.process_time() - began
        if found.outcome is not Outcome.COMPLETED:
            raise RuntimeError(f"{name}, {kind}, {length} steps: {found.outcome}, {found.reason}")
        rows.append({"steps": length, "peak_MB": _peak() - before, "cpu_s": round(spent, 2)})
    return rows


def _peak() -> float:
    # kilobytes, but bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024.0**2 if sys.platform == "darwin" else 1024.0)


def draw(curves: dict[str, dict[str, list[dict[str, float]]]], path: Path) -> None:
    """A panel for each scheme, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    panels = figure.subplots(1, len(SCHEMES), sharey=True)
    colours = dict(zip(LENGTHS, ("#d1495b", "#edae49", "#00798c", "#555555"), strict=True))
    for panel, (kind, stride) in zip(panels, SCHEMES.items(), strict=True):
        for name, colour in colours.items():
            steps, peaks = ([row[key] for row in curves[kind][name]] for key in ("steps", "peak_MB"))
            if steps == [0]:
                panel.axhline(peaks[0], color=colour, linestyle=":", label=name)
            else:
                panel.plot(steps, peaks, "o-", color=colour, markersize=4, label=name)
        title = f"{kind} forces" if stride == 1 else f"{kind}, stride {stride}"
        panel.set(title=title, xlabel="steps of the trajectory", xscale="log", yscale="log", ylim=(10, 4000))
        panel.set_xticks(STEPS, map(str, STEPS))
        panel.set_yticks((10, 30, 100, 300, 1000, 3000), ("10", "30", "100", "300", "1000", "3000"))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("memory for the gradient, MB")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure every curve in a process of its own, write the numbers, draw them."""
    context = multiprocessing.get_context("spawn")
    curves: dict[str, dict[str, list[dict[str, float]]]] = {}
    for kind in SCHEMES:
        curves[kind] = {}
        for name in LENGTHS:
            with context.Pool(1) as pool:
                curves[kind][name] = pool.apply(measure, (name, kind))
            print(kind, name, curves[kind][name], flush=True)
    what = (
        "64 atoms of silicon, the shipped network, float32, one thread; peak resident memory over that of plain steps"
    )
    text = json.dumps({"what": what, "schemes": curves}, indent=1)
    (FIGURES / "route-memory.json").write_text(text + "\n", encoding="utf-8")
    draw(curves, FIGURES / "route-memory.png")


if __name__ == "__main__":
    main()
