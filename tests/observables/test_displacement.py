"""The differentiable mean squared displacement: the numbers of the plain one, and derivatives by differences."""

import numpy as np
import pytest
import torch

from conservbench.observables import msd
from conservbench.observables.displacement import mean_squared_displacement

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("masses", [None, [1.0, 12.0, 16.0, 28.0]])
def test_it_is_that_of_arrays(masses):
    r = 1e3 + RANDOM.normal(size=(23, 4, 3)).cumsum(0)
    weights = None if masses is None else np.array(masses)
    found = mean_squared_displacement(torch.tensor(r), None if masses is None else torch.tensor(weights))
    np.testing.assert_allclose(found, msd.mean_squared_displacement(r, weights), rtol=1e-10, atol=1e-10)


def test_systems_stand_side_by_side():
    r = torch.tensor(RANDOM.normal(size=(15, 2, 4, 3)))
    together = mean_squared_displacement(r)
    for index in range(2):
        torch.testing.assert_close(together[:, index], mean_squared_displacement(r[:, index]))


def test_it_can_be_differentiated():
    r = torch.tensor(RANDOM.normal(size=(6, 3, 3))).requires_grad_(True)
    assert torch.autograd.gradcheck(mean_squared_displacement, r)


def test_positions_must_be_those_of_atoms_in_space():
    with pytest.raises(ValueError, match=r"\(5, 2, 2\), expected \(n_times, \.\.\., n_atoms, 3\)"):
        mean_squared_displacement(torch.zeros(5, 2, 2))
