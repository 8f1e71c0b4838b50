"""The Jacobian and its asymmetry: exact answers of linear fields, a potential's Hessian, a network's two heads."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from conservbench.models import toy
from conservbench.models.base import InvalidPredictionError, Prediction, gradient_of_energy
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.neighbors import find_pairs
from conservbench.observables import jacobian as jac
from conservbench.state import from_atoms

BATCH = 64


@dataclass
class Linear:
    """f = A x for one kind of system, x flattened; ``attached`` = False hides the graph."""

    matrix: torch.Tensor
    attached: bool = True
    channels = ("direct",)
    elements = None
    differentiable = True
    labelled = True
    device = torch.device("cpu")

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        positions = state.positions if self.attached else state.positions.detach()
        with torch.set_grad_enabled(graph):
            pulls = positions.reshape(-1, len(self.matrix)) @ self.matrix.T
        return Prediction(None, {"direct": pulls.reshape(-1, 3)})


@dataclass
class Cubic:
    """Gradient of E = sum x^4 / 12 over all coordinates: f = -x^3 / 3, J = -diag(x^2)."""

    channels = ("gradient",)
    elements = None
    differentiable = True
    labelled = True
    device = torch.device("cpu")

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        energy, pulls, _ = gradient_of_energy(
            lambda positions, cell: state.sum(positions.pow(4).sum(1)) / 12,
            state,
            forces=True,
            stress=False,
            graph=graph,
        )
        return Prediction(energy, {"gradient": pulls})


@pytest.fixture(scope="module")
def matrix():
    return torch.as_tensor(np.random.default_rng(0).normal(size=(12, 12)))


@pytest.fixture(scope="module")
def four_atoms():
    return from_atoms(Atoms("Si4", positions=np.random.default_rng(1).normal(size=(4, 3))))


@pytest.fixture(scope="module")
def silicon():
    atoms = bulk("Si", "diamond", a=5.431, cubic=True)
    atoms.rattle(0.1, seed=3)
    return from_atoms(atoms)


def probes(count, n_atoms, seed=0):
    return jac.rademacher(np.random.SeedSequence(seed).spawn(count), n_atoms)


def flat(matrix):
    return matrix.reshape(3 * matrix.shape[0], -1)


def test_probes_are_signs_fixed_by_their_seeds():
    vectors = probes(3, 5)
    assert vectors.shape == (3, 5, 3)
    assert set(vectors.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(vectors[:2], probes(2, 5))


@pytest.mark.parametrize("atoms_per_batch", [1, 8, 64])
def test_products_of_a_linear_field_are_the_matrix_and_its_transpose(matrix, four_atoms, atoms_per_batch):
    vectors = torch.as_tensor(np.random.default_rng(2).normal(size=(5, 4, 3)))
    forward, reverse = jac.products(Linear(matrix), "direct", four_atoms, vectors, atoms_per_batch=atoms_per_batch)
    torch.testing.assert_close(forward.flatten(1), vectors.flatten(1) @ matrix.T)
    torch.testing.assert_close(reverse.flatten(1), vectors.flatten(1) @ matrix)


@pytest.mark.parametrize("atoms_per_batch", [4, 32])
def test_jacobian_of_a_linear_field_is_the_matrix(matrix, four_atoms, atoms_per_batch):
    found = jac.jacobian(Linear(matrix), "direct", four_atoms, atoms_per_batch=atoms_per_batch)
    torch.testing.assert_close(flat(found), matrix)


def test_a_detached_force_is_an_invalid_prediction(matrix, four_atoms):
    with pytest.raises(InvalidPredictionError, match="detached"):
        jac.products(Linear(matrix, attached=False), "direct", four_atoms, probes(1, 4), atoms_per_batch=BATCH)


def test_estimates_are_unbiased(matrix, four_atoms):
    """Means over 2000 probes within four standard errors of the exact norms: false alarm 6e-5 each, three of them."""
    vectors = probes(2000, 4)
    forward, reverse = jac.products(Linear(matrix), "direct", four_atoms, vectors, atoms_per_batch=4000)
    terms = jac.probe_terms(forward, reverse)
    exact = jac.matrix_terms(matrix.reshape(4, 3, 4, 3))
    assert exact.numerator[0] == pytest.approx(float((matrix - matrix.T).square().sum()))
    # groups of four probes: the bilinear terms of one group depend on one another
    groups = [jac.bilinear_terms(vectors[k : k + 4], forward[k : k + 4]).numerator.mean() for k in range(0, 2000, 4)]
    for samples, truth in (
        (terms.numerator, exact.numerator[0]),
        (terms.denominator, exact.denominator[0]),
        (np.array(groups), exact.numerator[0]),
    ):
        error = samples.std(ddof=1) / np.sqrt(len(samples))
        assert error < 0.1 * truth
        assert abs(samples.mean() - truth) < 4 * error


def test_no_probe_exceeds_full_asymmetry(matrix, four_atoms):
    curl = matrix - matrix.T
    forward, reverse = jac.products(Linear(curl), "direct", four_atoms, probes(20, 4), atoms_per_batch=BATCH)
    terms = jac.probe_terms(forward, reverse)
    np.testing.assert_allclose(terms.numerator, 4 * terms.denominator)
    assert terms.asymmetry == pytest.approx(1.0)


def test_swirl_has_its_closed_form_exactly(silicon):
    field = toy.Field("swirl", 3.0, 0.7)
    model = toy.ToyModel(field, bulk("Si", "diamond", a=5.431, cubic=True))
    found = jac.jacobian(model, "direct", silicon, atoms_per_batch=BATCH)
    assert jac.matrix_terms(found).asymmetry == pytest.approx(toy.asymmetry(3.0, 0.7), rel=1e-10)


def test_stillinger_weber_gives_minus_the_hessian(silicon):
    model = StillingerWeber()
    found = jac.jacobian(model, "gradient", silicon, atoms_per_batch=BATCH)
    pairs = find_pairs(silicon, 1.8 * 2.0951)
    hessian = torch.autograd.functional.hessian(
        lambda positions: model.energies(positions, silicon.cell, pairs, silicon).sum(), silicon.positions
    )
    torch.testing.assert_close(found, -hessian, rtol=1e-10, atol=1e-10)
    assert jac.matrix_terms(found).asymmetry < 1e-14


@pytest.mark.parametrize("channel", ["gradient", "direct"])
def test_autograd_equals_finite_differences_for_a_network(network, silicon, channel):
    vectors = probes(3, 8)
    forward, reverse = jac.products(network, channel, silicon, vectors, atoms_per_batch=BATCH)
    differences = jac.difference_products(network, channel, silicon, vectors, 1e-5, atoms_per_batch=BATCH)
    assert float((forward - differences).norm() / forward.norm()) < 1e-7
    whole = flat(jac.jacobian(network, channel, silicon, atoms_per_batch=BATCH))
    torch.testing.assert_close(forward.flatten(1), vectors.flatten(1) @ whole.T)
    torch.testing.assert_close(reverse.flatten(1), vectors.flatten(1) @ whole)
    asymmetry = jac.matrix_terms(whole.reshape(8, 3, 8, 3)).asymmetry
    assert (asymmetry < 1e-14) if channel == "gradient" else (asymmetry > 1e-3)


def test_central_differences_converge_with_the_square_of_the_step(four_atoms):
    """f = -x^3/3 along v: (f(x + hv) - f(x - hv))/2h = -x^2 v - h^2 v^3/3, exactly."""
    vectors = probes(2, 4)
    for step in (1e-1, 1e-2):
        found = jac.difference_products(Cubic(), "gradient", four_atoms, vectors, step, atoms_per_batch=BATCH)
        expected = -four_atoms.positions.square() * vectors - step**2 * vectors**3 / 3
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_bilinear_terms_are_those_of_the_matrix(matrix):
    vectors = probes(3, 4)
    forward = (vectors.flatten(1) @ matrix.T).reshape(vectors.shape)
    u, v, w = vectors.flatten(1)
    curl = matrix - matrix.T
    terms = jac.bilinear_terms(vectors, forward)
    assert terms.numerator[0] == pytest.approx(0.5 * (float(u @ curl @ v) ** 2 + float(u @ curl @ w) ** 2))
    np.testing.assert_allclose(terms.denominator, (vectors.flatten(1) @ matrix.T).square().sum(1))
    with pytest.raises(ValueError, match="two probes"):
        jac.bilinear_terms(vectors[:1], forward[:1])


def test_pair_terms_are_bounded_and_add_up_to_the_whole(matrix):
    blocks = matrix.reshape(4, 3, 4, 3)
    distances = np.abs(np.subtract.outer(np.arange(4.0), np.arange(4.0)))
    pairs = jac.pair_terms(blocks, distances, 1.0)
    np.testing.assert_array_equal(pairs.count, [4, 6, 4, 2])
    np.testing.assert_array_equal(pairs.edges, [0, 1, 2, 3, 4])
    whole = jac.matrix_terms(blocks)
    assert pairs.numerator.sum() == pytest.approx(whole.numerator[0])
    assert pairs.denominator.sum() == pytest.approx(whole.denominator[0])
    assert (pairs.numerator <= 4 * pairs.denominator).all()
    # the one pair at distance 3, by the definition of lambda_ij
    forth, back = blocks[0, :, 3], blocks[3, :, 0].T
    definition = (forth - back).norm() / torch.sqrt(2 * (forth.square().sum() + back.square().sum()))
    assert np.sqrt(pairs.numerator[3] / (4 * pairs.denominator[3])) == pytest.approx(float(definition))


def test_pairs_of_opposite_blocks_reach_one(matrix):
    curl = (matrix - matrix.T).reshape(4, 3, 4, 3)
    pairs = jac.pair_terms(curl, np.zeros((4, 4)), 1.0)
    assert pairs.numerator[0] == pytest.approx(4 * pairs.denominator[0])


def test_distances_are_those_of_the_nearest_image():
    atoms = Atoms("Si2", positions=[[0.5, 0, 0], [9.0, 0, 0]], cell=[10, 10, 10], pbc=True)
    np.testing.assert_allclose(jac.minimum_image_distances(from_atoms(atoms)), [[0, 1.5], [1.5, 0]])
    atoms.pbc = False
    np.testing.assert_allclose(jac.minimum_image_distances(from_atoms(atoms)), [[0, 8.5], [8.5, 0]])


def test_a_reordered_system_has_the_same_forces(network, silicon):
    again, order = jac.reordered(silicon, np.random.default_rng(4))
    assert not torch.equal(again.positions, silicon.positions[order])
    for channel in ("gradient", "direct"):
        forces = network.evaluate(silicon, forces=(channel,)).forces[channel]
        others = network.evaluate(again, forces=(channel,)).forces[channel]
        torch.testing.assert_close(others, forces[order], rtol=1e-12, atol=1e-12)
