"""Stochastic velocity rescaling: the exact law of the kinetic energy over any time, and no change of direction."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from conservbench.dynamics.integrator import integrator
from conservbench.dynamics.noise import Noise
from conservbench.dynamics.thermostat import step, thermostat
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.temperature import kinetic_energy
from conservbench.scheme import Scheme
from conservbench.units import BOLTZMANN, FEMTOSECOND

KELVIN, DOF = 600.0, 21
QUANTUM = BOLTZMANN * KELVIN / 2


@pytest.mark.parametrize("pieces", [1, 7])
def test_kinetic_energy_has_its_law_however_time_is_cut(toy, crystal, pieces):
    """a^2 K = (sqrt(c K) + sqrt((1 - c) k) R)^2 + (1 - c) k S: mean and variance over dt in closed form."""
    state = crystal(1)
    md = integrator(toy("harmonic"), Scheme("gradient")).init(state).take([0] * 2000)
    bath = thermostat("svr", KELVIN, 100.0 * FEMTOSECOND, Noise(4))
    before = float(kinetic_energy(md)[0])
    # all share a start, and each gets a stream of its own
    md = replace(md, replica=tuple(range(2000)))
    after = md
    for _ in range(pieces):
        after = bath.couple(after, 40.0 * FEMTOSECOND / pieces)
    kept = math.exp(-0.4)
    mean = kept * before + (1 - kept) * DOF * QUANTUM
    variance = 4 * kept * before * (1 - kept) * QUANTUM + 2 * (1 - kept) ** 2 * QUANTUM**2 * DOF
    kinetic = kinetic_energy(after).numpy()
    # 2000 values; four sigma, false alarm 6e-5 each
    assert kinetic.mean() == pytest.approx(mean, abs=4 * np.sqrt(variance / 2000))
    assert kinetic.var() == pytest.approx(variance, rel=4 * np.sqrt(2.3 / 2000))
    np.testing.assert_allclose(after.heat.numpy(), kinetic - before, atol=1e-12)
    ratio = (after.momenta / md.momenta).reshape(2000, -1).numpy()
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-9)


def test_the_kinetic_energy_of_silicon_is_gamma_distributed(crystal):
    """Kolmogorov-Smirnov against K ~ Gamma(DOF / 2, k_B T) at the level 1e-4, which is the rate of false alarms."""
    engine = integrator(StillingerWeber(), Scheme("gradient"))
    bath, warm = (thermostat(kind, KELVIN, 20.0 * FEMTOSECOND, Noise(7)) for kind in ("svr", "langevin"))
    md = engine.init(crystal(64))

    def move(md, bath):
        return step(md, lambda free: engine.step(free, 2.0 * FEMTOSECOND), bath, 2.0 * FEMTOSECOND)

    for _ in range(60):
        md = move(md, warm)
    kinetic = []
    for _ in range(5):
        for _ in range(75):
            md = move(md, bath)
        kinetic.append(kinetic_energy(md).numpy())
    law = stats.gamma(DOF / 2, scale=2 * QUANTUM)
    assert stats.kstest(np.ravel(kinetic), law.cdf).pvalue > 1e-4
    # the test can tell 3 N degrees of freedom from 3 N - 3
    assert stats.kstest(np.ravel(kinetic), stats.gamma((DOF + 3) / 2, scale=2 * QUANTUM).cdf).pvalue < 1e-4


def test_momenta_turn_round_as_often_as_they_must(toy, crystal):
    """A system that has lost all memory points either way: one momentum of a few has no preferred sign."""
    md = integrator(toy("harmonic"), Scheme("gradient")).init(crystal(400))
    bath = thermostat("svr", KELVIN, 1.0 * FEMTOSECOND, Noise(1))
    after = bath.couple(md, 1000.0 * FEMTOSECOND)
    turned = ((after.momenta * md.momenta).reshape(400, -1).sum(1) < 0).sum()
    # binomial of 400, sigma 10: four sigma, false alarm 6e-5
    assert abs(int(turned) - 200) <= 40


def test_a_system_at_rest_stays_at_rest(toy, crystal):
    start = crystal(2)
    md = integrator(toy("harmonic"), Scheme("gradient")).init(start.replace(momenta=0 * start.momenta))
    after = thermostat("svr", KELVIN, FEMTOSECOND, Noise(1)).couple(md, FEMTOSECOND)
    assert float(after.momenta.abs().max()) == 0.0
    assert float(after.heat.abs().max()) == 0.0
