"""The pressure: the ideal gas, a crystal under strain, ASE."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.units import GPa, kB

from conservbench.models.ase import ASEModel
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.pressure import pressure
from conservbench.observables.temperature import temperature
from conservbench.state import from_atoms


def test_an_ideal_gas_obeys_its_law():
    atoms = Atoms("Ar50", scaled_positions=np.random.default_rng(0).random((50, 3)), cell=[20.0] * 3, pbc=True)
    atoms.set_momenta(np.random.default_rng(1).normal(size=(50, 3)))
    atoms.set_momenta(atoms.get_momenta() - atoms.get_momenta().mean(0))
    state = from_atoms(atoms)
    found = pressure(state, state.cell.new_zeros((1, 3, 3)))
    assert found.item() * GPa == pytest.approx(49 * kB * temperature(state).item() / 20.0**3, rel=1e-12)


def test_it_is_the_fall_of_the_energy_with_volume():
    def energy(scale):
        return StillingerWeber().evaluate(from_atoms(bulk("Si", a=5.3 * scale))).energy.item()

    state = from_atoms(bulk("Si", a=5.3))
    found = pressure(state, StillingerWeber().evaluate(state, stress=True).stress)
    fall = -(energy(1 + 1e-5) - energy(1 - 1e-5)) / (6e-5 * state.volume.item())
    assert found.item() > 1
    assert found.item() * GPa == pytest.approx(fall, rel=1e-7)


def test_it_is_ases():
    frames = []
    for seed in range(2):
        atoms = bulk("Ar", "fcc", a=5.0, cubic=True) * (2, 2, 2)
        atoms.rattle(0.1, seed=seed)
        atoms.set_momenta(np.random.default_rng(seed).normal(size=(32, 3)))
        frames.append(atoms)
    state = from_atoms(frames)
    calculator = LennardJones(sigma=3.4, epsilon=0.0103, rc=6.0, smooth=True)
    ours = pressure(state, ASEModel(calculator).evaluate(state, stress=True).stress)
    for atoms, found in zip(frames, ours.tolist(), strict=True):
        atoms.calc = calculator
        theirs = -atoms.get_stress(include_ideal_gas=True)[:3].mean() / GPa
        assert found == pytest.approx(theirs, rel=1e-10)


def test_it_can_be_differentiated_by_the_parameters_of_a_model():
    state = from_atoms(bulk("Si", a=5.3))

    def of(lam):
        return pressure(state, StillingerWeber({"lam": lam}).evaluate(state, stress=True, graph=True).stress)

    assert torch.autograd.gradcheck(of, torch.tensor(20.0, dtype=torch.float64, requires_grad=True), atol=1e-7)
