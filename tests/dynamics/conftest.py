"""A harmonic crystal of eight atoms, with known answers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.models.toy import Field, ToyModel
from conservbench.state import State, from_atoms

STIFFNESS = 8.0


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def sites() -> Atoms:
    return bulk("Si", cubic=True, a=5.431)


@pytest.fixture
def toy(sites: Atoms) -> Callable[..., ToyModel]:
    """Build a field about the crystal."""

    def build(name: str, curl: float = 0.0) -> ToyModel:
        return ToyModel(Field(name, STIFFNESS, curl), sites)

    return build


@pytest.fixture
def crystal(sites: Atoms) -> Callable[[int], State]:
    """Replicas of the crystal at 600 K: displacements and momenta with equipartition."""

    def build(n_replicas: int) -> State:
        noise = Noise(11)
        start = from_atoms([sites] * n_replicas)
        momenta = draw_momenta(start, 600.0, noise)
        # with masses and stiffness equal, thermal displacements are thermal momenta in other units
        displacements = draw_momenta(start, 600.0, noise) / np.sqrt(STIFFNESS * float(start.masses[0]))
        return start.replace(positions=start.positions + displacements, momenta=momenta)

    return build
