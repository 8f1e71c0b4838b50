"""Work round loops: closed forms of linear fields, convergence, and the slope of an energy."""

import numpy as np
import pytest
import torch
from ase.build import bulk

from conservbench.models import toy
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.work import Loop, periodic_slope, thermal_loop, traverse
from conservbench.state import from_atoms

STIFFNESS, CURL = 3.0, 0.7
AXIS = np.array([0.0, 0.0, 1.0])


@pytest.fixture(scope="module")
def sites():
    return bulk("Si", "diamond", a=5.431, cubic=True)


@pytest.fixture(scope="module")
def state(sites):
    atoms = sites.copy()
    atoms.rattle(0.1, seed=3)
    return from_atoms(atoms)


@pytest.fixture(scope="module")
def loop():
    return thermal_loop(np.random.default_rng(0), 8, 2, 0.1)


def fourier_work(loop: Loop) -> float:
    """W of f = A u along a Fourier loop: sum_m pi m b_m^T (A - A^T) a_m; for the swirl, A - A^T = 2 s [n]_x."""
    modes = np.arange(1, len(loop.cosine) + 1)
    return 2 * np.pi * CURL * float((modes * (loop.sine * np.cross(AXIS, loop.cosine)).sum((1, 2))).sum())


def test_a_loop_has_the_amplitude_asked_for_and_no_net_translation(loop):
    path = loop.displacements(64)
    assert np.sqrt((path**2).sum(-1).mean()) == pytest.approx(0.1, rel=1e-12)
    np.testing.assert_allclose(path.mean(1), 0, atol=1e-16)


def test_tangents_are_the_slope_of_the_displacements(loop):
    slopes = np.apply_along_axis(periodic_slope, 0, loop.displacements(16))
    np.testing.assert_allclose(loop.tangents(16), slopes, atol=1e-13)


def test_work_of_the_swirl_is_its_closed_form(sites, state, loop):
    model = toy.ToyModel(toy.Field("swirl", STIFFNESS, CURL), sites)
    work = traverse(model, "direct", state, loop, 16, atoms_per_batch=64).power.mean()
    assert work == pytest.approx(fourier_work(loop), rel=1e-10)
    # the vector area of the polygon through 20000 points of the same loop; its own error goes as 1/n^2
    assert work == pytest.approx(toy.loop_work(CURL, loop.displacements(20000), AXIS), rel=1e-6)
    assert abs(work) > 1e-3


def test_work_of_one_atom_on_a_circle(sites):
    circle = np.zeros((2, 1, 8, 3))
    circle[0, 0, 0, 0] = circle[1, 0, 0, 1] = 0.1
    model = toy.ToyModel(toy.Field("swirl", STIFFNESS, CURL), sites)
    run = traverse(model, "direct", from_atoms(sites), Loop(*circle), 8, atoms_per_batch=8)
    assert run.power.mean() == pytest.approx(toy.circle_work(CURL, 0.1, 8), rel=1e-10)


def test_work_of_a_harmonic_crystal_is_zero(sites, state, loop):
    model = toy.ToyModel(toy.Field("harmonic", STIFFNESS), sites)
    power = traverse(model, "gradient", state, loop, 16, atoms_per_batch=64).power
    assert abs(power.mean()) < 1e-14 * np.abs(power).mean()


def test_work_and_energy_of_a_potential_converge_spectrally(state, loop):
    work, mismatch = {}, {}
    for n_images in (8, 16, 32, 64):
        run = traverse(StillingerWeber(), "gradient", state, loop, n_images, atoms_per_batch=64)
        assert run.energy is not None
        path = np.abs(run.power).mean()
        work[n_images] = abs(run.power.mean()) / path
        mismatch[n_images] = np.abs(periodic_slope(run.energy) + run.power).mean() / path
    assert work[8] > 1e-4
    assert work[16] < 0.1 * work[8]
    assert work[32] < 1e-5
    assert work[64] < 1e-8
    assert mismatch[64] < 1e-5
    assert mismatch[64] < 0.1 * mismatch[32]


def test_batches_do_not_change_what_is_measured(state, loop):
    runs = [traverse(StillingerWeber(), "gradient", state, loop, 12, atoms_per_batch=n) for n in (1, 40, 1000)]
    for run in runs[1:]:
        np.testing.assert_allclose(run.power, runs[0].power, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n", [15, 16])
def test_slope_of_a_trigonometric_polynomial_is_exact(n):
    s = np.arange(n) / n
    values = 3 + np.cos(2 * np.pi * s) - 2 * np.sin(6 * np.pi * s)
    expected = -2 * np.pi * np.sin(2 * np.pi * s) - 12 * np.pi * np.cos(6 * np.pi * s)
    np.testing.assert_allclose(periodic_slope(values), expected, atol=1e-12)


def test_seeds_fix_a_loop():
    first, again = (thermal_loop(np.random.default_rng(5), 3, 2, 0.2) for _ in range(2))
    np.testing.assert_array_equal(first.cosine, again.cosine)
    np.testing.assert_array_equal(first.sine, again.sine)
    assert torch.as_tensor(first.cosine).dtype == torch.float64
