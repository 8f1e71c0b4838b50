"""Kernel models against brute-force differentiation, numerical gradients and their own promises."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from torch.func import jacrev, jvp

from conservbench.cards import find_model
from conservbench.models.base import Tunable, Uncertain, UnsupportedError
from conservbench.models.kernel import contracted
from conservbench.models.kernel import model as kernel_model
from conservbench.models.kernel.checkpoint import read_checkpoint
from conservbench.models.kernel.descriptors import find_descriptor
from conservbench.models.kernel.jets import features_of
from conservbench.models.kernel.kernel import Kernel, Points, expansion, matrix, parts_of
from conservbench.models.kernel.model import KernelModel
from conservbench.models.kernel.radial import MATERN52, RADIALS, RBF, find_radial
from conservbench.models.load import load_model
from conservbench.neighbors import find_pairs
from conservbench.state import concatenate, from_atoms, select
from conservbench.systems import find_system
from conservbench.training.kernel.fit import Labels, train


def waters(n, seed=0):
    frames = []
    for k in range(n):
        atoms = molecule("H2O")
        atoms.rattle(0.08, seed=seed + k)
        frames.append(atoms)
    return from_atoms(frames)


def silicons(n):
    frames = []
    for k in range(n):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(0.1, seed=k)
        frames.append(atoms)
    return from_atoms(frames)


def kernel_of(name, radial="matern52", length=1.5, permutations=(), **parameters):
    descriptor = find_descriptor(name, parameters)
    return Kernel(descriptor, descriptor.learnable, find_radial(radial), torch.tensor(length).double(), permutations)


def invented(state, seed=5):
    noise = torch.Generator().manual_seed(seed)
    forces = torch.randn(state.n_atoms, 3, generator=noise, dtype=torch.float64)
    energies = torch.randn(state.n_systems, generator=noise, dtype=torch.float64)
    return Labels(energies, forces, torch.zeros(0, 0, 3, dtype=torch.float64))


SWAP = ((0, 1, 2), (0, 2, 1))
LOCAL = {"cutoff": 3.5, "n_radial": 2, "max_ell": 2}


@pytest.fixture(scope="module")
def water():
    state = waters(5)
    kernel = kernel_of("inverse_distances", permutations=SWAP)
    return KernelModel(train(kernel, Points(state), invented(state), 1e-10, 1e-8, "matern52"))


@pytest.fixture(scope="module")
def silicon():
    state = silicons(2)
    kernel = kernel_of("smooth_overlap", "rbf", 3.0, **LOCAL)
    return KernelModel(train(kernel, Points(state, has_energies=True), invented(state), 1e-2, 1e-2, "rbf"))


@pytest.mark.parametrize("name", RADIALS)
def test_derivatives_of_a_radial_kernel_are_those_of_its_value(name):
    radial = RADIALS[name]
    u = torch.tensor([1e-3, 0.3, 2.0, 9.0], dtype=torch.float64, requires_grad=True)
    value = radial.value(u)
    slope = torch.autograd.grad(value.sum(), u, create_graph=True)[0]
    curvature = torch.autograd.grad(slope.sum(), u)[0]
    torch.testing.assert_close(radial.slope(u), slope)
    torch.testing.assert_close(radial.curvature(u), curvature, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("radial", "slope"), [(MATERN52, 5 / 3), (RBF, 1.0)])
def test_coinciding_points_have_second_derivatives(radial, slope):
    # of kappa(|x - y|) at x = y: minus the second derivative at zero on the diagonal
    x = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)

    def k(a, b):
        return radial.value((a - b).square().sum())

    for mixed in (jacrev(jacrev(k, 0), 1)(x, x), jacrev(lambda a: jvp(lambda b: k(a, b), (x,), (x,))[1])(x)):
        expected = slope * torch.eye(3).double() if mixed.dim() == 2 else slope * x
        torch.testing.assert_close(mixed, expected)


@pytest.mark.parametrize("radial", RADIALS)
def test_matrix_equals_brute_force_differentiation(radial):
    state = waters(2)
    kernel = kernel_of("coulomb", radial, 2.0, SWAP)
    directions = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = matrix(kernel, Points(state, directions, has_energies=True))
    numbers = state.numbers[:3]

    def phi(x):
        return kernel.descriptor.function(x.view(3, 3), numbers, None, None, **kernel.learned)

    def k(x, y):
        both = [phi(x) - phi(y.view(3, 3)[list(order)].flatten()) for order in SWAP]
        return sum(kernel.radial.value(d.square().sum() / 4.0) for d in both) / 2

    x, y = (select(state, [index]).positions.flatten() for index in (1, 0))
    u, v = directions[0, 3:].flatten(), directions[1, :3].flatten()

    def forces(a, b):
        return jacrev(jacrev(k, 0), 1)(a, b)

    def tilted(b):
        return jvp(lambda a: forces(a, b), (x,), (u,))[1]

    block = whole[28:, :28]
    torch.testing.assert_close(block[0, 0], k(x, y))
    torch.testing.assert_close(block[1:10, 0], -jacrev(k, 0)(x, y))
    torch.testing.assert_close(block[1:10, 1:10], forces(x, y))
    torch.testing.assert_close(block[10:19, 1:10], tilted(y))
    torch.testing.assert_close(block[10:19, 19:28], jvp(tilted, (y,), (v,))[1])
    torch.testing.assert_close(whole, whole.T)


def test_local_matrix_equals_brute_force_differentiation():
    state = silicons(2)
    kernel = kernel_of("smooth_overlap", "matern52", 2.0, **LOCAL)
    whole = matrix(kernel, Points(state))
    one, two = select(state, [0]), select(state, [1])
    at = [features_of(kernel.descriptor, kernel.learned, s, find_pairs(s, 3.5)) for s in (one, two)]

    def k(x, y):
        u = (at[1](x, two.cell)[:, None] - at[0](y, one.cell)).square().sum(-1) / 4.0
        return kernel.radial.value(u).sum()

    x, y = two.positions.clone().requires_grad_(True), one.positions.clone().requires_grad_(True)
    first = torch.autograd.grad(k(x, y), x, create_graph=True)[0].flatten()
    for row in (0, 7, 23):
        expected = torch.autograd.grad(first[row], y, retain_graph=True)[0].flatten()
        torch.testing.assert_close(whole[24 + row, :24], expected, rtol=1e-9, atol=1e-9)


def test_expansion_is_the_matrix_times_the_coefficients():
    state, other = waters(3), waters(1, seed=9)
    kernel = kernel_of("inverse_distances", permutations=SWAP)
    noise = torch.Generator().manual_seed(2)
    energies, forces = (torch.randn(*shape, generator=noise).double() for shape in ((3,), (9, 3)))
    directions, derivatives = (torch.randn(1, 9, 3, generator=noise).double() for _ in range(2))
    points = Points(state, directions, has_energies=True)
    stacked = [
        torch.cat(
            (energies[i : i + 1], forces[3 * i : 3 * i + 3].flatten(), derivatives[0, 3 * i : 3 * i + 3].flatten())
        )
        for i in range(3)
    ]
    expected = matrix(kernel, Points(other, has_energies=True), points) @ torch.cat(stacked)
    made = expansion(kernel, points, (energies, forces, derivatives), parts_of(kernel, points, permuted=True))
    x = other.positions.flatten().requires_grad_(True)
    numbers = other.numbers
    energy = made(kernel.descriptor.function(x.view(3, 3), numbers, None, None)[None], torch.zeros(1))
    torch.testing.assert_close(energy[0], expected[0])
    torch.testing.assert_close(-torch.autograd.grad(energy.sum(), x)[0], expected[1:])


@pytest.mark.parametrize("name", ["water", "silicon"])
def test_forces_are_minus_the_numerical_gradient(name, request):
    model = request.getfixturevalue(name)
    state = waters(1, seed=20) if name == "water" else silicons(3)
    state = select(state, [state.n_systems - 1])
    forces = model.evaluate(state, forces=("gradient",)).forces["gradient"]
    # a difference of eighth order with steps so long that what energies round to does not show
    h = 5e-3
    weights = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
    for atom, axis in ((0, 0), (1, 2), (2, 1)):
        slope = 0.0
        for steps, weight in weights.items():
            sides = []
            for sign in (1, -1):
                moved = state.positions.clone()
                moved[atom, axis] += sign * steps * h
                sides.append(model.evaluate(state.replace(positions=moved)).energy.item())
            slope += weight * (sides[0] - sides[1]) / h
        assert abs(-slope - forces[atom, axis]) < 1e-8 * forces.abs().max()


def test_the_shipped_ethanol_is_its_formula_and_forces_its_slope_to_1e_minus_8():
    """Against the formula in extended precision, in which differences of the energy lose nothing.

    Coefficients of half a million eV cancel in this model, so that in double precision its energies are uncertain by
    4e-10 eV, and any difference of them by some 1e-8 eV/Å: forces themselves are not.
    """
    if np.finfo(np.longdouble).eps > 1e-18:
        pytest.skip("needs a long double of more bits than a double, as processors of x86 have")
    model = load_model(find_model("ethanol-kernel"), find_system("ethanol"))
    state = from_atoms(find_system("ethanol").snapshots[0])
    said = model.evaluate(state, forces=("gradient",))
    parameters = {key: value.numpy().astype(np.longdouble) for key, value in model.parameters.items()}
    places = model.trained.state.positions.numpy().astype(np.longdouble).reshape(-1, 9, 3)
    pulls, charges = parameters["forces"].reshape(-1, 9, 3), parameters["energies"]
    first, second = np.triu_indices(9, 1)
    group = [list(order) for order in model.trained.settings.permutations]
    apart = np.concatenate([places[:, order] for order in group])
    apart = apart[:, first] - apart[:, second]
    inverse = 1 / np.sqrt((apart**2).sum(-1))
    coefficients = np.concatenate([pulls[:, order] for order in group])
    # the features move by -d.(a_i - a_j) / r^3, and forces are minus derivatives
    tangents = (apart * (coefficients[:, first] - coefficients[:, second])).sum(-1) * inverse**3
    weights = np.tile(charges, len(group))

    def energy(x):
        delta = 1 / np.sqrt(((x[first] - x[second]) ** 2).sum(-1)) - inverse
        s = np.sqrt(np.longdouble(5) * (delta**2).sum(-1)) / parameters["length"]
        value = (1 + s + s * s / 3) * np.exp(-s)
        along = 2 * (-delta * tangents).sum(-1) / parameters["length"] ** 2
        slope = -np.longdouble(5) / 6 * (1 + s) * np.exp(-s)
        return (weights * value + slope * along).sum() / len(group) + parameters["offset"]

    x = state.positions.numpy().astype(np.longdouble)
    assert abs(energy(x) - said.energy.item()) < 1e-7
    h = np.longdouble(2e-4)
    for atom, axis in ((0, 0), (2, 1), (5, 2), (8, 0)):
        step = np.zeros_like(x)
        step[atom, axis] = h
        slope = 8 * (energy(x + step) - energy(x - step)) - (energy(x + 2 * step) - energy(x - 2 * step))
        assert abs(float(-slope / (12 * h)) - said.forces["gradient"][atom, axis].item()) < 1e-8


def binary():
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    atoms.rattle(0.1, seed=1)
    return from_atoms(atoms)


@pytest.mark.parametrize("radial", RADIALS)
@pytest.mark.parametrize("has_energies", [True, False])
@pytest.mark.parametrize("descriptor", ["coulomb", "smooth_overlap"])
def test_forces_without_a_graph_are_those_with_one(descriptor, has_energies, radial):
    local = descriptor == "smooth_overlap"
    state, new = (binary(), binary()) if local else (waters(4), waters(2, seed=30))
    new = new.replace(positions=new.positions + 0.05 * torch.sin(torch.arange(new.positions.numel())).view(-1, 3))
    kernel = kernel_of(descriptor, radial, 2.0, () if local else SWAP, **(LOCAL if local else {}))
    trained = train(kernel, Points(state, has_energies=has_energies), invented(state), 1e-2, 1e-2, radial)
    # a training point, where a Matern kernel is its polynomial, too
    model = KernelModel(trained)
    for each in (new, select(state, [0])):
        plain, with_graph = (model.evaluate(each, forces=("gradient",), graph=graph) for graph in (False, True))
        torch.testing.assert_close(plain.energy, with_graph.energy.detach(), rtol=1e-10, atol=1e-10)
        expected = with_graph.forces["gradient"].detach()
        torch.testing.assert_close(plain.forces["gradient"], expected, rtol=1e-9, atol=1e-9)
        assert not plain.energy.requires_grad
        assert not plain.forces["gradient"].requires_grad


@pytest.mark.parametrize("batch", [1, 3])
def test_what_was_recorded_is_what_was_called(water, monkeypatch, batch):
    model = KernelModel(water.trained)
    states = [waters(batch, seed=seed) for seed in (30, 60)]
    expected = [model.evaluate(state, forces=("gradient",)) for state in states]
    monkeypatch.setattr(contracted, "OFTEN", 3)
    model.evaluate(states[0], forces=("gradient",))
    # whatever is called now is of the recording
    monkeypatch.setattr(model, "_contracted", None)
    monkeypatch.setattr(model._recorder, "_function_of", None)
    for state, one in zip(states, expected, strict=True):
        said = model.evaluate(state, forces=("gradient",))
        torch.testing.assert_close(said.energy, one.energy, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(said.forces["gradient"], one.forces["gradient"], rtol=1e-11, atol=1e-11)
    # what is not a number stays so, and what it refuses is still refused
    broken = states[0].replace(positions=torch.where(states[0].positions > 0.3, torch.nan, states[0].positions))
    assert model.evaluate(broken, forces=("gradient",)).forces["gradient"][:3].isnan().all()
    swapped = states[0].replace(numbers=states[0].numbers.flip(0))
    with pytest.raises(UnsupportedError, match="atom order"):
        model.evaluate(swapped, forces=("gradient",))
    # other parameters are another function
    double = water.at({"forces": 2.0 * water.parameters["forces"]}).evaluate(states[0], forces=("gradient",))
    torch.testing.assert_close(double.forces["gradient"], 2.0 * expected[0].forces["gradient"])


def branching(positions, numbers, cell, pbc):
    far = positions[1:] - positions[:-1]
    return far.norm(dim=-1) if bool(positions[0, 0] > 99.0) else 1.0 / far.norm(dim=-1)


def masking(positions, numbers, cell, pbc):
    far = (positions[1:] - positions[:-1]).norm(dim=-1)
    return torch.exp(-far) if far[far < 1.2].numel() > 1 else torch.exp(-2.0 * far)


def counting(positions, numbers, cell, pbc):
    far = (positions[1:] - positions[:-1]).norm(dim=-1)
    return torch.exp(-far) * (1 + len(torch.nonzero(far < 1.2)))


@pytest.mark.parametrize("descriptor", [branching, masking, counting])
def test_a_descriptor_that_branches_is_called_as_it_is(monkeypatch, descriptor):
    monkeypatch.setattr(contracted, "OFTEN", 2)
    state = waters(1)
    kernel = kernel_of(f"{__name__}:{descriptor.__name__}")
    model = KernelModel(train(kernel, Points(state), invented(state), 1e-6, 1e-6, "matern52"))
    one = waters(1, seed=9)
    first, *others = (model.evaluate(one, forces=("gradient",)).forces["gradient"] for _ in range(4))
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=0)
    assert not model._recorder._recorded


def test_a_recorded_model_is_copied_and_sent(water, monkeypatch):
    monkeypatch.setattr(contracted, "OFTEN", 2)
    model, state = KernelModel(water.trained), waters(1)
    said = [model.evaluate(state, forces=("gradient",)).forces["gradient"] for _ in range(3)][-1]
    assert model._recorder._recorded
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other.evaluate(state, forces=("gradient",)).forces["gradient"], said)


def test_a_tuned_model_has_no_uncertainty(water, tmp_path):
    state = waters(1)
    assert float(water.uncertainty(state).max()) > 0.0
    assert float(water.at({}).uncertainty(state).max()) > 0.0
    tuned = water.at({"forces": 0.9 * water.parameters["forces"]})
    with pytest.raises(UnsupportedError, match="the model was tuned"):
        tuned.uncertainty(state)
    # nor has what is read of its file
    tuned.save(tmp_path / "tuned.toml")
    with pytest.raises(UnsupportedError, match="the model was tuned"):
        KernelModel(read_checkpoint(tmp_path / "tuned.safetensors")).uncertainty(state)


def test_an_uncertainty_is_refused_like_forces(water):
    carbon = waters(1).replace(numbers=torch.tensor([6, 1, 1]))
    with pytest.raises(UnsupportedError, match="the model does not know C"):
        water.uncertainty(carbon)


def test_the_system_in_the_wrong_order_is_the_one_that_is_told(water):
    good, bad = waters(1), waters(1)
    bad = bad.replace(numbers=bad.numbers[[1, 0, 2]])
    with pytest.raises(UnsupportedError, match=r"atom order: .* on O H H, and was given H O H"):
        water.evaluate(concatenate([good, bad]), forces=("gradient",))
    uneven = concatenate([good, good]).replace(system=torch.tensor([0, 0, 1, 1, 1, 1]))
    with pytest.raises(UnsupportedError, match="the model is of one molecule, H2O, and was given HO"):
        water.evaluate(uneven, forces=("gradient",))


@pytest.mark.parametrize("name", ["water", "silicon"])
def test_the_jacobian_is_symmetric_and_loops_do_no_work(name, request):
    model = request.getfixturevalue(name)
    state = waters(1, seed=20) if name == "water" else select(silicons(3), [2])
    positions = state.positions.clone().requires_grad_(True)
    forces = model.evaluate(state.replace(positions=positions), forces=("gradient",), graph=True).forces["gradient"]
    jacobian = torch.stack(
        [torch.autograd.grad(f, positions, retain_graph=True)[0].flatten() for f in forces.flatten()]
    )
    assert torch.linalg.norm(jacobian - jacobian.T) / 2 < 1e-11 * torch.linalg.norm(jacobian)


def test_a_permutation_of_the_group_permutes_the_forces(water):
    state = waters(1, seed=3)
    swapped = state.replace(positions=state.positions[[0, 2, 1]])
    one, other = (water.evaluate(each, forces=("gradient",)) for each in (state, swapped))
    torch.testing.assert_close(one.energy, other.energy)
    torch.testing.assert_close(one.forces["gradient"][[0, 2, 1]], other.forces["gradient"])


def test_training_points_are_reproduced(water, silicon):
    torch.testing.assert_close(
        water.evaluate(waters(5), forces=("gradient",)).forces["gradient"], _reachable(water), rtol=1e-4, atol=1e-3
    )


def _reachable(model):
    """Labels that a molecule without net force and torque can have are learned; others only in part."""
    state = waters(5)
    labels = invented(state).forces.view(5, 9)
    out = []
    for index in range(5):
        x = select(state, [index]).positions
        slopes = jacrev(lambda x: find_descriptor("inverse_distances", {}).function(x, torch.ones(3), None, None))(x)
        internal = slopes.view(3, 9).T
        out.append(internal @ torch.linalg.lstsq(internal, labels[index][:, None]).solution)
    return torch.cat(out).view(-1, 3)


def test_a_batch_is_what_its_systems_are(silicon, water):
    for model, states in ((silicon, [silicons(1), select(silicons(2), [1])]), (water, [waters(1), waters(1, 8)])):
        joined = model.evaluate(concatenate(states), forces=("gradient",))
        each = [model.evaluate(state, forces=("gradient",)) for state in states]
        torch.testing.assert_close(joined.energy, torch.cat([one.energy for one in each]))
        torch.testing.assert_close(joined.forces["gradient"], torch.cat([one.forces["gradient"] for one in each]))


def test_stress_is_the_derivative_by_strain(silicon):
    state = select(silicons(3), [2])
    stress = silicon.evaluate(state, stress=True).stress[0]
    step = 1e-4
    energies = []
    for sign in (1, -1):
        strain = torch.eye(3).double()
        strain[0, 1] = strain[1, 0] = 0.5 * sign * step
        strained = state.replace(positions=state.positions @ strain, cell=state.cell @ strain)
        energies.append(silicon.evaluate(strained).energy.item())
    assert (energies[0] - energies[1]) / (2 * step) / state.volume.item() == pytest.approx(
        stress[0, 1].item(), rel=1e-5
    )


def test_supercells_add_up(silicon):
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.05, seed=3)
    one = silicon.evaluate(from_atoms(atoms)).energy.item()
    assert silicon.evaluate(from_atoms(atoms * (1, 1, 2))).energy.item() == pytest.approx(2 * one)


def test_what_cannot_be_asked_is_refused_with_what_to_do(water):
    state = waters(1)
    other = state.replace(numbers=state.numbers[[1, 0, 2]], positions=state.positions[[1, 0, 2]])
    with pytest.raises(UnsupportedError, match=r"atom order: .* trained on O H H, and was given H O H; reorder"):
        water.evaluate(other)
    with pytest.raises(UnsupportedError, match="one molecule, H2O, and was given H2"):
        water.evaluate(from_atoms(molecule("H2")))
    with pytest.raises(UnsupportedError, match="no stress"):
        water.evaluate(state, stress=True)
    with pytest.raises(UnsupportedError, match="does not know C"):
        water.evaluate(from_atoms(molecule("CH4")))


def test_equal_atoms_in_another_order_are_found():
    frames = []
    for k in range(3):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.03, seed=k)
        frames.append(atoms)
    state = from_atoms(frames)
    model = KernelModel(train(kernel_of("inverse_distances"), Points(state), invented(state), 1e-8, 1e-8, "matern52"))
    first = select(state, [0])
    order = list(range(9))
    # a hydrogen of the methyl group for the one of the hydroxyl group
    hydrogens = [i for i in range(9) if first.numbers[i] == 1]
    oxygen = int(torch.nonzero(first.numbers == 8)[0, 0])
    far = (first.positions[hydrogens] - first.positions[oxygen]).norm(dim=1)
    i, j = hydrogens[int(far.argmin())], hydrogens[int(far.argmax())]
    order[i], order[j] = j, i
    with pytest.raises(UnsupportedError, match="equal atoms are exchanged"):
        model.evaluate(first.replace(positions=first.positions[order]))
    stretched = first.positions.clone()
    stretched[i] += 3.0
    model.evaluate(first.replace(positions=stretched))


def test_it_is_tunable_and_saves_what_it_was_tuned_to(water, tmp_path):
    assert isinstance(water, Tunable)
    state = waters(1, seed=30)
    names = ("forces", "length", "offset")
    leaves = {name: water.parameters[name].clone().requires_grad_(True) for name in names}
    energy = water.at(leaves).evaluate(state, graph=True).energy.sum()
    slopes = dict(zip(names, torch.autograd.grad(energy, list(leaves.values())), strict=True))
    assert slopes["offset"].item() == pytest.approx(1.0)
    step = 1e-5
    sides = [water.at({"length": water.parameters["length"] + s}).evaluate(state).energy.item() for s in (step, -step)]
    assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(slopes["length"].item(), rel=1e-4)
    moved = water.at({"forces": water.parameters["forces"] * 1.5})
    moved.save(tmp_path / "tuned.toml")
    again = KernelModel(read_checkpoint(tmp_path / "tuned.safetensors"))
    torch.testing.assert_close(again.evaluate(state).energy, moved.evaluate(state).energy, rtol=0, atol=0)
    with pytest.raises(ValueError, match="no parameter 'lenght'; did you mean 'length'"):
        water.at({"lenght": torch.tensor(1.0)})


def test_the_spread_is_not_taken_of_matrices_that_are_too_large(water, monkeypatch):
    assert isinstance(water, Uncertain)
    monkeypatch.setattr(kernel_model, "MOST_ROWS", 44)
    with pytest.raises(UnsupportedError, match="a matrix of 45 rows; it is made of up to 44"):
        water.uncertainty(waters(1))


def test_the_spread_is_that_of_a_gaussian_process(water):
    known, new = select(waters(5), [2]), waters(1, seed=50)
    assert water.uncertainty(known).max() < 1e-3 * water.uncertainty(new).max()
    # against the formula, with nothing shared but the matrix
    kernel, points = water.trained.kernel, water.trained.points
    whole = matrix(kernel, points).numpy() + 1e-10 * np.eye(45)
    across = matrix(kernel, Points(new), points).numpy()
    variance = np.diag(matrix(kernel, Points(new)).numpy() - across @ np.linalg.solve(whole, across.T))
    expected = water.trained.settings.signal * np.sqrt(variance)
    np.testing.assert_allclose(water.uncertainty(new).flatten(), expected, rtol=1e-4)
