"""The lattice constant of a cubic crystal: where the pressure vanishes."""

from __future__ import annotations

from typing import Final

import torch
from ase import Atoms
from scipy.optimize import brentq

from conservbench.models.base import InvalidPredictionError, Model, UnsupportedError
from conservbench.state import from_atoms
from conservbench.units import PERCENT

_WIDEST: Final = 0.2
"""Relative change of the lattice constant up to which the zero is looked for."""

_STEPS: Final = 10
"""Looks on the way there, on either side."""


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


def _conventional(atoms: Atoms) -> float:
    """Edge of the conventional cell, Å.

    Raises:
        ValueError: the lattice is not cubic.
    """
    lattice = atoms.cell.get_bravais_lattice()
    if lattice.name not in ("CUB", "FCC", "BCC"):
        raise ValueError(f"a lattice constant is that of a cubic crystal, got a {lattice.longname}")
    return float(lattice.a)
