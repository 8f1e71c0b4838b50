"""A miniature data set in the mlearn format, labelled with a Lennard-Jones crystal, and a recipe for it."""

import hashlib
import json

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones

from conservbench.models.mace import Architecture
from conservbench.training import data
from conservbench.training.data import DataFile, DataSet
from conservbench.training.recipe import Recipe, Stage


def labelled_entry(seed: int) -> dict:
    atoms = bulk("Si", "fcc", a=4.4, cubic=True)
    atoms.rattle(0.1, seed=seed)
    atoms.calc = LennardJones(sigma=2.7, epsilon=0.3, rc=5.0, smooth=True)
    sites = [
        {"species": [{"element": "Si", "occu": 1}], "xyz": position.tolist()} for position in atoms.get_positions()
    ]
    return {
        "structure": {"lattice": {"matrix": atoms.cell.array.tolist()}, "sites": sites},
        "group": "even" if seed % 2 == 0 else "odd",
        "outputs": {"energy": float(atoms.get_potential_energy()), "forces": atoms.get_forces().tolist()},
    }


@pytest.fixture
def miniature(tmp_path, monkeypatch) -> DataSet:
    files = {}
    for split, seeds in {"train": range(10), "test": range(10, 14)}.items():
        text = json.dumps([labelled_entry(seed) for seed in seeds]).encode()
        (tmp_path / f"{split}.json").write_bytes(text)
        files[split] = DataFile(f"{split}.json", "http://127.0.0.1:9/none.json", hashlib.sha256(text).hexdigest())
    entry = DataSet("miniature", "", "mlearn", "", "", "", "", "", files)
    monkeypatch.setattr(data, "catalogue", lambda: {"miniature": entry})
    monkeypatch.setenv(data.DATA_VARIABLE, str(tmp_path))
    return entry


@pytest.fixture
def recipe() -> Recipe:
    network = Architecture(
        cutoff=4.0, channels=4, max_ell=1, correlation=2, radial_mlp=(8,), n_bessel=4, envelope=5, direct_hidden=4
    )
    stages = (
        Stage(epochs=3, learning_rate=0.02, energy=1.0, gradient=0.0, direct=1.0),
        Stage(epochs=2, learning_rate=0.01, energy=1.0, gradient=1.0, direct=1.0),
    )
    return Recipe(
        name="mini", data="miniature", validation=2, batch=4, ema=0.9, clip=10.0, seed=3, network=network, stages=stages
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
