"""Averages over trajectories of silicon agree with those of LAMMPS and of ASE, and with what is known of them.

Eight replicas of 64 atoms each: the mean over a replica is one sample, so that correlation in time is in the spread.
Where two engines are compared, the error is that of the difference of their means, sqrt(s_1^2 / 8 + s_2^2 / 8), and the
bound is four of them: Student's t of 14 degrees of freedom exceeds it with a chance of 1.3e-3. A single mean against
its exact value is held to 5 sigma of 7 degrees of freedom, 1.6e-3. Seeds are fixed.

ASE is given the forces of LAMMPS, which are those of the suite to rounding (``test_steps.py``) and quick.
"""

from __future__ import annotations

import ase.units
import numpy as np
import pytest
from ase.constraints import FixCom
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet

from conservbench.dynamics import verlet
from conservbench.dynamics.forces import force_of
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.dynamics.thermostat import step, thermostat
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.temperature import kinetic_energy
from conservbench.state import from_atoms, select, to_atoms
from conservbench.systems import find_system
from conservbench.units import BOLTZMANN, FEMTOSECOND

pytestmark = pytest.mark.slow

KELVIN, TAU, DT = 1000.0, 100.0, 1.0
N, DOF = 64, 189
QUANTUM = BOLTZMANN * KELVIN
SETTLE, DURATION, EVERY = 400, 2400, 10
SILICON = find_system("si-64")


def starts(seed):
    """Eight thermal snapshots with thermal momenta."""
    state = from_atoms(SILICON.snapshots)
    return state.replace(momenta=draw_momenta(state, KELVIN, Noise(seed)))


def energies_of(advance, read):
    """(n_records, 2, ...) kinetic and potential energies after the settling, eV/atom."""
    advance(SETTLE)
    found = []
    for _ in range((DURATION - SETTLE) // EVERY):
        advance(EVERY)
        found.append(read())
    return np.array(found) / N


def ours(state, propagate, bath=None):
    """(n_records, 2, 8) of the suite."""
    md = verlet.init(state, force_of(StillingerWeber(), "gradient"))
    cell = [md if bath is None else bath.init(md)]

    def advance(n):
        for _ in range(n):
            cell[0] = propagate(cell[0])

    return energies_of(advance, lambda: [kinetic_energy(cell[0]).numpy(), cell[0].energy.numpy()])


def lammps(start_lammps, state, *fixes):
    """(n_records, 2, 8) of LAMMPS; in the fixes, {seed} is that of the replica."""
    parts = []
    for replica in range(state.n_systems):
        run = start_lammps(select(state, [replica]), DT * FEMTOSECOND)
        run.commands(*(fix.format(seed=7001 + replica) for fix in fixes))
        parts.append(energies_of(run.advance, run.energies))
        run.close()
    return np.stack(parts, -1)


def ase_md(start_lammps, calculator, state, dynamics):
    """(n_records, 2, 8) of ASE, ``dynamics`` being made of the atoms and a random generator."""
    parts = []
    for replica in range(state.n_systems):
        part = select(state, [replica])
        run = start_lammps(part, DT * FEMTOSECOND)
        (atoms,) = to_atoms(part)
        atoms.calc = calculator(run)
        driver = dynamics(atoms, np.random.default_rng(9001 + replica))

        def read(atoms=atoms):
            velocities = atoms.get_velocities()
            relative = velocities - velocities.mean(0)
            return 0.5 * atoms.get_masses()[0] * (relative**2).sum(), atoms.get_potential_energy()

        parts.append(energies_of(driver.run, read))
        run.close()
    return np.stack(parts, -1)


def step_of(dt):
    force = force_of(StillingerWeber(), "gradient")
    return lambda md: verlet.step(md, force, dt)


def same(name, one, other, sigmas=4.0):
    """Samples (8,) of each: their means agree within their errors."""
    error = np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 8)
    apart = one.mean() - other.mean()
    print(f"{name}: {one.mean():.6g} and {other.mean():.6g}, {apart / error:+.1f} sigma, error {error:.2g}")
    assert abs(apart) < sigmas * error, name


def is_exact(name, samples, value, sigmas=5.0, slack=0.0):
    error = samples.std(ddof=1) / np.sqrt(8)
    print(f"{name}: {samples.mean():.6g}, exact {value:.6g}, {(samples.mean() - value) / error:+.1f} sigma")
    assert abs(samples.mean() - value) < sigmas * error + slack, name


# ---- NVE


def microcanonical(seed):
    """Snapshots with momenta scaled so that each has the energy of the crystal and 3 N - 3 times k_B T."""
    state = starts(seed)
    model = StillingerWeber()
    total = float(model.evaluate(from_atoms(SILICON.sites)).energy) + DOF * QUANTUM
    kinetic = total - model.evaluate(state).energy
    scale = (kinetic / kinetic_energy(state)).sqrt()
    return state.replace(momenta=state.momenta * scale[state.system][:, None])


