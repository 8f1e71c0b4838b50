"""Thermal momenta: no net momentum, and a kinetic energy that is chi-squared with 3 N - 3 degrees of freedom."""

import pytest
import torch
from ase import Atoms
from scipy import stats

from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.state import from_atoms
from conservbench.units import BOLTZMANN

KELVIN = 300.0


@pytest.fixture(scope="module")
def batch():
    """500 replicas of two water molecules, drawn at once."""
    state = from_atoms([Atoms("OHHOHH", positions=[[0, 0, k] for k in range(6)])] * 500)
    return state.replace(momenta=draw_momenta(state, KELVIN, Noise(3)))


def test_the_centre_of_mass_is_at_rest(batch):
    assert float(batch.sum(batch.momenta).abs().max()) < 1e-13


def test_kinetic_energy_is_chi_squared(batch):
    energies = batch.sum(batch.momenta.square().sum(1) / (2 * batch.masses))
    # Kolmogorov-Smirnov at one seed: false alarm 1e-3
    assert stats.kstest(2 * energies.numpy() / (BOLTZMANN * KELVIN), stats.chi2(3 * 6 - 3).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("number", "n_atoms"), [(8, 2), (1, 4)])
def test_each_species_is_at_the_temperature(batch, number, n_atoms):
    """<p^2> = m k_B T (1 - m / M) for every component, as the centre of mass is at rest."""
    mine = batch.numbers == number
    mass, total = float(batch.masses[mine][0]), float(batch.masses.sum()) / 500
    found = float(batch.momenta[mine].square().mean()) / (mass * BOLTZMANN * KELVIN * (1 - mass / total))
    # a mean of 3 n squares of normals; neighbours are a little correlated: five sigma, false alarm below 1e-5
    assert found == pytest.approx(1.0, abs=5 * (2 / (3 * 500 * n_atoms)) ** 0.5)


def test_a_replica_does_not_depend_on_its_batch():
    frame = Atoms("OHH", positions=[[0, 0, k] for k in range(3)])
    together = draw_momenta(from_atoms([frame] * 5), KELVIN, Noise(7))
    alone = draw_momenta(from_atoms(frame), KELVIN, Noise(7), replicas=[3])
    assert torch.equal(together[9:12], alone)
    assert not torch.equal(together[6:9], alone)
