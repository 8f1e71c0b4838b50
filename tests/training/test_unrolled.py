"""Unrolled gradients against finite differences, against each other and against the reversible adjoint."""

import os
import subprocess
import sys

import pytest
import torch

from conservbench.models.mace import MACEModel, NetworkSettings, TwoHeadedMACE
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.outcome import Outcome
from conservbench.scheme import Scheme
from conservbench.training.reversible import ReversibleAdjoint
from conservbench.training.route import Objective, of_average
from conservbench.training.unrolled import UnrolledForward, UnrolledReverse

SCHEMES = [Scheme("gradient"), Scheme("direct"), Scheme("mts", 4)]
SCHEME = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.kind)
NAMES = ("epsilon", "lam", "bend")
LENGTH = {"time_step": 1.5, "n_steps": 24, "interval": 8}


def some(model, names=NAMES):
    return {name: model.parameters[name].detach() for name in names}


def together(found):
    assert found.outcome is Outcome.COMPLETED, found.reason
    return torch.cat([slope.flatten() for slope in found.gradient.values()])


@SCHEME
def test_plain_gradient_equals_finite_differences(bent, hot, objective, slopes, scheme):
    route = UnrolledReverse(**LENGTH, segment=24)
    names = NAMES if "direct" in scheme.channels else NAMES[:2]
    question = (bent, scheme, objective, hot, some(bent, names))
    found = route(*question)
    for seed in range(2):
        difference, told = slopes(found.gradient, seed, 1e-5, route, *question)
        assert told == pytest.approx(difference, rel=1e-5)


@SCHEME
def test_gradients_of_edip_equal_finite_differences(bent_edip, hot, mixed, slopes, scheme):
    plain = UnrolledReverse(**LENGTH, segment=24)
    names = ("lam", "B", "bend") if "direct" in scheme.channels else ("lam", "B")
    question = (bent_edip, scheme, mixed, hot, some(bent_edip, names))
    found = plain(*question)
    difference, told = slopes(found.gradient, 0, 1e-5, plain, *question)
    assert told == pytest.approx(difference, rel=1e-5)
    for route in (UnrolledReverse(**LENGTH, segment=4), UnrolledForward(**LENGTH), ReversibleAdjoint(**LENGTH)):
        torch.testing.assert_close(together(route(*question)), together(found), rtol=1e-8, atol=0)


@SCHEME
def test_all_routes_through_a_trajectory_agree(bent, hot, objective, scheme):
    routes = (
        UnrolledReverse(**LENGTH, segment=24),
        UnrolledReverse(**LENGTH, segment=4),
        # a frame to several segments, and several frames to a segment
        UnrolledReverse(**LENGTH, segment=12),
        UnrolledForward(**LENGTH),
        ReversibleAdjoint(**LENGTH),
    )
    plain, *others = (route(bent, scheme, objective, hot, some(bent)) for route in routes)
    for other in others:
        torch.testing.assert_close(together(other), together(plain), rtol=1e-8, atol=0)
        assert other.loss == pytest.approx(plain.loss, rel=1e-14)


@SCHEME
def test_gradients_of_the_network_equal_finite_differences_and_agree(silicon_network, hot, mixed, slopes, scheme):
    routes = (UnrolledReverse(1.0, 8, 4, 8), UnrolledReverse(1.0, 8, 4, 4), ReversibleAdjoint(1.0, 8, 4))
    question = (silicon_network, scheme, mixed, hot, silicon_network.parameters)
    plain, *others = (route(*question) for route in routes)
    difference, told = slopes(plain.gradient, 0, 1e-4, routes[0], *question)
    assert told == pytest.approx(difference, rel=1e-5)
    for other in others:
        assert float((together(other) - together(plain)).norm() / together(plain).norm()) < 1e-8


COLD = """
import sys
import torch
from ase.build import bulk
from conservbench.models.mace import MACEModel, NetworkSettings, TwoHeadedMACE
from conservbench.scheme import Scheme
from conservbench.state import from_atoms
from conservbench.training.route import Objective, of_average
from conservbench.training.unrolled import UnrolledReverse
torch._C._jit_set_profiling_executor(sys.argv[1] == "profiling")
settings = NetworkSettings(4.0, 8, 2, 2, (8, 8), 5, 5, 8, (14,), 15.0, (-5.0,), 1.0, 0.0, 1.0)
torch.manual_seed(0)
model = MACEModel(TwoHeadedMACE(settings).double().requires_grad_(False))
atoms = bulk("Si", cubic=True)
atoms.rattle(0.1, seed=1)
objective = Objective(lambda model, state: state.sum(state.positions.sin().sum(1)), of_average(torch.square))
def slopes(segment):
    route = UnrolledReverse(time_step=2.0, n_steps=4, interval=4, segment=segment)
    found = route(model, Scheme("gradient"), objective, from_atoms(atoms), model.parameters)
    return torch.cat([slope.flatten() for slope in found.gradient.values()])
cold, *_, plain = slopes(2), slopes(4), slopes(4)
print(float((cold - plain).norm() / plain.norm()))
"""


@pytest.mark.parametrize("executor", ["ours", "profiling"])
def test_gradient_in_segments_of_a_cold_network_is_that_of_the_plain_one(executor):
    """TorchScript's own executor rewrites a network during its first calls, between a segment and its repetition.

    The kind of checkpoint that puts tensors of the second pass into the graph of the first was silently wrong by 3 per
    cent here. Needs a fresh process to be cold.
    """
    command = [sys.executable, "-W", "ignore", "-c", COLD, executor]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    assert float(run.stdout.split()[-1]) < 1e-12


