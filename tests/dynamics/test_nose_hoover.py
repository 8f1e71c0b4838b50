"""Nosé-Hoover chains: reversible, their energy is the heat, the oscillation of the linear theory, masses as stated."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from conservbench.dynamics import nose_hoover
from conservbench.dynamics.integrator import integrator
from conservbench.dynamics.noise import Noise
from conservbench.dynamics.nose_hoover import Chain
from conservbench.dynamics.thermostat import step, thermostat
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.temperature import kinetic_energy
from conservbench.scheme import Scheme
from conservbench.units import BOLTZMANN, FEMTOSECOND

KELVIN, DOF = 600.0, 21
KT = BOLTZMANN * KELVIN


def reversed_(md, length):
    xi, velocities = md.bath.split(length, 1)
    return replace(md, momenta=-md.momenta, bath=torch.cat([xi, -velocities], 1))


@pytest.mark.parametrize(
    ("scheme", "length"), [(Scheme("gradient"), 3), (Scheme("gradient"), 1), (Scheme("mts", 4), 5)]
)
def test_it_goes_back_the_way_it_came(toy, crystal, scheme, length):
    engine = integrator(toy("two-headed", curl=0.4) if scheme.kind == "mts" else StillingerWeber(), scheme)
    bath = thermostat("nose-hoover", KELVIN, 15.0 * FEMTOSECOND, Noise(2), chain_length=length)

    def run(md):
        for _ in range(50):
            md = step(md, lambda free: engine.step(free, FEMTOSECOND), bath, engine.stride * FEMTOSECOND)
        return md

    start = bath.init(engine.init(crystal(3)))
    there = run(start)
    back = reversed_(run(reversed_(there, length)), length)
    assert float((there.positions - start.positions).abs().max()) > 0.1
    for name in ("positions", "momenta", "bath", "heat"):
        np.testing.assert_allclose(getattr(back, name).numpy(), getattr(start, name).numpy(), atol=1e-8)


@pytest.mark.parametrize("length", [1, 3, 5])
def test_the_energy_of_the_chain_is_the_heat_it_took(toy, crystal, length):
    """The bath alone conserves kinetic energy and its own, up to the fourth order of its steps."""
    md = integrator(toy("harmonic"), Scheme("gradient")).init(crystal(8))
    bath = thermostat("nose-hoover", KELVIN, 50.0 * FEMTOSECOND, Noise(1), chain_length=length)
    start, error = bath.init(md), []
    for dt in (3.0, 6.0):
        after = start
        for _ in range(int(60 / dt)):
            after = bath.couple(after, dt * FEMTOSECOND)
        np.testing.assert_allclose(
            after.heat.numpy(), (kinetic_energy(after) - kinetic_energy(start)).numpy(), atol=1e-11
        )
        balance = after.heat + bath.energy(after) - bath.energy(start)
        error.append(float(balance.abs().max()))
    assert float(after.heat.abs().max()) > 0.05
    assert error[0] < 1e-4
    assert math.log2(error[1] / error[0]) == pytest.approx(4.0, abs=0.5)


def test_masses_are_those_of_martyna(crystal):
    tau = 80.0 * FEMTOSECOND
    masses = Chain(KELVIN, tau, 3).masses(crystal(2))
    np.testing.assert_allclose(masses.numpy(), [[DOF * KT * tau**2, KT * tau**2, KT * tau**2]] * 2, rtol=1e-14)


def test_free_atoms_swing_about_the_temperature_with_the_period_of_the_chain(toy, crystal):
    """One thermostat: K'' = -(2 / tau^2) (K - n k_B T / 2) for small swings, a period of sqrt(2) pi tau."""
    md = integrator(toy("harmonic"), Scheme("gradient")).init(crystal(1))
    target = DOF * KT / 2
    md = replace(md, momenta=md.momenta * (1.01 * target / kinetic_energy(md)).sqrt())
    chain, tau = Chain(KELVIN, 50.0 * FEMTOSECOND, 1), 50.0
    md = replace(md, bath=torch.zeros(1, 2, dtype=torch.float64))
    kinetic = []
    for _ in range(300):
        md = nose_hoover.couple(md, chain, FEMTOSECOND)
        kinetic.append(float(kinetic_energy(md)) / target - 1)
    times = np.arange(1, 301)
    # the first correction is of the second order in the amplitude
    np.testing.assert_allclose(kinetic, 0.01 * np.cos(math.sqrt(2) * times / tau), atol=2e-4)


def test_chains_start_thermal(toy, crystal):
    md = integrator(toy("harmonic"), Scheme("gradient")).init(crystal(400))
    chain = Chain(KELVIN, 50.0 * FEMTOSECOND, 3)
    xi, velocities = nose_hoover.init(md, chain, Noise(0)).bath.split(3, 1)
    assert float(xi.abs().max()) == 0.0
    warmth = (chain.masses(md) * velocities.square()).mean(0) / KT
    # 400 squares of normal numbers each; four sigma, false alarm 6e-5 each
    np.testing.assert_allclose(warmth.numpy(), 1.0, atol=4 * math.sqrt(2 / 400))


@pytest.mark.parametrize("wrong", [(0.0, 1.0, 3), (300.0, 0.0, 3), (300.0, 1.0, 0)])
def test_a_chain_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="Nosé-Hoover chain: expected positive"):
        Chain(*wrong)
