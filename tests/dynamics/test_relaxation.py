"""Relaxation: step by step as in ASE, harmonic answers, and how relaxations end."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.filters import UnitCellFilter
from ase.optimize import FIRE, LBFGS

from conservbench.dynamics import lbfgs
from conservbench.dynamics.coordinates import FixedCell, UnitCell, force_and_stress_of
from conservbench.dynamics.forces import force_of
from conservbench.dynamics.handover import relax_with_handover
from conservbench.dynamics.relaxation import OPTIMIZERS, Ending, relax, wandering
from conservbench.dynamics.rows import Rows
from conservbench.models.base import InvalidPredictionError, UnsupportedError
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.models.toy import Field, ToyModel
from conservbench.state import from_atoms, select

ASE = {"fire": FIRE, "lbfgs": LBFGS}
NAMES = sorted(ASE)


class OurCalculator(Calculator):
    """The model as an ASE calculator."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self):
        super().__init__()
        self.model = StillingerWeber()

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        prediction = self.model.evaluate(from_atoms(self.atoms), forces=("gradient",), stress=True)
        stress = prediction.stress[0].numpy()
        self.results = {
            "energy": float(prediction.energy),
            "forces": prediction.forces["gradient"].numpy(),
            "stress": stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        }


@pytest.fixture(scope="module")
def starts():
    """Four rattled crystals; two in strained cells; one with an atom less."""
    frames = []
    for seed, width in enumerate((0.05, 0.1, 0.2, 0.15)):
        atoms = bulk("Si", cubic=True, a=5.431)
        if seed > 1:
            strain = np.random.default_rng(seed).normal(scale=0.03, size=(3, 3))
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        atoms.rattle(width, seed=seed)
        if seed == 3:
            del atoms[0]
        frames.append(atoms)
    return frames


def ase_path(atoms, name, n_steps, filtered):
    """(n_steps + 1, n_atoms, 3) positions, cells and the longest forces along ASE's own relaxation."""
    atoms = atoms.copy()
    atoms.calc = OurCalculator()
    target = UnitCellFilter(atoms) if filtered else atoms
    optimizer = ASE[name](target, logfile=None)
    positions, cells, fmax = [], [], []
    for _ in optimizer.irun(fmax=0.0, steps=n_steps):
        positions.append(atoms.positions.copy())
        cells.append(atoms.cell.array.copy())
        fmax.append(np.linalg.norm(target.get_forces(), axis=1).max())
    return np.array(positions), np.array(cells), np.array(fmax)


def our_path(frames, name, n_steps, filtered):
    """Final states after each number of steps, and the longest forces, of a batch."""
    state = from_atoms(frames)
    model = StillingerWeber()
    force, stress = force_of(model, "gradient"), force_and_stress_of(model)
    space = UnitCell(stress, state.cell) if filtered else FixedCell(force)
    seen = []

    class Watched:
        rows, of, take = space.rows, space.of, space.take

        def forces(self, state):
            seen.append(state)
            return space.forces(state)

        def place(self, state, coordinates):
            return space.place(state, coordinates)

    run = relax(state, Watched(), OPTIMIZERS[name], fmax=0.0, max_steps=[n_steps] * len(frames))
    return seen, run


@pytest.mark.parametrize("filtered", [False, True], ids=["fixed cell", "unit cell"])
@pytest.mark.parametrize("name", NAMES)
def test_every_system_of_a_batch_goes_ases_way(starts, name, filtered):
    n_steps = 40
    states, run = our_path(starts, name, n_steps, filtered)
    alone, _ = our_path(starts[2:3], name, n_steps, filtered)
    for index, atoms in enumerate(starts):
        positions, cells, fmax = ase_path(atoms, name, n_steps, filtered)
        ours = [select(state, [index]) for state in states]
        # rounding, 1e-16, grows by some orders along the way
        np.testing.assert_allclose([one.positions.numpy() for one in ours], positions, atol=1e-9, rtol=0)
        np.testing.assert_allclose([one.cell[0].numpy() for one in ours], cells, atol=1e-9, rtol=0)
        np.testing.assert_allclose(run.fmax[index], fmax, atol=1e-8, rtol=0)
        assert np.abs(positions[-1] - positions[0]).max() > 0.02
    np.testing.assert_allclose(alone[-1].positions, select(states[-1], [2]).positions, atol=1e-9, rtol=0)


