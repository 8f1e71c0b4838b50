from dataclasses import replace

import numpy as np
import pytest
import torch

from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.rdf import smeared_rdf
from conservbench.outcome import Outcome
from conservbench.references import find_reference
from conservbench.scheme import Scheme
from conservbench.state import from_atoms
from conservbench.systems import find_system
from conservbench.training.terms.rdf import EnsembleRDF, TrajectoryRDF
from conservbench.training.tuning_recipe import RDF, Ensemble, Trajectory

GRADIENT = Scheme("gradient", 1)
SETTINGS = RDF(
    system="si-melt-64",
    weight=10.0,
    ensemble=Ensemble(
        replicas=2, frames=3, interval=8.0, time_step=2.0, tau=50.0, equilibration=0.0, settling=0.0, min_effective=0.0
    ),
    trajectory=Trajectory(
        replicas=2, duration=8.0, interval=4.0, time_step=1.0, tau=50.0, equilibration=0.0, settling=4.0, memory=2.0
    ),
)
PROFILE = find_reference("si-pbe").rdf["si-melt-64"]


def term(kind, **changes):
    settings = replace(SETTINGS, ensemble=replace(SETTINGS.ensemble, **changes.pop("ensemble", {})))
    settings = replace(settings, trajectory=replace(settings.trajectory, **changes.pop("trajectory", {})))
    return kind(StillingerWeber(), GRADIENT, find_system("si-melt-64"), PROFILE, settings, seed=3)


def parameters(**changes):
    at = {"epsilon": 2.1, "lam": 20.0, **changes}
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in at.items()}


def distance(g: np.ndarray) -> float:
    return 10.0 * float(((g - PROFILE.g) ** 2).sum() / (PROFILE.g**2).sum())


@pytest.mark.parametrize("name", ["epsilon", "lam"])
def test_the_gradient_of_the_ensemble_equals_finite_differences_of_its_reweighting(name):
    ours = term(EnsembleRDF)
    found = ours(parameters(), 0)
    assert found.outcome is Outcome.COMPLETED
    value = float(parameters()[name])
    step = 1e-4 * value
    ends = [ours(parameters(**{name: value + sign * step}), 1).loss for sign in (1, -1)]
    assert float(found.gradient[name]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("name", ["epsilon", "lam"])
def test_the_gradient_of_the_first_trajectories_equals_finite_differences(name):
    # without a bath before it the first trajectory starts from the same state whatever the parameters are
    found = term(TrajectoryRDF)(parameters(), 0)
    assert found.outcome is Outcome.COMPLETED
    value = float(parameters()[name])
    step = 1e-4 * value
    ends = [term(TrajectoryRDF)(parameters(**{name: value + sign * step}), 0).loss for sign in (1, -1)]
    assert float(found.gradient[name]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


def test_the_loss_of_an_ensemble_is_the_distance_of_its_mean_g():
    ours = term(EnsembleRDF)
    found = ours(parameters(), 0)
    frames = ours.route.ensemble.frames
    g = torch.stack([smeared_rdf(frame, PROFILE.r, PROFILE.width) for frame in frames]).mean((0, 1)).numpy()
    assert found.loss == pytest.approx(distance(g), rel=1e-9)


def test_trajectories_are_compared_by_the_mean_of_the_last_ones():
    ours = term(TrajectoryRDF)
    means = []
    for step in range(3):
        found = ours(parameters(), step)
        means.append(ours.memory()["average"].numpy().copy())
        assert found.loss == pytest.approx(distance(means[-1]), rel=1e-9)
    # of two, the plain mean; from the third on, half of the new one
    alone = term(TrajectoryRDF)
    alone(parameters(), 0)
    assert np.allclose(alone.memory()["average"].numpy(), means[0])
    assert not np.allclose(means[1], means[2])


@pytest.mark.parametrize("kind", [EnsembleRDF, TrajectoryRDF])
def test_a_term_goes_on_from_its_memory_bit_for_bit(kind, tmp_path):
    ours = term(kind)
    for step in range(2):
        ours(parameters(), step)
    torch.save(ours.memory(), tmp_path / "memory.pt")
    resumed = term(kind)
    resumed.remember(torch.load(tmp_path / "memory.pt", weights_only=True))
    changed = parameters(epsilon=2.11)
    first, second = ours(changed, 2), resumed(changed, 2)
    assert first.loss == second.loss
    assert all(torch.equal(first.gradient[name], second.gradient[name]) for name in changed)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (EnsembleRDF, {"ensemble": {"time_step": 60.0, "interval": 1200.0}}),
        (TrajectoryRDF, {"trajectory": {"time_step": 60.0, "duration": 3000.0, "interval": 3000.0}}),
    ],
)
def test_an_explosion_is_an_outcome_and_leaves_the_memory_as_it_was(kind, changes):
    ours = term(kind, **changes)
    found = ours(parameters(), 0)
    assert found.outcome is Outcome.EXPLODED
    assert found.reason
    assert ours.memory() == {}


def test_an_explosion_between_trajectories_is_an_outcome():
    found = term(
        TrajectoryRDF, trajectory={"time_step": 60.0, "duration": 60.0, "interval": 60.0, "equilibration": 6.0}
    )(parameters(), 0)
    assert found.outcome is Outcome.EXPLODED
    assert "before the trajectory" in found.reason


def test_the_profile_is_that_of_the_system():
    state = from_atoms(find_system("si-melt-64").sites)
    assert float(state.volume[0]) / 64 == pytest.approx(PROFILE.volume, rel=1e-4)
    assert find_system("si-melt-64").temperature == PROFILE.temperature
