"""Velocity Verlet against its exact solution for a harmonic crystal, against ASE and against LAMMPS."""

import ase.units
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.md.verlet import VelocityVerlet

from conservbench.dynamics import verlet
from conservbench.dynamics.forces import force_of
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.dynamics.simulate import simulate
from conservbench.models.base import InvalidPredictionError, Prediction
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.models.toy import exact_energy
from conservbench.observables.temperature import cooler_than, kinetic_energy, temperature
from conservbench.state import from_atoms, to_atoms
from conservbench.units import FEMTOSECOND

STIFFNESS = 8.0


def run(md, force, dt, n_steps):
    for _ in range(n_steps):
        md = verlet.step(md, force, dt)
    return md


def total_energy(md):
    return md.energy + kinetic_energy(md)


@pytest.mark.parametrize("dt", [1.0, 8.0])
def test_harmonic_crystal_follows_the_exact_discrete_solution(toy, crystal, sites, dt):
    """x_n = x_0 cos(n a) + v_0 sin(n a) / (w sqrt(1 - (w dt)^2 / 4)), cos(a) = 1 - (w dt)^2 / 2."""
    state, n_steps, h = crystal(2), 50, dt * FEMTOSECOND
    force = force_of(toy("harmonic"), "gradient")
    md = run(verlet.init(state, force), force, h, n_steps)
    omega = np.sqrt(STIFFNESS / float(state.masses[0]))
    angle = np.arccos(1 - (omega * h) ** 2 / 2)
    home = np.tile(sites.positions, (2, 1))
    start = state.positions.numpy() - home
    mean = np.repeat(start.reshape(2, 8, 3).mean(1), 8, axis=0)
    swing = state.velocities.numpy() / (omega * np.sqrt(1 - (omega * h) ** 2 / 4))
    expected = mean + (start - mean) * np.cos(n_steps * angle) + swing * np.sin(n_steps * angle)
    np.testing.assert_allclose(md.positions.numpy() - home, expected, atol=1e-11)


def test_positions_converge_to_the_continuous_solution_with_order_two(toy, crystal, sites):
    state, length = crystal(1), 64 * FEMTOSECOND
    force = force_of(toy("harmonic"), "gradient")
    omega = np.sqrt(STIFFNESS / float(state.masses[0]))
    start = state.positions.numpy() - sites.positions
    start -= start.mean(0)
    exact = start * np.cos(omega * length) + state.velocities.numpy() / omega * np.sin(omega * length)
    errors = []
    for n_steps in (16, 32, 64, 128):
        md = run(verlet.init(state, force), force, length / n_steps, n_steps)
        found = md.positions.numpy() - sites.positions
        errors.append(np.abs(found - found.mean(0) - exact).max())
    assert -np.polyfit(np.log([16, 32, 64, 128]), np.log(errors), 1)[0] == pytest.approx(2.0, abs=0.05)


def test_energy_fluctuation_of_a_crystal_is_of_order_two():
    sites = bulk("Si", cubic=True, a=5.431)
    state = from_atoms(sites)
    state = state.replace(momenta=draw_momenta(state, 600.0, Noise(0)))
    force = force_of(StillingerWeber(), "gradient")
    steps = np.array([0.5, 1.0, 2.0])
    spread = []
    for dt in steps:
        recording = simulate(
            verlet.init(state, force),
            lambda md, h=dt * FEMTOSECOND: verlet.step(md, force, h),
            n_replicas=1,
            n_records=100,
            interval=int(2 / dt),
            observe={"energy": total_energy},
            healthy=cooler_than(1e5),
        )
        spread.append(recording.series["energy"][0].std())
    assert np.polyfit(np.log(steps), np.log(spread), 1)[0] == pytest.approx(2.0, abs=0.05)


def test_swirl_heats_as_on_paper(toy, crystal, sites):
    model, state = toy("swirl", curl=0.8), crystal(1)
    force = force_of(model, "direct")
    md = verlet.init(state, force)
    start = model.displacements(state, state.positions, state.cell).numpy()
    energies = [float(total_energy(md))]
    for _ in range(20):
        md = run(md, force, 0.1 * FEMTOSECOND, 100)
        energies.append(float(total_energy(md)))
    times = np.arange(21) * 10 * FEMTOSECOND
    mass = float(state.masses[0])
    paper = exact_energy(model.field, times, start, state.momenta.numpy(), mass, sites.cell[2])
    assert paper[-1] > 1.1 * paper[0]
    # the error of a step is (w dt)^2 / 8 = 3e-6
    np.testing.assert_allclose(energies, paper, rtol=1e-5)


