"""The density of states of modes: lines, their shares, a crystal's, and derivatives where modes coincide."""

import numpy as np
import pytest
import torch
from ase.build import bulk

from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.harmonic_density import harmonic_density
from conservbench.observables.normal_modes import normal_modes
from conservbench.state import from_atoms

AT = np.linspace(0.0, 25.0, 501)


def test_lines_are_gaussians_with_equal_shares():
    frequencies = torch.tensor([[5.0, 5.0, 15.0, 15.0], [10.0, 10.0, 10.0, 10.0]], dtype=torch.float64)
    density = harmonic_density(frequencies, AT, 0.5).numpy()
    np.testing.assert_allclose(np.trapezoid(density, AT), 1.0, rtol=1e-12)
    peak = 1 / (np.sqrt(2 * np.pi) * 0.5)
    assert density[0, 100] == pytest.approx(0.5 * peak, rel=1e-12)
    assert density[1, 200] == pytest.approx(peak, rel=1e-12)
    assert density[1, 210] == pytest.approx(peak * np.exp(-0.5), rel=1e-12)


def test_that_of_a_crystal_has_the_mean_of_its_modes():
    frequencies, _ = normal_modes(StillingerWeber(), "gradient", from_atoms(bulk("Si", a=5.431, cubic=True)))
    density = harmonic_density(frequencies, AT, 0.3).numpy()
    assert np.trapezoid(density * AT, AT) == pytest.approx(frequencies.mean().item(), rel=1e-6)


def test_it_can_be_differentiated_where_modes_coincide():
    """The eigenvalues of a matrix with a threefold one, moved in a direction that splits it."""
    start = torch.diag(torch.tensor([1.0, 4.0, 4.0, 4.0], dtype=torch.float64))
    torch.manual_seed(0)
    direction = torch.randn(4, 4, dtype=torch.float64)
    direction = direction + direction.T

    def density(step):
        return harmonic_density(torch.linalg.eigvalsh(start + step * direction).sqrt(), [1.0, 1.8, 2.3], 0.5)

    assert torch.autograd.gradcheck(density, torch.zeros((), dtype=torch.float64, requires_grad=True))


def test_the_width_must_be_positive():
    with pytest.raises(ValueError, match="width"):
        harmonic_density(torch.ones(3), AT, 0.0)
