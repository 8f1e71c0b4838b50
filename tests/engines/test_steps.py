"""Step by step: velocity Verlet is that of LAMMPS and of ASE, up to rounding."""

import ase.units
import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from ase.md.verlet import VelocityVerlet

from conservbench.dynamics import verlet
from conservbench.dynamics.forces import force_of
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.temperature import kinetic_energy
from conservbench.state import from_atoms, to_atoms
from conservbench.systems import find_system
from conservbench.units import FEMTOSECOND

STEPS, EVERY, DT = 100, 20, 2.0


@pytest.fixture(scope="module")
def start():
    state = from_atoms(find_system("si-64").snapshots[3])
    return state.replace(momenta=draw_momenta(state, 1000.0, Noise(8)))


@pytest.fixture(scope="module")
def ours(start):
    """Positions, momenta and energies (kinetic, potential) every few steps."""
    force = force_of(StillingerWeber(), "gradient")
    md = verlet.init(start, force)
    found = []
    for _ in range(STEPS // EVERY):
        for _ in range(EVERY):
            md = verlet.step(md, force, DT * FEMTOSECOND)
        found.append((md.positions.numpy(), md.velocities.numpy(), float(kinetic_energy(md)), float(md.energy)))
    return found


def modulo(difference, cell):
    return difference - np.round(difference / np.diag(cell)) * np.diag(cell)


@pytest.mark.parametrize(("units", "tolerance"), [("lj", 1e-12), ("metal", 2e-7)])
def test_ours_is_lammps(start, ours, start_lammps, units, tolerance):
    """In units without constants to rounding; with the constants of LAMMPS, which are older, to 1e-7 of the motion."""
    run = start_lammps(start, DT * FEMTOSECOND, units)
    run.commands("fix nve all nve")
    for positions, velocities, kinetic, potential in ours:
        run.advance(EVERY)
        apart = modulo(run.gather("x") - positions, start.cell[0].numpy())
        assert np.abs(apart).max() < 10 * tolerance
        assert np.abs(run.gather("v") - velocities).max() < 10 * tolerance
        # per atom
        assert np.array(run.energies()) / 64 == pytest.approx(np.array([kinetic, potential]) / 64, abs=10 * tolerance)
    assert np.abs(ours[-1][0] - start.positions.numpy()).max() > 0.1


class Forces(Calculator):
    """The potential for ASE."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.model = StillingerWeber()

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        prediction = self.model.evaluate(from_atoms(self.atoms), forces=["gradient"])
        self.results = {"energy": prediction.energy.item(), "forces": prediction.forces["gradient"].numpy()}


def test_ours_is_ases(start, ours):
    (atoms,) = to_atoms(start)
    atoms.calc = Forces()
    dynamics = VelocityVerlet(atoms, DT * ase.units.fs)
    for positions, velocities, kinetic, potential in ours:
        dynamics.run(EVERY)
        np.testing.assert_allclose(atoms.positions, positions, atol=1e-11)
        np.testing.assert_allclose(atoms.get_velocities(), velocities, atol=1e-11)
        assert atoms.get_kinetic_energy() == pytest.approx(kinetic, abs=1e-10)
        assert atoms.get_potential_energy() == pytest.approx(potential, abs=1e-10)


def test_forces_are_those_of_lammps(start, start_lammps):
    run = start_lammps(start, DT * FEMTOSECOND)
    expected = StillingerWeber().evaluate(start, forces=["gradient"]).forces["gradient"].numpy()
    np.testing.assert_allclose(run.forces_at(to_atoms(start)[0].get_positions(wrap=True)), expected, atol=1e-12)
