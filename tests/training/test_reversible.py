"""The reversible adjoint against finite differences of the loss, and how it ends where it cannot be taken."""

from types import MappingProxyType

import pytest
import torch

from conservbench.cards import find_model
from conservbench.models import mace
from conservbench.outcome import Outcome
from conservbench.scheme import Scheme
from conservbench.state import select
from conservbench.systems import find_system
from conservbench.training.reversible import ReversibleAdjoint
from conservbench.training.route import Objective, of_average

SCHEMES = [Scheme("gradient"), Scheme("direct"), Scheme("mts", 4)]
SCHEME = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.kind)
NAMES = ("epsilon", "lam", "bend")


def some(model, names=NAMES):
    return {name: model.parameters[name].detach() for name in names}


@SCHEME
def test_gradient_equals_finite_differences(bent, hot, objective, slopes, scheme):
    route = ReversibleAdjoint(time_step=1.5, n_steps=24, interval=8)
    names = NAMES if "direct" in scheme.channels else NAMES[:2]
    question = (bent, scheme, objective, hot, some(bent, names))
    found = route(*question)
    assert found.outcome is Outcome.COMPLETED
    for seed in range(3):
        difference, told = slopes(found.gradient, seed, 1e-5, route, *question)
        assert told == pytest.approx(difference, rel=1e-5)


@SCHEME
def test_gradient_of_edip_equals_finite_differences(bent_edip, hot, mixed, slopes, scheme):
    route = ReversibleAdjoint(time_step=1.5, n_steps=24, interval=8)
    names = ("lam", "B", "bend") if "direct" in scheme.channels else ("lam", "B")
    question = (bent_edip, scheme, mixed, hot, some(bent_edip, names))
    found = route(*question)
    for seed in range(2):
        difference, told = slopes(found.gradient, seed, 1e-5, route, *question)
        assert told == pytest.approx(difference, rel=1e-5)


@SCHEME
def test_gradient_of_the_network_equals_finite_differences(silicon_network, hot, mixed, slopes, scheme):
    route = ReversibleAdjoint(time_step=1.0, n_steps=8, interval=4)
    question = (silicon_network, scheme, mixed, hot, silicon_network.parameters)
    found = route(*question)
    for seed in range(2):
        difference, told = slopes(found.gradient, seed, 1e-4, route, *question)
        assert told == pytest.approx(difference, rel=1e-5)


@SCHEME
def test_loss_is_that_of_the_integrator(bent, hot, objective, loss_along, scheme):
    route = ReversibleAdjoint(time_step=1.5, n_steps=24, interval=8)
    question = (bent, scheme, objective, hot, some(bent))
    assert route(*question).loss == pytest.approx(loss_along(route, *question), rel=1e-14)


def test_a_batch_is_its_systems(bent, hot, objective):
    """The loss is linear in the values here, so that the gradient is the mean of those of the systems."""
    linear = Objective(objective.observe, of_average(torch.sum))
    route = ReversibleAdjoint(time_step=1.0, n_steps=8, interval=4)
    whole, *parts = (
        route(bent, Scheme("direct"), linear, start, some(bent)).gradient
        for start in (hot, select(hot, [0]), select(hot, [1]))
    )
    for name, slope in whole.items():
        assert float(slope) == pytest.approx(0.5 * sum(float(part[name]) for part in parts), rel=1e-10)


@SCHEME
def test_states_are_rebuilt_to_rounding(bent, hot, mixed, scheme):
    found = ReversibleAdjoint(time_step=1.0, n_steps=200, interval=200)(bent, scheme, mixed, hot, some(bent))
    # rounding, 1e-16 Å a step, grown along the instability of the trajectory
    assert 0 < found.record["reversal_error"] < 1e-9


def test_float32_forces_are_rebuilt_and_differentiated(silicon_network, hot, mixed):
    """The states are in float64 whatever the network is in: only the rounding of its forces goes in."""
    coarse = mace.load(find_model("si-mace-mts8"), find_system("si-64"), dtype="float32")
    route = ReversibleAdjoint(time_step=1.0, n_steps=16, interval=16)
    rounded, exact = (
        route(model, Scheme("mts", 8), mixed, hot, model.parameters) for model in (coarse, silicon_network)
    )
    assert rounded.record["reversal_error"] < 1e-7
    ours, theirs = (torch.cat([slope.double().flatten() for slope in f.gradient.values()]) for f in (rounded, exact))
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-3


