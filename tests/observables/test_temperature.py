"""Kinetic energy and temperature against ASE, and equipartition between species."""

import ase.units
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.observables.temperature import (
    cooler_than,
    degrees_of_freedom,
    kinetic_energy,
    species_temperature,
    temperature,
)
from conservbench.state import from_atoms


@pytest.fixture
def frames() -> list[Atoms]:
    frames = [bulk("Si", cubic=True), molecule("H2O")]
    for frame in frames:
        momenta = np.random.default_rng(0).normal(size=(len(frame), 3))
        frame.set_momenta(momenta - momenta.mean(0))
    return frames


def test_kinetic_energy_equals_ases(frames):
    expected = [frame.get_kinetic_energy() for frame in frames]
    np.testing.assert_allclose(kinetic_energy(from_atoms(frames)).numpy(), expected, rtol=1e-12)


def test_temperature_equals_ases_less_the_centre_of_mass(frames):
    expected = [frame.get_temperature() * len(frame) / (len(frame) - 1) for frame in frames]
    np.testing.assert_allclose(temperature(from_atoms(frames)).numpy(), expected, rtol=1e-12)
    assert degrees_of_freedom(from_atoms(frames)).tolist() == [21.0, 6.0]


def test_temperature_is_in_kelvin():
    """Two atoms with 3 k_B T / 2 together, three degrees of freedom: T."""
    momentum = np.sqrt(1.5 * ase.units.kB * 250.0 * 28.0)
    atoms = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2]], momenta=[[momentum, 0, 0], [-momentum, 0, 0]])
    atoms.set_masses([28.0, 28.0])
    assert float(temperature(from_atoms(atoms))) == pytest.approx(250.0, rel=1e-9)


def test_species_are_at_the_same_temperature_in_equilibrium():
    state = from_atoms([molecule("CH3CH2OH")] * 800)
    state = state.replace(momenta=draw_momenta(state, 300.0, Noise(1)))
    for number, n_atoms in ((1, 6), (6, 2), (8, 1)):
        found = float(species_temperature(state, number).mean())
        # 800 replicas with 3 n degrees of freedom each: four sigma, false alarm 6e-5 each
        assert found == pytest.approx(300.0, abs=4 * 300.0 * np.sqrt(2 / (3 * n_atoms * 800)))


def test_species_temperatures_add_up_to_the_temperature(frames):
    state = from_atoms(frames[1])
    light, heavy, total = (1.008, 15.999, 18.015)
    parts = 3 * np.array([2 * (1 - light / total), 1 - heavy / total])
    both = np.array([float(species_temperature(state, number)) for number in (1, 8)])
    assert parts.sum() == pytest.approx(6.0)
    assert float(temperature(state)) == pytest.approx(parts @ both / 6.0, rel=1e-9)


def test_a_species_that_is_absent_has_no_temperature(frames):
    assert species_temperature(from_atoms(frames), 14).isnan().tolist() == [False, True]


def test_health_is_a_temperature_that_is_a_number_below_the_limit(frames):
    state = from_atoms([frames[0]] * 3)
    momenta = state.momenta.clone()
    momenta[8:16] *= 100
    momenta[16, 0] = torch.nan
    assert cooler_than(5000.0)(state.replace(momenta=momenta)).tolist() == [True, False, False]
