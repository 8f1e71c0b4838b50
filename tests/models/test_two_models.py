"""Two models as one: each part is exactly what its own model says, and the fast one is called alone."""

import pytest
import torch

from conservbench.cards import find_model, read_model
from conservbench.models.base import Model, Prediction, UnsupportedError
from conservbench.models.load import load_model
from conservbench.models.toy import Field, ToyModel
from conservbench.models.two_models import TwoModels
from conservbench.state import from_atoms
from conservbench.systems import find_system


@pytest.fixture(scope="module")
def system():
    return find_system("si-64")


@pytest.fixture(scope="module")
def state(system):
    return from_atoms(system.snapshots[:2])


def toy(system, field, curl=0.0):
    return ToyModel(Field(field, 7.4, curl), system.sites)


class Counting:
    """A model that counts its calls."""

    def __init__(self, model):
        self.model, self.asked = model, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        self.asked.append(tuple(forces))
        return self.model.evaluate(state, forces=forces, stress=stress, graph=graph)


def test_each_channel_is_that_of_its_model(system, state):
    slow, fast = toy(system, "harmonic"), load_model(find_model("si-sw"), system)
    both = TwoModels(slow, fast, "gradient")
    assert isinstance(both, Model)
    said = both.evaluate(state, forces=("direct", "gradient"), stress=True)
    expected = slow.evaluate(state, forces=("gradient",), stress=True)
    assert both.channels == ("gradient", "direct")
    assert both.labelled
    assert both.device == slow.device
    assert torch.equal(said.energy, expected.energy)
    assert torch.equal(said.stress, expected.stress)
    assert torch.equal(said.forces["gradient"], expected.forces["gradient"])
    assert torch.equal(said.forces["direct"], fast.evaluate(state, forces=("gradient",)).forces["gradient"])
    assert torch.equal(both.evaluate(state).energy, expected.energy)


def test_only_what_is_asked_for_is_called(system, state):
    slow, fast = Counting(toy(system, "harmonic")), Counting(toy(system, "swirl", 0.1))
    both = TwoModels(slow, fast, "direct")
    assert both.evaluate(state, forces=("direct",)).energy is None
    assert (slow.asked, fast.asked) == ([], [("direct",)])
    both.evaluate(state, forces=("gradient",))
    assert (slow.asked, fast.asked) == ([("gradient",)], [("direct",)])
    both.evaluate(state, forces=("gradient", "direct"))
    assert (slow.asked, fast.asked) == ([("gradient",)] * 2, [("direct",)] * 2)


def test_graphs_go_through_both(system, state):
    both = TwoModels(toy(system, "harmonic"), toy(system, "swirl", 0.1), "direct")
    moving = state.replace(positions=state.positions.clone().requires_grad_(True))
    forces = both.evaluate(moving, forces=("gradient", "direct"), graph=True).forces
    for force in forces.values():
        (slope,) = torch.autograd.grad(force.square().sum(), moving.positions, retain_graph=True)
        assert float(slope.abs().max()) > 0


def test_what_a_part_lacks_the_pair_lacks(system, state):
    both = TwoModels(toy(system, "swirl", 0.1), toy(system, "harmonic"), "gradient")
    assert both.channels == ("direct",)
    with pytest.raises(UnsupportedError, match=r"no gradient forces \(it has: direct\)"):
        both.evaluate(state, forces=("gradient",))

    class Hydrogen:
        channels, elements, differentiable, labelled = ("gradient",), frozenset({1}), False, False
        device = torch.device("cpu")

        def evaluate(self, state, *, forces=(), stress=False, graph=False):
            return Prediction(None)

    odd = TwoModels(toy(system, "harmonic"), Hydrogen(), "gradient")
    assert (odd.elements, odd.differentiable) == (frozenset(), False)
    with pytest.raises(UnsupportedError, match="does not know Si"):
        odd.evaluate(state, forces=("direct",))


def test_the_card_says_which_models(tmp_path, system, state):
    path = tmp_path / "pair.toml"
    path.write_text(
        'name = "pair"\nversion = 1\ntitle = "A pair"\nloader = "toy"\nscheme = "mts"\nstride = 4\nfast = "si-sw"\n'
        '[options]\nfield = "harmonic"\nstiffness = 7.4\n'
    )
    model = load_model(read_model(path), system, dtype="float32")
    assert isinstance(model, TwoModels)
    assert (model.channel, model.slow.dtype, model.slow.channels) == ("gradient", torch.float32, ("gradient",))
    sw = load_model(find_model("si-sw"), system, dtype="float32")
    assert torch.equal(
        model.evaluate(state, forces=("direct",)).forces["direct"],
        sw.evaluate(state, forces=("gradient",)).forces["gradient"],
    )
