"""What is read from a radial distribution function g(r): how far it is from another, and where its first peak is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.signal import find_peaks

_PROMINENCE = 0.25
"""Of the highest value: how far g must fall on both sides of a maximum that is a peak and no noise."""

_TOP = 0.65
"""Of a peak's height: the part above it is what a parabola is laid through."""

_LEAST = 1e-3
"""Weight of a bin below that part, where a peak has fewer than three above."""


def rdf_distance(g: ArrayLike, reference: ArrayLike) -> float:
    """Sum (g - g_ref)^2 / sum g_ref^2 over the bins (n_bins,): 0 for the same g(r), 1 for none at all.

    The distance that Gangan et al., arXiv 2409.13844, fit by.

    Raises:
        ValueError: the two have different shapes, or the reference is zero everywhere.
    """
    found, wanted = np.asarray(g, dtype=float), np.asarray(reference, dtype=float)
    if found.shape != wanted.shape:
        raise ValueError(f"g has shape {found.shape} and its reference {wanted.shape}")
    if not (wanted != 0).any():
        raise ValueError("the reference g is zero everywhere")
    return float(((found - wanted) ** 2).sum() / (wanted**2).sum())


def first_peak(r: ArrayLike, g: ArrayLike) -> float:
    """Position of the first peak in Å, between the bins.

    The first maximum from which g falls by a quarter of its highest value on both sides. Its place is the apex of the
    least-squares parabola through the bins about it that are higher than two thirds of it (0.65), weighted by how much
    higher: noise in single bins averages out. Where there are fewer than three such bins, the parabola goes through
    three.

    Args:
        r: (n_bins,) equally spaced middles of the bins, Å.
        g: (n_bins,).

    Returns:
        Å; NaN where g has no peak, or a value that is not finite.

    Raises:
        ValueError: the two have different shapes.
    """
    x, y = np.asarray(r, dtype=float), np.asarray(g, dtype=float)
    if x.shape != y.shape:
        raise ValueError(f"r has shape {x.shape} and g {y.shape}")
    if len(y) < 3 or not np.isfinite(y).all():
        return float("nan")
    # smoothed to find the peak, not to place it; zeros beyond the ends, so that a peak at an end is one
    smooth = np.convolve(np.pad(y, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    peaks, _ = find_peaks(np.pad(smooth, 1), prominence=_PROMINENCE * smooth.max())
    if not len(peaks):
        return float("nan")
    top = int(peaks[0]) - 1
    low = smooth < _TOP * smooth[top]
    first = int(np.flatnonzero(low[:top])[-1]) + 1 if low[:top].any() else 0
    last = top + int(np.argmax(low[top:])) - 1 if low[top:].any() else len(y) - 1
    centre = min(max(top, 1), len(y) - 2)
    part = slice(min(first, centre - 1), max(last, centre + 1) + 1)
    offset, middle = x[part] - x[top], y[part]
    # weights that start from zero, so that a bin that comes to the part does not make the apex jump
    weights = np.sqrt(np.maximum(smooth[part] / smooth[top] - _TOP, _LEAST))
    bend, slope, _ = np.polyfit(offset, middle, 2, w=weights)
    if not bend < 0:
        return float(x[top])
    return float(x[top] + np.clip(-slope / (2.0 * bend), offset[0], offset[-1]))
