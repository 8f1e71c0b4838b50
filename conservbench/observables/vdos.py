"""Velocity autocorrelation and its spectrum, the vibrational density of states. No torch.

With masses for weights, C(t) = sum_i m_i <v_i(0) . v_i(t)> starts at twice the kinetic energy, and its Fourier
transform says how that energy is spread over frequencies: in a harmonic crystal, the density of its normal modes
(Dickey and Paskin, Phys. Rev. 188, 1407, 1969).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import irfft, next_fast_len, rfft

from conservbench.units import FEMTOSECOND, PICOSECOND


def velocity_autocorrelation(velocities: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """C(t) = sum_i w_i <v_i(s) . v_i(s + t)>, the mean over all origins s that the trajectory has.

    Each lag is divided by its own number of origins (unbiased); the sums are those of the Wiener-Khinchin theorem, on
    a trajectory padded with zeros so that its ends do not meet.

    Args:
        velocities: (n_times, n_atoms, 3), equally spaced in time.
        weights: (n_atoms,); the masses, for a density of states.

    Returns:
        (n_times,) for lags 0, 1, ..., in units of the weights times those of the velocities squared.

    Raises:
        ValueError: the shapes do not agree.
    """
    v, w = np.asarray(velocities, dtype=float), np.asarray(weights, dtype=float)
    if v.ndim != 3 or v.shape[1:] != (len(w), 3) or not len(v):
        raise ValueError(f"velocities have shape {v.shape}, expected (n_times, {len(w)}, 3)")
    n = len(v)
    # twice the length is enough for no lag to wrap round
    size = next_fast_len(2 * n, real=True)
    power = np.zeros(size // 2 + 1)
    # an atom at a time, so that memory holds one transform
    for atom, weight in enumerate(w):
        power += weight * (np.abs(rfft(v[:, atom], size, axis=0)) ** 2).sum(1)
    return irfft(power, size)[:n] / np.arange(n, 0, -1)


def vibrational_density(
    vacf: ArrayLike, sampling_interval_fs: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Density of states by frequency: the cosine transform of a velocity autocorrelation.

    The lags are weighted by half a Hann window, cos^2 (pi k / 2 n), which ends the noisy ones smoothly: a line is then
    1/(n dt) wide at half its height and has no ripples. Cut the lags to choose that resolution. The density may dip
    below zero by what the lags are in error.

    Args:
        vacf: (n_lags,) from lag 0 on.
        sampling_interval_fs: dt between lags, fs.

    Returns:
        Frequencies (n_lags + 1,) in THz from 0 to 1/(2 dt), and densities (n_lags + 1,) in 1/THz whose integral by the
        trapezoidal rule is 1; NaN where the first lag is not positive.
    """
    c = np.asarray(vacf, dtype=float)
    n = len(c)
    interval = sampling_interval_fs * FEMTOSECOND / PICOSECOND
    frequencies = np.arange(n + 1) / (2 * n * interval)
    if not (c[0] > 0 and np.isfinite(c).all()):
        return frequencies, np.full(n + 1, np.nan)
    damped = c * np.cos(0.5 * np.pi * np.arange(n) / n) ** 2
    # the even sequence of period 2 n whose half this is
    even = np.concatenate((damped, [0.0], damped[:0:-1]))
    return frequencies, 2.0 * interval * rfft(even).real / c[0]
