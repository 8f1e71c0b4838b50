"""Two models as one: the energy and gradient of the slow one, and the force of a fast one in place of a direct head.

A multiple-time-step scheme that corrects a cheap potential by an expensive one then is the scheme of a two-headed
network, and nothing else need know.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from conservbench.models.base import Prediction, check_support

if TYPE_CHECKING:
    import torch

    from conservbench.models.base import Model
    from conservbench.scheme import Channel
    from conservbench.state import State


class TwoModels:
    """A slow model with the force of a fast one as its direct channel.

    Asked for direct forces alone it calls the fast model alone, and says no energy: energies are the slow model's.

    Args:
        slow: energy, gradient forces and stress.
        fast: the direct forces.
        channel: which force of the fast model they are.
    """

    def __init__(self, slow: Model, fast: Model, channel: Channel) -> None:
        self.slow, self.fast, self.channel = slow, fast, channel
        both: tuple[tuple[Channel, bool], ...] = (
            ("gradient", "gradient" in slow.channels),
            ("direct", channel in fast.channels),
        )
        self.channels = tuple(name for name, there in both if there)
        known = [model.elements for model in (slow, fast) if model.elements is not None]
        self.elements = frozenset.intersection(*known) if known else None
        self.differentiable = slow.differentiable and fast.differentiable
        self.labelled = slow.labelled or fast.labelled

    @property
    def device(self) -> torch.device:
        """See :meth:`conservbench.models.base.Model.device`."""
        return self.slow.device

    def evaluate(
        self, state: State, *, forces: Collection[Channel] = (), stress: bool = False, graph: bool = False
    ) -> Prediction:
        """See :meth:`conservbench.models.base.Model.evaluate`."""
        check_support(self, state, forces)
        pulls: dict[Channel, torch.Tensor] = {}
        if "direct" in forces:
            pulls["direct"] = self.fast.evaluate(state, forces=(self.channel,), graph=graph).forces[self.channel]
            if "gradient" not in forces and not stress:
                return Prediction(None, pulls)
        wanted: tuple[Channel, ...] = ("gradient",) if "gradient" in forces else ()
        slow = self.slow.evaluate(state, forces=wanted, stress=stress, graph=graph)
        return Prediction(slow.energy, {**pulls, **slow.forces}, slow.stress)
