"""A model as an ASE calculator."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from conservbench.models.ase import ASEModel
from conservbench.models.base import UnsupportedError
from conservbench.models.calculator import ForceCalculator


@pytest.fixture
def copper():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def test_there_and_back_is_the_same_force(copper):
    copper.calc = EMT()
    expected = copper.get_forces()
    copper.calc = ForceCalculator(ASEModel(EMT()), "gradient")
    np.testing.assert_allclose(copper.get_forces(), expected, atol=1e-12)
    copper.rattle(0.1, seed=2)
    moved = copper.get_forces()
    assert np.abs(moved - expected).max() > 0.1
    copper.calc = EMT()
    np.testing.assert_allclose(moved, copper.get_forces(), atol=1e-12)


def test_a_channel_that_the_model_lacks_is_refused(copper):
    copper.calc = ForceCalculator(ASEModel(EMT()), "direct")
    with pytest.raises(UnsupportedError, match="no direct forces"):
        copper.get_forces()