@pytest.fixture(scope="module")
def nve():
    return ours(microcanonical(31), step_of(DT * FEMTOSECOND))


def compare_nve(one, other):
    for name, index in (("kinetic", 0), ("potential", 1)):
        same(f"{name} energy", one[:, index].mean(0), other[:, index].mean(0))
    # what the time step does to the energy: its offset from the start and its fluctuation, meV/atom
    start = float(StillingerWeber().evaluate(from_atoms(SILICON.sites)).energy) / N + DOF * QUANTUM / N
    for energies in (one, other):
        assert np.abs(energies.sum(1) - start).max() < 1e-3
    same("offset of the energy", *(1e3 * (energies.sum(1).mean(0) - start) for energies in (one, other)))
    same("fluctuation of the energy", *(1e3 * energies.sum(1).std(0) for energies in (one, other)))
    same("fluctuation of the kinetic energy", one[:, 0].std(0), other[:, 0].std(0))


def test_nve_averages_are_those_of_lammps(nve, start_lammps):
    compare_nve(nve, lammps(start_lammps, microcanonical(32), "fix nve all nve"))


def test_nve_averages_are_those_of_ase(nve, start_lammps, lammps_forces):
    def dynamics(atoms, random):
        return VelocityVerlet(atoms, DT * ase.units.fs)

    compare_nve(nve, ase_md(start_lammps, lammps_forces, microcanonical(33), dynamics))


# ---- NVT


@pytest.fixture(scope="module")
def nvt():
    """Energies under each thermostat, measured once."""
    known = {}

    def measure(kind):
        if kind not in known:
            bath = thermostat(kind, KELVIN, TAU * FEMTOSECOND, Noise(41))
            free = step_of(DT * FEMTOSECOND)
            dt = DT * FEMTOSECOND
            known[kind] = ours(starts(42), lambda md: step(md, free, bath, dt), bath)
        return known[kind]

    return measure


LAMMPS = {
    "langevin": ("fix nve all nve", f"fix bath all langevin {QUANTUM} {QUANTUM} {TAU * FEMTOSECOND} {{seed}} zero yes"),
    "nose-hoover": (f"fix bath all nvt temp {QUANTUM} {QUANTUM} {TAU * FEMTOSECOND} tchain 3",),
    "svr": ("fix nve all nve", f"fix bath all temp/csvr {QUANTUM} {QUANTUM} {TAU * FEMTOSECOND} {{seed}}"),
}


def ase_langevin(atoms, random):
    return Langevin(
        atoms, DT * ase.units.fs, temperature_K=KELVIN, friction=1 / (TAU * ase.units.fs), fixcm=False, rng=random
    )


def ase_nose_hoover(atoms, random):
    # it counts 3 N degrees of freedom; with the centre of mass at rest, this makes the others canonical at KELVIN
    return NoseHooverChainNVT(atoms, DT * ase.units.fs, temperature_K=KELVIN * DOF / (3 * N), tdamp=TAU * ase.units.fs)


def ase_svr(atoms, random):
    atoms.set_constraint(FixCom())
    return Bussi(atoms, DT * ase.units.fs, KELVIN, TAU * ase.units.fs, rng=random)


ASE = {"langevin": ase_langevin, "nose-hoover": ase_nose_hoover, "svr": ase_svr}


def compare_nvt(one, other):
    for name, index in (("kinetic", 0), ("potential", 1)):
        same(f"{name} energy", one[:, index].mean(0), other[:, index].mean(0))
        same(f"variance of the {name} energy", one[:, index].var(0), other[:, index].var(0))
    covariance = [((e[:, 0] - e[:, 0].mean(0)) * (e[:, 1] - e[:, 1].mean(0))).mean(0) for e in (one, other)]
    same("covariance of both", *covariance)


@pytest.mark.parametrize("kind", ["langevin", "nose-hoover", "svr"])
def test_nvt_is_canonical(kind, nvt):
    """Momenta are at the temperature of the bath, and their energy scatters like half a chi-squared of 3 N - 3."""
    kinetic = nvt(kind)[:, 0]
    is_exact("kinetic energy", kinetic.mean(0), DOF * QUANTUM / 2 / N)
    # about the exact mean: a replica's own would take out what is slower than it
    is_exact("variance", ((kinetic - DOF * QUANTUM / 2 / N) ** 2).mean(0), DOF / 2 * (QUANTUM / N) ** 2)


@pytest.mark.parametrize("kind", ["langevin", "nose-hoover", "svr"])
def test_nvt_averages_are_those_of_lammps(kind, nvt, start_lammps):
    compare_nvt(nvt(kind), lammps(start_lammps, starts(43), *LAMMPS[kind]))


@pytest.mark.parametrize("kind", ["langevin", "nose-hoover", "svr"])
def test_nvt_averages_are_those_of_ase(kind, nvt, start_lammps, lammps_forces):
    compare_nvt(nvt(kind), ase_md(start_lammps, lammps_forces, starts(44), ASE[kind]))
