"""The loop of a tuning, on terms whose answers are known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from conservbench.cards import build, parse
from conservbench.models.base import UnsupportedError
from conservbench.outcome import Outcome
from conservbench.training.descent import descend
from conservbench.training.route import Sensitivity
from conservbench.training.terms import Forgetful
from conservbench.training.tuning_recipe import TuningRecipe

RECIPE = Path(__file__).parents[2] / "models" / "recipes" / "silicon-tuning.toml"


def recipe_with(**changes) -> TuningRecipe:
    return build(TuningRecipe, {**parse(RECIPE), "learning_rate": 0.05, **changes}, "recipe")


def bowl(x: torch.Tensor, bottom: float) -> Sensitivity:
    gradient = {"x": 2.0 * (x - bottom)}
    loss = float((x - bottom).square().sum())
    return Sensitivity(
        Outcome.COMPLETED, loss=loss, gradient=gradient, record={"evaluations": 2.0, "seen": float(x[0])}
    )


class Bowl(Forgetful):
    """(x - bottom)^2, which breaks at the steps named."""

    def __init__(self, bottom=1.0, *, name="bowl", breaks=(), outcome=Outcome.EXPLODED):
        self.name, self.bottom, self.breaks, self.outcome = name, bottom, breaks, outcome
        self.asked: list[float] = []

    def __call__(self, parameters, step):
        self.asked.append(float(parameters["x"][0]))
        if step in self.breaks:
            return Sensitivity(self.outcome, "a replica left", record={"evaluations": 1.0})
        return bowl(parameters["x"], self.bottom)


class Noisy:
    """A bowl whose noise is that of a random walk: what comes depends on what was."""

    name = "noisy"

    def __init__(self):
        self.walk = 0.0

    def __call__(self, parameters, step):
        self.walk += float(np.random.default_rng(step).normal())
        return bowl(parameters["x"] + 0.1 * self.walk, 1.0)

    def memory(self):
        return {"walk": self.walk}

    def remember(self, memory):
        self.walk = memory["walk"]


START = {"x": torch.tensor([2.0, 3.0], dtype=torch.float64)}


def test_it_goes_to_the_bottom_of_the_sum(tmp_path):
    recipe = recipe_with(steps=300, ema=0.0)
    found = descend([Bowl(0.0, name="a"), Bowl(3.0, name="b")], START, recipe, "", tmp_path / "state.pt")
    assert found.outcome is Outcome.COMPLETED
    assert found.parameters["x"].tolist() == pytest.approx([1.5, 1.5], abs=1e-2)
    assert found.accepted == 300
    assert found.total("evaluations") == 300 * 4


def test_what_is_kept_is_the_moving_average_of_what_was_sound(tmp_path):
    term = Bowl()
    found = descend([term], START, recipe_with(steps=12, ema=0.5), "", tmp_path / "state.pt")
    average = term.asked[0]
    for count, value in enumerate(term.asked[1:], start=2):
        average += max(0.5, 1 / count) * (value - average)
    assert float(found.parameters["x"][0]) == pytest.approx(average, rel=1e-12)


def test_a_broken_step_is_recorded_and_taken_back_and_the_next_are_half_as_long(tmp_path):
    term, whole = Bowl(breaks=(3,)), Bowl()
    found = descend([term], START, recipe_with(steps=5), "", tmp_path / "state.pt")
    descend([whole], START, recipe_with(steps=5), "", tmp_path / "whole.pt")
    row = found.history[3]
    assert not row["accepted"]
    assert row["outcome"] == "exploded"
    assert row["reason"] == "bowl: a replica left"
    assert row["evaluations"] == 1.0
    # step 3 broke where step 2 had led: step 4 starts where step 2 did
    assert term.asked[4] == term.asked[2]
    rates = [r["learning_rate"] for r in found.history]
    usual = [
        r["learning_rate"] for r in descend([Bowl()], START, recipe_with(steps=5), "", tmp_path / "usual.pt").history
    ]
    assert rates[3] == 0.0
    assert rates[4] == pytest.approx(0.5 * usual[4])
    assert found.outcome is Outcome.COMPLETED
    assert found.accepted == 4


def test_too_many_broken_steps_in_a_row_end_it_with_the_last_sound_parameters(tmp_path):
    term = Bowl(breaks=range(4, 99))
    found = descend([term], START, recipe_with(steps=50, patience=3, ema=0.0), "", tmp_path / "state.pt")
    assert found.outcome is Outcome.EXPLODED
    assert "3 rejected steps in a row: bowl: a replica left" in found.reason
    assert len(found.history) == 7
    assert float(found.parameters["x"][0]) == term.asked[3]


@pytest.mark.parametrize("steps", [4, 50])
def test_a_descent_that_stopped_stays_stopped(tmp_path, steps):
    # at steps = 4 the patience ends with the last step
    recipe = recipe_with(steps=steps, patience=3)
    first, again = (descend([Bowl(breaks=range(1, 99))], START, recipe, "", tmp_path / "state.pt") for _ in range(2))
    assert first.outcome is again.outcome is Outcome.EXPLODED
    assert first.reason == again.reason
    assert len(first.history) == len(again.history) == 4


def test_a_fresh_descent_starts_anew(tmp_path):
    descend([Bowl()], START, recipe_with(steps=2), "one", tmp_path / "state.pt")
    anew = descend([Bowl()], START, recipe_with(steps=1), "other", tmp_path / "state.pt", fresh=True)
    assert len(anew.history) == 1


def test_a_step_that_is_taken_back_is_forgotten_by_all_terms_and_averaged_once(tmp_path):
    noisy, breaking = Noisy(), Bowl(breaks=(2,))
    found = descend([noisy, breaking], START, recipe_with(steps=3), "", tmp_path / "state.pt")
    # the walk of the step that broke is undone: 0 and 1 are what is left
    walked = sum(float(np.random.default_rng(step).normal()) for step in (0, 1))
    assert noisy.walk == pytest.approx(walked)
    assert float(found.parameters["x"][0]) == pytest.approx(0.5 * (breaking.asked[0] + breaking.asked[1]), rel=1e-12)


def test_a_descent_that_breaks_at_once_keeps_its_start(tmp_path):
    found = descend([Bowl(breaks=range(99))], START, recipe_with(patience=2), "", tmp_path / "state.pt")
    assert found.outcome is Outcome.EXPLODED
    assert torch.equal(found.parameters["x"], START["x"])


def test_a_gradient_that_is_not_finite_is_a_broken_step(tmp_path):
    class Broken(Bowl):
        def __call__(self, parameters, step):
            whole = super().__call__(parameters, step)
            if step != 1:
                return whole
            return Sensitivity(Outcome.COMPLETED, loss=1.0, gradient={"x": torch.full((2,), torch.nan)})

    found = descend([Broken()], START, recipe_with(steps=4), "", tmp_path / "state.pt")
    assert [row["accepted"] for row in found.history] == [True, False, True, True]
    assert found.history[1]["outcome"] == "failed"
    assert "not finite" in found.history[1]["reason"]
    assert all(torch.isfinite(value).all() for value in found.parameters.values())


def test_what_does_not_apply_to_the_model_is_an_error_at_once(tmp_path):
    with pytest.raises(UnsupportedError, match="bowl: a replica left"):
        descend([Bowl(breaks=(0,), outcome=Outcome.UNSUPPORTED)], START, recipe_with(), "", tmp_path / "state.pt")


def test_an_outlier_is_cut_to_the_usual_length(tmp_path):
    class Kicked(Bowl):
        def __call__(self, parameters, step):
            factor = 1e6 if step == 5 else 1.0
            whole = super().__call__(parameters, step)
            gradient = {"x": factor * whole.gradient["x"]}
            return Sensitivity(whole.outcome, loss=whole.loss, gradient=gradient, record=whole.record)

    kicked = descend([Kicked()], START, recipe_with(steps=12, clip=1.0), "", tmp_path / "a.pt")
    usual = descend([Bowl()], START, recipe_with(steps=12, clip=1.0), "", tmp_path / "b.pt")
    assert torch.allclose(kicked.parameters["x"], usual.parameters["x"], rtol=0.01)


def test_a_resumed_descent_equals_an_uninterrupted_one_bit_for_bit(tmp_path):
    recipe = recipe_with(steps=9)
    straight = descend([Noisy(), Bowl(breaks=(5,))], START, recipe, "same", tmp_path / "straight.pt")

    class StopError(Exception):
        pass

    def stop(done, total, line):
        if done in (2, 6):
            raise StopError

    for _ in range(2):
        with pytest.raises(StopError):
            descend([Noisy(), Bowl(breaks=(5,))], START, recipe, "same", tmp_path / "stopped.pt", progress=stop)
    resumed = descend([Noisy(), Bowl(breaks=(5,))], START, recipe, "same", tmp_path / "stopped.pt")
    assert torch.equal(resumed.parameters["x"], straight.parameters["x"])

    def timeless(rows):
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    assert timeless(resumed.history) == timeless(straight.history)


def test_a_state_of_another_descent_and_a_broken_one_are_refused(tmp_path):
    path = tmp_path / "state.pt"
    descend([Bowl()], START, recipe_with(steps=1), "one", path)
    with pytest.raises(ValueError, match="another model, target, recipe or number of steps; --fresh"):
        descend([Bowl()], START, recipe_with(steps=1), "other", path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not the state of a tuning; --fresh"):
        descend([Bowl()], START, recipe_with(steps=1), "one", path)


def test_the_history_is_a_dataset_with_units(tmp_path):
    found = descend([Bowl(breaks=(1,))], START, recipe_with(steps=3), "", tmp_path / "state.pt")
    data = found.dataset()
    assert data.sizes["step"] == 3
    assert data.accepted.values.tolist() == [1.0, 0.0, 1.0]
    assert data.reason.values.tolist() == ["", "bowl: a replica left", ""]
    assert np.isnan(data.bowl_loss.values[1])
    assert all({"units", "long_name"} <= set(variable.attrs) for variable in data.data_vars.values())
