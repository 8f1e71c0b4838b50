"""A crystal at rest: the lattice constant of a cubic one, the cell and sites of any other.

What is free of a crystal is what its space group leaves free: one length in diamond, two lengths and the height of one
sublattice over the other in wurtzite. It is at rest where what pulls on these vanishes, by stress and forces alone: so
it is found for forces too that have no energy.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from scipy.optimize import brentq, root

from conservbench.models.base import InvalidPredictionError, Model, UnsupportedError
from conservbench.references.symmetry import Operations, operations
from conservbench.scheme import Channel
from conservbench.state import from_atoms
from conservbench.units import PERCENT

_WIDEST: Final = 0.2
"""Relative change of the lattice constant up to which the zero is looked for."""

_STEPS: Final = 10
"""Looks on the way there, on either side."""

_REST: Final = 1e-4
"""eV by strain an atom, and eV/Å, that may be left: some 1e-5 of a length, and what single precision can tell."""

_SEARCH: Final = {"xtol": 1e-10, "eps": 1e-6, "factor": 0.1, "maxfev": 80}
"""Of Powell's hybrid method: its first slopes are by steps of 1e-3, above the rounding of single precision, and its
first step is not longer than a tenth."""


def lattice_constant(model: Model, atoms: Atoms) -> float:
    """Lattice constant in Å at which the pressure of the energy is zero, with atoms on their sites.

    The zero nearest to the given lattice constant is taken. Atoms of a cubic crystal whose sites have no freedom, as in
    diamond or zincblende, are at rest at any lattice constant.

    Args:
        model: any with a stress.
        atoms: a cubic crystal in its conventional cell or a primitive one of one, face-centred or body-centred; the
            start.

    Returns:
        Å, to a relative 1e-12, as far as the model's precision goes.

    Raises:
        UnsupportedError: the model has no stress.
        InvalidPredictionError: the stress is not finite, or it does not vanish within 20 % of the start.
        ValueError: the lattice is not cubic.
    """
    cell = atoms.cell.array

    def tension(factor: float) -> float:
        scaled = atoms.copy()
        scaled.set_cell(cell * factor, scale_atoms=True)
        stress = model.evaluate(from_atoms(scaled, device=model.device), stress=True).stress
        if stress is None:
            raise UnsupportedError("the model has no stress")
        if not bool(torch.isfinite(stress).all()):
            raise InvalidPredictionError("the stress is not finite")
        return float(stress[0].diagonal().sum()) / 3.0

    side = _conventional(atoms)
    here, there = 1.0, tension(1.0)
    # tension falls with pressure: where it is positive the crystal wants to shrink
    step = -_WIDEST / _STEPS if there > 0 else _WIDEST / _STEPS
    for _ in range(_STEPS):
        if there == 0.0:
            return side * here
        ahead = here + step
        found = tension(ahead)
        if found * there <= 0:
            return side * float(brentq(tension, min(here, ahead), max(here, ahead), xtol=1e-12, rtol=1e-12))
        here, there = ahead, found
    raise InvalidPredictionError(f"the pressure does not vanish within {PERCENT * _WIDEST:.0f} % of {side:.3f} Å")


def crystal_at_rest(model: Model, channel: Channel, atoms: Atoms) -> Atoms:
    """The crystal with the cell and the sites at which stress and forces vanish, its space group kept.

    Args:
        model: any with a stress.
        channel: the force that moves the atoms; the stress is that of the energy.
        atoms: a primitive cell, or any other; the start.

    Returns:
        Its copy, to a relative 1e-9 or so, as far as the model's precision goes; a cubic crystal without freedom of its
        sites is that of :func:`lattice_constant`.

    Raises:
        UnsupportedError: the model has no stress, or lacks the channel.
        InvalidPredictionError: stress or forces are not finite, or do not vanish within 20 % of the start.
    """
    strains, moves = _freedoms(atoms)
    if len(strains) == 1 and not len(moves) and atoms.cell.get_bravais_lattice().name in _CUBIC:
        ratio = lattice_constant(model, atoms) / _conventional(atoms)
        return _deformed(atoms, (ratio - 1.0) * np.eye(3), np.zeros((len(atoms), 3)))
    n = len(strains)

    def at(x: NDArray[np.float64]) -> Atoms:
        return _deformed(atoms, np.tensordot(x[:n], strains, 1), np.tensordot(x[n:], moves, 1))

    def pulls(x: NDArray[np.float64]) -> NDArray[np.float64]:
        state = from_atoms(at(x), device=model.device)
        said = model.evaluate(state, forces=(channel,), stress=True)
        if said.stress is None:
            raise UnsupportedError("the model has no stress")
        stress, forces = (part.detach().cpu().double().numpy() for part in (said.stress[0], said.forces[channel]))
        if not (np.isfinite(stress).all() and np.isfinite(forces).all()):
            raise InvalidPredictionError("the stress or a force is not finite")
        by_strain = np.tensordot(strains, stress, 2) * float(state.volume[0]) / len(atoms)
        return np.concatenate([by_strain, np.tensordot(moves, forces, 2)])

    found = root(pulls, np.zeros(n + len(moves)), method="hybr", options=_SEARCH)
    if np.abs(found.fun).max() > _REST or np.abs(np.tensordot(found.x[:n], strains, 1)).max() > _WIDEST:
        raise InvalidPredictionError(f"stress and forces do not vanish within {PERCENT * _WIDEST:.0f} % of the start")
    return at(found.x)


def _freedoms(atoms: Atoms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orthonormal strains (n, 3, 3) and displacements (m, n_atoms, 3) that the space group leaves alone."""
    group = operations(atoms.cell.array, atoms.positions, atoms.numbers)
    units = np.eye(9).reshape(-1, 3, 3)
    strains = np.array([group.average_tensor(0.5 * (unit + unit.T)) for unit in units])
    return _spanned(strains), _spanned(_moves(group))


def _moves(group: Operations) -> NDArray[np.float64]:
    """Displacements (3 n_atoms, n_atoms, 3) that the group leaves alone, their mean at rest: not all independent."""
    n_atoms = group.atoms.shape[1]
    units = np.eye(3 * n_atoms).reshape(-1, n_atoms, 3)
    moves = np.array([group.average_vectors(unit) for unit in units])
    return np.asarray(moves - moves.mean(1, keepdims=True))


def _spanned(arrays: NDArray[np.float64]) -> NDArray[np.float64]:
    """An orthonormal basis of what arrays (k, ...) span, in an order and with signs of its own."""
    flat = arrays.reshape(len(arrays), -1)
    _, sizes, basis = np.linalg.svd(flat, full_matrices=False)
    return np.asarray(basis[sizes > 1e-6].reshape(-1, *arrays.shape[1:]))


def _deformed(atoms: Atoms, strain: NDArray[np.float64], moves: NDArray[np.float64]) -> Atoms:
    """R (1 + e) + u in the cell h (1 + e)."""
    made = atoms.copy()
    made.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    made.positions += moves
    return made


_CUBIC: Final = ("CUB", "FCC", "BCC")


def _conventional(atoms: Atoms) -> float:
    """Edge of the conventional cell, Å.

    Raises:
        ValueError: the lattice is not cubic.
    """
    lattice = atoms.cell.get_bravais_lattice()
    if lattice.name not in _CUBIC:
        raise ValueError(f"a lattice constant is that of a cubic crystal, got a {lattice.longname}")
    return float(lattice.a)
