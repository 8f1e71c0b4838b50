"""What a model is shown, and not shown, while a simulation runs."""

import pytest
import torch

from conservbench.dynamics.forces import REACH, force_of, predict
from conservbench.models.stillinger_weber import StillingerWeber


def test_forces_are_those_of_the_channel(toy, crystal):
    model, state = toy("two-headed", 0.7), crystal(2)
    for channel in ("gradient", "direct"):
        forces, energy = force_of(model, channel)(state)
        prediction = model.evaluate(state, forces=(channel,))
        assert torch.equal(forces, prediction.forces[channel])
        assert torch.equal(energy, prediction.energy)


@pytest.mark.parametrize("place", [torch.nan, torch.inf, -2 * REACH])
def test_a_system_out_of_range_is_not_shown_to_the_model(crystal, place):
    model, state = StillingerWeber(), crystal(3)
    lost = state.positions.clone()
    lost[9, 1] = place
    prediction = predict(model, state.replace(positions=lost), ("gradient",))
    whole = model.evaluate(state, forces=("gradient",))
    assert bool(prediction.forces["gradient"][8:16].isnan().all())
    assert bool(prediction.energy[1].isnan())
    assert float((prediction.energy - whole.energy)[[0, 2]].abs().max()) < 1e-12
    rest = torch.arange(24) // 8 != 1
    assert float((prediction.forces["gradient"] - whole.forces["gradient"])[rest].abs().max()) < 1e-12


def test_no_model_call_is_made_when_every_system_is_lost(crystal):
    state = crystal(2)
    prediction = predict(None, state.replace(positions=state.positions * torch.nan), ("gradient", "direct"))
    assert bool(prediction.energy.isnan().all())
    assert all(bool(forces.isnan().all()) for forces in prediction.forces.values())
