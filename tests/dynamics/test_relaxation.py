"""Relaxation: step by step as in ASE, harmonic answers, and how relaxations end."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.filters import UnitCellFilter
from ase.optimize import FIRE, LBFGS

from conservbench.dynamics.coordinates import FixedCell, UnitCell, force_and_stress_of
from conservbench.dynamics.forces import force_of
from conservbench.dynamics.relaxation import OPTIMIZERS, Ending, relax, wandering
from conservbench.models.base import Prediction, UnsupportedError
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.models.toy import Field, ToyModel
from conservbench.state import from_atoms, select

ASE = {"fire": FIRE, "lbfgs": LBFGS}
NAMES = sorted(ASE)


class OurCalculator(Calculator):
    """The model as an ASE calculator."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self):
        super().__init__()
        self.model = StillingerWeber()

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        prediction = self.model.evaluate(from_atoms(self.atoms), forces=("gradient",), stress=True)
        stress = prediction.stress[0].numpy()
        self.results = {
            "energy": float(prediction.energy),
            "forces": prediction.forces["gradient"].numpy(),
            "stress": stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        }


@pytest.fixture(scope="module")
def starts():
    """Four rattled crystals; two in strained cells; one with an atom less."""
    frames = []
    for seed, width in enumerate((0.05, 0.1, 0.2, 0.15)):
        atoms = bulk("Si", cubic=True, a=5.431)
        if seed > 1:
            strain = np.random.default_rng(seed).normal(scale=0.03, size=(3, 3))
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        atoms.rattle(width, seed=seed)
        if seed == 3:
            del atoms[0]
        frames.append(atoms)
    return frames


def ase_path(atoms, name, n_steps, filtered):
    """(n_steps + 1, n_atoms, 3) positions, cells and the longest forces along ASE's own relaxation."""
    atoms = atoms.copy()
    atoms.calc = OurCalculator()
    target = UnitCellFilter(atoms) if filtered else atoms
    optimizer = ASE[name](target, logfile=None)
    positions, cells, fmax = [], [], []
    for _ in optimizer.irun(fmax=0.0, steps=n_steps):
        positions.append(atoms.positions.copy())
        cells.append(atoms.cell.array.copy())
        fmax.append(np.linalg.norm(target.get_forces(), axis=1).max())
    return np.array(positions), np.array(cells), np.array(fmax)


def our_path(frames, name, n_steps, filtered):
    """Final states after each number of steps, and the longest forces, of a batch."""
    state = from_atoms(frames)
    model = StillingerWeber()
    force, stress = force_of(model, "gradient"), force_and_stress_of(model)
    space = UnitCell(stress, state.cell) if filtered else FixedCell(force)
    seen = []

    class Watched:
        rows, of, take = space.rows, space.of, space.take

        def forces(self, state):
            seen.append(state)
            return space.forces(state)

        def place(self, state, coordinates):
            return space.place(state, coordinates)

    run = relax(state, Watched(), OPTIMIZERS[name], fmax=0.0, max_steps=[n_steps] * len(frames))
    return seen, run


@pytest.mark.parametrize("filtered", [False, True], ids=["fixed cell", "unit cell"])
@pytest.mark.parametrize("name", NAMES)
def test_every_system_of_a_batch_goes_ases_way(starts, name, filtered):
    n_steps = 40
    states, run = our_path(starts, name, n_steps, filtered)
    alone, _ = our_path(starts[2:3], name, n_steps, filtered)
    for index, atoms in enumerate(starts):
        positions, cells, fmax = ase_path(atoms, name, n_steps, filtered)
        ours = [select(state, [index]) for state in states]
        # rounding, 1e-16, grows by some orders along the way
        np.testing.assert_allclose([one.positions.numpy() for one in ours], positions, atol=1e-9, rtol=0)
        np.testing.assert_allclose([one.cell[0].numpy() for one in ours], cells, atol=1e-9, rtol=0)
        np.testing.assert_allclose(run.fmax[index], fmax, atol=1e-8, rtol=0)
        assert np.abs(positions[-1] - positions[0]).max() > 0.02
    np.testing.assert_allclose(alone[-1].positions, select(states[-1], [2]).positions, atol=1e-9, rtol=0)
