"""g(r): shells of crystals, the ideal gas, a brute-force sum over images, ASE; smeared, the fine bins it is made of."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.geometry.rdf import get_rdf

from conservbench.observables.rdf import radial_distribution, smeared_rdf
from conservbench.state import from_atoms

SKEW = [[5.0, 0.0, 0.0], [2.0, 4.5, 0.0], [-1.0, 1.5, 6.0]]


def gas(n_atoms, cell, seed=0):
    fractions = np.random.default_rng(seed).random((n_atoms, 3))
    return Atoms(f"Ar{n_atoms}", scaled_positions=fractions, cell=cell, pbc=True)


@pytest.mark.parametrize("atoms", [bulk("Si", a=5.431), bulk("Si", a=5.431, cubic=True) * (2, 2, 2)])
def test_shells_of_a_perfect_crystal_have_their_coordination_numbers(atoms):
    shells = np.array([3**0.5, 8**0.5, 11**0.5, 4.0, 19**0.5, 24**0.5, 27**0.5, 32**0.5]) / 4 * 5.431
    coordination = [4, 12, 12, 6, 12, 24, 16, 12]
    edges = np.concatenate([[0.0], 0.5 * (shells[1:] + shells[:-1]), [shells[-1] + 0.1]])
    g = radial_distribution(from_atoms(atoms), edges)[0].numpy()
    density = len(atoms) / atoms.get_volume()
    np.testing.assert_allclose(density * g * 4 / 3 * np.pi * np.diff(edges**3), coordination, rtol=1e-12)


def test_an_ideal_gas_has_none():
    """Two atoms of a gas are at r with the density of one, (N - 1)/N of n; pairs are independent two by two."""
    state = from_atoms([gas(200, [20.0] * 3, seed) for seed in range(16)])
    edges = np.arange(0.0, 10.1, 0.5)
    g = radial_distribution(state, edges).mean(0).numpy()
    chance = 4 / 3 * np.pi * np.diff(edges**3) / 20.0**3
    pairs = 16 * 200 * 199 / 2
    error = np.sqrt((1 - chance) / (pairs * chance))
    # the first bin expects 21 pairs, the second 145; 20 bins within 4.5 sigma, false alarm 1.4e-4
    assert np.abs((g * 200 / 199 - 1) / error).max() < 4.5
    # and no closer than they should be: chi-squared of 20, false alarm below 1e-4 on either side
    assert 3.5 < (((g * 200 / 199 - 1) / error) ** 2).sum() < 54


def test_images_of_a_small_skewed_cell_are_summed():
    atoms = gas(7, SKEW, 3)
    edges = np.arange(0.3, 15.0, 0.31)
    images = np.stack(np.meshgrid(*[np.arange(-8, 9)] * 3), -1).reshape(-1, 3) @ np.array(SKEW)
    apart = (atoms.positions[None, :, None] - atoms.positions[:, None, None]) + images
    counts, _ = np.histogram(np.linalg.norm(apart, axis=-1), edges)
    expected = counts / (7 * 7 / atoms.get_volume()) / (4 / 3 * np.pi * np.diff(edges**3))
    np.testing.assert_allclose(radial_distribution(from_atoms(atoms), edges)[0].numpy(), expected, rtol=1e-10)


def test_it_is_ases():
    atoms = bulk("Si", a=5.431, cubic=True) * (2, 2, 2)
    atoms.rattle(0.2, seed=4)
    theirs, _ = get_rdf(atoms, 5.0, 50)
    ours = radial_distribution(from_atoms(atoms), np.linspace(0, 5.0, 51))[0].numpy()
    assert theirs.max() > 1
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_a_batch_is_its_systems_and_wrapping_changes_nothing():
    frames = [gas(5, SKEW, 1), bulk("Si", a=5.431, cubic=True), gas(30, [9.0, 8.0, 7.0], 2)]
    edges = np.linspace(0.5, 8.0, 40)
    together = radial_distribution(from_atoms(frames), edges)
    for index, frame in enumerate(frames):
        alone = radial_distribution(from_atoms(frame), edges)[0]
        torch.testing.assert_close(together[index], alone, rtol=1e-12, atol=0)
        far = frame.copy()
        far.positions[::2] += 1e4 * frame.cell.array[0] - 3 * frame.cell.array[2]
        torch.testing.assert_close(radial_distribution(from_atoms(far), edges)[0], alone)


@pytest.mark.parametrize("lost", [np.nan, np.inf, 1e300])
def test_an_exploded_system_has_none_and_the_others_keep_theirs(lost):
    frames = [gas(5, SKEW, 1) for _ in range(3)]
    state = from_atoms(frames)
    state.positions[7, 1] = lost
    g = radial_distribution(state, [0.5, 4.0, 6.0])
    assert g.isfinite().all(1).tolist() == [True, lost == 1e300, True]
    torch.testing.assert_close(g[0], g[2])
    state.positions[:] = torch.nan
    assert radial_distribution(state, [0.5, 4.0]).isnan().all()


def test_what_it_refuses():
    with pytest.raises(ValueError, match="periodic"):
        radial_distribution(from_atoms(Atoms("Ar2", positions=np.eye(3)[:2])), [0, 1])
    for edges in ([0.0], [1.0, 1.0], [-1.0, 2.0]):
        with pytest.raises(ValueError, match="ascend"):
            radial_distribution(from_atoms(gas(5, SKEW)), edges)


CENTERS, WIDTH = np.linspace(0.5, 5.5, 100), 0.2


def test_smeared_it_is_the_fine_bins_under_gaussians():
    """A pair at r adds N(r - r_k) / r_k^2 to the one and 1 / r^2 to its bin in the other: convolve g r^2, divide."""
    atoms = bulk("Si", a=5.431, cubic=True) * (2, 2, 2)
    atoms.rattle(0.2, seed=4)
    state = from_atoms(atoms)
    edges = np.linspace(0.0, CENTERS[-1] + 4 * WIDTH, 6301)
    middles = 0.5 * (edges[1:] + edges[:-1])
    fine = radial_distribution(state, edges)[0].numpy() * np.diff(edges**3) / 3
    kernel = np.exp(-((middles - CENTERS[:, None]) ** 2) / (2 * WIDTH**2)) / (np.sqrt(2 * np.pi) * WIDTH)
    smeared = smeared_rdf(state, CENTERS, WIDTH)[0].numpy()
    assert smeared.max() > 1
    # bins of 0.001 Å round each distance by up to half of that
    np.testing.assert_allclose(smeared, kernel @ fine / CENTERS**2, atol=1e-3)


def test_smeared_an_ideal_gas_has_none_but_for_the_curvature_of_shells():
    centers = np.linspace(2.0, 9.0, 36)
    state = from_atoms([gas(200, [20.0] * 3, seed) for seed in range(32)])
    g = smeared_rdf(state, centers, WIDTH).numpy() * 200 / 199
    expected = 1 + (WIDTH / centers) ** 2
    # a kernel of width w holds pairs like a bin of 2 sqrt(pi) w
    pairs = 199 * 200 / 2 * 4 * np.pi * centers**2 * 2 * np.sqrt(np.pi) * WIDTH / 20.0**3
    error = 1 / np.sqrt(32 * pairs)
    # 36 bins within 4.5 sigma, false alarm 2.4e-4
    assert np.abs((g.mean(0) - expected) / error).max() < 4.5


def test_smeared_images_of_a_small_skewed_cell_are_summed():
    atoms = gas(7, SKEW, 3)
    images = np.stack(np.meshgrid(*[np.arange(-5, 6)] * 3), -1).reshape(-1, 3) @ np.array(SKEW)
    apart = (atoms.positions[None, :, None] - atoms.positions[:, None, None]) + images
    distances = np.linalg.norm(apart, axis=-1)
    distances = distances[(distances > 0) & (distances < CENTERS[-1] + 4 * WIDTH)]
    kernels = np.exp(-((distances - CENTERS[:, None]) ** 2) / (2 * WIDTH**2)) / (np.sqrt(2 * np.pi) * WIDTH)
    expected = kernels.sum(1) * atoms.get_volume() / 49 / (4 * np.pi * CENTERS**2)
    np.testing.assert_allclose(smeared_rdf(from_atoms(atoms), CENTERS, WIDTH)[0].numpy(), expected, rtol=1e-10)


def test_smeared_it_can_be_differentiated_by_positions_and_cell():
    state = from_atoms([gas(4, SKEW, 3), gas(3, [6.0, 5.0, 5.5], 5)])
    centers = np.linspace(0.5, 4.0, 7)

    def g(positions, cell):
        return smeared_rdf(state.replace(positions=positions, cell=cell), centers, 0.3)

    far = state.positions + 7 * state.cell[state.system][:, 0]
    for positions in (state.positions, far):
        inputs = (positions.clone().requires_grad_(True), state.cell.clone().requires_grad_(True))
        assert torch.autograd.gradcheck(g, inputs, check_forward_ad=True)


def test_smeared_a_batch_is_its_systems_and_one_that_exploded_has_none():
    frames = [gas(5, SKEW, 1), bulk("Si", a=5.431, cubic=True), gas(30, [9.0, 8.0, 7.0], 2)]
    state = from_atoms(frames)
    state.positions[7, 1] = np.nan
    positions = state.positions.requires_grad_(True)
    g = smeared_rdf(state, CENTERS, WIDTH)
    assert g.isfinite().all(1).tolist() == [True, False, True]
    for index in (0, 2):
        alone = smeared_rdf(from_atoms(frames[index]), CENTERS, WIDTH)[0]
        torch.testing.assert_close(g[index].detach(), alone, rtol=1e-12, atol=0)
    g[[0, 2]].sum().backward()
    assert positions.grad.isfinite().all()


def test_smeared_what_it_refuses():
    with pytest.raises(ValueError, match="periodic"):
        smeared_rdf(from_atoms(Atoms("Ar2", positions=np.eye(3)[:2])), [1.0], 0.2)
    for centers in ([], [1.0, 1.0], [0.0, 2.0]):
        with pytest.raises(ValueError, match="ascend"):
            smeared_rdf(from_atoms(gas(5, SKEW)), centers, 0.2)
    with pytest.raises(ValueError, match="width"):
        smeared_rdf(from_atoms(gas(5, SKEW)), [1.0], 0.0)
