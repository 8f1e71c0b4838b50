"""r-RESPA against i-PI's multiple time steps, with the same two forces: one trajectory, and averages under a bath."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols

from conservbench.cards import find_model
from conservbench.dynamics.integrator import integrator
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.dynamics.thermostat import step, thermostat
from conservbench.models.load import load_model
from conservbench.observables.temperature import kinetic_energy, temperature
from conservbench.scheme import Scheme
from conservbench.state import from_atoms
from conservbench.statistics import mean_interval
from conservbench.systems import find_system
from conservbench.units import BOLTZMANN, FEMTOSECOND, MILLI, PICOSECOND

pytest.importorskip("ipi", reason="i-PI is not installed: pip install conservbench[engines]")

PAIR = """
name = "pair"
version = 1
title = "EDIP corrected from Stillinger-Weber"
loader = "edip"
fast = "si-sw"
scheme = "mts"
stride = 4
"""
KELVIN = 1000.0


@pytest.fixture
def pair(tmp_path):
    path = tmp_path / "pair.toml"
    path.write_text(PAIR, encoding="utf-8")
    return str(path)


@pytest.fixture
def ipi(tmp_path):
    """Run i-PI from a state in a process of its own: series by name, in eV, Å, K and internal units of momentum."""

    def run(state, **job):
        np.savez(
            tmp_path / "start.npz",
            positions=state.positions.numpy(),
            momenta=state.momenta.numpy(),
            masses=state.masses.numpy(),
            cell=state.cell[0].numpy(),
            symbols=np.array([chemical_symbols[number] for number in state.numbers.tolist()]),
        )
        (tmp_path / "job.json").write_text(json.dumps({"system": "si-64", "temperature": KELVIN, **job}))
        script = Path(__file__).with_name("ipi_run.py")
        ended = subprocess.run(
            [sys.executable, str(script), str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=280
        )
        assert ended.returncode == 0, ended.stderr + ended.stdout
        return np.load(tmp_path / "results.npz")

    return run


def thermal(n_replicas):
    system = find_system("si-64")
    start = from_atoms([system.snapshots[k % len(system.snapshots)] for k in range(n_replicas)])
    return start.replace(momenta=draw_momenta(start, KELVIN, Noise(5)))


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("swirl-mts8", 8),
        ("swirl-mts8", 3),
        ("pair", 1),
        ("pair", 4),
        pytest.param("si-mace-mts8", 8, marks=pytest.mark.slow),
        pytest.param("si-mace-mts-sw", 4, marks=pytest.mark.slow),
    ],
)
def test_one_trajectory(ipi, pair, name, stride):
    """30 outer steps up to rounding, which is 1e-14 at the first and has grown tenfold or less by the last."""
    torch.set_num_threads(1)
    card = find_model(pair if name == "pair" else name)
    state, n_outer, dt = thermal(1), 30, FEMTOSECOND
    theirs = ipi(state, model=pair if name == "pair" else name, outer=stride * dt, stride=stride, n_outer=n_outer)
    model = load_model(card, find_system("si-64"), dtype="float64")
    engine = integrator(model, Scheme("mts", stride))
    md = engine.init(state)
    for k in range(n_outer):
        md = engine.step(md, dt)
        np.testing.assert_allclose(theirs["positions"][k], md.positions.numpy(), rtol=0, atol=1e-11)
        np.testing.assert_allclose(theirs["momenta"][k], md.momenta.numpy(), rtol=0, atol=1e-10)
        assert theirs["potential"][k] == pytest.approx(float(md.energy), abs=1e-9)
        assert theirs["kinetic_md"][k] == pytest.approx(float(kinetic_energy(md)), abs=1e-9)
    moved = (md.positions - state.positions).norm(dim=1)
    assert float(moved.max()) > 0.1


@pytest.mark.slow
def test_averages_under_stochastic_velocity_rescaling(ipi, pair):
    """Two codes, two streams of random numbers: temperatures and conserved quantities agree within their errors.

    Blocks of 0.4 ps, twenty relaxation times, count as independent: four standard errors of the difference are a false
    alarm in 0.1 % of all seeds (t of about 20 degrees).
    """
    torch.set_num_threads(1)
    dt, stride, n_outer, block, tau = FEMTOSECOND, 4, 1200, 100, 20.0 * FEMTOSECOND
    state = thermal(1)
    theirs = ipi(state, model=pair, outer=stride * dt, stride=stride, n_outer=n_outer, tau=tau, seed=11)
    engine = integrator(load_model(find_model(pair), find_system("si-64")), Scheme("mts", stride))
    bath = thermostat("svr", KELVIN, tau, Noise(12))
    md = bath.init(engine.init(thermal(4)))
    kelvin, conserved = [], []
    for _ in range(n_outer // 2):
        md = step(md, lambda each: engine.step(each, dt), bath, stride * dt)
        kelvin.append(temperature(md).numpy())
        conserved.append((md.energy + kinetic_energy(md) + bath.energy(md)).numpy())

    def blocks(series):
        """Means of blocks after the first, (n_blocks,)."""
        return np.asarray(series).reshape(-1, block, *np.shape(series)[1:]).mean(1)[1:].ravel()

    # i-PI's temperature counts 3 N - 3 degrees of freedom with the centre of mass fixed
    n_dof = 3 * 64 - 3
    their_kelvin = blocks(2.0 * theirs["kinetic_md"] / (n_dof * BOLTZMANN))
    our_kelvin = blocks(kelvin)
    difference = their_kelvin.mean() - our_kelvin.mean()
    error = np.hypot(*(each.std(ddof=1) / np.sqrt(len(each)) for each in (their_kelvin, our_kelvin)))
    assert abs(difference) < 4.0 * error
    assert error < 15.0
    for each in (their_kelvin, our_kelvin):
        interval = mean_interval(each)
        assert abs(interval.value - KELVIN) < interval.high - interval.low
    times = stride * dt / PICOSECOND * np.arange(1, n_outer + 1)
    theirs_drift = MILLI * np.polyfit(times, theirs["conserved"], 1)[0] / 64
    ours_drift = MILLI * np.polyfit(times[: len(conserved)], np.mean(conserved, 1), 1)[0] / 64
    assert abs(theirs_drift) < 0.2
    assert abs(ours_drift) < 0.2
