"""The curves of a tuning as a picture: every term of the loss by step, rejected steps marked."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import xarray as xr

from conservbench.result import write_bytes


def plot_history(history: xr.Dataset, title: str, path: Path) -> None:
    """Draw a history (:meth:`conservbench.training.descent.Descent.dataset`) as a PNG.

    Args:
        history: of a tuning.
        title: of the picture.
        path: of the file.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    terms = [str(name).removesuffix("_loss") for name in history.data_vars if str(name).endswith("_loss")]
    figure = Figure(figsize=(7.0, 2.2 * max(len(terms), 1) + 0.6), layout="constrained")
    panels = figure.subplots(max(len(terms), 1), 1, sharex=True, squeeze=False)[:, 0]
    rejected = history.step.values[~history.accepted.values.astype(bool)]
    for panel, term in zip(panels, terms, strict=False):
        loss = history[f"{term}_loss"].values
        panel.plot(history.step, loss, color="#1f6fb4", marker=".", linewidth=1.2)
        for step in rejected:
            panel.axvline(step, color="#c0392b", linewidth=1.0, linestyle=":")
        panel.set_ylabel(f"{term} loss")
        panel.grid(alpha=0.3)
        if np.isfinite(loss).any() and np.nanmin(loss) > 0:
            panel.set_yscale("log")
    panels[-1].set_xlabel("step" + (" (dotted: rejected)" if len(rejected) else ""))
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(title)
    content = io.BytesIO()
    figure.savefig(content, dpi=120, format="png")
    write_bytes(content.getvalue(), path)
