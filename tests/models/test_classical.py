"""What every classical potential must do: LAMMPS's numbers, derivatives that are derivatives, a clean cutoff."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms

from conservbench.models.base import UnsupportedError
from conservbench.models.edip import EDIP
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.neighbors import find_pairs
from conservbench.state import concatenate, from_atoms
from conservbench.systems import find_system

VOIGT = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
POTENTIALS = {"stillinger_weber": StillingerWeber, "edip": EDIP}


@pytest.fixture(params=list(POTENTIALS))
def kind(request):
    return POTENTIALS[request.param]


def energy_of(model, atoms):
    return model.evaluate(from_atoms(atoms)).energy.item()


@pytest.mark.parametrize("structure", ["rattled-strained", "liquid"])
@pytest.mark.parametrize("name", list(POTENTIALS))
def test_energy_forces_and_stress_equal_lammps(lammps, structure, name):
    atoms, reference = lammps[structure]
    expected = reference[name]
    prediction = POTENTIALS[name]().evaluate(from_atoms(atoms), forces=("gradient",), stress=True)
    assert prediction.energy.item() == pytest.approx(expected["energy"], rel=1e-10)
    np.testing.assert_allclose(prediction.forces["gradient"], expected["forces"], atol=1e-9)
    stress = [prediction.stress[0, row, column].item() for row, column in VOIGT]
    np.testing.assert_allclose(stress, expected["stress"], atol=1e-11)


def test_forces_are_minus_the_slope_of_the_energy(kind, rattled):
    model, step = kind(), 1e-5
    force = model.evaluate(from_atoms(rattled), forces=("gradient",)).forces["gradient"].numpy()
    for atom, axis in [(0, 0), (3, 1), (7, 2)]:
        ends = []
        for sign in (1, -1):
            moved = rattled.copy()
            moved.positions[atom, axis] += sign * step
            ends.append(energy_of(model, moved))
        assert force[atom, axis] == pytest.approx(-(ends[0] - ends[1]) / (2 * step), abs=1e-7)


def test_stress_is_the_slope_in_the_strain(kind, rattled):
    model, step = kind(), 1e-5
    stress = model.evaluate(from_atoms(rattled), stress=True).stress[0].numpy()
    np.testing.assert_allclose(stress, stress.T, atol=1e-14)
    for row, column in VOIGT:
        ends = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[row, column] += 0.5 * sign * step
            strain[column, row] += 0.5 * sign * step
            strained = rattled.copy()
            strained.set_cell(rattled.cell.array @ strain, scale_atoms=True)
            ends.append(energy_of(model, strained))
        slope = (ends[0] - ends[1]) / (2 * step) / rattled.get_volume()
        assert stress[row, column] == pytest.approx(slope, abs=1e-8)


def test_hessian_is_symmetric_and_the_slope_of_the_forces(kind, rattled, hessian):
    model, step = kind(), 1e-5
    matrix = hessian(model, rattled)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-11)
    np.testing.assert_allclose(matrix.reshape(24, 8, 3).sum(1), 0, atol=1e-10)
    ends = []
    for sign in (1, -1):
        moved = rattled.copy()
        moved.positions[2, 1] += sign * step
        ends.append(model.evaluate(from_atoms(moved), forces=("gradient",)).forces["gradient"].numpy().ravel())
    np.testing.assert_allclose(matrix[7], -(ends[0] - ends[1]) / (2 * step), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in POTENTIALS.values() for name in kind.defaults],
    ids=lambda each: each if isinstance(each, str) else each.name,
)
def test_gradients_in_the_parameters(rattled, kind, name):
    value = kind.defaults[name]
    parameter = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    state = from_atoms(rattled)
    weights = torch.linspace(-1, 1, 24, dtype=torch.float64).view(-1, 3)

    def probe(parameter):
        prediction = kind({name: parameter}).evaluate(state, forces=("gradient",), stress=True, graph=True)
        return (prediction.forces["gradient"] * weights).sum() + prediction.energy.sum() + prediction.stress.sum()

    (slope,) = torch.autograd.grad(probe(parameter), parameter)
    step = 1e-5 * max(abs(value), 0.1)
    ends = [probe(torch.tensor(value + sign * step, dtype=torch.float64)).item() for sign in (1, -1)]
    assert slope.item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4, abs=1e-6)


def test_pairs_beyond_the_cutoff_add_nothing(kind, rattled):
    model = kind()
    state = from_atoms(rattled)
    positions = state.positions.clone().requires_grad_(True)
    results = []
    for reach in (float(model.end()), 6.0):
        energy = model.energies(positions, state.cell, find_pairs(state, reach), state)
        (slope,) = torch.autograd.grad(energy.sum(), positions, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.square().sum(), positions)
        assert torch.isfinite(curvature).all()
        results.append((energy.detach(), slope.detach(), curvature))
    for narrow, wide in zip(*results, strict=True):
        torch.testing.assert_close(wide, narrow, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("gap", [0.0, 1e-15, 1e-9, 1e-3])
def test_every_derivative_vanishes_at_the_cutoff(kind, gap):
    model = kind()
    end = float(model.end())
    atoms = Atoms("Si2", positions=[[0, 0, 0], [end - gap, 0, 0]], cell=[20, 20, 20], pbc=True)
    state = from_atoms(atoms)
    positions = state.positions.requires_grad_(True)
    energy = model.energies(positions, state.cell, find_pairs(state, 5.0), state)
    (slope,) = torch.autograd.grad(energy.sum(), positions, create_graph=True)
    (curvature,) = torch.autograd.grad(slope[1, 0], positions)
    for value in (energy, slope, curvature):
        assert (value.abs() < 1e-100).all()


def test_batch_equals_its_systems(kind, diamond, rattled):
    frames = [diamond(5.5), rattled, find_system("si-liquid-64").snapshots[0]]
    together = kind().evaluate(concatenate([from_atoms(frame) for frame in frames]), forces=("gradient",), stress=True)
    start = 0
    for index, frame in enumerate(frames):
        alone = kind().evaluate(from_atoms(frame), forces=("gradient",), stress=True)
        torch.testing.assert_close(together.energy[index], alone.energy[0])
        torch.testing.assert_close(together.stress[index], alone.stress[0], atol=1e-12, rtol=1e-9)
        mine = together.forces["gradient"][start : start + len(frame)]
        torch.testing.assert_close(mine, alone.forces["gradient"], atol=1e-11, rtol=1e-9)
        start += len(frame)


def test_single_precision_is_near(kind, rattled):
    single = kind(dtype=torch.float32).evaluate(from_atoms(rattled), forces=("gradient",))
    double = kind().evaluate(from_atoms(rattled), forces=("gradient",))
    assert single.energy.dtype == single.forces["gradient"].dtype == torch.float64
    assert single.energy.item() == pytest.approx(double.energy.item(), rel=1e-5)
    torch.testing.assert_close(single.forces["gradient"], double.forces["gradient"], atol=2e-4, rtol=0)


def test_what_it_cannot_do_is_unsupported(kind, rattled):
    germanium = rattled.copy()
    germanium.numbers[0] = 32
    with pytest.raises(UnsupportedError, match="Ge"):
        kind().evaluate(from_atoms(germanium))
    with pytest.raises(UnsupportedError, match="direct"):
        kind().evaluate(from_atoms(rattled), forces=("direct",))
    with pytest.raises(ValueError, match="lambda"):
        kind({"lambda": 1.0})
