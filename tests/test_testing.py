"""The conformance kit: right models pass, and a model that is wrong in one way fails the check that asks for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from conservbench.cards import CardError, find_model
from conservbench.models.ase import ASEModel
from conservbench.models.base import Prediction, UnsupportedError
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.models.toy import Field, ToyModel
from conservbench.systems import find_system
from conservbench.testing import TOLERANCE, WORK_TOLERANCE, Check, candidate, check_model, conformance_checks

CHECKS = {check.name: check for check in conformance_checks()}


@pytest.fixture(scope="module")
def silicon():
    return bulk("Si", "diamond", a=5.43, cubic=True)


class Silicon:
    """Stillinger-Weber silicon, with hooks for what is to go wrong."""

    channels = ("gradient",)
    elements = frozenset({14})
    differentiable = True
    labelled = False
    device = torch.device("cpu")

    def __init__(self):
        self.right = StillingerWeber()

    def ask(self, state, **wanted):
        return self.right.evaluate(state, **wanted)

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        said = self.ask(state, forces=forces, stress=stress, graph=graph)
        pulls = {channel: self.force(said.forces[channel], state, graph) for channel in forces}
        return Prediction(self.energy(said.energy, state), pulls, self.tension(said.stress))

    def energy(self, energy, state):
        return energy

    def force(self, force, state, graph):
        return force

    def tension(self, stress):
        return stress


class Direct(Silicon):
    """The same forces, as direct ones, with no energy and no graph."""

    channels = ("direct",)
    differentiable = False

    def ask(self, state, *, forces, stress, graph):
        if stress or graph or "gradient" in forces:
            raise UnsupportedError("forces are all it has")
        if not set(state.numbers.tolist()) <= self.elements:
            raise UnsupportedError("silicon is all it knows")
        said = self.right.evaluate(state, forces=("gradient",) if forces else ())
        return Prediction(None, {"direct": said.forces["gradient"]} if forces else {})


def broken(base, **members):
    return type("Broken", (base,), members)()


def failures(model, system):
    """Names of the checks that fail."""
    subject = candidate(model, system)
    found = set()
    for check in conformance_checks():
        try:
            check(subject)
        except AssertionError as error:
            assert str(error).startswith(f"{subject.name}: {check.name}: ")  # noqa: PT017 - which check it was
            found.add(check.name)
    return found


@pytest.mark.parametrize("name", ["harmonic", "swirl", "swirl-mts8", "swirl-sic", "si-sw", "si-edip"])
def test_published_models_conform(name):
    said = check_model(name)
    assert set(said) == set(CHECKS)
    absent = {check for check, reason in said.items() if reason}
    channels = find_model(name).scheme.channels
    if name.startswith("si-"):
        assert not absent
    elif "gradient" in channels:
        assert absent == {"permutation"}
    else:
        assert absent == {"permutation", "energy", "gradient", "stress"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["si-mace-gradient", "si-mace-direct", "si-mace-directonly", "si-mace-mts-sw"])
def test_published_networks_conform(name):
    check_model(name)


def test_right_models_pass_all(silicon):
    assert failures(Silicon(), silicon) == set()
    assert failures(Direct(), silicon) == set()
    assert not any(check_model(Silicon(), silicon).values())
    assert {name for name, reason in check_model(Direct(), silicon).items() if reason} == {
        "energy",
        "gradient",
        "stress",
        "graph",
    }


NOISE = np.random.default_rng(0)


def remembered(self, force, state, graph):
    """Forces with a little of those given before."""
    old = getattr(self, "old", None)
    self.old = force.clone()
    return force if old is None or old.shape != force.shape else 0.9 * force + 0.1 * old


def reused(self, force, state, graph):
    """Forces in one buffer for all answers of a shape."""
    buffers = self.__dict__.setdefault("buffers", {})
    return buffers.setdefault(force.shape, torch.empty_like(force)).copy_(force)


def moves(self, state, *, forces, stress, graph):
    """A model that wraps the positions it is given in place."""
    said = Direct.ask(self, state, forces=forces, stress=stress, graph=graph)
    state.positions.add_(1e-9)
    return said


def answers_all(self, state, *, forces, stress, graph):
    said = self.right.evaluate(state.replace(numbers=torch.full_like(state.numbers, 14)), forces=("gradient",))
    if stress or graph:
        raise UnsupportedError("forces are all it has")
    return Prediction(None, dict.fromkeys(forces, said.forces["gradient"]))


def labels(state):
    return torch.arange(state.n_atoms, dtype=torch.float64)[:, None] / state.n_atoms


def strayed(state):
    """Distance from the middle of the atoms, which an atom in another image changes."""
    return state.positions - (state.sum(state.positions) / state.counts[:, None])[state.system]


@pytest.mark.parametrize(
    ("base", "members", "expected"),
    [
        (Direct, {"channels": ["direct"]}, {"interface"}),
        (Direct, {"labelled": 0}, {"interface"}),
        (Direct, {"device": "cpu"}, {"interface"}),
        (Direct, {"elements": {14}}, {"interface"}),
        (Direct, {"force": lambda s, f, state, g: f.float()}, {"shapes"}),
        (Direct, {"force": lambda s, f, state, g: f.clone().index_fill_(0, torch.tensor([0]), torch.nan)}, None),
        (Direct, {"force": lambda s, f, state, g: f.flatten()}, None),
        (Direct, {"ask": answers_all}, {"channels", "elements"}),
        (Silicon, {"energy": lambda s, e, state: None}, {"energy", "gradient", "stress"}),
        (Silicon, {"energy": lambda s, e, state: e[0]}, None),
        (Silicon, {"force": lambda s, f, state, g: 1.01 * f}, {"gradient", "graph"}),
        (Silicon, {"energy": lambda s, e, state: 1.01 * e}, {"gradient", "stress", "graph"}),
        (Silicon, {"tension": lambda s, t: None if t is None else -t}, {"stress"}),
        (Silicon, {"tension": lambda s, t: None if t is None else 160.2 * t}, {"stress"}),
        (Silicon, {"force": lambda s, f, state, g: f.detach()}, {"graph"}),
        (Silicon, {"force": lambda s, f, state, g: f + 0.0 * state.positions.requires_grad_()}, None),
        (Direct, {"force": lambda s, f, state, g: f * (1 + 0.01 * state.n_systems)}, {"batch"}),
        (Direct, {"force": lambda s, f, state, g: f * (1 + 0.01 * state.system[:, None])}, {"batch"}),
        (Direct, {"force": lambda s, f, state, g: f + 0.01 * labels(state)}, None),
        (Direct, {"force": lambda s, f, state, g: f + 0.01 * state.positions}, {"translation", "images"}),
        (Direct, {"force": lambda s, f, state, g: f - 0.01 * strayed(state)}, {"images"}),
        (Direct, {"force": lambda s, f, state, g: f - 0.1 * state.velocities}, {"velocities"}),
        (Direct, {"force": lambda s, f, state, g: f * state.masses[:, None] / 28.085}, {"velocities"}),
        (Direct, {"force": lambda s, f, state, g: f + 0.01 * torch.from_numpy(NOISE.normal(size=f.shape))}, None),
        (Direct, {"force": reused}, None),
        (Direct, {"ask": moves}, {"memory"}),
        (Direct, {"elements": frozenset({14, 32}), "ask": answers_all}, None),
    ],
)
def test_a_wrong_model_fails_what_asks_for_it(base, members, expected, silicon):
    found = failures(broken(base, **members), silicon)
    if expected is None:
        assert found
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"force": lambda s, f, state, g: f.flatten()}, "shapes"),
        ({"force": lambda s, f, state, g: f.index_fill(0, torch.tensor([0]), torch.nan)}, "shapes"),
        ({"force": lambda s, f, state, g: f + 0.01 * labels(state)}, "permutation"),
        ({"force": lambda s, f, state, g: f + 0.01 * torch.from_numpy(NOISE.normal(size=f.shape))}, "determinism"),
        ({"force": remembered}, "memory"),
        ({"force": reused}, "memory"),
    ],
)
def test_what_shows_in_several_checks_shows_in_its_own(members, expected, silicon):
    with pytest.raises(AssertionError, match=f"^Broken: {expected}: "):
        CHECKS[expected](broken(Direct, **members), silicon)


def test_all_failures_are_told_a_line_each(silicon):
    model = broken(Silicon, force=lambda self, f, state, g: 1.01 * f, tension=lambda self, t: None if t is None else -t)
    with pytest.raises(AssertionError) as caught:
        check_model(model, silicon)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["gradient", "stress", "graph"]


def test_what_a_model_raises_names_the_check(silicon):
    def confused(self, force, state, graph):
        raise RuntimeError("the network\nis confused")

    with pytest.raises(AssertionError, match="Broken: shapes: the model raised RuntimeError: the network is confused"):
        CHECKS["shapes"](broken(Direct, force=confused), silicon)


class Claims:
    """A direct force that is called a gradient."""

    channels = ("gradient",)
    differentiable = False

    def __init__(self, model):
        self.model, self.elements, self.labelled, self.device = model, model.elements, model.labelled, model.device

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        if stress or graph or "direct" in forces:
            raise UnsupportedError("no")
        said = self.model.evaluate(state, forces=("direct",) if forces else ())
        return Prediction(said.energy, {"gradient": said.forces["direct"]} if forces else {})


@pytest.mark.parametrize(("curl", "caught"), [(0.0, False), (0.15, True), (1.0, True)])
def test_a_curl_called_a_gradient_is_caught(curl, caught):
    """A curl of 2 % of the stiffness moves the energy of a path by 0.6 %, six times the limit."""
    toy = ToyModel(Field("swirl", 7.4, curl), find_system("si-64").sites)
    assert failures(Claims(toy), "si-64") == ({"gradient"} if caught else set())


def test_ase_calculators(silicon):
    copper = bulk("Cu", cubic=True) * (2, 2, 2)
    assert {name for name, reason in check_model(EMT(), copper).items() if reason} == {"graph", "elements"}
    argon = bulk("Ar", cubic=True, a=5.26) * (2, 2, 2)
    check_model(LennardJones(sigma=3.4, epsilon=0.0103, rc=8.0, smooth=True), argon)
    water = molecule("H2O")
    said = check_model(LennardJones(sigma=1.0, epsilon=0.1, rc=4.0), water)
    assert "not periodic" in said["stress"]
    assert "not periodic" in said["images"]


@pytest.mark.parametrize("zero", [0.0, 1e5])
@pytest.mark.parametrize("size", [0.5, 1e-3])
def test_an_energy_that_knows_where_it_is_does_not_hide_behind_its_zero(zero, size):
    class Placed(EMT):
        """Energies that the first atom changes by where it is; forces know nothing of it."""

        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            for name in ("energy", "free_energy"):
                self.results[name] += zero + size * np.sin(self.atoms.positions[0, 0])

    found = failures(Placed(), bulk("Cu", cubic=True) * (2, 2, 2))
    assert {"permutation", "translation", "images"} <= found
    assert ("gradient" in found) == (size > 0.1)


@pytest.mark.parametrize("zero", [0.0, -1e4, 1e5])
def test_single_precision_passes_whatever_the_zero(zero, silicon):
    """The energy is rounded with its zero, by up to 4 meV; the model sees what single precision leaves of distances."""

    def rounded(self, state, **wanted):
        said = self.right.evaluate(state.replace(positions=state.positions.float().double()), **wanted)
        forces = {channel: force.float().double() for channel, force in said.forces.items()}
        return Prediction((said.energy + zero).float().double(), forces, said.stress)

    model = broken(Silicon, ask=rounded, differentiable=False)
    assert candidate(model, silicon).rounding == torch.finfo(torch.float32).eps
    # this stand-in rounds, but can be differentiated
    assert failures(model, silicon) <= {"graph"}
    wrong = broken(Silicon, ask=rounded, differentiable=False, force=lambda self, f, state, graph: 1.5 * f)
    assert "gradient" in failures(wrong, silicon)


def test_noise_shows_though_calculators_keep_their_last_answer():
    noise = np.random.default_rng(1)

    class Noisy(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["forces"] = self.results["forces"] * (1 + 1e-3 * noise.normal())

    with pytest.raises(AssertionError, match="Noisy: determinism: the same question is answered in two ways"):
        CHECKS["determinism"](Noisy(), bulk("Cu", cubic=True) * (2, 2, 2))


def test_what_cannot_be_asked_is_told_in_a_line():
    with pytest.raises(TypeError, match=r"cannot check the class EMT; expected an instance, such as EMT\(\)"):
        check_model(EMT)
    with pytest.raises(UnsupportedError, match=r"^EMT cannot be asked about Si64: .* No EMT-potential for Si$"):
        check_model(EMT())


class Push(Calculator):
    """Forces alone, of pairs that push each other about."""

    implemented_properties = ("forces",)

    def calculate(self, atoms=None, properties=None, system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results = {"forces": np.sin(atoms.get_all_distances(mic=True, vector=True)).sum(0)}


def test_forces_without_an_energy_are_direct_ones(silicon):
    check_model(ASEModel(Push(), channel="direct"), silicon)
    with pytest.raises(AssertionError, match="Push has no energy"):
        check_model(Push(), silicon)


def test_names_cards_and_paths(tmp_path, silicon):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nversion = 1\ntitle = "t"\nloader = "stillinger_weber"\nscheme = "direct"\n')
    with pytest.raises(AssertionError, match="mine: interface: its card's scheme needs direct forces; it has gradient"):
        check_model(str(path), silicon)
    check_model(find_model("si-sw"), silicon)
    with pytest.raises(CardError, match="did you mean 'si-sw'"):
        check_model("si-sww")
    with pytest.raises(ValueError, match="no system 'si-65'"):
        check_model("si-sw", "si-65")
    with pytest.raises(TypeError, match="cannot check a int"):
        check_model(7)
    with pytest.raises(UnsupportedError, match="does not know C"):
        check_model("si-sw", "sic-64")


def test_the_default_system_is_that_of_the_card():
    assert set(candidate("swirl-sic").state.numbers.tolist()) == {6, 14}
    assert set(candidate("si-sw").state.numbers.tolist()) == {14}


@pytest.mark.parametrize("check", conformance_checks(), ids=str)
def test_one_test_a_check(check: Check, silicon):
    check(Silicon(), silicon)
    assert check.asks
    assert str(check) == check.name


def test_limits_lie_between_right_and_wrong():
    assert 1e-6 < TOLERANCE < 1e-2
    assert 2e-5 < WORK_TOLERANCE < 5.9e-3
