"""The toy fields do what their closed forms say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk
from scipy.integrate import solve_ivp

from conservbench.cards import CardError, find_model
from conservbench.models import toy
from conservbench.models.base import UnsupportedError
from conservbench.models.toy import Field, ToyModel
from conservbench.state import concatenate, from_atoms, select
from conservbench.systems import find_system
from conservbench.units import BOLTZMANN, PICOSECOND

MASS = 28.085
SWIRL = Field("swirl", 7.7, 0.06)
# a skewed cell, so that n is no Cartesian axis
SKEW = np.array([[1.0, 0.0, 0.0], [0.1, 0.9, 0.0], [0.2, -0.1, 1.1]])


@pytest.fixture
def sites():
    atoms = bulk("Si", "diamond", a=5.431, cubic=True)
    atoms.set_cell(atoms.cell.array @ SKEW, scale_atoms=True)
    return atoms


@pytest.fixture
def start(sites):
    atoms = sites.copy()
    atoms.positions += np.random.default_rng(3).normal(0, 0.1, (len(atoms), 3)) + 0.7
    return from_atoms(atoms)


def axis_of(sites):
    return sites.cell.array[2] / np.linalg.norm(sites.cell.array[2])


def swirl(sites):
    return ToyModel(SWIRL, sites)


def swirl_jacobian(model, state):
    positions = state.positions.clone().requires_grad_(True)
    moved = state.replace(positions=positions)
    force = model.evaluate(moved, forces=("direct",), graph=True).forces["direct"].flatten()
    rows = [torch.autograd.grad(component, positions, retain_graph=True)[0].flatten() for component in force]
    return torch.stack(rows)


def test_harmonic_energy_and_force_are_those_of_springs(sites, start):
    model = ToyModel(Field("harmonic", 7.7), sites)
    prediction = model.evaluate(start, forces=("gradient",))
    moved = start.positions.numpy() - sites.positions
    moved -= moved.mean(0)
    assert prediction.energy.item() == pytest.approx(0.5 * 7.7 * (moved**2).sum(), rel=1e-12)
    np.testing.assert_allclose(prediction.forces["gradient"], -7.7 * moved, atol=1e-12)


def test_harmonic_stress_is_that_of_strained_springs(sites, start):
    model = ToyModel(Field("harmonic", 7.7), sites)
    stress = model.evaluate(start, stress=True).stress[0].numpy()
    moved = start.positions.numpy() - sites.positions
    moved -= moved.mean(0)
    np.testing.assert_allclose(stress, 7.7 * moved.T @ moved / sites.get_volume(), atol=1e-14)


def test_swirl_force_has_its_curl_about_the_third_cell_vector(sites, start):
    force = swirl(sites).evaluate(start, forces=("direct",)).forces["direct"].numpy()
    moved = start.positions.numpy() - sites.positions
    moved -= moved.mean(0)
    np.testing.assert_allclose(force, -7.7 * moved + 0.06 * np.cross(axis_of(sites), moved), atol=1e-12)
    np.testing.assert_allclose(force.sum(0), 0, atol=1e-12)


@pytest.mark.parametrize(("name", "channel"), [("harmonic", "gradient"), ("swirl", "direct")])
def test_forces_turn_with_the_crystal_and_ignore_translation_and_wrapping(sites, start, name, channel):
    model = ToyModel(Field(name, 7.7, 0.06), sites)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    # a proper rotation: n is a polar vector, so the swirl is no mirror image of itself
    turn = turn * torch.linalg.det(turn)
    reference = model.evaluate(start, forces=(channel,))
    turned = model.evaluate(
        start.replace(positions=start.positions @ turn.T, cell=start.cell @ turn.T), forces=(channel,)
    )
    torch.testing.assert_close(turned.forces[channel], reference.forces[channel] @ turn.T, atol=1e-11, rtol=0)
    wrapped = start.positions + 100.0
    wrapped[3] += 2 * start.cell[0, 0] - start.cell[0, 2]
    wrapped[0] -= start.cell[0, 1]
    again = model.evaluate(start.replace(positions=wrapped), forces=(channel,))
    torch.testing.assert_close(again.forces[channel], reference.forces[channel], atol=1e-11, rtol=0)
    torch.testing.assert_close(again.energy, reference.energy)


def test_two_headed_field_has_both_forces(sites, start):
    both = ToyModel(Field("two-headed", 7.7, 0.06), sites).evaluate(start, forces=("gradient", "direct"))
    harmonic = ToyModel(Field("harmonic", 7.7), sites).evaluate(start, forces=("gradient",))
    direct = swirl(sites).evaluate(start, forces=("direct",))
    torch.testing.assert_close(both.forces["gradient"], harmonic.forces["gradient"])
    torch.testing.assert_close(both.forces["direct"], direct.forces["direct"])
    torch.testing.assert_close(both.energy, direct.energy)


def test_batch_equals_its_systems(sites, start):
    other = start.replace(positions=start.positions.flip(0))
    batch = concatenate((start, other))
    model = swirl(sites)
    together = model.evaluate(batch, forces=("direct",))
    for index in range(2):
        alone = model.evaluate(select(batch, [index]), forces=("direct",))
        torch.testing.assert_close(together.forces["direct"][batch.system == index], alone.forces["direct"])
        torch.testing.assert_close(together.energy[index : index + 1], alone.energy)


def test_asymmetry_is_that_of_the_jacobian(sites, start):
    jacobian = swirl_jacobian(swirl(sites), start)
    asymmetric = 0.5 * (jacobian - jacobian.T)
    measured = float(asymmetric.norm() / jacobian.norm())
    assert measured == pytest.approx(toy.asymmetry(7.7, 0.06), rel=1e-10)


def test_work_round_a_circle(sites):
    # the midpoint of a chord is exact for a linear force; the polygon has the area of the circle times sin(x)/x
    n_points, radius = 400, 0.3
    angles = np.linspace(0, 2 * np.pi, n_points, endpoint=False)
    _, first, second = toy._frame(axis_of(sites))
    path = np.repeat(sites.positions[None], n_points, axis=0)
    path[:, 5] += radius * (np.outer(np.cos(angles), first) + np.outer(np.sin(angles), second))
    step = np.roll(path, -1, axis=0) - path
    middle = path + 0.5 * step
    states = []
    for positions in middle:
        atoms = sites.copy()
        atoms.positions = positions
        states.append(from_atoms(atoms))
    force = swirl(sites).evaluate(concatenate(states), forces=("direct",)).forces["direct"].numpy()
    work = float((force.reshape(step.shape) * step).sum())
    polygon = np.sin(2 * np.pi / n_points) / (2 * np.pi / n_points)
    assert work == pytest.approx(toy.circle_work(0.06, radius, len(sites)) * polygon, rel=1e-9)
    assert work == pytest.approx(toy.loop_work(0.06, path - sites.positions, axis_of(sites)), rel=1e-9)


def test_work_round_a_loop_of_all_atoms(sites):
    random = np.random.default_rng(8)
    path = sites.positions + random.normal(0, 0.2, (7, len(sites), 3))
    step = np.roll(path, -1, axis=0) - path
    work = 0.0
    for positions, move in zip(path + 0.5 * step, step, strict=True):
        atoms = sites.copy()
        atoms.positions = positions
        work += float(
            (swirl(sites).evaluate(from_atoms(atoms), forces=("direct",)).forces["direct"].numpy() * move).sum()
        )
    assert work == pytest.approx(toy.loop_work(0.06, path - sites.positions, sites.cell.array[2]), rel=1e-9)


def test_exact_energy_is_that_of_an_integrated_trajectory(sites, start):
    random = np.random.default_rng(4)
    momenta = random.normal(0, np.sqrt(MASS * BOLTZMANN * 700), (len(sites), 3))
    model = swirl(sites)
    shape = momenta.shape

    def slope(_, y):
        positions, p = y.reshape(2, *shape)
        state = start.replace(positions=torch.from_numpy(positions.copy()))
        force = model.evaluate(state, forces=("direct",)).forces["direct"].numpy()
        return np.stack((p / MASS, force)).ravel()

    times = np.linspace(0, 0.3 * PICOSECOND, 6)
    begin = np.stack((start.positions.numpy(), momenta)).ravel()
    run = solve_ivp(slope, (0, times[-1]), begin, t_eval=times, method="DOP853", rtol=1e-9, atol=1e-9)
    energies = []
    for y in run.y.T:
        positions, p = y.reshape(2, *shape)
        potential = model.evaluate(start.replace(positions=torch.from_numpy(positions.copy()))).energy.item()
        energies.append(potential + 0.5 * (p**2).sum() / MASS)
    moved = start.positions.numpy() - sites.positions
    exact = toy.exact_energy(SWIRL, times, moved, momenta, MASS, axis_of(sites))
    np.testing.assert_allclose(energies, exact, rtol=1e-7)
    assert exact[-1] != pytest.approx(exact[0], rel=1e-3)


def test_harmonic_energy_is_constant(sites):
    times = np.linspace(0, 10 * PICOSECOND, 5)
    random = np.random.default_rng(5)
    exact = toy.exact_energy(
        Field("harmonic", 7.7), times, random.normal(size=(8, 3)), random.normal(size=(8, 3)), MASS, [0, 0, 1]
    )
    np.testing.assert_allclose(exact, exact[0], rtol=1e-12)


def test_mean_energy_is_the_average_over_thermal_starts():
    # 4000 starts of 8 atoms, seed fixed; the bound is five standard errors at each of 4 times: false alarms below 1e-5
    random = np.random.default_rng(6)
    times = np.array([0.0, 0.31, 1.7, 5.0]) * PICOSECOND
    strong = Field("swirl", 7.7, 0.2)
    samples = []
    for _ in range(4000):
        moved = random.normal(0, np.sqrt(BOLTZMANN * 700 / 7.7), (8, 3))
        momenta = random.normal(0, np.sqrt(MASS * BOLTZMANN * 700), (8, 3))
        momenta -= momenta.mean(0)
        samples.append(toy.exact_energy(strong, times, moved, momenta, MASS, [0, 0, 1]) / 8)
    mean, error = np.mean(samples, axis=0), np.std(samples, axis=0) / np.sqrt(len(samples))
    expected = toy.mean_energy(strong, times, 700.0, MASS, 8)
    assert (np.abs(mean - expected) < 5 * error).all()
    # starts at 3 k_B T an atom without the centre of mass, and has grown clearly by the end
    assert expected[0] == pytest.approx(3 * BOLTZMANN * 700 * 7 / 8)
    assert expected[-1] > 2 * expected[0]


def test_heating_rate_of_the_card_is_what_its_notes_say():
    card = find_model("swirl")
    field = Field(**card.options)
    times = np.linspace(0, PICOSECOND, 101)
    rate = toy.heating_rate(field, times, 1000.0, MASS, 64) * PICOSECOND * 1e3
    assert rate == pytest.approx(
        np.polyfit(times, toy.mean_energy(field, times, 1000.0, MASS, 64), 1)[0] * 98.2269 * 1e3
    )
    assert rate == pytest.approx(95, abs=0.5)  # meV/atom/ps
    assert -toy.frequency(7.4, 0.15, MASS).imag * PICOSECOND == pytest.approx(0.511, abs=0.001)
    assert toy.asymmetry(field.stiffness, field.curl) == pytest.approx(0.01655, abs=5e-6)


def test_stiffness_of_the_cards_gives_the_displacements_of_silicon():
    system = find_system("si-64")
    moved = np.array([snapshot.positions - system.sites.positions for snapshot in system.snapshots])
    moved -= moved.mean(1, keepdims=True)
    # eight snapshots: the spread of their means is near a tenth
    assert BOLTZMANN * 1000 / (moved**2).mean() == pytest.approx(7.4, rel=0.2)
    assert find_model("harmonic").options["stiffness"] == find_model("swirl").options["stiffness"] == 7.4


def test_swirl_has_neither_gradient_nor_stress(sites, start):
    with pytest.raises(UnsupportedError, match="no gradient forces"):
        swirl(sites).evaluate(start, forces=("gradient",))
    with pytest.raises(UnsupportedError, match="stress"):
        swirl(sites).evaluate(start, stress=True)


def test_other_crystals_are_refused(sites, start):
    bigger = from_atoms(sites * (2, 1, 1))
    model = swirl(sites)
    # two replicas' worth of atoms in one system
    with pytest.raises(UnsupportedError, match="replicas of their own crystal of 8 atoms"):
        model.evaluate(bigger, forces=("direct",))


def test_single_precision_is_cast_and_returned_as_double(sites, start):
    single = ToyModel(SWIRL, sites, dtype=torch.float32).evaluate(start, forces=("direct",)).forces["direct"]
    double = swirl(sites).evaluate(start, forces=("direct",)).forces["direct"]
    assert single.dtype == torch.float64
    assert 0 < (single - double).abs().max() < 1e-6


def test_load_builds_the_field_of_the_card():
    system = find_system("si-64")
    model = toy.load(find_model("swirl"), system)
    assert model.field == Field("swirl", 7.4, 0.15)
    assert (model.channels, model.labelled, model.elements) == (("direct",), True, frozenset({14}))
    assert toy.load(find_model("harmonic"), system).channels == ("gradient",)


def test_load_refuses_a_liquid():
    with pytest.raises(UnsupportedError, match=r"si-liquid-64 has atoms \d\.\d Å off their sites"):
        toy.load(find_model("swirl"), find_system("si-liquid-64"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('field = "swrl"\nstiffness = 1.0', "swirl"),
        ('field = "swirl"', "stiffness"),
        ('field = "swirl"\nstiffness = -1.0', "expected > 0"),
        ('field = "swirl"\nstiffness = 1.0\ncurls = 1.0', "did you mean 'curl'"),
    ],
)
def test_load_names_a_wrong_option(tmp_path, options, message):
    path = tmp_path / "odd.toml"
    path.write_text(
        f'name = "odd"\nversion = 1\ntitle = "t"\nloader = "toy"\nscheme = "direct"\n[options]\n{options}\n'
    )
    with pytest.raises(CardError, match=message):
        toy.load(find_model(str(path)), find_system("si-64"))
