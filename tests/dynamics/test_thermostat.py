"""What all thermostats have in common: the canonical ensemble, a conserved quantity, any propagator, any batch."""

import math

import numpy as np
import pytest
import torch

from conservbench.dynamics.integrator import integrator
from conservbench.dynamics.noise import Noise
from conservbench.dynamics.thermostat import KINDS, step, thermostat
from conservbench.models.base import Prediction
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.temperature import kinetic_energy
from conservbench.scheme import Scheme
from conservbench.units import BOLTZMANN, FEMTOSECOND

KELVIN, DOF = 600.0, 21
GRADIENT, MTS = Scheme("gradient"), Scheme("mts", 4)


def mover(engine, bath, dt):
    """One step of dt fs, of the inner kind under MTS."""
    return lambda md: step(md, lambda free: engine.step(free, dt * FEMTOSECOND), bath, dt * engine.stride * FEMTOSECOND)


def sample(engine, bath, md, dt, n_records, interval):
    """Kinetic and potential energies (n_records, n_replicas) in units of DOF k_B T / 2."""
    move, kinetic, potential = mover(engine, bath, dt), [], []
    for _ in range(n_records):
        for _ in range(interval):
            md = move(md)
        kinetic.append(kinetic_energy(md).numpy())
        potential.append(np.zeros(md.n_systems) if md.energy is None else md.energy.numpy())
    scale = DOF * BOLTZMANN * KELVIN / 2
    return np.array(kinetic) / scale, np.array(potential) / scale


@pytest.mark.parametrize("scheme", [GRADIENT, MTS], ids=["verlet", "respa"])
@pytest.mark.parametrize("kind", KINDS)
def test_harmonic_crystal_stays_canonical(toy, crystal, kind, scheme):
    """Canonical starts stay so: means and variances of kinetic and potential energy.

    Of canonical starts, as a bath that sees the kinetic energy alone cannot bring equal oscillators to equipartition.
    """
    engine = integrator(toy("two-headed", curl=0.2), scheme)
    bath = thermostat(kind, KELVIN, 20.0 * FEMTOSECOND, Noise(6))
    dt = 2.0 / engine.stride
    kinetic, potential = sample(engine, bath, bath.init(engine.init(crystal(96))), dt, 4, 75)
    # no bath lets a replica keep its energy for 150 fs: n independent values, 4.3 sigma, false alarm 2e-5 each;
    # at 2 fs the potential energy is (w dt)^2 / 4 = 0.3 % high
    n, spread = kinetic.size, np.sqrt(2 / DOF)
    for energies in (kinetic, potential):
        assert energies.mean() == pytest.approx(1.0, abs=4.3 * spread / np.sqrt(n) + 0.003)
        assert energies.var() == pytest.approx(spread**2, rel=4.3 * np.sqrt((2 + 12 / DOF) / n) + 0.006)


@pytest.mark.parametrize("kind", ["svr", "nose-hoover"])
def test_global_baths_bring_silicon_to_the_temperature(crystal, kind):
    """An anharmonic crystal shares its energy: from a start at two thirds of the temperature to canonical momenta."""
    engine = integrator(StillingerWeber(), GRADIENT)
    start = crystal(64)
    cold = start.replace(momenta=start.momenta * np.sqrt(2 / 3))
    warm = thermostat("langevin", KELVIN * 2 / 3, 20.0 * FEMTOSECOND, Noise(3))
    md = engine.init(cold)
    for _ in range(60):
        md = mover(engine, warm, 2.0)(md)
    bath = thermostat(kind, KELVIN, 40.0 * FEMTOSECOND, Noise(4))
    kinetic, _ = sample(engine, bath, bath.init(md), 2.0, 4, 75)
    late = kinetic[1:]
    n = late.size
    # 192 values 150 fs apart, so nearly independent; 4.3 sigma, false alarm 2e-5 each
    assert late.mean() == pytest.approx(1.0, abs=4.3 * np.sqrt(2 / DOF / n))
    assert late.var() == pytest.approx(2 / DOF, rel=4.3 * np.sqrt((2 + 12 / DOF) / n))


