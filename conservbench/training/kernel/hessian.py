"""Hessian data of labelled frames: derivatives of their forces along directions, by differences of a calculator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.linalg import null_space

from conservbench.models.ase import import_factory
from conservbench.training.kernel.recipe import Hessian

AGREEMENT = 0.01
"""Of the size of the forces: the calculator must give those of the first frame again, or it is another method."""


def random_directions(frames: Sequence[Atoms], count: int, seed: int) -> list[NDArray[np.float64]]:
    """Of each frame (count, n_atoms, 3) random directions of unit length."""
    rng = np.random.default_rng(seed)
    drawn = [rng.normal(size=(count, len(atoms), 3)) for atoms in frames]
    return [each / np.linalg.norm(each, axis=(1, 2), keepdims=True) for each in drawn]


def internal_directions(frames: Sequence[Atoms]) -> list[NDArray[np.float64]]:
    """Of each frame (n, n_atoms, 3) directions of unit length, normal to each other and to motion as a whole.

    Along them the derivatives are the whole Hessian: translations change no force, and rotations turn it, which the
    descriptor of a molecule knows.
    """
    found = []
    for atoms in frames:
        moves = [np.tile(axis, (len(atoms), 1)) for axis in np.eye(3)]
        if not atoms.pbc.any():
            moves += [np.cross(axis, atoms.positions - atoms.positions.mean(0)) for axis in np.eye(3)]
        rigid = np.array(moves).reshape(len(moves), -1)
        found.append(null_space(rigid).T.reshape(-1, len(atoms), 3))
    return found


def directions_of(frames: Sequence[Atoms], hessian: Hessian) -> list[NDArray[np.float64]]:
    """Of each frame the directions that a recipe asks for.

    Raises:
        ValueError: frames have different numbers of them.
    """
    if hessian.directions:
        return random_directions(frames, hessian.directions, hessian.seed)
    found = internal_directions(frames)
    if len({len(each) for each in found}) > 1:
        raise ValueError("[hessian]: frames have Hessians of different size; give a number of directions")
    return found


def derivatives_of(
    frames: Sequence[Atoms], directions: Sequence[NDArray[np.float64]], hessian: Hessian
) -> list[NDArray[np.float64]]:
    """Of each frame (n_directions, n_atoms, 3), eV/Å^2, derivatives of the forces by central differences.

    Raises:
        ValueError: the calculator gives other forces than the first frame is labelled with.
    """
    factory = import_factory(hessian.factory)

    def forces(atoms: Atoms, move: NDArray[np.float64] | float) -> NDArray[np.float64]:
        moved = Atoms(atoms.numbers, atoms.positions + move, cell=atoms.cell, pbc=atoms.pbc)
        # one that has seen no other structure: labels depend on the structure alone
        moved.calc = factory(**hessian.arguments)
        return np.asarray(moved.get_forces(), dtype=float)

    labelled, again = frames[0].get_forces(), forces(frames[0], 0.0)
    apart = float(np.linalg.norm(again - labelled)) / max(float(np.linalg.norm(labelled)), 1e-3)
    if not apart < AGREEMENT:
        raise ValueError(
            f"[hessian]: {hessian.factory} gives forces that are {apart:.0%} off the labels of the first frame; use "
            "the calculator that labelled it"
        )
    found = []
    for atoms, own in zip(frames, directions, strict=True):
        sides = [[forces(atoms, sign * hessian.step * each) for each in own] for sign in (1.0, -1.0)]
        found.append((np.array(sides[0]) - np.array(sides[1])) / (2.0 * hessian.step))
    return found
