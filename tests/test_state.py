"""Batches of systems: to and from ASE, choosing and joining."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from conservbench.state import concatenate, from_atoms, select, to_atoms
from conservbench.units import BOLTZMANN, FEMTOSECOND


@pytest.fixture
def frames():
    silicon = bulk("Si", cubic=True)
    water = molecule("H2O", vacuum=3.0)
    water.set_masses([18.0, 1.0, 2.014])
    slab = Atoms("LiF", positions=[[0, 0, 0], [1.5, 0.2, 9.0]], cell=[[4, 0, 0], [1, 4, 0], [0, 0, 0]], pbc=[1, 1, 0])
    for seed, atoms in enumerate((silicon, water, slab)):
        atoms.set_momenta(np.random.default_rng(seed).normal(size=(len(atoms), 3)))
    return [silicon, water, slab]


def assert_same(first, second):
    for name in ("positions", "momenta", "masses", "numbers", "cell", "pbc", "system"):
        torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=0, atol=0)


def test_round_trip_keeps_everything(frames):
    returned = to_atoms(from_atoms(frames))
    assert len(returned) == len(frames)
    for before, after in zip(frames, returned, strict=True):
        for name in ("positions", "numbers", "pbc"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        np.testing.assert_array_equal(after.cell.array, before.cell.array)
        np.testing.assert_array_equal(after.get_momenta(), before.get_momenta())
        np.testing.assert_array_equal(after.get_masses(), before.get_masses())


def test_one_structure_is_a_batch_of_one(frames):
    assert_same(from_atoms(frames[0]), from_atoms([frames[0]]))


def test_shapes_and_types(frames):
    state = from_atoms(frames)
    assert (state.n_atoms, state.n_systems) == (13, 3)
    assert state.counts.tolist() == [8, 3, 2]
    assert state.system.tolist() == [0] * 8 + [1] * 3 + [2] * 2
    assert state.positions.dtype == state.momenta.dtype == state.masses.dtype == state.cell.dtype == torch.float64
    assert state.numbers.dtype == state.system.dtype == torch.int64
    assert state.pbc.dtype == torch.bool
    assert state.pbc.shape == (3, 3)


def test_units_are_those_of_ase(frames):
    from ase import units

    state = from_atoms(frames)
    kinetic = 0.5 * state.sum((state.momenta.square() / state.masses[:, None]).sum(-1))
    np.testing.assert_allclose(kinetic, [atoms.get_kinetic_energy() for atoms in frames], rtol=1e-14)
    np.testing.assert_allclose(state.velocities[:8], frames[0].get_velocities(), rtol=1e-14)
    assert pytest.approx(units.fs, rel=1e-12) == FEMTOSECOND
    assert pytest.approx(units.kB, rel=1e-12) == BOLTZMANN


def test_volume(frames):
    volume = from_atoms(frames[:2]).volume
    np.testing.assert_allclose(volume, [atoms.get_volume() for atoms in frames[:2]], rtol=1e-14)


def test_sum_goes_over_each_system(frames):
    state = from_atoms(frames)
    torch.testing.assert_close(
        state.sum(state.positions), torch.tensor(np.array([atoms.positions.sum(0) for atoms in frames]))
    )
    ones = state.sum(torch.ones(13, requires_grad=True))
    assert ones.tolist() == [8, 3, 2]
    assert ones.requires_grad


def test_concatenate_equals_a_batch_from_ase(frames):
    parts = [from_atoms(frames[:2]), from_atoms(frames[2])]
    assert_same(concatenate(parts), from_atoms(frames))
    assert_same(concatenate([concatenate(parts), parts[0]]), from_atoms([*frames, *frames[:2]]))


@pytest.mark.parametrize("chosen", [[0], [2, 0], [1, 1, 2], [0, 1, 2]])
def test_select_equals_a_batch_from_ase(frames, chosen):
    assert_same(select(from_atoms(frames), chosen), from_atoms([frames[index] for index in chosen]))


def test_a_state_is_not_changed_but_replaced(frames):
    from dataclasses import FrozenInstanceError

    state = from_atoms(frames)
    moved = state.replace(positions=state.positions + 1)
    torch.testing.assert_close(moved.positions - 1, state.positions)
    assert moved.cell is state.cell
    with pytest.raises(FrozenInstanceError):
        state.positions = moved.positions  # type: ignore[misc]


def test_from_atoms_copies(frames):
    state = from_atoms(frames[0])
    before = state.positions.clone()
    frames[0].positions += 1
    torch.testing.assert_close(state.positions, before)