@pytest.mark.parametrize("scheme", [GRADIENT, MTS], ids=["verlet", "respa"])
@pytest.mark.parametrize("kind", KINDS)
def test_conserved_quantity_is_of_order_two(toy, crystal, kind, scheme):
    engine = integrator(toy("two-headed", curl=0.02), scheme)
    steps, spread = np.array([1.0, 2.0, 4.0]) / engine.stride, []
    for dt in steps:
        bath = thermostat(kind, KELVIN, 100.0 * FEMTOSECOND, Noise(5))
        md, move, conserved = bath.init(engine.init(crystal(48))), mover(engine, bath, dt), []
        for _ in range(int(160 / dt / engine.stride)):
            md = move(md)
            conserved.append((kinetic_energy(md) + md.energy + bath.energy(md)).numpy())
        spread.append(np.std(conserved, axis=0).mean())
    assert float(md.heat.abs().mean()) > 100 * spread[-1]
    # noise differs between the time steps: the exponent scatters by 0.03 between seeds; a chain has none
    exponents = np.diff(np.log(spread)) / np.log(2)
    assert exponents == pytest.approx([2.0, 2.0], abs=0.02 if kind == "nose-hoover" else 0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bath_that_is_infinitely_slow_is_none(crystal, kind):
    engine = integrator(StillingerWeber(), GRADIENT)
    bath = thermostat(kind, KELVIN, 1e8 if kind == "nose-hoover" else math.inf, Noise(1))
    free = engine.init(crystal(2))
    coupled = bath.init(free)
    for _ in range(40):
        free, coupled = engine.step(free, FEMTOSECOND), mover(engine, bath, 1.0)(coupled)
    # a chain of 1e8 fs is as slow as 40 fs over 1e8 fs
    tolerance = 1e-5 if kind == "nose-hoover" else 1e-11
    np.testing.assert_allclose(coupled.positions.numpy(), free.positions.numpy(), atol=tolerance)
    np.testing.assert_allclose(coupled.momenta.numpy(), free.momenta.numpy(), atol=tolerance)
    assert float(coupled.heat.abs().max()) < tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_a_replica_does_not_depend_on_its_batch(toy, crystal, kind):
    engine = integrator(toy("two-headed", curl=0.4), MTS)

    def run(systems):
        bath = thermostat(kind, KELVIN, 50.0 * FEMTOSECOND, Noise(9))
        md = bath.init(engine.init(crystal(4)).take(systems))
        for _ in range(20):
            md = mover(engine, bath, 0.5)(md)
        return md

    together, alone = run([0, 1, 2, 3]).take([2]), run([2])
    for name in ("positions", "momenta", "heat", "bath"):
        np.testing.assert_allclose(
            getattr(together, name).numpy(), getattr(alone, name).numpy(), rtol=1e-10, atol=1e-13
        )
    assert together.bath.shape == alone.bath.shape == (1, 6 if kind == "nose-hoover" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_baths_keep_the_centre_of_mass_at_its_speed(toy, crystal, kind):
    """They see 3 N - 3 momenta: a crystal that flies is thermostatted as one at rest."""
    engine = integrator(toy("harmonic"), GRADIENT)
    start = crystal(2)
    bath = [thermostat(kind, KELVIN, 30.0 * FEMTOSECOND, Noise(2)) for _ in range(2)]
    resting = bath[0].init(engine.init(start))
    flying = bath[1].init(engine.init(start.replace(momenta=start.momenta + 3.0)))
    for _ in range(10):
        resting, flying = mover(engine, bath[0], 1.0)(resting), mover(engine, bath[1], 1.0)(flying)
    np.testing.assert_allclose((flying.momenta - resting.momenta).numpy(), 3.0, rtol=1e-10)
    np.testing.assert_allclose(flying.heat.numpy(), resting.heat.numpy(), atol=1e-9)


class Free:
    """No forces at all."""

    channels = ("direct",)
    elements = None
    differentiable = False
    labelled = False
    device = torch.device("cpu")

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        return Prediction(None, {"direct": torch.zeros_like(state.positions)})


def test_free_atoms_diffuse_as_brownian_ones(crystal):
    """Langevin: <p(0) p(t)> decays like exp(-t / tau), and <x^2> = 2 (k_B T / m) tau (t - tau (1 - exp(-t / tau)))."""
    tau, time, start = 20.0, 30.0, crystal(400)
    engine = integrator(Free(), Scheme("direct"))
    bath = thermostat("langevin", KELVIN, tau * FEMTOSECOND, Noise(8))
    md = engine.init(start)
    for _ in range(60):
        md = mover(engine, bath, time / 60)(md)
    # 400 x 21 components; four sigma, false alarm 6e-5 each
    n, kept = 400 * DOF, math.exp(-time / tau)
    mkT = BOLTZMANN * KELVIN * float(start.masses[0])
    memory = float((md.momenta * start.momenta).sum()) / n / mkT
    assert memory == pytest.approx(kept, abs=4 * np.sqrt((1 + kept**2) / n))
    square = float((md.positions - start.positions).square().sum()) / n
    speed = BOLTZMANN * KELVIN / float(start.masses[0]) * FEMTOSECOND**2
    assert square == pytest.approx(2 * speed * tau * (time - tau * (1 - kept)), rel=4 * np.sqrt(2 / n))