@SCHEME
def test_model_calls_are_counted(bent, hot, objective, scheme, monkeypatch):
    calls = []
    original = type(bent).evaluate
    monkeypatch.setattr(
        type(bent), "evaluate", lambda *a, **k: calls.append(k.get("graph", False)) or original(*a, **k)
    )
    still = Objective(lambda model, state: state.sum(state.positions), of_average(torch.sum))
    found = ReversibleAdjoint(time_step=1.0, n_steps=16, interval=8)(bent, scheme, still, hot, some(bent))
    assert found.record["model_calls"] == len(calls) == 34
    # the graph is asked for on the way back alone
    assert calls == [False] * 17 + [True] * 17


def test_parameters_that_nothing_depends_on_have_zero_slopes(bent, hot, mixed):
    found = ReversibleAdjoint(1.0, 4, 4)(bent, Scheme("gradient"), mixed, hot, some(bent))
    assert float(found.gradient["bend"]) == 0.0
    assert float(found.gradient["epsilon"]) != 0.0


def test_nothing_is_left_behind(silicon_network, hot, mixed):
    name = "direct.project.weight"
    found = ReversibleAdjoint(1.0, 2, 2)(
        silicon_network, Scheme("direct"), mixed, hot, {name: silicon_network.parameters[name]}
    )
    assert list(found.gradient) == [name]
    assert found.gradient[name].shape == silicon_network.parameters[name].shape
    assert not any(value.requires_grad or value.grad is not None for value in silicon_network.parameters.values())


def test_no_momenta_is_a_start_at_rest(bent, hot, mixed, slopes):
    route = ReversibleAdjoint(1.0, 8, 8)
    question = (bent, Scheme("gradient"), mixed, hot.replace(momenta=torch.zeros_like(hot.momenta)), some(bent))
    difference, told = slopes(route(*question).gradient, 0, 1e-5, route, *question)
    assert told == pytest.approx(difference, rel=1e-5)


def test_an_explosion_says_system_and_step(bent, hot, mixed):
    cold = hot.momenta.clone()
    cold[:8] = 0.0
    wild = hot.replace(momenta=torch.where(hot.system[:, None] == 0, cold, 1e160 * hot.momenta))
    found = ReversibleAdjoint(1.0, 8, 8)(bent, Scheme("direct"), mixed, wild, some(bent))
    assert found.outcome is Outcome.EXPLODED
    assert found.reason == "system 1 left the range of numbers by step 1"


def test_a_gradient_that_is_not_finite_is_a_failure(bent, hot):
    # the slope of a root at zero
    edge = Objective(lambda model, state: 0.0 * state.sum(state.positions), of_average(lambda x: x.abs().sqrt().sum()))
    found = ReversibleAdjoint(1.0, 2, 2)(bent, Scheme("gradient"), edge, hot, some(bent))
    assert found.outcome is Outcome.FAILED
    assert found.reason == "the gradient by epsilon is not finite"


def test_a_loss_that_is_not_finite_is_a_failure(bent, hot):
    edge = Objective(lambda model, state: state.sum(state.positions), of_average(lambda x: x.sum() + torch.inf))
    found = ReversibleAdjoint(1.0, 2, 2)(bent, Scheme("gradient"), edge, hot, some(bent))
    assert (found.outcome, found.reason) == (Outcome.FAILED, "the loss is inf")


class Stiff:
    """Says it is not differentiable."""

    channels = ("gradient",)
    elements = None
    differentiable = False
    parameters = MappingProxyType({})


def test_what_a_model_cannot_is_unsupported(bent, hot, mixed):
    route = ReversibleAdjoint(1.0, 8, 4)
    assert route(Stiff(), Scheme("gradient"), mixed, hot, {}).reason == "the model is not differentiable"
    bent.channels = ("gradient",)
    missing = route(bent, Scheme("direct"), mixed, hot, some(bent))
    assert missing.outcome is Outcome.UNSUPPORTED
    assert "no direct forces" in missing.reason
    odd = route(bent, Scheme("mts", 8), mixed, hot, some(bent))
    assert odd.outcome is Outcome.UNSUPPORTED
    assert odd.reason == "frames are 4 steps apart, no multiple of the scheme's stride 8"


def test_detached_forces_are_a_failure(detached, hot, mixed):
    found = ReversibleAdjoint(1.0, 2, 2)(detached, Scheme("gradient"), mixed, hot, some(detached, ["epsilon"]))
    assert found.outcome is Outcome.FAILED
    assert "detached" in found.reason


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0.0, 8, 4), "time_step is 0.0; expected a positive number of fs"),
        ((1.0, 8, 3), "n_steps is 8; expected a positive multiple of the interval 3"),
        ((1.0, 0, 1), "n_steps is 0; expected a positive multiple of the interval 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ReversibleAdjoint(*settings)
