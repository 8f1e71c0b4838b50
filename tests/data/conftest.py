"""Small labelled sets, and the reference data where they are."""

import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator


@pytest.fixture
def reference_data() -> Path:
    """The folder of public data sets, as it was when the tests began."""
    folder = os.environ.get("CONSERVBENCH_DATA")
    if not folder or not (Path(folder) / "deepmd-water").is_dir():
        pytest.skip("needs the public data sets in $CONSERVBENCH_DATA")
    return Path(folder)


@pytest.fixture
def silicon() -> list[Atoms]:
    """Twelve frames of a rattled crystal, whose atoms are bound to their sites about its center by 9 eV/Å^2."""
    frames = []
    for seed in range(12):
        atoms = bulk("Si", "diamond", a=5.43, cubic=True)
        away = np.random.default_rng(seed).normal(scale=0.08, size=atoms.positions.shape)
        atoms.positions += away
        away = away - away.mean(0)
        energy = 4.5 * float(np.square(away).sum())
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=-9.0 * away)
        frames.append(atoms)
    return frames
