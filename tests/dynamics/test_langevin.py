"""Langevin dynamics: the exact stationary distribution of OBABO in a harmonic crystal, heat, and batches."""

import numpy as np
import pytest
import torch
from ase.build import bulk

from conservbench.dynamics.integrator import integrator
from conservbench.dynamics.noise import Noise
from conservbench.dynamics.thermostat import step, thermostat
from conservbench.models.toy import Field, ToyModel
from conservbench.observables.temperature import kinetic_energy
from conservbench.scheme import Scheme
from conservbench.state import from_atoms
from conservbench.units import BOLTZMANN, FEMTOSECOND

STIFFNESS, KELVIN, N_ATOMS = 8.0, 500.0, 8
DOF = 3 * N_ATOMS - 3


def start(n_replicas):
    return from_atoms([bulk("Si", cubic=True, a=5.431)] * n_replicas)


def model(name="harmonic", curl=0.0):
    return ToyModel(Field(name, STIFFNESS, curl), bulk("Si", cubic=True, a=5.431))


def sample(engine, state, dt, tau, n_samples, interval):
    """Kinetic and potential energies (n_samples, n_replicas) in units of DOF k_B T / 2, and the last state."""
    bath = thermostat("langevin", KELVIN, tau * FEMTOSECOND, Noise(5))
    outer = dt * FEMTOSECOND * engine.stride
    md = engine.init(state)
    kinetic, potential = [], []
    for _ in range(n_samples):
        for _ in range(interval):
            md = step(md, lambda free: engine.step(free, dt * FEMTOSECOND), bath, outer)
        kinetic.append(kinetic_energy(md).numpy())
        potential.append(md.energy.numpy())
    scale = DOF * BOLTZMANN * KELVIN / 2
    return np.array(kinetic) / scale, np.array(potential) / scale, md


@pytest.mark.parametrize("dt", [4.0, 20.0])
def test_harmonic_crystal_is_canonical_up_to_the_exact_error_of_obabo(dt):
    """Verlet keeps p^2 / 2m + k x^2 / 2 (1 - (w dt)^2 / 4), and O keeps the momenta thermal.

    So momenta have the exact temperature at any time step, and <k x^2> = k_B T / (1 - (w dt)^2 / 4).
    """
    engine = integrator(model(), Scheme("gradient"))
    omega = np.sqrt(STIFFNESS / 28.085)
    bias = 1 / (1 - (omega * dt * FEMTOSECOND) ** 2 / 4)
    assert bias == pytest.approx({4.0: 1.011, 20.0: 1.379}[dt], abs=1e-3)
    # 64 replicas; tau 20 fs; a first record after 400 fs, 30 more of them 200 fs (10 tau) apart
    interval = int(200 / dt)
    kinetic, potential, md = sample(engine, start(64), dt, 20.0, 32, interval)
    for energies, mean in ((kinetic[2:], 1.0), (potential[2:], bias)):
        n = energies.size
        spread = mean * np.sqrt(2 / DOF)
        # 1920 nearly independent gamma values: mean to 0.7 %, variance to 3.6 %; 4.3 sigma, false alarm 2e-5 each
        assert energies.mean() == pytest.approx(mean, abs=4.3 * spread / np.sqrt(n))
        assert energies.var() == pytest.approx(spread**2, rel=4.3 * np.sqrt((2 + 12 / DOF) / n))
    assert float(md.sum(md.momenta).abs().max()) < 1e-11


def test_mts_with_a_swirl_is_canonical():
    """The bath goes around an outer step; forces are right on average, so that the temperature is the bath's."""
    engine = integrator(model("two-headed", curl=0.4), Scheme("mts", 4))
    kinetic, potential, _ = sample(engine, start(64), 1.0, 20.0, 22, 25)
    n = kinetic[2:].size
    # four sigma, false alarm 6e-5 each; the outer step of 4 fs adds (w dt)^2 / 4 = 1.1 % to the potential energy
    assert kinetic[2:].mean() == pytest.approx(1.0, abs=4 * np.sqrt(2 / DOF / n))
    assert potential[2:].mean() == pytest.approx(1.011, abs=4 * np.sqrt(2 / DOF / n) + 0.005)


def test_the_bath_alone_thermalises_momenta_in_one_long_step():
    md = integrator(model(), Scheme("gradient")).init(start(400))
    bath = thermostat("langevin", KELVIN, 10.0 * FEMTOSECOND, Noise(2))
    after = bath.couple(md, 1000.0 * FEMTOSECOND)
    energies = kinetic_energy(after).numpy() / (DOF * BOLTZMANN * KELVIN / 2)
    assert energies.mean() == pytest.approx(1.0, abs=4 * np.sqrt(2 / DOF / 400))
    np.testing.assert_allclose(after.heat.numpy(), kinetic_energy(after).numpy(), rtol=1e-12)


def test_friction_has_its_relaxation_time():
    """At 0 K only friction is left, p <- p exp(-dt / tau), and it takes p^2 (1 - exp(-2 dt / tau)) / 2m away."""
    state = start(1)
    momenta = torch.zeros_like(state.momenta)
    momenta[0, 0], momenta[1, 0] = 2.0, -2.0
    md = integrator(model(), Scheme("gradient")).init(state.replace(momenta=momenta))
    bath = thermostat("langevin", 0.0, 100.0 * FEMTOSECOND, Noise(0))
    after = bath.couple(md, 30.0 * FEMTOSECOND)
    np.testing.assert_allclose(after.momenta.numpy(), np.exp(-0.3) * momenta.numpy(), rtol=1e-12)
    assert float(after.heat) == pytest.approx(-(2.0**2) / 28.085 * (1 - np.exp(-0.6)), rel=1e-12)


def test_conserved_quantity_is_of_order_two():
    """Kinetic + potential energy - heat changes by the error of Verlet alone."""
    engine = integrator(model(), Scheme("gradient"))
    steps = [1.0, 2.0, 4.0]
    spread = []
    for dt in steps:
        bath = thermostat("langevin", KELVIN, 100.0 * FEMTOSECOND, Noise(5))
        md = engine.init(start(64))
        conserved = []
        for _ in range(int(400 / dt)):
            md = step(md, lambda free, h=dt: engine.step(free, h * FEMTOSECOND), bath, dt * FEMTOSECOND)
            conserved.append((kinetic_energy(md) + md.energy - md.heat).numpy())
        spread.append(np.std(conserved))
    assert float(md.heat.mean()) > 0.5 * DOF * BOLTZMANN * KELVIN
    # noise differs between the time steps: the exponent scatters by 0.03 between seeds
    assert np.polyfit(np.log(steps), np.log(spread), 1)[0] == pytest.approx(2.0, abs=0.12)


def test_a_replica_does_not_depend_on_its_batch():
    engine = integrator(model(), Scheme("gradient"))

    def run(md):
        bath = thermostat("langevin", KELVIN, 50.0 * FEMTOSECOND, Noise(9))
        for _ in range(50):
            md = step(md, lambda free: engine.step(free, FEMTOSECOND), bath, FEMTOSECOND)
        return md

    batch = engine.init(start(4))
    together, alone = run(batch), run(batch.take([2]))
    assert float((together.take([2]).positions - alone.positions).abs().max()) < 1e-12
    assert float(together.heat[2]) == pytest.approx(float(alone.heat), rel=1e-10)
