"""Losses of static properties of a crystal: distances of elastic constants, force constants and densities of states.

Each is a function of a model alone, for :func:`conservbench.training.calibrate.calibrate`. They are norms, not squares:
a sum of two then weighs both by how far they are, in their units.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from conservbench.models.base import Tunable
from conservbench.observables.elastic import elastic_constants
from conservbench.observables.force_constants import force_constants, matrix_distance
from conservbench.observables.harmonic_density import harmonic_density
from conservbench.observables.phonons import Crystal, frequencies
from conservbench.state import State, from_atoms
from conservbench.training.calibrate import Loss
from conservbench.units import GIGAPASCAL


def elastic_distance(state: State, reference: Tensor) -> Loss:
    """||C - C_0||_F of the elastic constants, GPa.

    Args:
        state: one crystal, at the cell where it is asked for; a primitive cell is enough.
        reference: (6, 6) C_0 in Mandel's basis, GPa.
    """

    def loss(model: Tunable) -> Tensor:
        found = elastic_constants(model, "gradient", state) / GIGAPASCAL
        return torch.linalg.matrix_norm(found - reference.to(found))

    return loss


def force_constant_distance(crystal: Crystal, reference: Tensor, remainder: float = 0.0) -> Loss:
    """||H - H_0||_F of the whole matrix of force constants of the supercell, eV/Å^2.

    Args:
        crystal: the supercell, and the atoms whose rows say it all.
        reference: (n_primitive, n_supercell, 3, 3) those rows of H_0, without what breaks the crystal's symmetry.
        remainder: the norm of what was left out.
    """
    state, atoms = from_atoms(crystal.supercell), crystal.atoms.tolist()

    def loss(model: Tunable) -> Tensor:
        found = force_constants(model, "gradient", state, atoms)
        return matrix_distance(found, reference.to(found), remainder)

    return loss


def density_distance(crystal: Crystal, reference: Tensor, q: ArrayLike, at: ArrayLike, width: float) -> Loss:
    """||D - D_0|| / ||D_0|| of the harmonic density of states, dimensionless.

    A Gaussian wider than the distance of a band to its target is needed for the one to feel the other; narrow ones make
    minima where one band sits on another's place.

    Args:
        crystal: the supercell, and the atoms whose rows say it all.
        reference: (n_primitive, n_supercell, 3, 3) those rows of the force constants that D_0 is of.
        q: (n_q, 3) mesh of wave vectors over the reciprocal vectors of the primitive cell, without the origin, where
            frequencies have no derivative.
        at: (n_points,) equally spaced frequencies where densities are compared, THz.
        width: standard deviation of the Gaussian of each mode, THz.
    """
    state, atoms = from_atoms(crystal.supercell), crystal.atoms.tolist()

    def density(rows: Tensor) -> Tensor:
        return harmonic_density(frequencies(rows, crystal, q).flatten(), at, width)

    wanted = density(reference)

    def loss(model: Tunable) -> Tensor:
        away = density(force_constants(model, "gradient", state, atoms)) - wanted
        return torch.linalg.vector_norm(away) / torch.linalg.vector_norm(wanted)

    return loss


def together(*losses: Loss) -> Loss:
    """The sum of several."""

    def loss(model: Tunable) -> Tensor:
        return torch.stack([one(model) for one in losses]).sum()

    return loss


def half_mesh(n: int) -> NDArray[np.float64]:
    """(n^3 / 2, 3) wave vectors of an even n x n x n mesh about the origin, one of each q and -q.

    Raises:
        ValueError: n is odd, so that the origin is on the mesh.
    """
    if n % 2:
        raise ValueError(f"the mesh must be even to leave the origin out, got {n}")
    line = (np.arange(n) + 0.5) / n - 0.5
    mesh = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
    return mesh[: len(mesh) // 2]
