"""Make the snapshots of a system: ``python -m conservbench.systems.sample NAME``. Run once; the file is kept.

Silicon is moved by its Stillinger-Weber potential, silicon carbide by springs, ethanol by GFN2-xTB, and water, gallium
nitride and LGPS by networks of this suite, under ASE's Langevin thermostat, from a fixed seed. The numbers depend on
the order of floating-point sums, so that another machine samples other, equally good snapshots.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import ase
import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.tip3p import TIP3P, angleHOH, rOH
from ase.constraints import FixBondLengths
from ase.data import atomic_masses
from ase.io import read
from ase.md.langevin import Langevin
from scipy.spatial.transform import Rotation

from conservbench.cards import find_model, shipped_folder
from conservbench.models.ase import ASEModel
from conservbench.models.base import Model
from conservbench.models.calculator import ForceCalculator
from conservbench.models.load import load_model
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.models.toy import Field, ToyModel
from conservbench.systems import System

XTB_CITATION = (
    "C. Bannwarth, S. Ehlert and S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019), doi:10.1021/acs.jctc.8b01176"
)
GFN1_CITATION = (
    "S. Grimme, C. Bannwarth and P. Shushkov, J. Chem. Theory Comput. 13, 1989 (2017), doi:10.1021/acs.jctc.7b00118"
)
WATER_CITATION = "H. Wang et al., Comput. Phys. Commun. 228, 178 (2018), doi:10.1016/j.cpc.2018.03.016"
TIP3P_CITATION = "W. L. Jorgensen et al., J. Chem. Phys. 79, 926 (1983), doi:10.1063/1.445869"
SW_CITATION = "F. H. Stillinger and T. A. Weber, Phys. Rev. B 31, 5262 (1985), doi:10.1103/PhysRevB.31.5262"
N_SNAPSHOTS = 8
DIGITS = 6


@dataclass(frozen=True)
class Stage:
    """One stretch of dynamics at constant temperature: kelvin and picoseconds."""

    temperature: float
    duration: float


@dataclass(frozen=True)
class Recipe:
    """How a system is sampled.

    Attributes:
        version: of the system it makes.
        title: one line for people.
        citation: sources.
        build: makes the reference crystal.
        stages: dynamics before the first snapshot; the last one sets the temperature of the snapshots.
        spacing: ps between snapshots.
        time_step: fs.
        friction: 1/ps, of the thermostat.
        seed: of momenta and thermostat.
        crystal: whether that crystal is the reference structure (else the first snapshot).
        model: makes what moves it, of the crystal.
    """

    version: int
    title: str
    citation: str
    build: Callable[[], Atoms]
    stages: tuple[Stage, ...]
    spacing: float
    time_step: float
    friction: float
    seed: int
    crystal: bool
    model: Callable[[Atoms], Model] = lambda _: StillingerWeber()


def diamond(lattice_constant: float, repeats: int = 2) -> Atoms:
    """Silicon in the diamond structure: 8 atoms in each of ``repeats`` cubed cubic cells, 64 by default."""
    return bulk("Si", "diamond", a=lattice_constant, cubic=True) * (repeats, repeats, repeats)


def zincblende() -> Atoms:
    """64 atoms of silicon carbide, 2x2x2 cubic cells of the zincblende structure."""
    return bulk("SiC", "zincblende", a=4.36, cubic=True) * (2, 2, 2)


def vacancy() -> Atoms:
    """63 silicon atoms: the diamond structure without its first atom, neighbours unrelaxed."""
    atoms = diamond(5.431)
    del atoms[0]
    return atoms


def ethanol() -> Atoms:
    """One molecule of ethanol, atoms in the order of public sets of it: carbon of CH2, of CH3, O, H of CH2, CH3, OH."""
    return molecule("CH3CH2OH")[[1, 0, 2, 4, 5, 6, 7, 8, 3]]


def wurtzite() -> Atoms:
    """32 atoms of gallium nitride at the lattice constants where GFN2-xTB has its least energy."""
    return bulk("GaN", "wurtzite", a=3.176, c=5.106, u=0.3756) * (2, 2, 2)


def lgps() -> Atoms:
    """50 atoms of Li20Ge2P4S24: the start structure of the labelled set lgps-xtb."""
    return cast("Atoms", read(shipped_folder("data") / "lgps-50.extxyz"))


def liquid_water(molecules: int = 4, length: float = 12.4447, seed: int = 20261122) -> Atoms:
    """Rigid TIP3P water, 1.5 ps at 450 and at 300 K from molecules turned at random on a grid: a start for a network.

    Args:
        molecules: along each edge of the cube.
        length: Å, of the cube.
        seed: of orientations, momenta and thermostat.
    """
    random = np.random.default_rng(seed)
    half = np.radians(angleHOH) / 2
    molecule = rOH * np.array([[0.0, 0.0, 0.0], [np.sin(half), 0.0, np.cos(half)], [-np.sin(half), 0.0, np.cos(half)]])
    grid = (np.indices((molecules,) * 3).reshape(3, -1).T + 0.5) * (length / molecules)
    turned = np.array([molecule @ turn.as_matrix().T for turn in Rotation.random(len(grid), rng=random)])
    atoms = Atoms("OHH" * len(grid), (grid[:, None] + turned).reshape(-1, 3), cell=[length] * 3, pbc=True)
    bonds = [(3 * i + first, 3 * i + second) for i in range(len(grid)) for first, second in ((0, 1), (0, 2), (1, 2))]
    atoms.constraints = FixBondLengths(bonds)
    atoms.calc = TIP3P(rc=5.0)
    for temperature in (450.0, 300.0):
        dynamics = Langevin(
            atoms, 2.0 * units.fs, temperature_K=temperature, friction=0.01 / units.fs, fixcm=False, rng=random
        )
        dynamics.run(750)
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)


def network(name: str) -> Callable[[Atoms], Model]:
    """What loads a model of this suite."""
    return lambda sites: load_model(find_model(name), System(name, 1, name, 0.0, sites, (sites,), "", ""))


def xtb(_: Atoms) -> Model:
    """The tight-binding method GFN2-xTB, by the extra ``xtb``."""
    from tblite.ase import TBLite

    return ASEModel(TBLite(method="GFN2-xTB", verbosity=0))


def diamond_of_density(density: float) -> Atoms:
    """64 silicon atoms in the diamond structure at a density in g/cm^3."""
    grams = 8 * atomic_masses[14] / units.kg * 1e3
    return diamond((grams / density) ** (1 / 3) * 1e8)


RECIPES: dict[str, Recipe] = {
    "si-64": Recipe(
        version=1,
        title="Crystalline silicon, 64 atoms, 1000 K",
        citation=f"Diamond structure, a = 5.431 Å. Snapshots: {SW_CITATION}",
        build=lambda: diamond(5.431),
        stages=(Stage(1000.0, 4.0),),
        spacing=1.0,
        time_step=1.0,
        friction=2.0,
        seed=20250701,
        crystal=True,
    ),
    "si-vacancy-63": Recipe(
        version=1,
        title="Silicon with a vacancy, 63 atoms, 600 K",
        citation=f"Diamond structure, a = 5.431 Å, one atom of 64 taken out. Snapshots: {SW_CITATION}",
        build=vacancy,
        # at 1000 K the vacancy hops within picoseconds, so that atoms change sites
        stages=(Stage(600.0, 4.0),),
        spacing=1.0,
        time_step=1.0,
        friction=2.0,
        seed=20250703,
        crystal=True,
    ),
    "sic-64": Recipe(
        version=1,
        title="Crystalline silicon carbide, 64 atoms, 600 K",
        citation=(
            "Zincblende structure, a = 4.36 Å (3C-SiC). Snapshots: a toy with two masses, every atom on a spring of "
            "12 eV/Å^2 about its site"
        ),
        build=zincblende,
        stages=(Stage(600.0, 2.0),),
        spacing=0.5,
        time_step=1.0,
        # springs do not scatter each other: the thermostat alone makes them forget
        friction=20.0,
        seed=20250704,
        crystal=True,
        model=lambda sites: ToyModel(Field("harmonic", 12.0), sites),
    ),
    "ethanol": Recipe(
        version=1,
        title="Ethanol, one molecule, 300 K",
        citation=f"Snapshots: GFN2-xTB, {XTB_CITATION}",
        build=ethanol,
        stages=(Stage(300.0, 3.0),),
        spacing=1.0,
        time_step=0.5,
        friction=2.0,
        seed=20261121,
        crystal=False,
        model=xtb,
    ),
    "water-64": Recipe(
        version=1,
        title="Liquid water, 64 molecules, 300 K",
        citation=(
            "64 H2O in a cube of 12.4447 Å. Snapshots: water-mace-gradient, a network trained on density functional "
            f"theory, {WATER_CITATION}; its start: TIP3P, {TIP3P_CITATION}"
        ),
        build=liquid_water,
        stages=(Stage(350.0, 1.0), Stage(300.0, 1.0)),
        spacing=0.4,
        time_step=0.5,
        friction=5.0,
        seed=20261123,
        crystal=False,
        model=network("water-mace-gradient"),
    ),
    "gan-32": Recipe(
        version=1,
        title="Gallium nitride, wurtzite, 32 atoms, 1000 K",
        citation=f"a = 3.176, c = 5.106 Å. Snapshots: gan-mace-gradient, a network trained on GFN2-xTB, {XTB_CITATION}",
        build=wurtzite,
        stages=(Stage(1000.0, 2.0),),
        spacing=0.5,
        time_step=1.0,
        friction=5.0,
        seed=20261124,
        crystal=True,
        model=network("gan-mace-gradient"),
    ),
    "lgps-50": Recipe(
        version=1,
        title="Li20Ge2P4S24, a solid electrolyte, 50 atoms, 600 K",
        citation=f"Snapshots: lgps-mace-gradient, a network trained on GFN1-xTB, {GFN1_CITATION}",
        build=lgps,
        stages=(Stage(600.0, 4.0),),
        spacing=1.0,
        time_step=1.0,
        friction=5.0,
        seed=20261125,
        # lithium leaves its sites
        crystal=False,
        model=network("lgps-mace-gradient"),
    ),
    "si-liquid-64": Recipe(
        version=1,
        title="Liquid silicon, 64 atoms, 2000 K",
        citation=(
            "Density 2.52 g/cm^3, near the measured 2.51 at 2000 K (Densities of Si determined by an image digitizing "
            f"technique in combination with an electrostatic levitator, 1997). Snapshots: {SW_CITATION}"
        ),
        build=lambda: diamond_of_density(2.52),
        stages=(Stage(4500.0, 4.0), Stage(3500.0, 3.0), Stage(2600.0, 2.0), Stage(2000.0, 6.0)),
        spacing=1.5,
        time_step=1.0,
        friction=2.0,
        seed=20250702,
        crystal=False,
    ),
}

# cells of public ab initio dynamics, so that g(r) can be compared at the same density
FITSNAP_CELL = 10.8618 / 2
MLEARN_CELL = 5.468582
FITSNAP = "the public set FitSNAP/fitsnap-datasets, Si"
MLEARN = "the public set mlearn, Si: Y. Zuo et al., J. Phys. Chem. A 124, 731 (2020), doi:10.1021/acs.jpca.9b08723"


def melt(temperature: float, lattice_constant: float, seed: int, source: str, repeats: int = 2) -> Recipe:
    """Silicon molten from the diamond structure of this lattice constant, at the temperature in kelvin."""
    hotter = tuple(Stage(each, length) for each, length in ((4500.0, 4.0), (3500.0, 3.0), (2600.0, 2.0)))
    return Recipe(
        version=1,
        title=f"Liquid silicon, {8 * repeats**3} atoms, {temperature:g} K, {lattice_constant**3 / 8:.2f} Å^3/atom",
        citation=f"Density of ab initio dynamics in {source}. Snapshots: {SW_CITATION}",
        build=lambda: diamond(lattice_constant, repeats),
        stages=(*(stage for stage in hotter if stage.temperature > temperature), Stage(temperature, 6.0)),
        spacing=1.5,
        time_step=1.0,
        friction=2.0,
        seed=seed,
        crystal=False,
    )


def warm_crystal(temperature: float, lattice_constant: float, seed: int, source: str) -> Recipe:
    """Crystalline silicon of this lattice constant at the temperature in kelvin."""
    return Recipe(
        version=1,
        title=f"Crystalline silicon, 64 atoms, {temperature:g} K, {lattice_constant**3 / 8:.2f} Å^3/atom",
        citation=(
            f"Diamond structure, a = {lattice_constant} Å, that of ab initio dynamics in {source}. "
            f"Snapshots: {SW_CITATION}"
        ),
        build=lambda: diamond(lattice_constant),
        stages=(Stage(temperature, 4.0),),
        spacing=1.0,
        time_step=1.0,
        friction=2.0,
        seed=seed,
        crystal=True,
    )


RECIPES |= {
    "si-melt-64": melt(2000.0, FITSNAP_CELL, 20250705, FITSNAP),
    "si-melt-216": melt(2000.0, FITSNAP_CELL, 20250706, FITSNAP, repeats=3),
    "si-hot-64": melt(2530.0, MLEARN_CELL, 20250707, MLEARN),
    "si-hotter-64": melt(3374.0, MLEARN_CELL, 20250708, MLEARN),
    "si-warm-64": warm_crystal(1500.0, FITSNAP_CELL, 20250709, FITSNAP),
    "si-cool-64": warm_crystal(843.0, MLEARN_CELL, 20250710, MLEARN),
}


def sample(name: str) -> dict[str, Any]:
    """The table of a system, as its file holds it."""
    recipe = RECIPES[name]
    sites = recipe.build()
    atoms = sites.copy()
    atoms.calc = ForceCalculator(recipe.model(sites), "gradient")
    random = np.random.default_rng(recipe.seed)
    spread = np.sqrt(atoms.get_masses() * units.kB * recipe.stages[0].temperature)
    atoms.set_momenta(random.normal(size=(len(atoms), 3)) * spread[:, None])
    dynamics = Langevin(
        atoms,
        recipe.time_step * units.fs,
        temperature_K=recipe.stages[0].temperature,
        friction=recipe.friction / (1000 * units.fs),
        fixcm=False,
        rng=random,
    )

    def advance(duration: float) -> None:
        dynamics.run(round(1000 * duration / recipe.time_step))

    for stage in recipe.stages:
        dynamics.set_temperature(temperature_K=stage.temperature)
        advance(stage.duration)
    snapshots = []
    for place in range(N_SNAPSHOTS):
        if place:
            advance(recipe.spacing)
        # the thermostat lets the centre of mass wander; it is brought back
        drift = (atoms.positions - sites.positions).mean(0)
        snapshots.append(np.round(atoms.positions - drift, DIGITS).tolist())
    return {
        "name": name,
        "version": recipe.version,
        "title": recipe.title,
        "temperature": recipe.stages[-1].temperature,
        "citation": recipe.citation,
        "provenance": (
            f"python -m conservbench.systems.sample {name}; seed {recipe.seed}; ASE {ase.__version__}, "
            f"torch {torch.__version__}, vesin {version('vesin')}, Python {platform.python_version()}"
        ),
        "cell": sites.cell.array.tolist(),
        "pbc": sites.pbc.tolist(),
        "numbers": sites.numbers.tolist(),
        "sites": sites.positions.tolist() if recipe.crystal else snapshots[0],
        "snapshots": snapshots,
    }


def main() -> None:
    """Sample one system and write its file."""
    parser = argparse.ArgumentParser(description="Sample a system.", epilog="example: sample si-64")
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        table = sample(arguments.name)
    except ValueError as error:
        parser.error(str(error))
    target = arguments.out / f"{arguments.name}.json"
    draft = target.with_suffix(".tmp")
    lines = [f'"{key}": {json.dumps(value, separators=(",", ":"), ensure_ascii=False)}' for key, value in table.items()]
    draft.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    os.replace(draft, target)


if __name__ == "__main__":
    main()