def test_the_history_is_as_long_as_ases(starts, monkeypatch):
    monkeypatch.setattr(lbfgs, "MEMORY", 4)
    atoms = starts[1].copy()
    states, _ = our_path([atoms], "lbfgs", 20, False)
    atoms.calc = OurCalculator()
    LBFGS(atoms, logfile=None, memory=4).run(fmax=0.0, steps=20)
    np.testing.assert_allclose(states[-1].positions, atoms.positions, atol=1e-10)
    whole, _ = our_path(starts[1:2], "lbfgs", 3, False)
    np.testing.assert_array_equal(whole[-1].positions, states[3].positions)


@pytest.mark.parametrize("name", NAMES)
def test_minima_are_ases(starts, name):
    """Converged from the same starts: energy and positions."""
    state = from_atoms(starts[:2])
    model = StillingerWeber()
    run = relax(state, FixedCell(force_of(model, "gradient")), OPTIMIZERS[name], fmax=1e-5, max_steps=[400] * 2)
    assert run.ending == (Ending.CONVERGED, Ending.CONVERGED)
    for index, atoms in enumerate(starts[:2]):
        theirs = atoms.copy()
        theirs.calc = OurCalculator()
        optimizer = ASE[name](theirs, logfile=None)
        assert optimizer.run(fmax=1e-5, steps=400)
        # the last of many steps may fall on the other side of the threshold by rounding
        assert run.steps[index] == pytest.approx(optimizer.nsteps, abs=1)
        np.testing.assert_allclose(select(run.final, [index]).positions, theirs.positions, atol=1e-6)
        assert run.energy[index, run.steps[index]] == pytest.approx(theirs.get_potential_energy(), abs=1e-9)
        assert run.energy[index, run.steps[index]] == pytest.approx(-8 * 277.53728 / 64, abs=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_a_strained_cell_finds_its_lattice_constant(name):
    atoms = bulk("Si", cubic=True, a=5.431)
    strain = np.array([[0.03, 0.01, 0.0], [0.01, -0.02, 0.015], [0.0, 0.015, 0.02]])
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    atoms.rattle(0.05, seed=4)
    state, model = from_atoms([atoms]), StillingerWeber()
    space = UnitCell(force_and_stress_of(model), state.cell)
    run = relax(state, space, OPTIMIZERS[name], fmax=1e-4, max_steps=[1500])
    assert run.ending == (Ending.CONVERGED,)
    cell = run.final.cell[0].numpy()
    metric = cell @ cell.T
    # all angles right, all edges 5.431 Å: up to a rotation, that is the diamond structure
    np.testing.assert_allclose(metric, 5.43095**2 * np.eye(3), atol=2e-3)
    assert run.energy[0, -1] / 8 == pytest.approx(-277.53728 / 64, abs=1e-6)


@pytest.fixture(scope="module")
def crystal():
    sites = bulk("Si", cubic=True, a=5.431)
    frames = []
    for seed, width in enumerate((0.02, 0.1, 0.2)):
        frames.append(sites.copy())
        frames[-1].rattle(width, seed=seed)
    return sites, frames


@pytest.mark.parametrize("name", NAMES)
def test_harmonic_crystals_find_their_sites(crystal, name):
    sites, frames = crystal
    model = ToyModel(Field("harmonic", 8.0), sites)
    state = from_atoms(frames)
    run = relax(state, FixedCell(force_of(model, "gradient")), OPTIMIZERS[name], fmax=1e-6, max_steps=[200] * 3)
    assert set(run.ending) == {Ending.CONVERGED}
    home = model.displacements(run.final, run.final.positions, run.final.cell)
    # fmax = k |u|
    assert float(home.norm(dim=1).max()) < 1e-6 / 8
    last = run.fmax[np.arange(3), run.steps]
    assert (last < 1e-6).all()
    assert np.isnan(run.fmax[0, run.steps[0] + 1 :]).all()
    # the centre of mass stays where it was
    shift = (run.final.positions - state.positions).view(3, -1, 3).mean(1)
    assert float(shift.abs().max()) < 1e-12


def test_lbfgs_solves_a_harmonic_crystal_once_it_knows_the_stiffness(crystal):
    """One step of 1/70 of the force teaches it k, the next one is exact: 0.02 Å rattles need no shortened step."""
    sites, frames = crystal
    model = ToyModel(Field("harmonic", 8.0), sites)
    run = relax(
        from_atoms(frames[:1]), FixedCell(force_of(model, "gradient")), OPTIMIZERS["lbfgs"], fmax=1e-9, max_steps=[9]
    )
    assert run.steps.tolist() == [2]
    assert run.fmax[0, 1] == pytest.approx((1 - 8 / 70) * run.fmax[0, 0])


def test_a_force_that_does_not_change_is_no_division_by_zero():
    rows = Rows(torch.zeros(2, dtype=torch.int64), 1)
    pull = torch.tensor([[0.7, 0.0, 0.0], [-0.7, 0.0, 0.0]], dtype=torch.float64)
    memory, here = lbfgs.init(rows), torch.zeros_like(pull)
    for _ in range(3):
        memory, move = lbfgs.step(memory, here, pull)
        np.testing.assert_allclose(move, pull / 70)
        here = here + move


def test_rows_belong_to_their_systems():
    rows = Rows(torch.tensor([0, 1, 1, 0]), 2)
    vector = torch.arange(12.0, dtype=torch.float64).view(4, 3)
    assert rows.dot(vector, vector).tolist() == [5.0 + 81 + 100 + 121, 50.0 + 149]
    np.testing.assert_allclose(rows.longest(vector), np.sqrt([302.0, 149.0]))
    part, members = rows.take(torch.tensor([False, True]))
    assert (part.system.tolist(), part.n_systems, members.tolist()) == ([0, 0], 1, [False, True, True, False])


def broken_beyond(model, limit):
    """The harmonic force, not a number for a system with an atom beyond a distance (Å) from its site after a call."""
    calls = []

    def force(state):
        calls.append(state.n_systems)
        pull, energy = force_of(model, "gradient")(state)
        far = model.displacements(state, state.positions, state.cell).norm(dim=1) > limit
        lost = (state.sum(far.double()) > 0) & (len(calls) > 3)
        return torch.where(lost[state.system, None], torch.nan, pull), energy

    return force, calls


def test_what_is_no_number_in_mid_run_leaves_the_others(crystal):
    sites, frames = crystal
    model = ToyModel(Field("harmonic", 8.0), sites)
    force, calls = broken_beyond(model, 0.15)
    run = relax(from_atoms(frames), FixedCell(force), OPTIMIZERS["fire"], fmax=1e-5, max_steps=[200] * 3)
    assert run.ending == (Ending.CONVERGED, Ending.CONVERGED, Ending.EXPLODED)
    assert run.steps[2] == 3
    assert np.isfinite(run.fmax[2, :3]).all()
    assert np.isnan(run.fmax[2, 3:]).all()
    assert torch.isfinite(run.final.positions).all()
    assert sorted(set(calls), reverse=True) == [3, 2, 1]
    whole = relax(
        from_atoms(frames[:2]),
        FixedCell(force_of(model, "gradient")),
        OPTIMIZERS["fire"],
        fmax=1e-5,
        max_steps=[200] * 2,
    )
    np.testing.assert_array_equal(run.steps[:2], whole.steps)
    np.testing.assert_array_equal(select(run.final, [0, 1]).positions, whole.final.positions)


def test_forces_of_a_wrong_shape_are_refused(crystal):
    space = FixedCell(lambda state: (state.positions[:-1], None))
    with pytest.raises(InvalidPredictionError, match=r"forces have shape \(7, 3\), expected \(8, 3\)"):
        relax(from_atoms(crystal[1][:1]), space, OPTIMIZERS["fire"], fmax=1e-5, max_steps=[5])


def test_a_direct_model_has_no_stress(crystal):
    sites, frames = crystal
    state = from_atoms(frames[:1])
    space = UnitCell(force_and_stress_of(ToyModel(Field("swirl", 8.0, 0.4), sites)), state.cell)
    with pytest.raises(UnsupportedError, match="no gradient"):
        relax(state, space, OPTIMIZERS["lbfgs"], fmax=1e-5, max_steps=[5])


def test_patience_and_budgets_end_a_relaxation(crystal):
    frames = crystal[1]
    still = FixedCell(lambda state: (torch.ones_like(state.positions), None))
    state = from_atoms(frames)
    run = relax(state, still, OPTIMIZERS["lbfgs"], fmax=1e-5, max_steps=[30, 4, 0], patience=7)
    assert run.ending == (Ending.STALLED, Ending.EXHAUSTED, Ending.EXHAUSTED)
    assert run.steps.tolist() == [7, 4, 0]
    assert run.energy is None


def test_a_handover_finishes_with_the_other_force(crystal):
    """Fast forces that vanish 0.03 Å beside the sites: the fast leg ends there, the slow one at the sites."""
    sites, frames = crystal
    model = ToyModel(Field("harmonic", 8.0), sites)
    slow = force_of(model, "gradient")
    seen = {"fast": 0, "slow": 0}
    beside = torch.zeros((8, 3), dtype=torch.float64)
    beside[0, 0], beside[1, 0] = 0.03, -0.03

    def fast(state):
        seen["fast"] += state.n_systems
        pull, energy = slow(state)
        return pull + 8.0 * beside.repeat(state.n_systems, 1), energy

    def counted(state):
        seen["slow"] += state.n_systems
        return slow(state)

    run = relax_with_handover(
        from_atoms(frames),
        FixedCell(fast),
        FixedCell(counted),
        OPTIMIZERS["lbfgs"],
        handover_fmax=1e-3,
        patience=20,
        fmax=1e-6,
        max_steps=50,
        window=10,
    )
    assert set(run.whole.ending) == {Ending.CONVERGED}
    assert run.fast_calls.tolist() == (run.at + 1).tolist()
    assert run.slow_calls.tolist() == (run.whole.steps - run.at + 1).tolist()
    assert seen == {"fast": run.fast_calls.sum(), "slow": run.slow_calls.sum()}
    for system in range(3):
        # at the handover the slow force is that of 0.03 Å
        assert run.whole.fmax[system, run.at[system]] == pytest.approx(8 * 0.03, abs=2e-3)
        assert run.whole.fmax[system, run.whole.steps[system]] < 1e-6
        assert np.isnan(run.whole.fmax[system, run.whole.steps[system] + 1 :]).all()


def test_a_fast_force_without_an_energy_leaves_that_of_the_slow_one(crystal):
    sites, frames = crystal
    model = ToyModel(Field("harmonic", 8.0), sites)
    slow = force_of(model, "gradient")
    fast, finish = FixedCell(lambda state: (slow(state)[0], None)), FixedCell(slow)
    arguments = {"handover_fmax": 0.1, "patience": 20, "fmax": 1e-6, "max_steps": 50, "window": 10}
    run = relax_with_handover(from_atoms(frames), fast, finish, OPTIMIZERS["fire"], **arguments)
    for system, at in enumerate(run.at):
        assert at > 0
        assert np.isnan(run.whole.energy[system, :at]).all()
        assert np.isfinite(run.whole.energy[system, at : run.whole.steps[system] + 1]).all()


def test_a_system_that_explodes_in_the_fast_leg_is_not_handed_over(crystal):
    sites, frames = crystal
    model = ToyModel(Field("harmonic", 8.0), sites)
    slow = FixedCell(force_of(model, "gradient"))
    arguments = {"handover_fmax": 1e-2, "patience": 20, "fmax": 1e-6, "max_steps": 100, "window": 10}
    force, _ = broken_beyond(model, 0.15)
    run = relax_with_handover(from_atoms(frames), FixedCell(force), slow, OPTIMIZERS["fire"], **arguments)
    assert run.whole.ending == (Ending.CONVERGED, Ending.CONVERGED, Ending.EXPLODED)
    assert run.slow_calls[2] == 0
    lost = FixedCell(lambda state: (state.positions * torch.nan, None))
    run = relax_with_handover(from_atoms(frames), lost, slow, OPTIMIZERS["fire"], **arguments)
    assert set(run.whole.ending) == {Ending.EXPLODED}
    assert not run.slow_calls.any()


def test_wandering_of_circles_and_lines():
    angle = np.linspace(0, 4 * np.pi, 201)
    circle = np.stack([2 * np.cos(angle), 2 * np.sin(angle), 0 * angle], axis=-1)[:, None]
    path, extent, recurrence = wandering(circle)
    assert path == pytest.approx(8 * np.pi, rel=1e-3)
    assert extent == pytest.approx(4.0)
    assert recurrence == pytest.approx(0.0, abs=1e-12)
    line = np.linspace([0.0, 0, 0], [3.0, 0, 0], 31)[:, None]
    path, extent, recurrence = wandering(line)
    assert path == pytest.approx(extent) == pytest.approx(3.0)
    assert recurrence > 1.5
    assert wandering(line[:1]) == (0.0, 0.0, 0.0)
