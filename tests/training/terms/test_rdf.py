from dataclasses import replace

import numpy as np
import pytest
import torch

from conservbench.dynamics.integrator import integrator
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.rdf import smeared_rdf
from conservbench.outcome import Outcome
from conservbench.references import find_reference
from conservbench.scheme import Scheme
from conservbench.state import from_atoms
from conservbench.systems import find_system
from conservbench.training.terms.rdf import EnsembleRDF, TrajectoryRDF
from conservbench.training.tuning_recipe import RDF, Ensemble, Trajectory
from conservbench.units import FEMTOSECOND

GRADIENT = Scheme("gradient", 1)
SCHEMES = [GRADIENT, Scheme("direct", 1), Scheme("mts", 4)]
SCHEME = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.kind)
SETTINGS = RDF(
    system="si-melt-64",
    weight=10.0,
    ensemble=Ensemble(
        replicas=2, frames=3, interval=8.0, time_step=2.0, tau=50.0, equilibration=0.0, settling=0.0, min_effective=0.0
    ),
    trajectory=Trajectory(
        replicas=2, duration=8.0, interval=4.0, time_step=1.0, tau=50.0, equilibration=0.0, settling=0.004, memory=2.0
    ),
)
PROFILE = find_reference("si-pbe").rdf["si-melt-64"]


def term(kind, model=None, scheme=GRADIENT, **changes):
    settings = replace(SETTINGS, ensemble=replace(SETTINGS.ensemble, **changes.pop("ensemble", {})))
    settings = replace(settings, trajectory=replace(settings.trajectory, **changes.pop("trajectory", {})))
    return kind(model or StillingerWeber(), scheme, find_system("si-melt-64"), PROFILE, settings, seed=3)


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


def names_of(scheme):
    return ("epsilon", "lam", "bend") if "direct" in scheme.channels else ("epsilon", "lam")


def along(ours, model, scheme, at):
    """g(r), mean of the frames, of the last trajectory of a term at other parameters: by the integrator alone."""
    last = ours.memory()
    there = model.at(at)
    engine = integrator(there, scheme)
    md = engine.init(ours.start.replace(positions=last["positions"], momenta=last["momenta"]))
    frames = []
    for step in range(engine.stride, 9, engine.stride):
        md = engine.step(md, FEMTOSECOND)
        if step % 4 == 0:
            frames.append(smeared_rdf(md, PROFILE.r, PROFILE.width).detach())
    return torch.stack(frames).mean((0, 1)).numpy()


@SCHEME
def test_the_gradient_of_the_first_trajectories_equals_finite_differences(bent, scheme):
    # without a bath before it the first trajectory starts from the same state whatever the parameters are
    names = names_of(scheme)
    at = {name: bent.parameters[name] for name in names}
    found = term(TrajectoryRDF, bent, scheme)(at, 0)
    assert found.outcome is Outcome.COMPLETED
    for name in names:
        step = 1e-4 * at[name]
        ends = [term(TrajectoryRDF, bent, scheme)({**at, name: at[name] + sign * step}, 0).loss for sign in (1, -1)]
        assert float(found.gradient[name]) == pytest.approx((ends[0] - ends[1]) / (2 * float(step)), rel=1e-5)


@SCHEME
def test_the_gradient_of_later_trajectories_is_that_of_g_with_the_residual_of_the_average(bent, scheme):
    names = names_of(scheme)
    at = {name: bent.parameters[name] for name in names}
    ours = term(TrajectoryRDF, bent, scheme)
    ours(at, 0)
    before = ours.memory()["average"].numpy().copy()
    found = ours(at, 1)
    assert found.outcome is Outcome.COMPLETED
    now = along(ours, bent, scheme, at)
    average = (before + now) / 2

    def slope(g, name):
        step = 1e-4 * at[name]
        ends = [along(ours, bent, scheme, {**at, name: at[name] + sign * step}) for sign in (1, -1)]
        return float(2 * 10.0 * (g - PROFILE.g) / (PROFILE.g**2).sum() @ (ends[0] - ends[1])) / (2 * float(step))

    for name in names:
        expected = slope(average, name)
        assert float(found.gradient[name]) == pytest.approx(expected, rel=1e-5)
        # neither the frames alone nor the average without them would do
        assert all(abs(slope(other, name) / expected - 1) > 1e-3 for other in (before, now))


def test_the_loss_of_an_ensemble_is_the_distance_of_its_mean_g():
    ours = term(EnsembleRDF)
    found = ours(parameters(), 0)
    frames = ours.route.ensemble.frames
    g = torch.stack([smeared_rdf(frame, PROFILE.r, PROFILE.width) for frame in frames]).mean((0, 1)).numpy()
    assert found.loss == pytest.approx(distance(g), rel=1e-9)


@SCHEME
def test_trajectories_are_compared_by_the_mean_of_the_last_ones(bent, scheme):
    ours, at = term(TrajectoryRDF, bent, scheme), {"lam": bent.parameters["lam"]}
    seen, means = [], []
    for step in range(3):
        found = ours(at, step)
        seen.append(along(ours, bent, scheme, at))
        # of two, the plain mean; from the third on, half of the new one
        means.append((means[-1] + seen[-1]) / 2 if means else seen[-1])
        assert ours.memory()["average"].numpy() == pytest.approx(means[-1], rel=1e-9, abs=1e-12)
        assert found.loss == pytest.approx(distance(means[-1]), rel=1e-9)
    # the bath moves them on
    assert not np.allclose(seen[1], seen[0], atol=1e-3)
    assert not np.allclose(seen[2], seen[1], atol=1e-3)


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
