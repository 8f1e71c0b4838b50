"""Mean squared displacement and the diffusion coefficient that its slope gives (Einstein). No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import irfft, next_fast_len, rfft

from conservbench.statistics import slopes


def mean_squared_displacement(positions: ArrayLike, masses: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """<|r_i(s + t) - r_i(s)|^2>, the mean over atoms and over all origins s that the trajectory has.

    |r(s + t) - r(s)|^2 = |r(s + t)|^2 + |r(s)|^2 - 2 r(s + t) . r(s): the first two are running sums, the last is an
    autocorrelation by FFT. The motion of the centre of mass is taken out: N free walkers keep 1 - 1/N of their
    diffusion.

    Args:
        positions: (n_times, n_atoms, 3) in Å, equally spaced in time, never wrapped.
        masses: (n_atoms,) that the centre is weighted by; all equal if not told.

    Returns:
        (n_times,) for lags 0, 1, ..., Å^2; all NaN for a trajectory with a position that is not finite.

    Raises:
        ValueError: positions have another shape.
    """
    r = np.asarray(positions, dtype=float)
    if r.ndim != 3 or 0 in r.shape:
        raise ValueError(f"positions have shape {r.shape}, expected (n_times, n_atoms, 3)")
    if not np.isfinite(r).all():
        return np.full(len(r), np.nan)
    return squared_displacement(r - np.average(r, axis=1, weights=masses)[:, None])


def squared_displacement(positions: ArrayLike) -> NDArray[np.float64]:
    """<|r_i(s + t) - r_i(s)|^2> of positions as they are, such as those of some atoms about the centre of all.

    Args:
        positions: (n_times, n_atoms, 3) in Å, equally spaced in time, never wrapped.

    Returns:
        (n_times,) for lags 0, 1, ..., Å^2; all NaN for a trajectory with a position that is not finite.

    Raises:
        ValueError: positions have another shape.
    """
    r = np.asarray(positions, dtype=float)
    if r.ndim != 3 or r.shape[2] != 3 or 0 in r.shape:
        raise ValueError(f"positions have shape {r.shape}, expected (n_times, n_atoms, 3)")
    n = len(r)
    if not np.isfinite(r).all():
        return np.full(n, np.nan)
    # about each atom's own mean, so that large coordinates cost no digits
    r = r - r.mean(0)
    size = next_fast_len(2 * n, real=True)
    power = np.zeros(size // 2 + 1)
    # an atom at a time, so that memory holds one transform
    for atom in range(r.shape[1]):
        power += (np.abs(rfft(r[:, atom], size, axis=0)) ** 2).sum(1)
    products = irfft(power, size)[:n]
    # at lag k the origins are the first n - k times, and they end at the last n - k
    reached = np.cumsum((r**2).sum((1, 2)))[::-1]
    left = np.cumsum((r**2).sum((1, 2))[::-1])[::-1]
    found = (reached + left - 2.0 * products) / (np.arange(n, 0, -1) * r.shape[1])
    found[0] = 0.0
    return found


def diffusion(times_ps: ArrayLike, msd: ArrayLike, window: tuple[float, float]) -> NDArray[np.float64]:
    """Diffusion coefficient of each replica, a sixth of the least-squares slope of its mean squared displacement.

    Args:
        times_ps: (n_times,) lags, ps.
        msd: (n_replicas, n_times), Å^2.
        window: first and last lag of the fit, ps; after the ballistic part, and short of the noisy long lags.

    Returns:
        (n_replicas,) Å^2/ps; NaN for a replica with a value that is not finite in the window.

    Raises:
        ValueError: fewer than two lags are in the window.
    """
    times = np.asarray(times_ps, dtype=float)
    fitted = (times >= window[0]) & (times <= window[1])
    if fitted.sum() < 2:
        raise ValueError(f"the window {window} ps has {fitted.sum()} lags, a slope needs two or more")
    return slopes(times[fitted], np.asarray(msd, dtype=float)[:, fitted]) / 6.0
