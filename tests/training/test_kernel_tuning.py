"""Kernel models through the routes that tune a model: trajectories, labelled frames and properties of a crystal."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from conservbench.models.kernel.descriptors import find_descriptor
from conservbench.models.kernel.kernel import Kernel, Points
from conservbench.models.kernel.model import KernelModel
from conservbench.models.kernel.radial import find_radial
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.outcome import Outcome
from conservbench.references import find_reference
from conservbench.scheme import Scheme
from conservbench.state import from_atoms
from conservbench.training.kernel.fit import labels_of, train
from conservbench.training.labelled import label
from conservbench.training.reversible import ReversibleAdjoint
from conservbench.training.terms.crystal import elastic
from conservbench.training.terms.labels import Labels, label_errors
from conservbench.training.tuning_recipe import Errors
from conservbench.training.unrolled import UnrolledForward, UnrolledReverse

GRADIENT = Scheme("gradient")
SHORT = {"time_step": 1.5, "n_steps": 8, "interval": 4}


def frames(n, truth):
    found = []
    for seed in range(n):
        atoms = bulk("Si", "diamond", a=5.431, cubic=True)
        atoms.rattle(0.1, seed=seed)
        said = truth.evaluate(from_atoms(atoms), forces=["gradient"])
        atoms.calc = SinglePointCalculator(atoms, energy=float(said.energy), forces=said.forces["gradient"].numpy())
        found.append(atoms)
    return found


@pytest.fixture(scope="module")
def silicon():
    """A small kernel that has seen four frames of a Stillinger-Weber potential."""
    descriptor = find_descriptor("smooth_overlap", {"cutoff": 3.8, "n_radial": 2, "max_ell": 2})
    kernel = Kernel(descriptor, descriptor.learnable, find_radial("rbf"), torch.tensor(1.0).double())
    some = frames(3, StillingerWeber())
    return KernelModel(train(kernel, Points(from_atoms(some), has_energies=True), labels_of(some), 1e-4, 1e-4, "rbf"))


def some(model, *names):
    return {name: model.parameters[name].detach() for name in names}


@pytest.mark.parametrize("names", [("length", "offset", "descriptor.power"), ("forces", "energies")])
def test_the_gradient_through_a_trajectory_equals_finite_differences(silicon, hot, mixed, slopes, names):
    question = (silicon, GRADIENT, mixed, hot, some(silicon, *names))
    found = UnrolledReverse(**SHORT, segment=8)(*question)
    assert found.outcome is Outcome.COMPLETED, found.reason
    difference, told = slopes(found.gradient, 0, 1e-5, UnrolledReverse(**SHORT, segment=8), *question)
    assert told == pytest.approx(difference, rel=1e-5)


@pytest.mark.parametrize(
    "route",
    [UnrolledReverse(**SHORT, segment=4), UnrolledForward(**SHORT), ReversibleAdjoint(**SHORT)],
    ids=lambda route: type(route).__name__,
)
def test_all_routes_through_a_trajectory_agree(silicon, hot, mixed, route):
    question = (silicon, GRADIENT, mixed, hot, some(silicon, "length", "offset"))
    found, expected = (each(*question) for each in (route, UnrolledReverse(**SHORT, segment=8)))
    assert found.outcome is Outcome.COMPLETED, found.reason
    for name, slope in expected.gradient.items():
        torch.testing.assert_close(found.gradient[name], slope, rtol=1e-7, atol=1e-9)


def test_forward_mode_is_refused_where_it_would_be_nested(silicon, hot, mixed):
    found = UnrolledForward(**SHORT)(silicon, GRADIENT, mixed, hot, some(silicon, "descriptor.power"))
    assert found.outcome is Outcome.UNSUPPORTED
    assert "by parameters of its descriptor" in found.reason


def test_elastic_constants_are_differentiated_by_the_length(silicon):
    term = elastic(silicon, GRADIENT, find_reference("si-pbe"), 1.0)
    at = some(silicon, "length")
    found = term(at, 0)
    ends = [term({"length": at["length"] + step}, 0).loss for step in (1e-5, -1e-5)]
    assert float(found.gradient["length"]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


def test_steps_down_the_slope_learn_another_potential(silicon):
    """Trained on one potential and tuned to another, of which it sees other frames."""
    samples = [label(frame, "cpu") for frame in frames(8, StillingerWeber({"epsilon": 2.4}))[4:]]
    term = Labels(silicon, samples, Errors(batch=4, energy=1.0, gradient=1.0, direct=0.0), seed=0)
    parameters = {
        name: value.clone().requires_grad_(True)
        for name, value in some(silicon, "forces", "energies", "offset").items()
    }
    before = label_errors(silicon, samples)
    optimizer = torch.optim.LBFGS(list(parameters.values()), max_iter=15, line_search_fn="strong_wolfe")

    def closure():
        found = term(parameters, 0)
        for name, value in parameters.items():
            value.grad = found.gradient[name]
        return found.loss

    optimizer.step(closure)
    tuned = silicon.at({name: value.detach() for name, value in parameters.items()})
    after = label_errors(tuned, samples)
    assert after["gradient"] < 0.5 * before["gradient"]
    assert np.isfinite(after["energy"])
