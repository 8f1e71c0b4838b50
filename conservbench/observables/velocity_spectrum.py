"""The spectrum of velocities, differentiable: what :mod:`conservbench.observables.vdos` is to numbers, on tensors.

A loss of the vibrational density of a simulation is differentiated through this, back to the velocities and to whatever
they depend on.
"""

from __future__ import annotations

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from conservbench.units import FEMTOSECOND, PICOSECOND


def velocity_autocorrelation(velocities: Tensor, weights: Tensor) -> Tensor:
    """C(t) = sum_i w_i <v_i(s) . v_i(s + t)>, the mean over all origins s that the trajectory has.

    Args:
        velocities: (n_times, ..., n_atoms, 3), equally spaced in time.
        weights: (n_atoms,); the masses, for a density of states.

    Returns:
        (n_times, ...) for lags 0, 1, ..., in units of the weights times those of the velocities squared.

    Raises:
        ValueError: the shapes do not agree.
    """
    if velocities.ndim < 3 or velocities.shape[-2:] != (len(weights), 3) or not len(velocities):
        raise ValueError(f"velocities have shape {tuple(velocities.shape)}, expected (n_times, ..., {len(weights)}, 3)")
    n = len(velocities)
    size = next_fast_len(2 * n, real=True)
    transformed = torch.view_as_real(torch.fft.rfft(velocities, size, dim=0))
    power = (transformed.square().sum((-1, -2)) * weights).sum(-1)
    origins = torch.arange(n, 0, -1, device=power.device)
    return torch.fft.irfft(power, size, dim=0)[:n] / _upright(origins, power)


def vibrational_density(vacf: Tensor, sampling_interval_fs: float) -> tuple[Tensor, Tensor]:
    """Density of states by frequency: lines are 1/(n dt) wide, with half a Hann window over the lags.

    Args:
        vacf: (n_lags, ...) from lag 0 on.
        sampling_interval_fs: dt between lags, fs.

    Returns:
        Frequencies (n_lags + 1,) in THz from 0 to 1/(2 dt), and densities (n_lags + 1, ...) in 1/THz whose integral by
        the trapezoidal rule is 1; NaN where all velocities are zero.
    """
    n = len(vacf)
    interval = sampling_interval_fs * FEMTOSECOND / PICOSECOND
    lags = torch.arange(n, dtype=vacf.dtype, device=vacf.device)
    frequencies = torch.arange(n + 1, dtype=vacf.dtype, device=vacf.device) / (2 * n * interval)
    damped = vacf * _upright(torch.cos(0.5 * torch.pi * lags / n).square(), vacf)
    # the even sequence of period 2 n whose half this is
    even = torch.cat((damped, torch.zeros_like(damped[:1]), damped[1:].flip(0)))
    return frequencies, 2.0 * interval * torch.fft.rfft(even, dim=0).real / vacf[0]


def _upright(values: Tensor, beside: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (beside.ndim - 1))
