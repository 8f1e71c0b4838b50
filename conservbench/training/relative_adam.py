"""Adam whose steps are relative to the size of what they change.

Parameters of a potential are of all sizes, from an exponent of 4 to a strength of 1e-3; those of a network are of order
one. Each tensor is optimised in units of its root mean square at the start, so that one learning rate fits all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def scale_of(value: Tensor) -> float:
    """Root mean square of a tensor; 1 where it is zero."""
    return float(value.detach().double().square().mean().sqrt()) or 1.0


def norm_of(gradient: Mapping[str, Tensor], scales: Mapping[str, float]) -> float:
    """Norm of a gradient by the scaled parameters."""
    return (
        float(sum(scales[name] ** 2 * float(slope.double().square().sum()) for name, slope in gradient.items())) ** 0.5
    )


class RelativeAdam:
    """Adam (Kingma and Ba, arXiv 1412.6980) on parameters over their scales.

    Args:
        scales: of each parameter, by name.
    """

    def __init__(self, scales: Mapping[str, float]) -> None:
        self.scales = scales
        self._memory: dict[str, Any] = {}

    def step(
        self, parameters: Mapping[str, Tensor], gradient: Mapping[str, Tensor], learning_rate: float
    ) -> dict[str, Tensor]:
        """The parameters after one step.

        Args:
            parameters: by name, those of :attr:`scales`.
            gradient: of the loss, alike.
            learning_rate: largest relative change.
        """
        scaled = [torch.nn.Parameter(value / self.scales[name]) for name, value in parameters.items()]
        for each, name in zip(scaled, parameters, strict=True):
            each.grad = gradient[name] * self.scales[name]
        adam = torch.optim.Adam(scaled, lr=learning_rate)
        if self._memory:
            adam.load_state_dict({**adam.state_dict(), "state": self._memory})
        adam.step()
        self._memory = adam.state_dict()["state"]
        return {name: each.detach() * self.scales[name] for each, name in zip(scaled, parameters, strict=True)}

    def forget(self) -> None:
        """Take up no speed from the steps so far."""
        self._memory = {}

    def memory(self) -> dict[str, Any]:
        """What :meth:`restore` takes."""
        return self._memory

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._memory = dict(memory)
