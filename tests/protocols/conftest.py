"""Protocols are measured in one thread, as a worker measures them."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)
