"""A small network with random weights, in double precision."""

import pytest
import torch

from conservbench.models.mace import MACEModel, NetworkSettings, TwoHeadedMACE


@pytest.fixture(scope="session")
def network():
    torch.manual_seed(1)
    settings = NetworkSettings(4.0, 4, 2, 2, (8,), 5, 5, 4, (14,), 16.0, (-5.0,), 1.0, 0.0, 1.0)
    return MACEModel(TwoHeadedMACE(settings).double().requires_grad_(False))
