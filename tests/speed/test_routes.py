"""Gradient routes through a trajectory, and through a minimum, with the shipped network.

    pytest -n 0 tests/speed/test_routes.py --benchmark-only --benchmark-columns=median,iqr,rounds

Rows of a group take the same trajectory, the first of them without any gradient, side by side in one run on one thread;
the bracketed factor of the median is the ratio. Their memory is measured by ``route_memory.py``. Never part of the
default tests, never asserted.
"""

import numpy as np
import pytest
import torch

from conservbench import process
from conservbench.cards import find_model
from conservbench.dynamics.integrator import integrator
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.models.mace import MACEModel, load
from conservbench.observables.rdf import smeared_rdf
from conservbench.outcome import Outcome
from conservbench.scheme import Scheme
from conservbench.state import State, from_atoms
from conservbench.systems import find_system
from conservbench.training.implicit import Implicit
from conservbench.training.reversible import ReversibleAdjoint
from conservbench.training.route import Objective, of_average
from conservbench.training.unrolled import UnrolledReverse
from conservbench.units import FEMTOSECOND

N_STEPS = 16
CENTERS = np.linspace(0.5, 5.5, 100)
OBJECTIVE = Objective(
    lambda model, state: smeared_rdf(state, CENTERS, 0.2), of_average(lambda g: (g - 1).square().sum())
)
ROUTES = {
    "unrolled": UnrolledReverse(1.0, N_STEPS, 8, N_STEPS),
    "segments of 8": UnrolledReverse(1.0, N_STEPS, 8, 8),
    "reversible": ReversibleAdjoint(1.0, N_STEPS, 8),
}

SCHEME = pytest.mark.parametrize(
    "scheme", [Scheme("gradient"), Scheme("mts", 8), Scheme("direct")], ids=lambda scheme: scheme.kind
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The allocator and thread choices of the command line."""
    process.keep_freed_memory()
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["float32", "float64"])
def model(request) -> MACEModel:
    return load(find_model("si-mace-mts8"), find_system("si-64"), dtype=request.param)


@pytest.fixture(scope="module")
def liquid() -> State:
    start = from_atoms(find_system("si-liquid-64").snapshots[0])
    return start.replace(momenta=draw_momenta(start, 2000.0, Noise(1)))


@SCHEME
def test_no_gradient(benchmark, model, liquid, scheme):
    benchmark.group = f"{N_STEPS} steps, {scheme.kind}, {next(iter(model.parameters.values())).dtype}"
    engine = integrator(model, scheme)

    def run() -> None:
        md = engine.init(liquid)
        for _ in range(N_STEPS // engine.stride):
            md = engine.step(md, FEMTOSECOND)

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)


@SCHEME
@pytest.mark.parametrize("name", ROUTES)
def test_trajectory(benchmark, model, liquid, scheme, name):
    benchmark.group = f"{N_STEPS} steps, {scheme.kind}, {next(iter(model.parameters.values())).dtype}"
    found = benchmark.pedantic(
        ROUTES[name], args=(model, scheme, OBJECTIVE, liquid, model.parameters), rounds=3, warmup_rounds=1
    )
    assert found.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("kind", ["gradient", "direct"])
def test_minimum(benchmark, model, kind):
    benchmark.group = f"minimum of a rattled crystal, {kind}"
    start = from_atoms(find_system("si-64").snapshots[0])
    route = Implicit(fmax=1e-3, tolerance=1e-2)
    found = benchmark.pedantic(route, args=(model, Scheme(kind), OBJECTIVE, start, model.parameters), rounds=2)
    assert found.outcome is Outcome.COMPLETED
    benchmark.extra_info.update(found.record)
