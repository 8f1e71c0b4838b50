"""Calibration of classical potentials: all published starts, with exact gradients and with differences.

    pytest -n 0 tests/speed/test_calibrate.py --benchmark-only --benchmark-columns=median,iqr,rounds

Never part of the default tests, never asserted.
"""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from conservbench import process
from conservbench.references import find_reference
from conservbench.training.classical_silicon import Task, tasks


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The allocator and thread choices of the command line."""
    process.keep_freed_memory()
    torch.set_num_threads(1)


def by_differences(task: Task) -> None:
    """The same optimiser and bounds, with its own differences of losses in place of gradients."""
    for start in task.potential.starts:
        scale = np.array(list(start.values()))

        def loss(x, names=tuple(start), scale=scale):
            values = {name: torch.tensor(value) for name, value in zip(names, x * scale, strict=True)}
            return task.loss(task.model.at(values)).item()

        minimize(loss, np.ones(len(scale)), method="L-BFGS-B", bounds=[(0.05, 20.0)] * len(scale))


@pytest.mark.parametrize("target", ["elastic", "phonons", "density"])
@pytest.mark.parametrize("gradient", ["exact", "differences"])
def test_eight_starts(benchmark, target, gradient):
    """Four starts of Stillinger-Weber and four of EDIP."""
    benchmark.group = f"{target}, eight starts"
    mine = [task for task in tasks(find_reference("si-pbe")) if task.target == target]

    def run() -> None:
        for task in mine:
            if gradient == "exact":
                task.calibrations()
            else:
                by_differences(task)

    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
