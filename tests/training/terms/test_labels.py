import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.state import from_atoms
from conservbench.training.labelled import join, label
from conservbench.training.terms.labels import Labels, label_errors
from conservbench.training.tuning_recipe import Errors

NAMES = ("epsilon", "lam", "sigma")


def frames(n: int):
    """Rattled crystals labelled by a Stillinger-Weber potential of other parameters, with a net force added."""
    truth = StillingerWeber({"epsilon": 2.0, "lam": 22.0})
    found = []
    for seed in range(n):
        atoms = bulk("Si", "diamond", a=5.45, cubic=True)
        atoms.rattle(0.1, seed=seed)
        said = truth.evaluate(from_atoms(atoms), forces=["gradient"])
        forces = said.forces["gradient"].numpy() + np.array([0.3, 0.0, -0.1])
        atoms.calc = SinglePointCalculator(atoms, energy=float(said.energy), forces=forces)
        found.append(label(atoms, "cpu"))
    return found


@pytest.fixture(scope="module")
def labelled():
    return frames(5)


def parameters():
    model = StillingerWeber()
    return {name: model.parameters[name] for name in NAMES}


def test_the_net_force_of_a_label_is_taken_off(labelled):
    assert torch.allclose(labelled[0].forces.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert join(labelled).state.n_systems == 5


def test_the_loss_is_the_weighted_mean_squared_errors(labelled):
    term = Labels(StillingerWeber(), labelled, Errors(batch=5, energy=3.0, gradient=2.0, direct=7.0), seed=0)
    found = term(parameters(), 0)
    expected = 0.0
    for frame in labelled:
        said = StillingerWeber().evaluate(frame.state, forces=["gradient"])
        expected += 3.0 * float((said.energy - frame.energy).item() / 8) ** 2 / 5
        expected += 2.0 * float((said.forces["gradient"] - frame.forces).square().mean()) / 5
    assert found.loss == pytest.approx(expected, rel=1e-12)


def test_the_gradient_equals_finite_differences(labelled):
    term = Labels(StillingerWeber(), labelled, Errors(batch=2, energy=1.0, gradient=1.0, direct=0.0), seed=0)
    found = term(parameters(), 3)
    for name in NAMES:
        at = parameters()
        step = 1e-5 * float(at[name])
        ends = [term({**at, name: at[name] + sign * step}, 3).loss for sign in (1, -1)]
        assert float(found.gradient[name]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


def test_the_labels_are_reproduced_at_the_parameters_that_made_them(labelled):
    truth = StillingerWeber({"epsilon": 2.0, "lam": 22.0})
    errors = label_errors(truth, labelled)
    assert set(errors) == {"energy", "gradient"}
    assert max(errors.values()) < 1e-9
    assert label_errors(StillingerWeber(), labelled)["gradient"] > 10.0


def test_every_frame_is_drawn_once_before_any_is_drawn_again(labelled):
    term = Labels(StillingerWeber(), labelled, Errors(batch=2, energy=1.0, gradient=1.0, direct=0.0), seed=4)
    drawn = [index for step in range(10) for index in term._drawn(step)]
    assert all(sorted(drawn[k : k + 5]) == [0, 1, 2, 3, 4] for k in range(0, 20, 5))
    assert drawn[:5] != drawn[5:10]
