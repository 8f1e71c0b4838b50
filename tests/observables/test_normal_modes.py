"""Normal modes: the phonons of Stillinger-Weber silicon, springs, and equipartition."""

import numpy as np
import pytest
import torch
from ase.build import bulk

from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.models.base import InvalidPredictionError, Prediction
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.models.toy import Field, ToyModel
from conservbench.observables.normal_modes import mode_kinetic_energy, normal_modes
from conservbench.observables.temperature import kinetic_energy
from conservbench.state import from_atoms
from conservbench.units import BOLTZMANN, PICOSECOND

# THz: frequencies of Stillinger-Weber silicon (from stored force constants) and how often the cell of 64 atoms,
# which folds three X and four L points to its centre, has them
SILICON = {17.832: 3, 6.651: 6, 12.993: 6, 15.628: 6, 4.703: 8, 11.768: 4, 13.397: 4, 16.766: 8}


def carbide(a=4.36):
    return bulk("SiC", "zincblende", a=a, cubic=True)


class Numbers:
    """A model without derivatives."""

    differentiable = False

    def __init__(self, model):
        self.model = model

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        assert not graph
        return self.model.evaluate(state, forces=forces)


@pytest.fixture(scope="module")
def silicon():
    state = from_atoms(bulk("Si", a=5.431, cubic=True) * (2, 2, 2))
    return state, *normal_modes(StillingerWeber(), "gradient", state)


def test_silicon_has_its_published_phonons(silicon):
    _, frequencies, _ = silicon
    assert frequencies.shape == (189,)
    for published, times in SILICON.items():
        assert int(((frequencies - published).abs() < 0.02).sum()) >= times, published
    # no mode is above the optical ones at the zone centre, three of them, or unstable
    np.testing.assert_allclose(frequencies[-3:].numpy(), 17.832, atol=0.002)
    assert frequencies[-4] < 17.5
    assert frequencies[0] > 3.0


def test_vectors_are_an_orthonormal_basis_without_translations(silicon):
    state, _, vectors = silicon
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(189, dtype=torch.float64), atol=1e-12, rtol=0)
    assert float((vectors.reshape(189, 64, 3) * state.masses.sqrt()[:, None]).sum(1).abs().max()) < 1e-11


def test_a_vector_oscillates_at_its_frequency(silicon):
    state, frequencies, vectors = silicon
    for mode in (0, 100, 188):
        move = (vectors[mode].reshape(-1, 3) / state.masses.sqrt()[:, None]) * 1e-3
        force = (
            StillingerWeber()
            .evaluate(state.replace(positions=state.positions + move), forces=("gradient",))
            .forces["gradient"]
        )
        omega = 2 * np.pi * float(frequencies[mode]) / PICOSECOND
        expected = -(omega**2) * state.masses[:, None] * move
        # anharmonic by a part in a thousand
        assert float((force - expected).norm() / expected.norm()) < 3e-3


def test_differences_give_the_modes_of_autograd(silicon):
    state = from_atoms(bulk("Si", a=5.431, cubic=True))
    exact, _ = normal_modes(StillingerWeber(), "gradient", state)
    found, _ = normal_modes(Numbers(StillingerWeber()), "gradient", state)
    np.testing.assert_allclose(found.numpy(), exact.numpy(), atol=0.01)


@pytest.mark.parametrize(("name", "channel"), [("harmonic", "gradient"), ("swirl", "direct")])
def test_springs_and_their_swirl_have_one_frequency(name, channel):
    sites = bulk("Si", a=5.431, cubic=True)
    frequencies, _ = normal_modes(ToyModel(Field(name, 7.4, 0.3), sites), channel, from_atoms(sites))
    expected = np.sqrt(7.4 / 28.085) / (2 * np.pi) * PICOSECOND
    np.testing.assert_allclose(frequencies.numpy(), expected, rtol=1e-10)


def test_springs_of_two_masses():
    """Within a species sqrt(k/m); between them, with half of the displacement each, sqrt(k (1/m + 1/m') / 2)."""
    sites = carbide()
    frequencies, _ = normal_modes(ToyModel(Field("harmonic", 7.4), sites), "gradient", from_atoms(sites))
    silicon, carbon = sites.get_masses()[sites.numbers == 14][0], sites.get_masses()[sites.numbers == 6][0]
    squares = [7.4 / silicon] * 9 + [7.4 / carbon] * 9 + [3.7 / silicon + 3.7 / carbon] * 3
    expected = np.sort(np.sqrt(squares)) / (2 * np.pi) * PICOSECOND
    np.testing.assert_allclose(frequencies.numpy(), expected, rtol=1e-10)


def test_a_hill_has_negative_frequencies():
    class Hill(Numbers):
        def evaluate(self, state, *, forces=(), stress=False, graph=False):
            prediction = super().evaluate(state, forces=forces)
            return Prediction(None, {name: -force for name, force in prediction.forces.items()})

    sites = bulk("Si", a=5.431, cubic=True)
    model = ToyModel(Field("harmonic", 7.4), sites)
    up, _ = normal_modes(Hill(model), "gradient", from_atoms(sites))
    down, _ = normal_modes(model, "gradient", from_atoms(sites))
    np.testing.assert_allclose(up.numpy(), -down.numpy()[::-1], rtol=1e-8)


def test_kinetic_energies_of_modes_add_up_and_are_equal_in_equilibrium():
    sites = carbide()
    _, vectors = normal_modes(ToyModel(Field("harmonic", 7.4), sites), "gradient", from_atoms(sites))
    state = from_atoms([sites] * 2000)
    state = state.replace(momenta=draw_momenta(state, 600.0, Noise(3)))
    energies = mode_kinetic_energy(state.momenta.reshape(2000, 8, 3), state.masses[:8], vectors)
    torch.testing.assert_close(energies.sum(1), kinetic_energy(state), rtol=1e-12, atol=0)
    # each of 21 modes is half a chi-squared of one degree of freedom; 4.5 sigma, false alarm 1.4e-4
    mean = energies.mean(0).numpy() / (BOLTZMANN * 600.0 / 2)
    assert np.abs(mean - 1).max() < 4.5 * np.sqrt(2 / 2000)


def test_what_it_refuses():
    sites = bulk("Si", a=5.431, cubic=True)
    model = ToyModel(Field("harmonic", 7.4), sites)
    with pytest.raises(ValueError, match="one system"):
        normal_modes(model, "gradient", from_atoms([sites, sites]))

    class Broken(Numbers):
        def evaluate(self, state, *, forces=(), stress=False, graph=False):
            return Prediction(None, {"gradient": torch.full_like(state.positions, torch.nan)})

    with pytest.raises(InvalidPredictionError, match="not finite"):
        normal_modes(Broken(model), "gradient", from_atoms(sites))
