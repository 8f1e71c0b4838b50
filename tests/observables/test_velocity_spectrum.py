"""The differentiable spectrum: the same numbers as the one without gradients, and derivatives by differences."""

import numpy as np
import pytest
import torch

from conservbench.observables import vdos
from conservbench.observables.velocity_spectrum import velocity_autocorrelation, vibrational_density

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("n_times", [1, 2, 23, 50])
def test_it_is_that_of_arrays(n_times):
    v, w = RANDOM.normal(size=(n_times, 4, 3)), RANDOM.random(4)
    vacf = velocity_autocorrelation(torch.tensor(v), torch.tensor(w))
    np.testing.assert_allclose(vacf, vdos.velocity_autocorrelation(v, w), atol=1e-13)
    expected = vdos.vibrational_density(vacf.numpy(), 2.0)
    for ours, theirs in zip(vibrational_density(vacf, 2.0), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-13)


def test_systems_stand_side_by_side():
    v, w = torch.tensor(RANDOM.normal(size=(15, 2, 4, 3))), torch.tensor(RANDOM.random(4))
    together = vibrational_density(velocity_autocorrelation(v, w), 1.0)[1]
    for index in range(2):
        alone = vibrational_density(velocity_autocorrelation(v[:, index], w), 1.0)[1]
        torch.testing.assert_close(together[:, index], alone)


def test_it_can_be_differentiated():
    w = torch.tensor(RANDOM.random(2))

    def density(velocities):
        return vibrational_density(velocity_autocorrelation(velocities, w), 2.0)[1]

    assert torch.autograd.gradcheck(density, torch.tensor(RANDOM.normal(size=(9, 2, 3))).requires_grad_(True))


def test_the_gradient_leads_an_oscillator_to_the_frequency_asked_for():
    """Newton's steps on the mean frequency of the spectrum: a line at 10 THz becomes one at 12."""
    times = torch.arange(2000, dtype=torch.float64)[:, None, None] * 1e-3
    along = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    frequency = torch.tensor(10.0, dtype=torch.float64)
    for _ in range(4):
        frequency = frequency.detach().requires_grad_(True)
        velocities = torch.cos(2 * torch.pi * frequency * times) * along
        f, density = vibrational_density(velocity_autocorrelation(velocities, torch.ones(1).double()), 1.0)
        near = (f > 5) & (f < 20)
        mean = (f * density)[near].sum() / density[near].sum()
        (slope,) = torch.autograd.grad(mean, frequency)
        frequency = frequency - (mean - 12.0) / slope
    # a line of 0.5 THz, cut at its tails
    assert frequency.item() == pytest.approx(12.0, abs=0.05)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(5, 2, 3\), expected \(n_times, \.\.\., 3, 3\)"):
        velocity_autocorrelation(torch.zeros(5, 2, 3), torch.ones(3))
