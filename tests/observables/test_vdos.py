"""Velocity autocorrelation and density of states: direct sums, lines at their frequencies, shares of energy."""

import numpy as np
import pytest
from ase.build import bulk

from conservbench.dynamics import verlet
from conservbench.dynamics.forces import force_of
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.models.toy import Field, ToyModel
from conservbench.observables.normal_modes import normal_modes
from conservbench.observables.vdos import velocity_autocorrelation, vibrational_density
from conservbench.state import from_atoms
from conservbench.units import FEMTOSECOND

INTERVAL = 2.0  # fs


def oscillators(frequencies, amplitudes, n_times=3000):
    """(n_times, n, 3) velocities of oscillators in random directions and phases; frequencies in THz."""
    random = np.random.default_rng(2)
    direction = random.normal(size=(len(frequencies), 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    times = np.arange(n_times)[:, None] * INTERVAL * 1e-3
    phase = 2 * np.pi * (np.asarray(frequencies) * times + random.random(len(frequencies)))
    return (np.asarray(amplitudes) * np.cos(phase))[..., None] * direction


def test_autocorrelation_is_the_direct_sum():
    random = np.random.default_rng(0)
    v, w = random.normal(size=(23, 4, 3)), random.random(4)
    expected = [np.mean([(w[:, None] * v[s] * v[s + k]).sum() for s in range(23 - k)]) for k in range(23)]
    np.testing.assert_allclose(velocity_autocorrelation(v, w), expected, atol=1e-13)


def test_it_starts_at_twice_the_kinetic_energy():
    random = np.random.default_rng(1)
    v, m = random.normal(size=(50, 3, 3)), np.array([1.0, 12.0, 16.0])
    assert velocity_autocorrelation(v, m)[0] == pytest.approx((m[:, None] * v**2).sum() / 50, rel=1e-12)


def test_wiener_khinchin():
    """The transform of the biased autocorrelation over all lags, both signs, is the power spectrum."""
    v = np.random.default_rng(3).normal(size=(64, 2, 3))
    biased = velocity_autocorrelation(v, [1.0, 1.0]) * np.arange(64, 0, -1)
    two_sided = np.concatenate([biased, [0.0], biased[:0:-1]])
    power = (np.abs(np.fft.fft(v, 128, axis=0)) ** 2).sum((1, 2))
    np.testing.assert_allclose(np.fft.fft(two_sided).real, power, atol=1e-9)


@pytest.mark.parametrize("frequency", [3.0, 15.517])
def test_an_oscillator_is_a_line_at_its_frequency(frequency):
    v = oscillators([frequency], [1.3])
    f, density = vibrational_density(velocity_autocorrelation(v, [28.0]), INTERVAL)
    assert f[1] == pytest.approx(1 / (2 * 3000 * 0.002))
    assert f[-1] == pytest.approx(250.0)
    assert f[np.argmax(density)] == pytest.approx(frequency, abs=0.6 * f[1])
    assert np.trapezoid(density, f) == pytest.approx(1.0, rel=1e-12)
    near = np.abs(f - frequency) < 6 * f[1]
    assert np.trapezoid(density[near], f[near]) == pytest.approx(1.0, abs=0.01)
    # half its height at a width of 1/(n dt)
    assert (density > 0.5 * density.max()).sum() * f[1] == pytest.approx(1 / 6.0, abs=1.1 * f[1])


def test_lines_have_the_shares_of_their_kinetic_energies():
    masses, amplitudes = np.array([28.0, 12.0]), np.array([1.0, 2.0])
    v = oscillators([5.0, 20.0], amplitudes)
    f, density = vibrational_density(velocity_autocorrelation(v, masses), INTERVAL)
    shares = masses * amplitudes**2
    low = f < 12.0
    # the ends of the trajectory cut oscillations: 1 / (4 pi f t) of each
    assert np.trapezoid(density[low], f[low]) == pytest.approx(shares[0] / shares.sum(), abs=3e-3)


def test_white_noise_is_flat():
    v = np.random.default_rng(4).normal(size=(20000, 8, 3))
    f, density = vibrational_density(velocity_autocorrelation(v, np.ones(8))[:64], INTERVAL)
    # each of 63 lags scatters by 1/sqrt(3 x 8 x 20000) of the first, twice the root of the sum of w^4 of them: 1.0 %
    assert np.abs(density * f[-1] - 1).max() < 0.045
    assert np.trapezoid(density, f) == pytest.approx(1.0, rel=1e-12)


def test_atoms_at_rest_have_no_density():
    f, density = vibrational_density(np.zeros(5), INTERVAL)
    assert len(f) == len(density) == 6
    assert np.isnan(density).all()
    assert np.isnan(vibrational_density([1.0, np.nan], INTERVAL)[1]).all()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(5, 2, 3\), expected \(n_times, 3, 3\)"):
        velocity_autocorrelation(np.zeros((5, 2, 3)), np.ones(3))


def test_a_crystal_of_two_masses_has_the_density_of_its_modes():
    """Springs on silicon carbide: two sharp bands at sqrt(k/m), and three modes of one species against the other."""
    sites = bulk("SiC", "zincblende", a=4.36, cubic=True)
    model = ToyModel(Field("harmonic", 12.0), sites)
    exact, _ = normal_modes(model, "gradient", from_atoms(sites))
    start = from_atoms([sites] * 200)
    force = force_of(model, "gradient")
    md = verlet.init(start.replace(momenta=draw_momenta(start, 600.0, Noise(4))), force)
    path = []
    for _ in range(600):
        path.append(md.velocities.numpy())
        md = verlet.step(md, force, 2.0 * FEMTOSECOND)
    # replicas side by side are one larger crystal: their autocorrelations add up
    f, density = vibrational_density(velocity_autocorrelation(np.array(path), start.masses.numpy()), 2.0)
    frequencies, counts = np.unique(exact.numpy().round(6), return_counts=True)
    assert counts.tolist() == [9, 3, 9]
    for frequency, count in zip(frequencies, counts, strict=True):
        # Verlet turns faster by (w dt)^2 / 24; lines are 0.83 THz wide
        near = np.abs(f - frequency * (1 + (2 * np.pi * frequency * 0.002) ** 2 / 24)) < 1.1
        share = np.trapezoid(density[near], f[near])
        # 200 thermal replicas of count modes; four sigma, false alarm 6e-5; tails and ends take up to 0.02
        assert share == pytest.approx(count / 21, abs=4 * np.sqrt(2 / (200 * count)) * count / 21 + 0.02)
        assert f[near][np.argmax(density[near])] == pytest.approx(frequency, abs=1.5 * f[1])