def test_motion_is_reversible(crystal):
    force = force_of(StillingerWeber(), "gradient")
    state = crystal(1)
    there = run(verlet.init(state, force), force, FEMTOSECOND, 100)
    assert float((there.positions - state.positions).abs().max()) > 0.1
    back = run(there.replace(momenta=-there.momenta), force, FEMTOSECOND, 100)
    assert float((back.positions - state.positions).abs().max()) < 1e-11
    assert float((back.momenta + state.momenta).abs().max()) < 1e-11


class OurCalculator(Calculator):
    """The model as an ASE calculator."""

    implemented_properties = ("energy", "forces")

    def __init__(self, model):
        super().__init__()
        self.model = model

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        prediction = self.model.evaluate(from_atoms(atoms), forces=("gradient",))
        forces = prediction.forces["gradient"].numpy()
        self.results = {"energy": float(prediction.energy[0]), "forces": forces}


def test_trajectory_agrees_with_ase(crystal):
    state = crystal(1)
    atoms = to_atoms(state)[0]
    atoms.calc = OurCalculator(StillingerWeber())
    VelocityVerlet(atoms, timestep=ase.units.fs).run(100)
    force = force_of(StillingerWeber(), "gradient")
    md = run(verlet.init(state, force), force, FEMTOSECOND, 100)
    # Å, and sqrt(eV amu): the units of momenta are ASE's
    np.testing.assert_allclose(md.positions.numpy(), atoms.positions, atol=1e-10)
    np.testing.assert_allclose(md.momenta.numpy(), atoms.get_momenta(), atol=1e-9)


def energy_from_start(repeat, n_samples):
    """E(t) - E(0) in meV/atom at 1 fs, every 50 fs, of a crystal that starts from its sites with momenta at 620 K.

    Half of the kinetic energy becomes potential energy: the crystal is then near 300 K.
    """
    sites = bulk("Si", cubic=True, a=5.431).repeat(repeat)
    state = from_atoms(sites)
    momenta = draw_momenta(state, 620.0, Noise(0))
    state = state.replace(momenta=momenta * (620.0 / temperature(state.replace(momenta=momenta))).sqrt())
    force = force_of(StillingerWeber(), "gradient")
    recording = simulate(
        verlet.init(state, force),
        lambda md: verlet.step(md, force, FEMTOSECOND),
        n_replicas=1,
        n_records=n_samples,
        interval=50,
        observe={"energy": lambda md: total_energy(md) * 1e3 / len(sites)},
        healthy=cooler_than(1e5),
    )
    energy = recording.series["energy"][0]
    return energy - energy[0]


# LAMMPS 22 Jul 2025, pair_style sw, units metal, from the same positions and velocities
LAMMPS_64 = [0.08376430, 0.07788644, 0.03813905, 0.07081711, 0.06393797, 0.04467435, 0.07140897, 0.08026689, 0.03254197]
LAMMPS_512_MEAN = 0.0607219


def test_energy_error_of_a_small_crystal_equals_that_of_lammps():
    np.testing.assert_allclose(energy_from_start(2, 9)[1:], LAMMPS_64, atol=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_energy_error_of_512_atoms_over_20_ps_equals_that_of_lammps():
    """The published baseline, |dE| 0.06-0.07 meV/atom: here the mean of |E(t) - E(0)| from the sites."""
    error = np.abs(energy_from_start(4, 400)).mean()
    assert 0.06 < error < 0.07
    assert error == pytest.approx(LAMMPS_512_MEAN, abs=1e-5)


class Broken:
    """Says something that is no prediction."""

    channels = ("gradient",)
    elements = None
    differentiable = False
    labelled = False
    device = torch.device("cpu")

    def __init__(self, forces, energy):
        self.prediction = Prediction(energy, {"gradient": forces})

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        return self.prediction


@pytest.mark.parametrize(
    ("forces", "energy", "message"),
    [
        (torch.full((8, 3), torch.nan), torch.zeros(1), "forces of the start are not all finite in system 0"),
        (torch.zeros(7, 3), torch.zeros(1), r"forces of the start have shape \(7, 3\), expected \(8, 3\)"),
        (torch.zeros(8, 3), torch.full((1,), torch.inf), "energies of the start are not all finite in system 0"),
        (torch.zeros(8, 3), torch.zeros(()), r"energies of the start have shape \(\), expected \(1,\)"),
    ],
)
def test_a_start_without_a_sound_prediction_is_refused(crystal, forces, energy, message):
    with pytest.raises(InvalidPredictionError, match=message):
        verlet.init(crystal(1), force_of(Broken(forces, energy), "gradient"))


def test_what_is_not_finite_at_the_start_is_found_in_its_system(crystal):
    forces = torch.zeros(24, 3)
    forces[19, 1] = -torch.inf
    with pytest.raises(InvalidPredictionError, match="forces of the start are not all finite in system 2"):
        verlet.init(crystal(3), force_of(Broken(forces, torch.zeros(3)), "gradient"))
