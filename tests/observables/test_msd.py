"""Mean squared displacement: direct sums, ballistic motion, and Brownian walks with the error they should have."""

import numpy as np
import pytest
import torch
from ase import Atoms

from conservbench.dynamics import verlet
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.dynamics.thermostat import step, thermostat
from conservbench.observables.msd import diffusion, mean_squared_displacement
from conservbench.state import from_atoms
from conservbench.units import BOLTZMANN, FEMTOSECOND, PICOSECOND


def walks(n_times, n_atoms, D, interval, seed):
    """Free Brownian walks (n_times, n_atoms, 3), D in Å^2/ps, interval in ps."""
    steps = np.random.default_rng(seed).normal(0, np.sqrt(2 * D * interval), (n_times - 1, n_atoms, 3))
    return np.concatenate([np.zeros((1, n_atoms, 3)), steps.cumsum(0)])


def test_it_is_the_direct_sum():
    r = np.random.default_rng(0).normal(size=(17, 4, 3)).cumsum(0) + 1e4
    masses = np.array([1.0, 2.0, 3.0, 4.0])
    centred = r - np.average(r, axis=1, weights=masses)[:, None]
    expected = [((centred[k:] - centred[: 17 - k]) ** 2).sum(-1).mean() for k in range(17)]
    np.testing.assert_allclose(mean_squared_displacement(r, masses), expected, atol=1e-9)


def test_ballistic_motion_is_v_squared_t_squared():
    velocity = np.random.default_rng(1).normal(size=(5, 3))
    velocity -= velocity.mean(0)
    times = np.arange(40) * 0.1
    r = np.random.default_rng(2).normal(size=(5, 3)) + times[:, None, None] * velocity
    found = mean_squared_displacement(r)
    np.testing.assert_allclose(found, (velocity**2).sum(-1).mean() * times**2, atol=1e-11)
    # the centre of mass may move as it likes
    drift = times[:, None, None] ** 2 * np.array([3.0, -1.0, 0.5])
    np.testing.assert_allclose(mean_squared_displacement(r + drift), found, atol=1e-10)


def test_brownian_walks_have_6dt_and_the_known_scatter():
    """With K origins at lag n, the relative variance is 2/3 f, f = (4 n^2 K + 2 K + n - n^3) / (6 n K^2), n <= K.

    Qian, Sheetz and Elson, Biophys. J. 60, 910 (1991). N walkers less their centre are N - 1 walkers.
    """
    n_times, n_atoms, D, interval, seeds = 201, 5, 0.7, 0.02, 400
    found = np.array([mean_squared_displacement(walks(n_times, n_atoms, D, interval, seed)) for seed in range(seeds)])
    for n in (1, 10, 60, 100):
        K = n_times - n
        mean = 6 * D * n * interval * (1 - 1 / n_atoms)
        f = (4 * n**2 * K + 2 * K + n - n**3) / (6 * n * K**2)
        variance = mean**2 * 2 * f / (3 * (n_atoms - 1))
        # four sigma, false alarm 6e-5 each
        assert found[:, n].mean() == pytest.approx(mean, abs=4 * np.sqrt(variance / seeds))
        # a variance of gamma-like numbers of relative variance v scatters by sqrt((2 + 6 v) / 400), 4 sigma
        v = variance / mean**2
        assert found[:, n].var(ddof=1) == pytest.approx(variance, rel=4 * np.sqrt((2 + 6 * v) / seeds))


def test_diffusion_is_that_of_the_walk():
    times = np.arange(201) * 0.02
    msd = np.array([mean_squared_displacement(walks(201, 20, 0.7, 0.02, seed)) for seed in range(100)])
    found = diffusion(times, msd, (0.1, 1.0))
    assert found.shape == (100,)
    error = found.std(ddof=1) / 10
    assert error < 0.01
    # four sigma, false alarm 6e-5
    assert found.mean() == pytest.approx(0.7 * 19 / 20, abs=4 * error)


def test_a_window_is_inclusive_and_a_lost_replica_is_nan():
    times = np.arange(6) * 0.5
    msd = np.array([np.where(times > 1.0, 100.0, 6 * 0.3 * times), np.full(6, np.nan)])
    found = diffusion(times, msd, (0.0, 1.0))
    assert found[0] == pytest.approx(0.3)
    assert np.isnan(found[1])
    with pytest.raises(ValueError, match="has 1 lags"):
        diffusion(times, msd, (0.9, 1.1))


def test_a_lost_trajectory_is_nan_and_shapes_are_checked():
    r = np.zeros((4, 2, 3))
    assert mean_squared_displacement(r).tolist() == [0, 0, 0, 0]
    r[2, 1, 0] = np.inf
    assert np.isnan(mean_squared_displacement(r)).all()
    with pytest.raises(ValueError, match="expected"):
        mean_squared_displacement(np.zeros((4, 3)))


def test_free_particles_under_a_langevin_bath_diffuse_as_einstein_says():
    """Momenta forget themselves over tau: <r^2> = 6 D (t - tau (1 - exp(-t / tau))), D = k_B T tau / m, less 1/N."""
    n, replicas, tau, mass, kelvin = 16, 24, 50.0, 20.18, 400.0
    atoms = Atoms(f"Ne{n}", positions=np.zeros((n, 3)), masses=[mass] * n)
    start = from_atoms([atoms] * replicas)
    noise = Noise(17)
    state = start.replace(momenta=draw_momenta(start, kelvin, noise))
    bath = thermostat("langevin", kelvin, tau * FEMTOSECOND, noise)

    def force(moved):
        return torch.zeros_like(moved.positions), None

    md = bath.init(verlet.init(state, force))
    path = []
    for _ in range(1000):
        path.append(md.positions.reshape(replicas, n, 3).numpy())
        md = step(md, lambda free: verlet.step(free, force, 5 * FEMTOSECOND), bath, 5 * FEMTOSECOND)
    msd = np.array([mean_squared_displacement(each) for each in np.stack(path, 1)])
    times = np.arange(1000) * 0.005
    D = BOLTZMANN * kelvin * tau * FEMTOSECOND / mass * PICOSECOND
    expected = 6 * D * (times - 0.05 * (1 - np.exp(-times / 0.05))) * (1 - 1 / n)
    for lag in (2, 20, 100):
        error = msd[:, lag].std(ddof=1) / np.sqrt(replicas)
        # Student's t of 23: 4.5 sigma, false alarm 1.6e-4 each; a tenth of tau a step is felt at short times only
        assert msd[:, lag].mean() == pytest.approx(expected[lag], abs=4.5 * error + 2e-3 * expected[lag])
    found = diffusion(times, msd, (0.3, 1.0))
    assert found.mean() == pytest.approx(D * (1 - 1 / n), abs=4.5 * found.std(ddof=1) / np.sqrt(replicas))
