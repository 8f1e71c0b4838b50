"""The only unit conversions of the package.

Inside, everything is in eV, Å and amu; the unit of time that follows is Å sqrt(amu/eV) (10.18 fs, the same as
ASE's). Femtoseconds, picoseconds, kelvin and gigapascal appear at the edge: in cards, results and tables.

Constants are CODATA 2014 as in ASE, so that both engines agree to the last digit.
"""

import math
from typing import Final

_ELEMENTARY_CHARGE: Final = 1.6021766208e-19  # C
_ATOMIC_MASS: Final = 1.660539040e-27  # kg

BOLTZMANN: Final = 1.38064852e-23 / _ELEMENTARY_CHARGE
"""Boltzmann's constant in eV/K."""

FEMTOSECOND: Final = 1e-5 * math.sqrt(_ELEMENTARY_CHARGE / _ATOMIC_MASS)
"""One femtosecond in internal time, Å sqrt(amu/eV): 0.0982."""

PICOSECOND: Final = 1e3 * FEMTOSECOND
"""One picosecond in internal time, Å sqrt(amu/eV): 98.2."""

GIGAPASCAL: Final = 1e9 * 1e-30 / _ELEMENTARY_CHARGE
"""One gigapascal in eV/Å^3; its inverse is 160.21766208."""

KILOBAR: Final = 0.1 * GIGAPASCAL
"""One kilobar in eV/Å^3, in which VASP prints stresses, compression positive."""

MILLI: Final = 1e3
"""Factor from a unit to its thousandth: eV to meV."""

PERCENT: Final = 1e2
"""Factor from a fraction to per cent."""
