"""NVE with the shipped network: the batched engine against ASE, and what the engine adds to the bare model.

    pip install -e ".[test,speed]" -c constraints.txt
    pytest -n 0 tests/speed --benchmark-only --benchmark-columns=median,iqr,rounds

Rows of a group are the same physical work, measured side by side in one run on one thread; the bracketed factor of the
median is the ratio. Never part of the default tests, never asserted.
"""

import ase.md.verlet
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.md.velocitydistribution import thermalize_momenta

from conservbench import process
from conservbench.cards import find_model
from conservbench.dynamics.integrator import integrator
from conservbench.models.mace import MACEModel, load
from conservbench.scheme import Scheme
from conservbench.state import State, from_atoms
from conservbench.systems import find_system
from conservbench.units import FEMTOSECOND

N_STEPS = 16
CARD = "si-mace-gradient"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The allocator and thread choices of the command line."""
    process.keep_freed_memory()
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> MACEModel:
    return load(find_model(CARD), find_system("si-64"))


def start(cell: str, n_replicas: int) -> list[Atoms]:
    """Thermal starts at 1000 K."""
    frames = []
    for k in range(n_replicas):
        if cell == "si-64":
            snapshots = find_system("si-64").snapshots
            atoms = snapshots[k % len(snapshots)].copy()
        else:
            atoms = bulk("Si", cubic=True)
            atoms.rattle(0.1, seed=k)
        thermalize_momenta(atoms, temperature_K=1000, rng=np.random.default_rng(k))
        frames.append(atoms)
    return frames


def run_engine(model: MACEModel, scheme: Scheme, state: State) -> None:
    engine = integrator(model, scheme)
    md = engine.init(state)
    for _ in range(N_STEPS // scheme.stride):
        md = engine.step(md, FEMTOSECOND)


def run_ase(calculator, frames: list[Atoms]) -> None:
    for atoms in frames:
        atoms.calc = calculator
        ase.md.verlet.VelocityVerlet(atoms, timestep=units.fs).run(N_STEPS)


REPLICAS = pytest.mark.parametrize("n_replicas", [1, 8, 32])
CELLS = pytest.mark.parametrize("cell", ["si-8", "si-64"])


@CELLS
@REPLICAS
@pytest.mark.parametrize("scheme", [Scheme("gradient"), Scheme("mts", 8), Scheme("direct")], ids=lambda s: s.kind)
def test_engine(benchmark, model, cell, n_replicas, scheme):
    benchmark.group = f"{N_STEPS} steps of {cell}, {n_replicas} replicas"
    state = from_atoms(start(cell, n_replicas))
    benchmark.pedantic(run_engine, args=(model, scheme, state), rounds=3, warmup_rounds=1)


@CELLS
@REPLICAS
def test_ase(benchmark, model, cell, n_replicas):
    """ASE VelocityVerlet with mace-torch's own calculator over the same network."""
    from mace.calculators import MACECalculator

    benchmark.group = f"{N_STEPS} steps of {cell}, {n_replicas} replicas"
    calculator = MACECalculator(models=[model.network.trunk], device="cpu", default_dtype="float32")
    frames = start(cell, n_replicas)
    benchmark.pedantic(run_ase, args=(calculator, frames), rounds=3, warmup_rounds=1)


@CELLS
@REPLICAS
def test_bare_model(benchmark, model, cell, n_replicas):
    """The same number of gradient-force calls without an integrator: beside ``test_engine[gradient]``."""
    benchmark.group = f"{N_STEPS} steps of {cell}, {n_replicas} replicas"
    state = from_atoms(start(cell, n_replicas))

    def calls() -> None:
        for _ in range(N_STEPS + 1):
            model.evaluate(state, forces=("gradient",))

    benchmark.pedantic(calls, rounds=3, warmup_rounds=1)
