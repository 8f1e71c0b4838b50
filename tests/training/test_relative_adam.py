import pytest
import torch

from conservbench.training.relative_adam import RelativeAdam, norm_of, scale_of


def test_the_first_step_changes_every_number_by_the_rate_times_its_scale():
    # Adam's first step is the sign of the gradient, whatever its size
    start = {"strong": torch.tensor([2.0, -2.0], dtype=torch.float64), "weak": torch.tensor(1e-3, dtype=torch.float64)}
    adam = RelativeAdam({name: scale_of(value) for name, value in start.items()})
    gradient = {"strong": torch.tensor([5.0, -1e-3], dtype=torch.float64), "weak": torch.tensor(-7.0).double()}
    moved = adam.step(start, gradient, 0.01)
    assert (moved["strong"] - start["strong"]).tolist() == pytest.approx([-0.02, 0.02], rel=1e-4)
    assert float(moved["weak"] - start["weak"]) == pytest.approx(1e-5, rel=1e-4)


def test_a_quadratic_of_two_scales_is_minimised():
    wanted = {"strong": 100.0, "weak": 1e-3}
    at = {name: torch.tensor(0.5 * value, dtype=torch.float64) for name, value in wanted.items()}
    adam = RelativeAdam({name: scale_of(value) for name, value in at.items()})
    for _ in range(500):
        adam_gradient = {name: 2 * (at[name] - value) / value**2 for name, value in wanted.items()}
        at = adam.step(at, adam_gradient, 0.02)
    for name, value in wanted.items():
        assert float(at[name]) == pytest.approx(value, rel=1e-3)


def test_it_goes_on_from_its_memory_as_if_it_had_not_stopped():
    at = {"x": torch.tensor([1.0, 3.0], dtype=torch.float64)}
    scales = {"x": scale_of(at["x"])}
    straight, stopped = RelativeAdam(scales), RelativeAdam(scales)
    a = b = at
    for step in range(4):
        gradient = {"x": torch.tensor([0.3 * step - 1, 2.0], dtype=torch.float64)}
        a = straight.step(a, gradient, 0.1)
        if step == 2:
            resumed = RelativeAdam(scales)
            resumed.restore(stopped.memory())
            stopped = resumed
        b = stopped.step(b, gradient, 0.1)
    assert torch.equal(a["x"], b["x"])


def test_scales_and_norms_are_relative():
    assert scale_of(torch.tensor([3.0, 4.0])) == pytest.approx(12.5**0.5)
    assert scale_of(torch.zeros(3)) == 1.0
    gradient = {"x": torch.tensor([3.0]), "y": torch.tensor([4.0])}
    assert norm_of(gradient, {"x": 2.0, "y": 0.5}) == pytest.approx(40.0**0.5)
