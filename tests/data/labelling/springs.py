"""Calculators whose answers are on paper, and those that fail as quantum codes do."""

import os
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes

SPRING = 4.0
"""eV/Å^2."""


def crystal():
    """Eight atoms of copper."""
    return bulk("Cu", "fcc", a=3.6, cubic=True) * (2, 1, 1)


class Springs(Calculator):
    """Every atom bound to its own site: energy k r^2 / 2, whose canonical mean is 3/2 kT an atom."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, spring=SPRING):
        super().__init__()
        self.spring, self.sites = spring, crystal().positions

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        away = self.atoms.positions - self.sites
        energy = 0.5 * self.spring * np.square(away).sum()
        self.results = {"energy": energy, "forces": -self.spring * away, "stress": np.zeros(6)}


class Remembering(Springs):
    """As a self-consistent code that starts from its last density: a label depends, a little, on the calls before."""

    calls = 0

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        self.results["forces"] = self.results["forces"] * (1.0 + 1e-7 * self.calls)


class Failing(Springs):
    """Fails to converge above some energy, as self-consistent codes do far from equilibrium."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.results["energy"] > self.limit:
            raise CalculationFailed("SCF not converged in 250 cycles")


class Deadly(Springs):
    """Takes its process with it, as a segmentation fault does, as long as a file is there."""

    def __init__(self, poison, once=True):
        super().__init__()
        self.poison, self.once = Path(poison), once

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.poison.exists() and self.atoms.get_volume() > 95.0:
            if self.once:
                self.poison.unlink()
            os._exit(9)


class Blind(Springs):
    """Gives forces that are not numbers."""

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["forces"] = np.full_like(self.results["forces"], np.nan)


class Smeared(Springs):
    """An energy at zero temperature beside the free energy that forces derive from, as with electronic smearing."""

    implemented_properties = ("energy", "free_energy", "forces")

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["free_energy"] = self.results["energy"]
        self.results["energy"] = self.results["energy"] + 9.0


class Hartrees(Springs):
    """Energies in hartree beside forces in eV/Å."""

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = self.results["energy"] / 27.2


class Silent(Springs):
    """Knows no forces."""

    implemented_properties = ("energy",)


class Broken(Springs):
    """Cannot be made."""

    def __init__(self):
        raise RuntimeError("no licence")


class Stressless(Springs):
    """Says that it has a stress, and has none."""

    def get_stress(self, atoms=None):
        raise NotImplementedError("not today")


class Mended(Springs):
    """Fails as long as a file is there, as an executable that cannot be started does until it is mended."""

    def __init__(self, poison):
        super().__init__()
        self.poison = Path(poison)

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.poison.exists():
            raise CalculationFailed("no executable 'dft'")
