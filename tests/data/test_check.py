"""Labelled structures that cannot be used are refused, and those that can are not."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from conservbench.data.catalogue import find_data_set
from conservbench.data.check import energy_force_ratio, problems, require_usable
from conservbench.data.frames import load_all

KCAL = units.kcal / units.mol


def with_labels(atoms, **labels):
    """A copy with other labels."""
    copy = atoms.copy()
    copy.calc = SinglePointCalculator(copy, **{**(atoms.calc.results if atoms.calc else {}), **labels})
    return copy


def scaled(frames, lengths=1.0, energies=1.0, forces=1.0):
    """The numbers of a file that is written in other units; the arguments are units in Å, eV and eV/Å."""
    found = []
    for atoms in frames:
        copy = with_labels(atoms, energy=atoms.get_potential_energy() / energies, forces=atoms.get_forces() / forces)
        copy.set_cell(atoms.cell.array / lengths)
        copy.positions = atoms.positions / lengths
        found.append(copy)
    return found


def test_sound_structures_pass(silicon):
    assert problems(silicon) == []
    # the trapezoid rule is exact in a harmonic well
    assert energy_force_ratio(silicon) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("energy", lambda value: np.nan, "the energy is not finite"),
        ("energy", lambda value: None, "no energy"),
        ("forces", lambda value: None, "no forces"),
        ("forces", lambda value: value[:-1], r"shape of the forces is \(7, 3\), expected \(8, 3\)"),
        (
            "forces",
            lambda value: np.where(np.arange(8)[:, None] == 5, np.inf, value),
            "the force on atom 5 is not finite",
        ),
    ],
)
def test_labels_are_there_and_finite(silicon, name, spoil, reason):
    results = dict(silicon[3].calc.results)
    changed = spoil(results[name])
    silicon[3].calc.results = {key: value for key, value in {**results, name: changed}.items() if value is not None}
    with pytest.raises(ValueError, match=f"a file: frame 3: {reason}"):
        require_usable(silicon, "a file")


def test_one_frame_in_other_units_is_told(silicon):
    bohr = scaled(silicon, lengths=units.Bohr)[3]
    (problem,) = problems([*silicon[:3], bohr, *silicon[4:]])
    assert problem.frame == 3
    assert "lengths must be in bohr" in problem.reason
    lowered = [with_labels(each, energy=each.get_potential_energy() - 40.0 * len(each)) for each in silicon]
    assert problems(lowered) == []
    hartree = with_labels(lowered[5], energy=lowered[5].get_potential_energy() / units.Hartree)
    (problem,) = problems([*lowered[:5], hartree, *lowered[6:]])
    assert problem.frame == 5
    assert "in other units" in problem.reason


def test_forces_that_were_never_filled_in_are_missing(silicon):
    idle = [with_labels(each, forces=np.zeros((8, 3))) for each in silicon]
    (problem,) = problems(idle)
    assert problem.frame == 0
    assert "all forces are zero" in problem.reason
    (problem,) = problems([*silicon[:4], idle[4], *silicon[5:]])
    assert problem.frame == 4
    assert "or missing" in problem.reason
    # a crystal at rest among others has none
    rest = with_labels(idle[0], energy=min(each.get_potential_energy() for each in silicon))
    rest.positions = np.median([each.positions for each in silicon], axis=0)
    assert problems([rest, *silicon[1:]]) == []


@pytest.mark.parametrize(("factor", "reason"), [(-1.0, "the other sign"), (1 / KCAL, "as hard"), (0.0, "as hard")])
@pytest.mark.parametrize("name", ["ethanol-xtb", "gan-xtb", "lgps-xtb"])
def test_one_frame_with_other_forces_is_told(name, factor, reason):
    frames = load_all(find_data_set(name))[:60]
    assert problems(frames) == []
    frames[17] = with_labels(frames[17], forces=factor * frames[17].get_forces())
    (problem,) = problems(frames)
    assert problem.frame == 17
    assert reason in problem.reason


@pytest.mark.parametrize("units_of_file", [{"forces": -1.0}, {"energies": KCAL, "forces": KCAL}])
def test_cells_that_differ_do_not_hide_units(units_of_file):
    frames = load_all(find_data_set("lgps-xtb"))[:60]
    rng = np.random.default_rng(0)
    for index, atoms in enumerate(frames):
        copy = atoms.copy()
        copy.set_cell(atoms.cell.array * (1.0 + 3e-3 * rng.normal()), scale_atoms=True)
        frames[index] = with_labels(copy, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
    assert problems(frames) == []
    assert problems(scaled(frames, **units_of_file))


def test_numbers_that_no_structure_has_are_refused(silicon):
    strong, far = silicon[2].get_forces(), silicon[2].copy()
    strong[5, 1], far.positions[1, 2] = 1e5, 1e300
    for spoilt, reason in (
        (with_labels(silicon[2], forces=strong), "the force on atom 5 is 1e+05 eV/Å"),
        (with_labels(far, **silicon[2].calc.results), "atom 1 is at 1e+300 Å"),
    ):
        (problem,) = problems([*silicon[:2], spoilt, *silicon[3:]])
        assert (problem.frame, problem.reason) == (2, reason)


def test_stresses_are_finite_and_in_their_unit(silicon):
    stress = np.array([0.02, -0.01, 0.03, 0.0, 0.01, 0.0])
    labelled = [with_labels(each, stress=stress) for each in silicon]
    assert problems(labelled) == []
    (problem,) = problems([*labelled[:2], with_labels(silicon[2], stress=stress * np.nan), *labelled[3:]])
    assert (problem.frame, problem.reason) == (2, "the stress is not finite")
    (problem,) = problems([with_labels(each, stress=stress / units.GPa) for each in silicon])
    assert "GPa or kbar" in problem.reason


def test_structures_are_sound(silicon):
    def spoiled(change):
        copy = with_labels(silicon[2])
        change(copy)
        (problem,) = problems([*silicon[:2], copy, *silicon[3:]])
        assert problem.frame == 2
        return problem.reason

    assert "position of atom 1" in spoiled(lambda atoms: atoms.positions.__setitem__((1, 0), np.nan))
    assert "unknown element of atom 4" in spoiled(lambda atoms: atoms.numbers.__setitem__(4, 0))
    assert "0 (Si) and 6 (Si) are at the same place" in spoiled(
        lambda atoms: atoms.positions.__setitem__(6, atoms.positions[0])
    )
    assert "Å apart: broken" in spoiled(lambda atoms: atoms.positions.__setitem__(6, atoms.positions[0] + 0.3))
    assert "not a cell" in spoiled(lambda atoms: atoms.set_cell(np.ones((3, 3))))
    assert "not a cell" in spoiled(lambda atoms: atoms.set_cell(np.zeros((3, 3))))
    assert "volume is" in spoiled(lambda atoms: atoms.set_cell(np.eye(3)))
    assert "cell is not finite" in spoiled(lambda atoms: atoms.set_cell(np.full((3, 3), np.nan)))
    assert len(problems([Atoms(), *silicon[1:]])) == 1
    with pytest.raises(ValueError, match=r"a file: frame 0: no atoms \(and 1 more\)"):
        require_usable([Atoms(), Atoms()], "a file")


@pytest.mark.parametrize(
    ("units_of_file", "reason"),
    [
        ({"lengths": units.Bohr}, "lengths must be in bohr"),
        ({"lengths": units.Bohr, "energies": units.Hartree, "forces": units.Hartree / units.Bohr}, "in bohr"),
        ({"lengths": units.nm}, "not a cell of 8 atoms: its volume is 0.16 Å"),
        ({"energies": KCAL}, "23.* times as much as the work"),
        ({"energies": units.Hartree}, "0.036.* times as much as the work"),
        ({"forces": units.Hartree / units.Bohr}, "51.* times as much as the work"),
        ({"energies": KCAL, "forces": KCAL}, "must be in kcal/mol/Å"),
        ({"energies": units.Hartree, "forces": units.Hartree / units.Bohr}, "1.8.* times as much as the work"),
        ({"forces": -1.0}, "forces have the other sign"),
        ({"energies": units.Hartree, "forces": units.Hartree}, r"softer than .* must be in hartree, rydberg"),
        ({"energies": units.Ry, "forces": units.Ry}, r"softer than .* must be in hartree, rydberg"),
    ],
)
def test_units_that_cannot_be(silicon, units_of_file, reason):
    with pytest.raises(ValueError, match=f"a file: frame 0: .*({reason})"):
        require_usable(scaled(silicon, **units_of_file), "a file")


@pytest.fixture
def tumbling():
    """Frames of a molecule of springs between all atoms, each turned and put somewhere else, in no order."""
    rng = np.random.default_rng(0)
    rest = molecule("CH4")
    frames = []
    for _ in range(60):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        turn *= np.linalg.det(turn)
        away = rng.normal(0, 0.05, rest.positions.shape)
        atoms = Atoms(rest.symbols, (rest.positions + away) @ turn + rng.normal(0, 5, 3))
        apart = atoms.positions[:, None] - atoms.positions
        lengths = np.linalg.norm(apart, axis=-1) + np.eye(5)
        stretch = lengths - rest.get_all_distances() - np.eye(5)
        forces = -10.0 * (stretch / lengths)[:, :, None] * apart
        frames.append(with_labels(atoms, energy=2.5 * float(np.square(stretch).sum()), forces=forces.sum(1)))
    return frames


def test_energies_and_forces_of_molecules_are_compared_turned_onto_each_other(tumbling):
    assert problems(tumbling) == []
    assert energy_force_ratio(tumbling) == pytest.approx(1.0, abs=0.15)
    for units_of_file in ({"energies": KCAL}, {"forces": units.Hartree / units.Bohr}, {"forces": -1.0}):
        assert len(problems(scaled(tumbling, **units_of_file))) == 1


def test_an_atom_that_left_through_the_wall_is_no_work(silicon):
    for index, atoms in enumerate(silicon):
        atoms.positions[index % 8] += atoms.cell.array[index % 3]
    assert energy_force_ratio(silicon) == pytest.approx(1.0)


def test_structures_that_are_seldom_are_not_refused():
    argon = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.76]])
    atom = Atoms("O")
    far = Atoms("O2", [[0, 0, 0], [0, 0, 9.0]])
    seldom = (argon, atom, far, molecule("CH3CH2OH"))
    assert problems([with_labels(each, energy=0.0, forces=np.zeros((len(each), 3))) for each in seldom]) == []


@pytest.mark.parametrize("name", ["water", "ethanol", "mlearn-si", "fitsnap-si", "gan-volume"])
def test_public_sets_are_usable(reference_data, name):
    frames = load_all(find_data_set(name))
    assert problems(frames[:60]) == []


@pytest.mark.parametrize(
    "units_of_file",
    [{"energies": KCAL}, {"forces": -1.0}, {"energies": units.Hartree, "forces": units.Hartree / units.Bohr}],
)
@pytest.mark.parametrize("name", ["ethanol", "mlearn-si", "fitsnap-si"])
def test_public_sets_whose_energies_and_forces_disagree_are_refused(reference_data, name, units_of_file):
    frames = load_all(find_data_set(name))[:100]
    assert problems(frames) == []
    with pytest.raises(ValueError, match=r"times as much as the work|other sign"):
        require_usable(scaled(frames, **units_of_file), name)


@pytest.mark.parametrize("name", ["ethanol", "mlearn-si"])
def test_public_sets_in_other_units_of_energy_are_refused(reference_data, name):
    frames = load_all(find_data_set(name))
    for unit in (units.Hartree, units.Ry):
        with pytest.raises(ValueError, match=r"bonds are .* softer than their lengths let expect"):
            require_usable(scaled(frames, energies=unit, forces=unit), name)


def test_cold_frames_in_other_units_are_refused():
    frames = [atoms for atoms in load_all(find_data_set("ethanol-xtb")) if atoms.info["temperature"] == 200.0][:40]
    assert problems(frames) == []
    for unit, how in ((units.Hartree, "softer"), (units.Ry, "softer"), (2.0 * KCAL, "stiffer")):
        with pytest.raises(ValueError, match=f"bonds are .* times {how} than their lengths"):
            require_usable(scaled(frames, energies=unit, forces=unit), "cold")


@pytest.mark.parametrize(("name", "unit"), [("ethanol", KCAL), ("fitsnap-si", KCAL), ("water", KCAL)])
def test_public_sets_in_other_units_are_refused(reference_data, name, unit):
    frames = load_all(find_data_set(name))[:60]
    with pytest.raises(ValueError, match="must be in kcal/mol/Å"):
        require_usable(scaled(frames, energies=unit, forces=unit), name)
    with pytest.raises(ValueError, match="must be in bohr"):
        require_usable(scaled(frames, lengths=units.Bohr), name)
