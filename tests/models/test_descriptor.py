"""Descriptors: against a second implementation and counts by group theory; the potential against its claims."""

import math
from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from scipy.integrate import quad
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from conservbench.models.base import Tunable, UnsupportedError
from conservbench.models.descriptor.core import pair_repulsion
from conservbench.models.descriptor.couplings import products
from conservbench.models.descriptor.invariants import Descriptor
from conservbench.models.descriptor.potential import DescriptorPotential, read_potential, shapes_of
from conservbench.models.descriptor.radial import radial_basis
from conservbench.models.descriptor.settings import Basis, Head, Settings
from conservbench.state import from_atoms
from conservbench.testing import check_model

BASIS = Basis(cutoff=4.5, length=2.0, degrees=(4, 4, 4, 4), vector_degrees=(3, 3, 3))


def cluster(seed=0):
    """An atom with seven neighbours within 4 Å, none near another."""
    generator = np.random.default_rng(seed)
    directions = generator.normal(size=(7, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    return directions * generator.uniform(2.0, 4.0, size=(7, 1))


def moments_of(descriptor, vectors, numbers=None):
    """Moments of one atom with given neighbours."""
    vectors = torch.as_tensor(vectors)
    values = descriptor.one_particle(vectors)
    elements = torch.zeros(len(vectors), dtype=torch.long) if numbers is None else torch.as_tensor(numbers)
    sums = torch.zeros(descriptor.n_elements, descriptor.width, dtype=vectors.dtype).index_add(0, elements, values)
    return sums.view(1, -1)


def test_radial_functions_are_orthonormal_and_end_smoothly():
    basis = radial_basis(9, 5.0, 2.0)

    def product(i, j):
        def integrand(r):
            values = basis(torch.tensor([r], dtype=torch.float64))[0]
            return float(values[i] * values[j]) * r**2

        return quad(integrand, 0.0, 5.0, epsabs=1e-12)[0]

    for i, j in ((0, 0), (8, 8), (0, 8), (7, 8), (3, 4)):
        assert product(i, j) == pytest.approx(float(i == j), abs=1e-9)
    r = torch.tensor([5.0 - 1e-4, 5.0, 6.0], dtype=torch.float64, requires_grad=True)
    values = basis(r).sum()
    (slope,) = torch.autograd.grad(values, r, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), r)
    assert abs(slope[0]) < 1e-4
    assert abs(curvature[0]) < 0.1
    assert torch.equal(curvature[1:], torch.zeros(2, dtype=torch.float64))


def wigner_3j(l1, l2, l3, m1, m2, m3):
    """Racah's formula, in exact factorials."""
    if m1 + m2 + m3 or not abs(l1 - l2) <= l3 <= l1 + l2:
        return 0.0
    f = math.factorial
    size = f(l1 + l2 - l3) * f(l1 - l2 + l3) * f(-l1 + l2 + l3) / f(l1 + l2 + l3 + 1)
    for ell, m in ((l1, m1), (l2, m2), (l3, m3)):
        size *= f(ell + m) * f(ell - m)
    total = 0.0
    for t in range(l1 + l2 + l3 + 1):
        parts = (t, l3 - l2 + t + m1, l3 - l1 + t - m2, l1 + l2 - l3 - t, l1 - t - m1, l2 - t + m2)
        if min(parts) >= 0:
            total += (-1) ** t / math.prod(map(f, parts))
    return (-1) ** (l1 - l2 - m3) * math.sqrt(size) * total


def complex_moments(basis, vectors):
    """A_nlm with the complex harmonics of scipy, and the radial functions that the descriptor has."""
    r = np.linalg.norm(vectors, axis=1)
    theta, phi = np.arccos(vectors[:, 2] / r), np.arctan2(vectors[:, 1], vectors[:, 0])
    radial = radial_basis(8, basis.cutoff, basis.length)(torch.as_tensor(r)).numpy()
    return lambda n, ell, m: (radial[:, n] * sph_harm_y(ell, m, theta, phi)).sum()


def test_invariants_of_two_and_three_agree_with_complex_harmonics_and_racahs_formula():
    descriptor = Descriptor(Basis(4.5, 2.0, (4, 6, 6)), 1)
    vectors = cluster()
    A = complex_moments(descriptor.basis, vectors)
    ours = descriptor.features(moments_of(descriptor, vectors))[0, 1:].numpy()
    compared = set()
    for product, value in zip(descriptor.invariants, ours, strict=True):
        labels = [(f.n, f.ell) for f in product.factors]
        ls = [ell for _, ell in labels]
        if len(labels) == 1:
            expected = A(labels[0][0], 0, 0)
        elif len(labels) == 2:
            ell = ls[0]
            expected = sum((-1) ** m * A(labels[0][0], ell, m) * A(labels[1][0], ell, -m) for m in range(-ell, ell + 1))
        else:
            expected = sum(
                wigner_3j(*ls, m1, m2, -m1 - m2)
                * math.prod(A(n, ell, m) for (n, ell), m in zip(labels, (m1, m2, -m1 - m2), strict=True))
                for m1 in range(-ls[0], ls[0] + 1)
                for m2 in range(-ls[1], ls[1] + 1)
                if abs(m1 + m2) <= ls[2]
            )
        assert abs(expected.imag) < 1e-10
        # real and complex 3j symbols are of one size; their phase is a convention for each three l
        assert abs(value) == pytest.approx(abs(expected.real), rel=1e-9, abs=1e-12)
        compared.add(len(labels))
    assert compared == {1, 2, 3}


def characters(ell, angle):
    return sum(np.exp(1j * m * angle) for m in range(-ell, ell + 1))


def count(order, degree, rank, elements=1):
    """Independent products of a rank and its parity, by the mean of characters over all rotations.

    Symmetric powers of alike factors by Newton's sums; the measure of a rotation by an angle is (1 - cos) / pi.
    """
    functions = [
        (n, ell, element) for ell in range(degree + 1) for n in range(degree + 1 - ell) for element in range(elements)
    ]
    angles = (np.arange(400) + 0.5) * np.pi / 400
    total = 0
    for chosen in combinations_with_replacement(functions, order):
        if sum(n + ell for n, ell, _ in chosen) > degree or sum(ell for _, ell, _ in chosen) % 2 != rank:
            continue
        value = characters(rank, angles).conj()
        for function in set(chosen):
            powers = [characters(function[1], k * angles) for k in range(1, order + 1)]
            h = [np.ones_like(angles, dtype=complex)]
            for k in range(1, chosen.count(function) + 1):
                h.append(sum(powers[i] * h[k - 1 - i] for i in range(k)) / k)
            value = value * h[-1]
        total += round(float((value.real * (1 - np.cos(angles))).mean()))
    return total


@pytest.mark.parametrize(
    ("order", "degree", "rank", "elements"),
    [
        (1, 4, 0, 1),
        (2, 6, 0, 1),
        (3, 6, 0, 1),
        (4, 6, 0, 1),
        (2, 5, 1, 1),
        (3, 5, 1, 1),
        (3, 4, 0, 2),
        (4, 3, 0, 2),
        (3, 3, 1, 2),
    ],
)
def test_there_are_as_many_products_as_group_theory_counts(order, degree, rank, elements):
    assert len(products(order, degree, elements, rank)) == count(order, degree, rank, elements)


def test_products_are_linearly_independent():
    descriptor = Descriptor(Basis(4.5, 2.0, (4, 4, 5, 5), (3, 4, 4)), 1)
    moments = torch.randn(400, descriptor.width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    vectors = descriptor.vector_features(moments).transpose(1, 2).reshape(-1, descriptor.n_vectors)
    for values in (descriptor.features(moments), vectors):
        scaled = values / values.norm(dim=0)
        assert torch.linalg.matrix_rank(scaled, rtol=1e-9) == values.shape[1]


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_invariants_stay_and_vectors_turn(mirror):
    descriptor = Descriptor(BASIS, 2)
    vectors, numbers = torch.as_tensor(cluster()), [0, 1, 0, 1, 1, 0, 0]
    turn = mirror * torch.as_tensor(Rotation.random(random_state=5).as_matrix())
    before, after = (moments_of(descriptor, each, numbers) for each in (vectors, vectors @ turn.T))
    torch.testing.assert_close(descriptor.features(after), descriptor.features(before), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        descriptor.vector_features(after), descriptor.vector_features(before) @ turn.T, rtol=1e-10, atol=1e-12
    )
    swapped = moments_of(descriptor, vectors, [1 - number for number in numbers])
    assert not torch.allclose(descriptor.features(swapped), descriptor.features(before))


def test_core_is_the_screened_repulsion_deep_inside_and_ends_smoothly():
    r = torch.tensor([0.05, 2.0 - 1e-5, 2.5], dtype=torch.float64)
    silicon = torch.tensor([14, 14, 14])
    energy = pair_repulsion(r, silicon, silicon, 2.0)
    length = 0.88534 * 0.529177 / (2 * 14**0.23)
    x = 0.05 / length
    phi = 0.18175 * math.exp(-3.1998 * x) + 0.50986 * math.exp(-0.94229 * x) + 0.28022 * math.exp(-0.4029 * x)
    phi += 0.02817 * math.exp(-0.20162 * x)
    assert float(energy[0]) == pytest.approx(14.399645 * 196 / 0.05 * phi * (1 - 0.025) ** 3, rel=1e-9)
    assert 0.0 < float(energy[1]) < 1e-12
    assert float(energy[2]) == 0.0


def potential(energy="linear", direct="linear", elements=(14,), seed=0):
    settings = Settings(
        elements, (-5.0, -4.0)[: len(elements)], Basis(4.0, 2.0, (3, 3, 3), (2, 2)), Head(energy, direct, (4,), 2.0)
    )
    descriptor = Descriptor(settings.basis, len(elements))
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.ones(shape, dtype=torch.float64)
        if "spread" in name
        else 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes_of(settings, descriptor).items()
    }
    return DescriptorPotential(settings, tensors, descriptor=descriptor)


@pytest.mark.parametrize("kind", ["linear", "quadratic", "network"])
def test_keeps_to_the_interface(kind):
    check_model(potential(kind, kind))


@pytest.mark.parametrize("kind", ["linear", "quadratic", "network"])
def test_forces_and_stress_are_derivatives(kind):
    model = potential(kind, elements=(6, 14))
    atoms = bulk("SiC", "zincblende", 4.4, cubic=True)
    atoms.rattle(0.1, seed=1)
    state = from_atoms(atoms)
    here = model.evaluate(state, forces=("gradient",), stress=True)
    step = 1e-4
    for atom, axis in ((0, 0), (5, 2)):
        energies = []
        for sign in (1, -1):
            moved = state.positions.clone()
            moved[atom, axis] += sign * step
            energies.append(float(model.evaluate(state.replace(positions=moved)).energy))
        slope = (energies[1] - energies[0]) / (2 * step)
        assert float(here.forces["gradient"][atom, axis]) == pytest.approx(slope, abs=1e-7)
    strain = torch.zeros(3, 3, dtype=torch.float64)
    strain[0, 1] = strain[1, 0] = 0.5 * step
    energies = [
        float(
            model.evaluate(
                state.replace(
                    positions=state.positions @ (torch.eye(3) + sign * strain),
                    cell=state.cell @ (torch.eye(3) + sign * strain),
                )
            ).energy
        )
        for sign in (1, -1)
    ]
    slope = (energies[0] - energies[1]) / (2 * step) / float(state.volume)
    assert float(here.stress[0, 0, 1]) == pytest.approx(slope, abs=1e-7)


def test_energy_is_smooth_where_a_neighbour_leaves():
    model = potential()
    energies = [
        float(model.evaluate(from_atoms(Atoms("Si2", [[0, 0, 0], [0, 0, z]], cell=[20] * 3, pbc=True))).energy)
        for z in (4.0 - 1e-4, 4.0 + 1e-4, 9.0)
    ]
    assert energies[1] == energies[2]
    assert energies[0] == pytest.approx(energies[1], abs=1e-9)


def test_saved_and_read_again_says_the_same(tmp_path):
    model = potential("network", "network", (6, 14))
    assert isinstance(model, Tunable)
    keys = model.save(tmp_path / "mine.toml")
    again = read_potential(tmp_path / keys["checkpoint"])
    state = from_atoms(bulk("SiC", "zincblende", 4.4, cubic=True))
    for one, other in zip(
        model.evaluate(state, forces=model.channels).forces.values(),
        again.evaluate(state, forces=model.channels).forces.values(),
        strict=True,
    ):
        assert torch.equal(one, other)
    direct = read_potential(tmp_path / keys["checkpoint"], channels=("direct",))
    with pytest.raises(UnsupportedError, match="no gradient forces"):
        direct.evaluate(state, forces=("gradient",))


def test_parameters_are_replaced_by_name():
    model = potential()
    state = from_atoms(bulk("Si", cubic=True))
    doubled = model.at({"energy.weight": 2 * model.parameters["energy.weight"]})
    zero = model.at({"energy.weight": 0 * model.parameters["energy.weight"]})
    energies = [float(each.evaluate(state).energy) for each in (zero, model, doubled)]
    assert energies[2] - energies[0] == pytest.approx(2 * (energies[1] - energies[0]))
    with pytest.raises(ValueError, match=r"did you mean 'energy\.weight'"):
        model.at({"energy.weights": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"energy\.weight has shape \(\d+,\)"):
        model.at({"energy.weight": model.parameters["energy.weight"][0]})


def test_wrong_files_and_settings_are_refused(tmp_path):
    (tmp_path / "no.safetensors").write_bytes(b"none")
    with pytest.raises(ValueError, match="not a safetensors file"):
        read_potential(tmp_path / "no.safetensors")
    model = potential()
    tensors = {**model.parameters, "mean": torch.zeros(2)}
    with pytest.raises(ValueError, match="weights do not match the settings: spread, vector_spread"):
        DescriptorPotential(model.settings, tensors, descriptor=model.descriptor)
    with pytest.raises(ValueError, match="belong together"):
        Settings((14,), (0.0,), Basis(4.0, 2.0, (2,)), Head("linear", "linear"))
    with pytest.raises(ValueError, match="elements is"):
        Settings((14, 6), (0.0, 0.0), Basis(4.0, 2.0, (2,)), Head("linear"))
    with pytest.raises(ValueError, match="2 elements have 1 atomic energies"):
        Settings((6, 14), (0.0,), Basis(4.0, 2.0, (2,)), Head("linear"))
    with pytest.raises(ValueError, match="no more than the cutoff"):
        Settings((14,), (0.0,), Basis(4.0, 2.0, (2,)), Head("linear", core=4.5))
    with pytest.raises(ValueError, match="no invariant is left"):
        Basis(4.0, 2.0, (-1, -1))
    with pytest.raises(ValueError, match="positive widths"):
        Head("network")
    with pytest.raises(ValueError, match="1 to 4 orders"):
        Basis(4.0, 2.0, (2, 2, 2, 2, 2))
