"""Work of a force around closed loops, and along them the slope of the energy.

A force is conservative if and only if its work W = closed integral of f . dr vanishes for every loop (Bigi, Langer and
Ceriotti, arXiv 2412.11569). The loops here are thermal: each atom of a snapshot moves by a sum of a few Fourier modes.
On a smooth closed path the trapezoid rule over equal steps converges faster than any power of the number of images
(Trefethen and Weideman, SIAM Review 56, 385, 2014), so that W is exact to rounding at a few dozen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from conservbench.models.base import Model
from conservbench.scheme import Channel
from conservbench.state import State, select


@dataclass(frozen=True)
class Loop:
    """Closed path u(s) = sum over m = 1, 2, ... of cosine_m cos(2 pi m s) + sine_m sin(2 pi m s), s in [0, 1).

    Attributes:
        cosine: (n_modes, n_atoms, 3), Å.
        sine: (n_modes, n_atoms, 3), Å.
    """

    cosine: NDArray[np.float64]
    sine: NDArray[np.float64]

    def displacements(self, n_images: int) -> NDArray[np.float64]:
        """(n_images, n_atoms, 3) u(s) in Å at s = 0, 1/n, ..., (n - 1)/n."""
        phase = self._phase(n_images)
        return self._sum(np.cos(phase), self.cosine) + self._sum(np.sin(phase), self.sine)

    def tangents(self, n_images: int) -> NDArray[np.float64]:
        """(n_images, n_atoms, 3) du/ds in Å at the same images."""
        phase = self._phase(n_images)
        speed = 2.0 * np.pi * self._modes
        return self._sum(speed * np.cos(phase), self.sine) - self._sum(speed * np.sin(phase), self.cosine)

    @property
    def _modes(self) -> NDArray[np.float64]:
        return np.arange(1.0, len(self.cosine) + 1.0)

    def _phase(self, n_images: int) -> NDArray[np.float64]:
        return 2.0 * np.pi * np.outer(np.arange(n_images) / n_images, self._modes)

    @staticmethod
    def _sum(weights: NDArray[np.float64], amplitudes: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.einsum("sm,mia->sia", weights, amplitudes)


def thermal_loop(rng: np.random.Generator, n_atoms: int, n_modes: int, amplitude: float) -> Loop:
    """A random loop without net translation.

    Amplitudes are normal with weight 1/m for mode m, scaled so that the displacement of an atom has the root mean
    square ``amplitude`` (Å) over atoms and loop.
    """
    shape = (n_modes, n_atoms, 3)
    weights = 1.0 / np.arange(1, n_modes + 1)[:, None, None]
    cosine, sine = (rng.normal(size=shape) * weights for _ in range(2))
    cosine, sine = (part - part.mean(1, keepdims=True) for part in (cosine, sine))
    mean_square = 0.5 * ((cosine**2).sum() + (sine**2).sum()) / n_atoms
    scale = amplitude / np.sqrt(mean_square)
    return Loop(cosine * scale, sine * scale)


@dataclass(frozen=True)
class Traverse:
    """What a model says along a loop.

    Attributes:
        power: (n_images,) f . du/ds in eV; its mean is the work around the loop.
        energy: (n_images,) eV, or None for a model without an energy.
    """

    power: NDArray[np.float64]
    energy: NDArray[np.float64] | None


def traverse(
    model: Model, channel: Channel, state: State, loop: Loop, n_images: int, *, atoms_per_batch: int
) -> Traverse:
    """Evaluate a model along a loop around a system.

    Args:
        model: any model.
        channel: the force that does the work.
        state: one system, the centre of the loop.
        loop: displacements of its atoms.
        n_images: equally spaced images.
        atoms_per_batch: atoms evaluated at once.
    """
    moves = torch.as_tensor(loop.displacements(n_images), device=state.positions.device)
    forces, energies = [], []
    for chunk in moves.split(max(1, atoms_per_batch // state.n_atoms)):
        batch = select(state, [0] * len(chunk))
        prediction = model.evaluate(batch.replace(positions=batch.positions + chunk.reshape(-1, 3)), forces=(channel,))
        forces.append(prediction.forces[channel].reshape(chunk.shape).double().cpu().numpy())
        if prediction.energy is not None:
            energies.append(prediction.energy.double().cpu().numpy())
    power = np.einsum("sia,sia->s", np.concatenate(forces), loop.tangents(n_images))
    return Traverse(power, np.concatenate(energies) if energies else None)


def periodic_slope(values: ArrayLike) -> NDArray[np.float64]:
    """Derivative d/ds of a function of period 1 from equally spaced samples (n,), spectrally accurate."""
    samples = np.asarray(values, dtype=float)
    n = len(samples)
    spectrum = np.fft.rfft(samples - samples.mean()) * 2j * np.pi * np.arange(n // 2 + 1)
    if n % 2 == 0:
        # the Nyquist mode has no defined sign of slope
        spectrum[-1] = 0.0
    return np.fft.irfft(spectrum, n)
