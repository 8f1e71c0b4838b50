"""ASE calculators as models: same numbers as ASE, and clear errors for what is no prediction."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from conservbench.cards import CardError, find_model
from conservbench.models import ase as ase_models
from conservbench.models.ase import ASEModel, import_factory
from conservbench.models.base import InvalidPredictionError, UnsupportedError
from conservbench.models.load import load_model
from conservbench.state import from_atoms, select
from conservbench.systems import find_system


class Fixed(Calculator):
    """Says what it is told to say; counts how often it is asked to calculate."""

    def __init__(self, **results):
        super().__init__()
        self.implemented_properties = list(results)
        self.told = results
        self.n_calls = 0

    def calculate(self, atoms=None, properties=None, system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.n_calls += 1
        self.results = {name: value(atoms) if callable(value) else value for name, value in self.told.items()}


class ForcesOnly(Calculator):
    """Forces and no energy."""

    implemented_properties = ("forces",)

    def calculate(self, atoms=None, properties=None, system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results = {"forces": -atoms.positions}


@pytest.fixture
def frames():
    copper = bulk("Cu", cubic=True) * (2, 1, 1)
    gold = bulk("Au", cubic=True)
    for seed, atoms in enumerate((copper, gold)):
        atoms.rattle(0.1, seed=seed)
    return [copper, gold, copper]


@pytest.fixture
def pair():
    return from_atoms(Atoms("Ar2", positions=[[0, 0, 0], [3.9, 0, 0]]))


def zeros(atoms):
    return np.zeros((len(atoms), 3))


def card_text(options, scheme="gradient"):
    return f'name = "mine"\nversion = 1\ntitle = "t"\nloader = "ase"\nscheme = "{scheme}"\n[options]\n{options}\n'


def test_batch_equals_ase(frames):
    prediction = ASEModel(EMT()).evaluate(from_atoms(frames), forces=("gradient",), stress=True)
    for atoms in frames:
        atoms.calc = EMT()
    energies = [atoms.get_potential_energy() for atoms in frames]
    np.testing.assert_allclose(prediction.energy, energies, rtol=1e-12)
    forces = np.concatenate([atoms.get_forces() for atoms in frames])
    np.testing.assert_allclose(prediction.forces["gradient"], forces, atol=1e-12)
    np.testing.assert_allclose(prediction.stress, [atoms.get_stress(voigt=False) for atoms in frames], atol=1e-14)
    assert prediction.energy.dtype == prediction.forces["gradient"].dtype == torch.float64


def test_molecules_and_moved_atoms(frames):
    water = molecule("H2O")
    model = ASEModel(LennardJones(sigma=1.0, epsilon=0.1, rc=4.0))
    state = from_atoms(water)
    first = model.evaluate(state, forces=("gradient",))
    moved = state.replace(positions=state.positions * 1.1)
    second = model.evaluate(moved, forces=("gradient",))
    water.positions *= 1.1
    water.calc = LennardJones(sigma=1.0, epsilon=0.1, rc=4.0)
    np.testing.assert_allclose(second.forces["gradient"], water.get_forces(), atol=1e-12)
    assert (first.forces["gradient"] - second.forces["gradient"]).abs().max() > 1e-3


def test_answers_do_not_depend_on_what_was_asked_before(frames):
    batch = from_atoms(frames)
    model = ASEModel(EMT())
    fresh = ASEModel(EMT()).evaluate(select(batch, [1, 0]), forces=("gradient",))
    model.evaluate(batch, forces=("gradient",))
    again = model.evaluate(select(batch, [1, 0]), forces=("gradient",))
    torch.testing.assert_close(again.forces["gradient"], fresh.forces["gradient"])
    strained = batch.replace(cell=batch.cell * 1.02, positions=batch.positions * 1.02)
    expected = ASEModel(EMT()).evaluate(strained).energy
    torch.testing.assert_close(model.evaluate(strained).energy, expected)


def test_one_calculation_serves_energy_forces_and_stress(pair):
    calculator = Fixed(energy=1.0, forces=zeros, stress=np.zeros(6))
    model = ASEModel(calculator)
    model.evaluate(pair, forces=("gradient",), stress=True)
    assert calculator.n_calls == 1


def test_results_are_copies(pair):
    buffer = np.zeros((2, 3))
    model = ASEModel(Fixed(energy=1.0, forces=lambda atoms: buffer))
    kept = model.evaluate(pair, forces=("gradient",)).forces["gradient"]
    buffer += 7
    assert (kept == 0).all()


def test_energy_is_the_one_consistent_with_the_forces(pair):
    model = ASEModel(Fixed(energy=1.0, free_energy=2.0, forces=zeros))
    assert model.evaluate(pair).energy.tolist() == [2.0]


def test_a_direct_card_gives_direct_forces(pair):
    model = ASEModel(ForcesOnly(), channel="direct")
    prediction = model.evaluate(pair, forces=("direct",))
    assert prediction.energy is None
    torch.testing.assert_close(prediction.forces["direct"], -pair.positions)
    with pytest.raises(UnsupportedError, match="no gradient forces"):
        model.evaluate(pair, forces=("gradient",))
    with pytest.raises(UnsupportedError, match="stress"):
        model.evaluate(pair, stress=True)


def test_what_a_calculator_lacks_is_unsupported(pair):
    with pytest.raises(UnsupportedError, match="no stress"):
        ASEModel(Fixed(energy=1.0, forces=zeros)).evaluate(pair, stress=True)
    with pytest.raises(UnsupportedError, match='no energy: its card needs scheme = "direct"'):
        ASEModel(ForcesOnly()).evaluate(pair, forces=("gradient",))
    with pytest.raises(UnsupportedError, match="no forces"):
        ASEModel(Fixed(energy=1.0)).evaluate(pair, forces=("gradient",))
    with pytest.raises(UnsupportedError, match="cannot be differentiated"):
        ASEModel(EMT()).evaluate(pair, graph=True)


@pytest.mark.parametrize(
    ("channel", "asked", "name"),
    [
        ("gradient", {}, "energy"),
        ("direct", {}, "energy"),
        ("gradient", {"forces": ("gradient",)}, "forces"),
        ("direct", {"forces": ("direct",)}, "forces"),
        ("gradient", {"stress": True}, "stress"),
    ],
)
def test_a_structure_that_a_calculator_does_not_know_is_not_called_a_lack(channel, asked, name):
    with pytest.raises(UnsupportedError, match=f"EMT gives no {name} here: No EMT-potential for Si"):
        ASEModel(EMT(), channel=channel).evaluate(from_atoms(bulk("Si")), **asked)


def test_the_words_of_a_calculator_are_put_on_one_line(pair):
    def unknown(atoms):
        raise NotImplementedError("not\nfor argon")

    with pytest.raises(UnsupportedError, match="Fixed gives no forces here: not for argon"):
        ASEModel(Fixed(energy=1.0, forces=unknown)).evaluate(pair, forces=("gradient",))


def test_values_that_are_not_finite_are_left_to_those_who_ask(pair):
    """One system of a batch may explode: the others are still wanted."""

    def pulls(atoms):
        return zeros(atoms) + (np.nan if atoms.positions[1, 0] > 4 else 1.0)

    calculator = Fixed(energy=lambda atoms: pulls(atoms)[0, 0], forces=pulls)
    near, far = (Atoms("Ar2", positions=[[0, 0, 0], [distance, 0, 0]]) for distance in (3.9, 5.0))
    prediction = ASEModel(calculator).evaluate(from_atoms([near, far, near]), forces=("gradient",))
    assert prediction.energy.isnan().tolist() == [False, True, False]
    assert prediction.forces["gradient"].isnan().all(1).tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"energy": 1.0, "forces": np.zeros(3)}, r"Fixed, system 0: forces: shape is \(3,\), expected \(2, 3\)"),
        ({"energy": 1.0, "forces": np.zeros((3, 3))}, r"forces: shape is \(3, 3\), expected \(2, 3\)"),
        ({"energy": np.zeros(2), "forces": zeros}, r"energy: shape is \(2,\), expected \(\)"),
        ({"energy": 1.0, "forces": zeros, "stress": np.zeros(5)}, r"stress: shape is \(5,\), expected \(3, 3\)"),
    ],
)
def test_what_is_no_prediction_is_named(pair, results, message):
    with pytest.raises(InvalidPredictionError, match=message):
        ASEModel(Fixed(**results)).evaluate(pair, forces=("gradient",), stress="stress" in results)


def test_an_energy_in_an_array_of_one_is_taken(pair):
    assert ASEModel(Fixed(energy=np.array([1.5]), forces=zeros)).evaluate(pair).energy.tolist() == [1.5]


def test_errors_of_the_calculator_are_not_hidden(pair):
    def broken(atoms):
        raise ZeroDivisionError("no such basis")

    with pytest.raises(ZeroDivisionError, match="no such basis"):
        ASEModel(Fixed(energy=broken, forces=zeros)).evaluate(pair)


def test_load_by_card(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        card_text('factory = "ase.calculators.lj:LennardJones"\narguments = { sigma = 2.0, epsilon = 0.5 }')
    )
    model = ase_models.load(find_model(str(path)), find_system("si-64"))
    assert isinstance(model.calculator, LennardJones)
    assert model.calculator.parameters.sigma == 2.0
    assert (model.channels, model.differentiable, model.labelled, model.elements) == (("gradient",), False, False, None)
    path.write_text(card_text('factory = "ase.calculators.lj:LennardJones"', scheme="direct"))
    assert ase_models.load(find_model(str(path)), find_system("si-64")).channels == ("direct",)


def test_load_by_name():
    model = ase_models.load(find_model("ase:ase.calculators.emt:EMT"), find_system("si-64"))
    assert model.name == "ase.calculators.emt:EMT"


def test_factories_in_the_current_folder_are_found(tmp_path, monkeypatch):
    (tmp_path / "mycalculator.py").write_text("from ase.calculators.emt import EMT as make\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert import_factory("mycalculator:make") is EMT


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("ase.calculators.emt", "expected package.module:factory"),
        ("ase.calculators.nothing:EMT", "cannot import ase.calculators.nothing"),
        ("ase.calculators.emt:EMTT", "did you mean 'EMT'"),
        ("ase.calculators.emt:parameters", "is a dict, expected a callable"),
        ("builtins:dict", "made a dict, expected an ASE calculator"),
        ("ase.calculators.lj:LennardJones.get_forces", "does not take its arguments"),
    ],
)
def test_load_names_a_wrong_factory(tmp_path, factory, message):
    path = tmp_path / "mine.toml"
    path.write_text(card_text(f'factory = "{factory}"'))
    with pytest.raises(CardError, match=message):
        ase_models.load(find_model(str(path)), find_system("si-64"))


def test_two_channels_need_two_models(tmp_path):
    path = tmp_path / "mine.toml"
    text = card_text('factory = "ase.calculators.emt:EMT"', scheme="mts").replace("[options]", "stride = 4\n[options]")
    path.write_text(text)
    with pytest.raises(CardError, match="one force: name the card of another model as 'fast'"):
        ase_models.load(find_model(str(path)), find_system("si-64"))
    path.write_text(text.replace("stride = 4", 'stride = 4\nfast = "si-sw"'))
    assert load_model(find_model(str(path)), find_system("si-64")).channels == ("gradient", "direct")
