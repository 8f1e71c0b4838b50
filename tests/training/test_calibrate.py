"""Calibration: minima on paper, how it ends where there is none, and the published optima of silicon."""

import numpy as np
import pytest
import torch

from conservbench.models.base import InvalidPredictionError, UnsupportedError
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.outcome import Outcome
from conservbench.training.calibrate import calibrate, curvature, value_and_slopes

START = {"epsilon": 2.0, "lam": 20.0}


def valley(model):
    """Narrow, bent and lowest at 5, where epsilon is 3 and lam is 30."""
    x, y = model.parameters["epsilon"] / 3, model.parameters["lam"] / 30
    return 5 + 100 * (y - x**2).square() + (1 - x).square()


def test_it_finds_the_minimum_on_paper():
    found = calibrate(StillingerWeber(), valley, START)
    assert (found.outcome, found.reason) == (Outcome.COMPLETED, "")
    assert found.parameters == pytest.approx({"epsilon": 3.0, "lam": 30.0}, rel=1e-3)
    assert found.loss == pytest.approx(5.0, abs=1e-6)
    assert found.start == START
    assert found.start_loss == pytest.approx(5 + 100 * (2 / 3 - 4 / 9) ** 2 + 1 / 9)
    assert found.slope <= 1e-5
    assert found.evaluations < 60


def test_it_goes_nowhere_from_a_minimum():
    found = calibrate(StillingerWeber(), valley, {"epsilon": 3.0, "lam": 30.0})
    assert found.outcome is Outcome.COMPLETED
    assert found.evaluations == 1


def test_slopes_are_derivatives_and_curvature_the_second_ones():
    value, slopes = value_and_slopes(StillingerWeber(), valley, START)
    assert value == pytest.approx(5 + 100 * (2 / 9) ** 2 + 1 / 9)
    assert slopes["lam"] == pytest.approx(200 * (2 / 9) / 30)
    # relative changes of x and y where they are 1: 100 (y - x^2)^2 + (1 - x)^2
    found = curvature(StillingerWeber(), valley, {"epsilon": 3.0, "lam": 30.0})
    np.testing.assert_allclose(found, [[802.0, -400.0], [-400.0, 200.0]], rtol=1e-5)


def test_the_budget_ends_it_with_the_best_so_far():
    found = calibrate(StillingerWeber(), valley, START, evaluations=5)
    assert found.outcome is Outcome.NOT_CONVERGED
    assert found.reason.startswith("5 evaluations left a slope")
    assert found.evaluations == 5
    assert found.loss < found.start_loss


def test_a_loss_that_falls_for_ever_ends_at_the_edge():
    found = calibrate(StillingerWeber(), lambda model: 1 / model.parameters["lam"], {"lam": 20.0})
    assert found.outcome is Outcome.NOT_CONVERGED
    assert found.reason == "lam went 20 times off the start"
    assert found.parameters == pytest.approx({"lam": 400.0})


@pytest.mark.parametrize("worst", [torch.nan, torch.inf])
def test_a_loss_that_is_no_number_ends_it_with_the_best_so_far(worst):
    def loss(model):
        lam = model.parameters["lam"]
        return 50.0 - lam if lam < 25.0 else lam * worst

    found = calibrate(StillingerWeber(), loss, {"lam": 20.0})
    assert found.outcome is Outcome.EXPLODED
    assert "the loss is" in found.reason
    assert " at lam " in found.reason
    assert 20.0 < found.parameters["lam"] < 25.0
    assert found.loss == pytest.approx(50.0 - found.parameters["lam"])


def test_a_start_without_a_loss_is_an_outcome():
    found = calibrate(StillingerWeber(), lambda model: model.parameters["lam"] * torch.nan, {"lam": 20.0})
    assert found.outcome is Outcome.EXPLODED
    assert np.isnan(found.start_loss)
    assert np.isnan(found.loss)
    assert found.parameters == {"lam": 20.0}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (InvalidPredictionError("no forces"), Outcome.EXPLODED),
        (UnsupportedError("no stress"), Outcome.UNSUPPORTED),
        (RuntimeError("broken"), Outcome.FAILED),
    ],
)
def test_what_a_model_raises_is_an_outcome(error, outcome):
    def loss(model):
        lam = model.parameters["lam"]
        if lam > 21.0:
            raise error
        return 50.0 - lam

    found = calibrate(StillingerWeber(), loss, {"lam": 20.0})
    assert found.outcome is outcome
    assert str(error) in found.reason
    assert found.loss == pytest.approx(30.0)


def test_a_parameter_that_is_not_felt_stays():
    found = calibrate(StillingerWeber(), lambda model: 1 + (model.parameters["lam"] - 30).square(), START)
    assert found.outcome is Outcome.COMPLETED
    assert found.parameters == pytest.approx({"epsilon": 2.0, "lam": 30.0}, rel=1e-4)


@pytest.mark.parametrize(
    ("start", "message"),
    [({}, "not 0"), ({"lam": 0.0}, "not 0"), ({"lam": np.nan}, "not 0"), ({"lambda": 1.0}, "no parameter lambda")],
)
def test_what_it_refuses(start, message):
    with pytest.raises(ValueError, match=message):
        calibrate(StillingerWeber(), valley, start)
