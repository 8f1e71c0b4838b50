import pytest
import torch

from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.outcome import Outcome
from conservbench.references import find_reference
from conservbench.scheme import Scheme
from conservbench.training.terms.crystal import elastic, interatomic

REFERENCE = find_reference("si-pbe")
GRADIENT = Scheme("gradient", 1)


def parameters(**changes):
    at = {"epsilon": 2.1, "lam": 24.0, **changes}
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in at.items()}


@pytest.mark.parametrize("make", [elastic, interatomic])
@pytest.mark.parametrize("name", ["epsilon", "lam"])
def test_the_gradient_equals_finite_differences(make, name):
    term = make(StillingerWeber(), GRADIENT, REFERENCE, 2.0)
    found = term(parameters(), 0)
    assert found.outcome is Outcome.COMPLETED
    value = float(parameters()[name])
    step = 1e-5 * value
    ends = [term(parameters(**{name: value + sign * step}), 0).loss for sign in (1, -1)]
    assert float(found.gradient[name]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


def test_the_distance_of_force_constants_is_that_of_the_whole_supercell():
    # the published loss 14.194132 eV/Å^2 of the optimum, whose square is that of the part a potential can reach and
    # of the rest; sums run over all 64 atoms in place of those of one cell
    model = StillingerWeber({"sigma": 2.123822}, cutoff=3.77118)
    at = parameters(epsilon=1.576510856, lam=22.759370705)
    found = interatomic(model, GRADIENT, REFERENCE, 1.0)(at, 0)
    norm = (REFERENCE.force_constants.matrix**2).sum()
    whole = (found.loss * norm + REFERENCE.force_constants.remainder**2) ** 0.5
    assert whole == pytest.approx(14.194132, abs=1e-3)


def test_elastic_constants_of_the_reference_have_no_loss():
    class Perfect:
        wanted = elastic(StillingerWeber(), GRADIENT, REFERENCE, 1.0).wanted

    term = elastic(StillingerWeber(), GRADIENT, REFERENCE, 1.0)
    term.observe = lambda model: Perfect.wanted * model.parameters["epsilon"]
    assert term(parameters(epsilon=1.0), 0).loss == pytest.approx(0.0, abs=1e-20)
    assert term(parameters(epsilon=1.1), 0).loss == pytest.approx(0.01, rel=1e-9)
