"""Structures and reference numbers of the classical potentials."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from conservbench.state import from_atoms
from conservbench.units import GIGAPASCAL


@pytest.fixture(scope="session")
def diamond():
    """Perfect diamond structure of n x n x n cubic cells."""

    def make(lattice_constant: float, n_cells: int = 2) -> Atoms:
        return bulk("Si", "diamond", a=lattice_constant, cubic=True) * (n_cells, n_cells, n_cells)

    return make


@pytest.fixture(scope="session")
def rattled():
    """Eight atoms off their sites in a skewed cell: several images of each are in reach."""
    atoms = bulk("Si", "diamond", a=5.431, cubic=True)
    atoms.set_cell(atoms.cell.array @ [[1.02, 0, 0], [0.03, 0.97, 0], [-0.02, 0.04, 1.01]], scale_atoms=True)
    atoms.rattle(0.15, seed=11)
    return atoms


@pytest.fixture(scope="session")
def lammps():
    """Structures with what LAMMPS says of them: name to (atoms, potential to energy, forces, stress)."""
    document = json.loads((Path(__file__).parent / "data" / "silicon-lammps.json").read_text(encoding="utf-8"))
    return {
        name: (
            Atoms(numbers=[14] * len(entry["positions"]), positions=entry["positions"], cell=entry["cell"], pbc=True),
            entry["lammps"],
        )
        for name, entry in document["structures"].items()
    }


@pytest.fixture(scope="session")
def hessian():
    """Second derivatives of the energy, (3 n_atoms, 3 n_atoms) in eV/Å^2, by differentiating the forces."""

    def make(model, atoms: Atoms) -> np.ndarray:
        state = from_atoms(atoms)
        positions = state.positions.clone().requires_grad_(True)
        moved = state.replace(positions=positions)
        force = model.evaluate(moved, forces=("gradient",), graph=True).forces["gradient"].flatten()
        rows = [-torch.autograd.grad(component, positions, retain_graph=True)[0].flatten() for component in force]
        return torch.stack(rows).numpy()

    return make


@pytest.fixture(scope="session")
def elastic_constant():
    """C_1c in GPa at fixed atoms, V^-1 d2U / de_1 de_c: by symmetry diamond's C11 and C12 need no relaxation."""

    def make(model, atoms: Atoms, column: int, step: float = 1e-5) -> float:
        slopes = []
        for sign in (1, -1):
            strained = atoms.copy()
            stretch = np.array([1 + sign * step, 1, 1])
            strained.set_cell(atoms.cell.array * stretch, scale_atoms=True)
            stress = model.evaluate(from_atoms(strained), stress=True).stress[0, column, column].item()
            slopes.append(stress * strained.get_volume() / stretch[column])
        return (slopes[0] - slopes[1]) / (2 * step) / atoms.get_volume() / GIGAPASCAL

    return make
