"""Kernel training from recipe to checkpoint, and its errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from conservbench.cards import CardError
from conservbench.models.kernel.checkpoint import read_checkpoint
from conservbench.models.kernel.descriptors import find_descriptor
from conservbench.models.kernel.kernel import Kernel, Points, matrix
from conservbench.models.kernel.model import KernelModel, noise
from conservbench.models.kernel.radial import find_radial
from conservbench.state import from_atoms
from conservbench.training.kernel import hessian
from conservbench.training.kernel.fit import (
    Labels,
    centered,
    errors_of,
    fit,
    kernel_of,
    labels_of,
    targets_of,
    train,
    training_frames,
)
from conservbench.training.kernel.iterative import product, solve_iteratively
from conservbench.training.kernel.outer import learn, validation_error
from conservbench.training.kernel.recipe import Hessian, Outer, read_recipe
from conservbench.training.kernel.solve import (
    SingularKernelError,
    TooManyPointsError,
    duplicates,
    memory_needed,
    preconditioner_frames,
    require_memory,
    solve,
)

RECIPE = """
model = "kernel"
name = "small"
data = "{data}"
radial = "matern52"
length = 2.0
regularization = 1e-9
energies = true
permutations = "found"

[descriptor]
name = "inverse_distances"
"""


def labelled(n, seed=0):
    """Water under a toy calculator."""
    frames = []
    for k in range(n):
        atoms = molecule("H2O")
        atoms.rattle(0.06, seed=seed + k)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    return frames


@pytest.fixture
def recipe(tmp_path):
    write(tmp_path / "water.extxyz", labelled(20))
    path = tmp_path / "small.toml"
    path.write_text(RECIPE.format(data=tmp_path / "water.extxyz"))
    return path


def test_a_recipe_becomes_a_model_that_knows_the_forces(recipe, tmp_path):
    what = read_recipe(recipe)
    model = KernelModel(read_checkpoint(fit(what, tmp_path)))
    assert model.trained.settings.permutations == ((0, 1, 2), (0, 2, 1))
    unseen = labelled(5, seed=100)
    errors = errors_of(model, unseen)
    typical = 1e3 * np.mean([np.abs(frame.get_forces()).mean() for frame in unseen])
    assert errors.gradient < 0.05 * typical
    assert errors.energy < 1.0
    first = (tmp_path / "small.safetensors").read_bytes()
    fit(what, tmp_path)
    assert (tmp_path / "small.safetensors").read_bytes() == first


HESSIAN = """
[hessian]
factory = "ase.calculators.emt:EMT"
"""


@pytest.mark.parametrize("directions", [1, 0])
def test_hessian_data_fit_better(recipe, tmp_path, directions):
    """Six frames with derivatives of their forces against six without; the whole Hessian of water has three."""
    few = recipe.read_text().replace("energies = true", "energies = true\nframes = 6")
    errors = []
    for text in (few, f"{few}{HESSIAN}directions = {directions}\n"):
        recipe.write_text(text)
        model = KernelModel(read_checkpoint(fit(read_recipe(recipe), tmp_path)))
        errors.append(errors_of(model, labelled(8, seed=100)).gradient)
    assert len(model.trained.directions) == (directions or 3)
    assert errors[1] < 0.8 * errors[0]
    # minus the Hessian along a direction, of the calculator: what the model was given
    along = model.trained.directions[0].view(-1, 3, 3).numpy()
    assert np.linalg.norm(along, axis=(1, 2)) == pytest.approx(np.ones(6))
    atoms = training_frames(read_recipe(recipe))[0]
    sides = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions += sign * 1e-3 * along[0]
        sides.append(model.evaluate(from_atoms(moved), forces=("gradient",)).forces["gradient"].numpy())
    expected = hessian.derivatives_of([atoms], [along[:1]], Hessian("ase.calculators.emt:EMT", step=1e-3))[0][0]
    np.testing.assert_allclose((sides[0] - sides[1]) / 2e-3, expected, atol=0.02 * np.abs(expected).max())


def test_hessian_data_of_another_method_are_refused(recipe, tmp_path):
    recipe.write_text(f"{recipe.read_text()}{HESSIAN}".replace("emt:EMT", "lj:LennardJones"))
    with pytest.raises(ValueError, match=r"LennardJones gives forces that are .* off the labels"):
        fit(read_recipe(recipe), tmp_path)
    recipe.write_text(recipe.read_text().replace("energies = true", 'energies = true\nsolver = "iterative"'))
    with pytest.raises(ValueError, match='derivatives of forces are solved directly alone; set solver = "cholesky"'):
        read_recipe(recipe)


def test_internal_directions_neither_move_nor_turn():
    (along,) = hessian.internal_directions([molecule("CH3CH2OH")])
    assert along.shape == (21, 9, 3)
    np.testing.assert_allclose(along.sum(1), 0.0, atol=1e-12)
    lever = molecule("CH3CH2OH").positions
    np.testing.assert_allclose(np.cross(lever - lever.mean(0), along).sum(1), 0.0, atol=1e-12)
    np.testing.assert_allclose(along.reshape(21, 27) @ along.reshape(21, 27).T, np.eye(21), atol=1e-12)
    # a linear molecule has a rotation less
    assert hessian.internal_directions([molecule("CO2")])[0].shape == (4, 3, 3)


def test_the_solution_is_that_of_numpy(recipe):
    frames = labelled(4)
    kernel = kernel_of(read_recipe(recipe), frames)
    points, labels = Points(from_atoms(frames)), labels_of(frames)
    trained = train(kernel, points, labels, 1e-6, 1e-8, "matern52")
    # the matrix by the definition, one pair of structures after another
    x = np.array([frame.positions for frame in frames])

    def features(p):
        return np.array([1 / np.linalg.norm(p[i] - p[j]) for i, j in ((0, 1), (0, 2), (1, 2))])

    def slopes(p):
        out = np.zeros((3, 9))
        for row, (i, j) in enumerate(((0, 1), (0, 2), (1, 2))):
            d = p[i] - p[j]
            out[row, 3 * i : 3 * i + 3] = -d / np.linalg.norm(d) ** 3
            out[row, 3 * j : 3 * j + 3] = d / np.linalg.norm(d) ** 3
        return out

    whole = np.zeros((36, 36))
    for a in range(4):
        for b in range(4):
            for order in kernel.permutations:
                back = np.argsort(order)
                there = slopes(x[b][list(order)]).reshape(3, 3, 3)[:, back].reshape(3, 9)
                delta = (features(x[a]) - features(x[b][list(order)])) / 2.0
                s = np.sqrt(5) * np.linalg.norm(delta)
                inner = (5 / 3) * np.exp(-s) * ((1 + s) * np.eye(3) - 5 * np.outer(delta, delta)) / 4.0
                share = slopes(x[a]).T @ inner @ there / len(kernel.permutations)
                whole[9 * a : 9 * a + 9, 9 * b : 9 * b + 9] += share
    solution = np.linalg.solve(whole + 1e-6 * np.eye(36), labels.forces.numpy().flatten())
    np.testing.assert_allclose(
        trained.parameters["forces"].flatten(), solution, rtol=1e-6, atol=1e-6 * abs(solution).max()
    )


def test_the_scale_of_the_prior_is_that_of_the_data_whatever_their_torques(recipe):
    frames = labelled(60)
    kernel = kernel_of(read_recipe(recipe), frames)
    points = Points(from_atoms(frames))
    values, vectors = torch.linalg.eigh(matrix(kernel, points))
    draw = torch.randn(len(values), generator=torch.Generator().manual_seed(0)).double()
    # forces of a Gaussian process of scale 3, and errors that no energy has
    forces = 3.0 * vectors @ (values.clamp_min(0.0).sqrt() * draw)
    torque = torch.linalg.cross(points.state.positions, torch.tensor([[0.0, 0.0, 1e-3]]).double().expand(180, 3))
    labels = Labels(torch.zeros(60).double(), forces.view(-1, 3) + torque, torch.zeros(0, 0, 3).double())
    trained = train(kernel, points, labels, 1e-10, 1e-8, "matern52")
    # of 180 numbers: 5 standard errors
    assert trained.settings.signal == pytest.approx(3.0, rel=5 / 360**0.5)


def test_curvatures_add_what_forces_do_not_know(recipe):
    """Of an energy known on paper: one frame with its Hessian is better than the frame alone."""
    frames = labelled(3)
    kernel = kernel_of(read_recipe(recipe), frames)
    rest = molecule("H2O").get_all_distances()

    def energy(x):
        bonds = [(x[i] - x[j]).norm() - rest[i, j] for i, j in ((0, 1), (0, 2), (1, 2))]
        return 20.0 * sum(b**2 for b in bonds) - 10.0 * sum(b**3 for b in bonds)

    def force(x):
        return -torch.func.jacrev(energy)(x)

    state = from_atoms(frames)
    structures = state.positions.view(3, 3, 3)
    plain = Labels(
        torch.stack([energy(x) for x in structures]),
        torch.cat([force(x) for x in structures]),
        torch.zeros(0, 0, 3).double(),
    )
    basis = torch.eye(9).double().view(9, 3, 3)
    directions = basis.repeat(1, 3, 1)
    derivatives = torch.stack([torch.cat([torch.func.jvp(force, (x,), (u,))[1] for x in structures]) for u in basis])
    unseen = from_atoms(labelled(8, seed=60))
    expected = torch.cat([force(x) for x in unseen.positions.view(8, 3, 3)])
    found = []
    for points, labels in (
        (Points(state), plain),
        (Points(state, directions), Labels(plain.energies, plain.forces, derivatives)),
    ):
        model = KernelModel(train(kernel, points, labels, 1e-8, 1e-8, "matern52"))
        found.append((model.evaluate(unseen, forces=("gradient",)).forces["gradient"] - expected).abs().mean())
    assert found[1] < 0.5 * found[0]


def test_targets_are_in_the_order_of_the_rows():
    state = from_atoms([molecule("H2"), molecule("H2")])
    directions = torch.zeros(1, 4, 3).double()
    labels = Labels(torch.tensor([10.0, 20.0]), torch.arange(12.0).view(4, 3), 100 + torch.arange(12.0).view(1, 4, 3))
    found = targets_of(Points(state, directions, has_energies=True), labels, torch.ones(2), 5.0)
    expected = [5, *range(6), *range(100, 106), 15, *range(6, 12), *range(106, 112)]
    assert found.tolist() == expected


def test_the_same_structure_twice_is_named(recipe):
    frames = labelled(4)
    # a copy with its equal atoms exchanged is the same to a kernel that is averaged over permutations
    twin = frames[1].copy()
    twin.positions = twin.positions[[0, 2, 1]]
    twin.calc = SinglePointCalculator(twin, energy=0.0, forces=np.zeros((3, 3)))
    kernel = kernel_of(read_recipe(recipe), labelled(20))
    both = [*frames, twin]
    with pytest.raises(SingularKernelError, match=r"frames 1 and 4 are the same .* remove one of each, or set regul"):
        train(kernel, Points(from_atoms(both)), labels_of(both), 1e-10, 1e-8, "matern52")


def test_structures_of_atoms_are_the_same_turned_but_not_in_another_cell():
    one = bulk("Si", "diamond", a=5.43, cubic=True)
    one.rattle(0.05, seed=0)
    turned = one.copy()
    turned.rotate(40, "z", rotate_cell=True)
    alone = [bulk("Cu", "fcc", a=a) for a in (3.6, 3.7)]
    descriptor = find_descriptor("smooth_overlap", {"cutoff": 4.0, "n_radial": 2, "max_ell": 2})
    kernel = Kernel(descriptor, descriptor.learnable, find_radial("rbf"), torch.tensor(1.0).double())
    assert duplicates(kernel, Points(from_atoms([one, *alone, turned]))) == [(0, 3)]


def test_a_descriptor_that_tells_equal_atoms_apart_is_not_averaged(recipe, tmp_path, monkeypatch):
    (Path(tmp_path) / "unequal.py").write_text(
        "def first_bond_twice(positions, numbers, cell, pbc, *, weight=2.0):\n"
        "    d = positions[[0, 0, 1]] - positions[[1, 2, 2]]\n"
        "    return d.square().sum(-1).rsqrt() * d.new_tensor([weight, 1.0, 1.0])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe.write_text(recipe.read_text().replace("inverse_distances", "unequal:first_bond_twice"))
    with pytest.raises(ValueError, match=r'atoms apart that the molecule itself exchanges .* permutations = "none"'):
        fit(read_recipe(recipe), tmp_path)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of memory")
def test_a_direct_solution_takes_the_memory_that_it_asks_for(recipe):
    frames = labelled(300)
    kernel = replace(kernel_of(read_recipe(recipe), frames[:20]), permutations=())
    points = Points(from_atoms(frames))
    targets, added = labels_of(frames).forces.flatten(), torch.full((2700,), 1e-6).double()
    # what is read of the libraries themselves is no part of it
    solve(matrix(kernel, Points(from_atoms(frames[:10]))), added[:90], targets[:90])

    def memory(key):
        said = Path("/proc/self/status").read_text()
        return 1024 * int(next(line for line in said.splitlines() if line.startswith(key)).split()[1])

    # begin anew
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    solve(matrix(kernel, points), added, targets)
    # the allocator may keep 64 MiB in reserve (see conservbench.process)
    assert memory("VmHWM") - before < 1.15 * memory_needed(points) + (64 << 20)


def test_a_singular_matrix_says_what_to_set():
    ones = torch.ones(4, 4).double()
    with pytest.raises(SingularKernelError, match=r"singular to rounding .* set regularization to"):
        solve(ones, torch.zeros(4).double() - 1e-14, torch.ones(4).double())


def test_too_many_points_are_refused_before_anything_is_made():
    points = Points(from_atoms([molecule("H2O")] * 10))
    with pytest.raises(TooManyPointsError, match=r"matrix of 90 rows: .* train on 5 frames .* solver = \"iterative\""):
        require_memory(points, free=3 * 8 * 45**2 + 1000)


def test_the_preconditioner_takes_no_more_than_there_is_memory_for():
    points = Points(from_atoms([molecule("H2O")] * 40))
    each = 2 * 8 * 360 * 9
    assert preconditioner_frames(points, free=100 * each) == 4
    assert preconditioner_frames(points, free=2 * each + 100) == 2
    with pytest.raises(TooManyPointsError, match=r"one frame of its preconditioner, .* train on 20 frames"):
        preconditioner_frames(points, free=each // 2)


def test_another_order_of_atoms_is_found_in_training(recipe, tmp_path):
    frames = labelled(20)
    frames[3] = frames[3][[1, 0, 2]]
    frames[3].calc = SinglePointCalculator(frames[3], energy=0.0, forces=np.zeros((3, 3)))
    write(tmp_path / "water.extxyz", frames)
    with pytest.raises(ValueError, match=r"training frame 3: atom order: .* was given H O H; reorder"):
        fit(read_recipe(recipe), tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('radial = "matern52"', 'radial = "matern"', "no radial kernel 'matern'; did you mean 'matern52'"),
        ("inverse_distances", "inverse_distance", "no descriptor 'inverse_distance'; did you mean 'inverse_distances'"),
        ("length = 2.0", "length = 0.0", "length is 0.0; expected a positive number"),
        ("regularization = 1e-9", "regularisation = 1e-9", "unknown key 'regularisation'"),
        ('name = "inverse_distances"', 'name = "smooth_overlap"', "missing parameter 'cutoff'"),
        (
            'name = "inverse_distances"',
            'name = "smooth_overlap"\ncutoff = 4.0',
            "of atoms, whose order does not matter",
        ),
        ('name = "inverse_distances"', 'name = "json:nothing"', "no descriptor 'json:nothing'"),
    ],
)
def test_a_wrong_recipe_is_refused(recipe, old, new, message):
    text = recipe.read_text().replace(old, new)
    recipe.write_text(text)
    with pytest.raises(CardError, match=message):
        read_recipe(recipe)


def test_a_descriptor_of_ones_own(recipe, tmp_path, monkeypatch):
    (Path(tmp_path) / "mine.py").write_text(
        "def squares(positions, numbers, cell, pbc, *, power=-1.0):\n"
        "    d = positions[[0, 0, 1]] - positions[[1, 2, 2]]\n"
        "    return d.square().sum(-1) ** power\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe.write_text(recipe.read_text().replace("inverse_distances", "mine:squares"))
    model = KernelModel(read_checkpoint(fit(read_recipe(recipe), tmp_path)))
    assert model.parameters["descriptor.power"].item() == -1.0
    assert errors_of(model, labelled(3, seed=90)).energy < 5.0


def test_the_iterative_solution_is_the_direct_one(recipe):
    frames = labelled(12)
    kernel = kernel_of(read_recipe(recipe), frames)
    points, labels = Points(from_atoms(frames), has_energies=True), labels_of(frames)
    added = noise(points, 1e-6, 1e-5)
    targets, _ = centered(kernel, points, labels)
    whole = matrix(kernel, points)
    vector = torch.randn(len(whole), generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(product(kernel, points, at_once=5)(vector), whole @ vector)
    found = solve_iteratively(kernel, points, added, targets, frames=3, tolerance=1e-9)
    residual = whole @ found + added * found - targets
    assert residual.norm() < 2e-9 * targets.norm()
    model, direct = (
        matrix(kernel, Points(from_atoms(labelled(2, seed=70))), points) @ solution
        for solution in (found, solve(whole, added, targets))
    )
    torch.testing.assert_close(model, direct, rtol=1e-4, atol=1e-5)


def test_the_outer_level_has_the_right_slope_and_lowers_the_error(recipe):
    frames, others = labelled(6), labelled(6, seed=40)
    start = kernel_of(read_recipe(recipe), frames)
    descriptor = find_descriptor("coulomb", {"distance_exponent": 2.5})
    start = replace(start, descriptor=descriptor, learned=descriptor.learnable)
    seen, unseen = ((Points(from_atoms(some)), labels_of(some).forces.flatten()) for some in (frames, others))
    added = torch.tensor(1e-4).double()

    def error(exponent):
        moved = replace(start, learned={**start.learned, "distance_exponent": exponent})
        return validation_error(moved, seen, unseen, added)

    leaf = torch.tensor(2.5).double().requires_grad_(True)
    slope = torch.autograd.grad(error(leaf), leaf)[0].item()
    step = 1e-4
    numerical = (error(leaf.detach() + step) - error(leaf.detach() - step)).item() / (2 * step)
    assert slope == pytest.approx(numerical, rel=1e-3)
    outer = Outer(("length", "distance_exponent", "regularization"), 8, 0.1, 6, 6)
    _, regularization, errors = learn(start, 1e-4, seen, unseen, outer)
    assert min(errors) < 0.9 * errors[0]
    assert regularization > 0
    with pytest.raises(ValueError, match="no hyperparameter 'lengths'; did you mean 'length'"):
        learn(start, 1e-4, seen, unseen, replace(outer, learn=("lengths",)))