@pytest.mark.parametrize(("segment", "expected"), [(16, 17), (4, 33)])
def test_model_calls_are_counted(bent, hot, segment, expected, monkeypatch):
    calls = []
    original = type(bent).evaluate
    monkeypatch.setattr(type(bent), "evaluate", lambda *a, **k: calls.append(1) or original(*a, **k))
    still = Objective(lambda model, state: state.sum(state.positions), of_average(lambda x: x.square().sum()))
    found = UnrolledReverse(1.0, 16, 8, segment)(bent, Scheme("gradient"), still, hot, some(bent))
    assert found.record["model_calls"] == len(calls) == expected


def test_model_calls_forwards_are_counted(bent, hot, monkeypatch):
    calls = []
    original = type(bent).evaluate
    monkeypatch.setattr(type(bent), "evaluate", lambda *a, **k: calls.append(1) or original(*a, **k))
    still = Objective(lambda model, state: state.sum(state.positions), of_average(lambda x: x.square().sum()))
    found = UnrolledForward(1.0, 16, 8)(bent, Scheme("gradient"), still, hot, some(bent))
    assert found.record["model_calls"] == len(calls) == 3 * 17 + 2


def test_nothing_is_left_behind(hot, mixed):
    """Parameters that are not named keep what they had, though they require gradients of their own."""
    model = StillingerWeber({"lam": torch.tensor(21.0, dtype=torch.float64, requires_grad=True)})
    UnrolledReverse(1.0, 4, 4, 2)(model, Scheme("gradient"), mixed, hot, some(model, ["epsilon"]))
    assert model.parameters["lam"].grad is None
    assert not hot.positions.requires_grad


@pytest.mark.parametrize(
    "route", [UnrolledReverse(1.0, 8, 8, 8), UnrolledReverse(1.0, 8, 8, 4), UnrolledForward(1.0, 8, 8)]
)
def test_an_explosion_says_its_step(bent, hot, mixed, route):
    found = route(bent, Scheme("direct"), mixed, hot.replace(momenta=1e160 * hot.momenta), some(bent))
    assert found.outcome is Outcome.EXPLODED
    assert found.reason == "system 0 left the range of numbers by step 1"


@pytest.mark.parametrize("route", [UnrolledReverse(1.0, 2, 2, 2), UnrolledForward(1.0, 2, 2)])
def test_detached_forces_are_a_failure(detached, hot, mixed, route):
    found = route(detached, Scheme("gradient"), mixed, hot, some(detached, ["epsilon"]))
    assert found.outcome is Outcome.FAILED
    assert "detached" in found.reason


def test_forward_mode_is_for_few_parameters(silicon_network, hot, mixed):
    found = UnrolledForward(1.0, 4, 4)(silicon_network, Scheme("direct"), mixed, hot, silicon_network.parameters)
    assert found.outcome is Outcome.UNSUPPORTED
    assert found.reason == "forward mode runs a trajectory for each of 40456 parameters; at most 10"


def network(max_ell):
    torch.manual_seed(0)
    settings = NetworkSettings(4.0, 4, max_ell, 2, (8,), 4, 5, 4, (14,), 15.0, (-5.0,), 1.0, 0.0, 1.0)
    return MACEModel(TwoHeadedMACE(settings).double().requires_grad_(False))


@SCHEME
def test_forward_mode_through_a_network_is_right_where_it_is_allowed(hot, mixed, slopes, scheme):
    model, forward = network(max_ell=1), UnrolledForward(1.0, 4, 4)
    # weights of the energy, and of the direct forces
    question = (model, scheme, mixed, hot, some(model, ["trunk.readouts.0.linear.weight", "direct.project.weight"]))
    found = forward(*question)
    torch.testing.assert_close(together(found), together(ReversibleAdjoint(1.0, 4, 4)(*question)), rtol=1e-8, atol=0)
    difference, told = slopes(found.gradient, 0, 1e-5, forward, *question)
    assert told == pytest.approx(difference, rel=1e-5)


def test_forward_mode_refuses_a_network_that_drops_tangents(hot, mixed):
    """With second harmonics TorchScript differentiates a part by itself, in reverse alone, and says nothing."""
    model, name = network(max_ell=2), "direct.project.weight"
    found = UnrolledForward(1.0, 4, 4)(model, Scheme("direct"), mixed, hot, some(model, [name]))
    assert found.outcome is Outcome.UNSUPPORTED
    assert "an operator of the model drops its tangent" in found.reason


class Rooted(torch.autograd.Function):
    """The identity, without a rule for forward mode."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad.clone()


def test_forward_mode_refuses_operators_without_a_rule(bent, hot, mixed, monkeypatch):
    original = type(bent.potential).energies
    monkeypatch.setattr(type(bent.potential), "energies", lambda self, x, *rest: original(self, Rooted.apply(x), *rest))
    found = UnrolledForward(1.0, 4, 4)(bent, Scheme("direct"), mixed, hot, some(bent))
    assert found.outcome is Outcome.UNSUPPORTED
    assert found.reason.startswith("no forward differentiation: ")


def test_segments_that_do_not_fit_are_refused(bent, hot, mixed):
    with pytest.raises(ValueError, match="segment is 5; expected a divisor of the number of steps 8"):
        UnrolledReverse(1.0, 8, 4, 5)
    found = UnrolledReverse(1.0, 16, 8, 4)(bent, Scheme("mts", 8), mixed, hot, some(bent))
    assert found.outcome is Outcome.UNSUPPORTED
    assert found.reason == "segments of 4 steps are no multiple of the stride 8"
