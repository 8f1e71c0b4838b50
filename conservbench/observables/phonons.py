"""Phonons at any wave vector, from force constants in a supercell.

D_ij(q) = (m_i m_j)^-1/2 sum_J Phi(i, J) <e^{2 pi i q . s}>, where J runs over the images of atom j in the supercell and
the average is over the shortest vectors s from i to J, of which a supercell of finite size may have several. D is
Hermitian, and its eigenvalues are the squares of the angular frequencies.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from ase import Atoms
from ase.build import make_supercell
from ase.geometry import minkowski_reduce
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from conservbench.units import PICOSECOND

if TYPE_CHECKING:
    from phonopy import Phonopy

_SAME: Final = 1e-4
"""Å, within which two distances are equal and two atoms at one site."""


@dataclass(frozen=True)
class Crystal:
    """A primitive cell, a supercell of it, and how they lie in one another.

    Attributes:
        primitive: the cell whose modes are wanted.
        supercell: the cell whose force constants are known, in any order of its atoms.
        matrix: (3, 3) whole numbers: the supercell's vectors are ``matrix`` times the primitive ones.
        atoms: (n_primitive,) atoms of the supercell that lie in the primitive cell: those whose rows are needed.
        kind: (n_supercell,) the primitive atom that each atom of the supercell is an image of.
        vectors: (n_vectors, 3) shortest vectors between atoms in the supercell, over the primitive cell's vectors.
        pairs: (n_vectors, 2) primitive atom i and atom J of the supercell of each of them.
        weights: (n_vectors,) one over the number of shortest vectors of the pair.
    """

    primitive: Atoms
    supercell: Atoms
    matrix: NDArray[np.int64]
    atoms: NDArray[np.int64]
    kind: NDArray[np.int64]
    vectors: NDArray[np.float64]
    pairs: NDArray[np.int64]
    weights: NDArray[np.float64]


def repeated(primitive: Atoms, repeats: ArrayLike) -> Crystal:
    """A crystal by the repeats of its primitive cell: three whole numbers, or a (3, 3) matrix of them."""
    given = np.asarray(repeats, dtype=np.int64)
    return crystal(primitive, make_supercell(primitive, np.diag(given) if given.ndim == 1 else given))


def crystal(primitive: Atoms, supercell: Atoms) -> Crystal:
    """A crystal by its two cells.

    Raises:
        ValueError: the supercell is not made of copies of the primitive cell.
    """
    cell = primitive.cell.array
    exact = supercell.cell.array @ np.linalg.inv(cell)
    matrix = np.rint(exact).astype(np.int64)
    if np.abs(exact - matrix).max() > _SAME:
        raise ValueError("the vectors of the supercell are not whole multiples of those of the primitive cell")
    between = supercell.positions[None] - primitive.positions[:, None]
    fractions = between @ np.linalg.inv(cell)
    off = np.linalg.norm((fractions - np.rint(fractions)) @ cell, axis=-1)
    off[primitive.numbers[:, None] != supercell.numbers[None]] = np.inf
    kind = off.argmin(0)
    copies = round(abs(np.linalg.det(matrix)))
    if off.min(0).max() > _SAME or not (np.bincount(kind, minlength=len(primitive)) == copies).all():
        raise ValueError("the atoms of the supercell are not images of those of the primitive cell")
    homes = _at(supercell, primitive.positions)
    vectors, pairs, weights = _shortest(cell, supercell, homes)
    return Crystal(primitive, supercell, matrix, homes, kind, vectors, pairs, weights)


def dynamical_matrices(force_constants: Tensor, crystal: Crystal, q: ArrayLike) -> Tensor:
    """Dynamical matrices, differentiable in the force constants.

    Args:
        force_constants: (n_primitive, n_supercell, 3, 3), eV/Å^2, of the atoms ``crystal.atoms``.
        crystal: the crystal.
        q: (n_q, 3) wave vectors over the reciprocal vectors of the primitive cell (without 2 pi).

    Returns:
        (n_q, 3 n_primitive, 3 n_primitive), complex and Hermitian, eV/(amu Å^2).

    Raises:
        ValueError: the force constants have another shape.
    """
    n_primitive, n_supercell = len(crystal.primitive), len(crystal.supercell)
    if force_constants.shape != (n_primitive, n_supercell, 3, 3):
        raise ValueError(
            f"force constants have shape {tuple(force_constants.shape)}, expected {(n_primitive, n_supercell, 3, 3)}"
        )
    device = force_constants.device
    vectors, weights, pairs, kind = (
        torch.as_tensor(array, device=device)
        for array in (crystal.vectors, crystal.weights, crystal.pairs, crystal.kind)
    )
    points = torch.tensor(np.asarray(q, dtype=float), device=device)
    phases = torch.exp(2j * torch.pi * (points @ vectors.T)) * weights
    terms = phases[:, :, None, None] * force_constants[pairs[:, 0], pairs[:, 1]]
    where = pairs[:, 0] * n_primitive + kind[pairs[:, 1]]
    sums = terms.new_zeros((len(points), n_primitive**2, 3, 3)).index_add(1, where, terms)
    blocks = sums.reshape(len(points), n_primitive, n_primitive, 3, 3)
    roots = torch.as_tensor(np.sqrt(crystal.primitive.get_masses()), device=device)
    blocks = blocks / torch.outer(roots, roots)[:, :, None, None]
    matrices = blocks.transpose(2, 3).reshape(len(points), 3 * n_primitive, 3 * n_primitive)
    return 0.5 * (matrices + matrices.mH)


def frequencies(force_constants: Tensor, crystal: Crystal, q: ArrayLike) -> Tensor:
    """Phonon frequencies, differentiable in the force constants.

    The derivative of a single one of several equal frequencies is not defined; that of a sum over all of them is, and
    comes out right. At zero frequency the root has an infinite slope: take the squares there
    (:func:`dynamical_matrices`).

    Args:
        force_constants: (n_primitive, n_supercell, 3, 3), eV/Å^2, of the atoms ``crystal.atoms``.
        crystal: the crystal.
        q: (n_q, 3) wave vectors over the reciprocal vectors of the primitive cell (without 2 pi).

    Returns:
        (n_q, 3 n_primitive), THz, ascending, imaginary ones as negative numbers.
    """
    squares = torch.linalg.eigvalsh(dynamical_matrices(force_constants, crystal, q))
    return squares.sign() * squares.abs().sqrt() / (2 * torch.pi) * PICOSECOND


@dataclass(frozen=True)
class BandPath:
    """Wave vectors along lines of the Brillouin zone.

    Attributes:
        points: (n_q, 3), over the reciprocal vectors of the primitive cell.
        distance: (n_q,) length along the path, 1/Å (with 2 pi); it does not grow where the path jumps.
        labels: index and name of the special points.
    """

    points: NDArray[np.float64]
    distance: NDArray[np.float64]
    labels: tuple[tuple[int, str], ...]


def band_path(primitive: Atoms, path: str | None = None, *, n_points: int = 100) -> BandPath:
    """A path through the special points of the crystal's lattice, named as in ASE.

    Args:
        primitive: the primitive cell.
        path: such as ``"GXWKGL"``, a comma where it jumps; that of the lattice if not given (Setyawan and Curtarolo,
            Comput. Mater. Sci. 49, 299, 2010).
        n_points: of the whole path, about.
    """
    found = primitive.cell.bandpath(path, npoints=n_points)
    points = np.asarray(found.kpts, dtype=float)
    labels = [
        (index, name)
        for index, point in enumerate(points)
        for name, place in found.special_points.items()
        if np.abs(point - place).max() < _SAME
    ]
    return BandPath(points, np.asarray(found.get_linear_kpoint_axis()[0], dtype=float), tuple(labels))


def phonopy_of(force_constants: ArrayLike, crystal: Crystal) -> Phonopy:
    """The crystal as a Phonopy object, for what it draws and integrates.

    Args:
        force_constants: (n_primitive, n_supercell, 3, 3), eV/Å^2, of the atoms ``crystal.atoms``.
        crystal: the crystal.
    """
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    cell, ours = crystal.primitive, crystal.supercell
    unit = PhonopyAtoms(numbers=cell.numbers, cell=cell.cell.array, positions=cell.positions, masses=cell.get_masses())
    made = Phonopy(unit, supercell_matrix=crystal.matrix.T, primitive_matrix=np.eye(3), log_level=0)
    theirs = np.asarray(made.supercell.positions)
    rows = np.asarray(force_constants, dtype=float)
    # the same vectors from the same primitive atom
    orders = [
        _at(ours, ours.positions[atom] + theirs - theirs[first])
        for atom, first in zip(crystal.atoms, made.primitive.p2s_map, strict=True)
    ]
    made.force_constants = np.stack([row[order] for row, order in zip(rows, orders, strict=True)])
    return made


def _at(atoms: Atoms, places: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n,) the atoms that are at these places (n, 3), or at periodic images of them."""
    cell = atoms.cell.array
    fractions = (atoms.positions[None] - places[:, None]) @ np.linalg.inv(cell)
    return np.linalg.norm((fractions - np.rint(fractions)) @ cell, axis=-1).argmin(1)


def _shortest(
    cell: NDArray[np.float64], supercell: Atoms, homes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Vectors, pairs and weights of :class:`Crystal`."""
    # in a reduced cell the nearest images are among the next ones
    reduced, _ = minkowski_reduce(supercell.cell.array)
    between = supercell.positions[None] - supercell.positions[homes][:, None]
    fractions = between @ np.linalg.inv(reduced)
    images = np.array(list(product((-1, 0, 1), repeat=3)))
    vectors = ((fractions - np.rint(fractions))[:, :, None] + images) @ reduced
    lengths = np.linalg.norm(vectors, axis=-1)
    near = lengths < lengths.min(-1, keepdims=True) + _SAME
    primitive, atom, _ = np.nonzero(near)
    weights = 1.0 / near.sum(-1)[primitive, atom]
    return vectors[near] @ np.linalg.inv(cell), np.stack((primitive, atom), axis=1), weights
