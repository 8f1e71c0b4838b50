"""The network behind the suite's interface, and the loader that its cards name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from conservbench.cards import build, checkpoint_of
from conservbench.models.base import Prediction, UnsupportedError, check_support
from conservbench.neighbors import VerletList
from conservbench.scheme import Channel
from conservbench.state import State
from e3nn_direct.network import Network, read_network

if TYPE_CHECKING:
    from conservbench.cards import ModelCard
    from conservbench.systems import System


class DirectModel:
    """A model with direct forces alone (see :class:`conservbench.models.base.Model`)."""

    channels: tuple[Channel, ...] = ("direct",)
    differentiable = True
    labelled = False

    def __init__(self, network: Network) -> None:
        self.network = network
        self.elements: frozenset[int] | None = frozenset(network.settings.elements)
        self.neighbors = VerletList(network.settings.cutoff)

    @property
    def device(self) -> torch.device:
        """See :meth:`conservbench.models.base.Model.device`."""
        return self.network.embedding.weight.device

    def evaluate(
        self, state: State, *, forces: Collection[Channel] = (), stress: bool = False, graph: bool = False
    ) -> Prediction:
        """See :meth:`conservbench.models.base.Model.evaluate`.

        Raises:
            UnsupportedError: another channel, an element that it does not know, or a stress.
        """
        check_support(self, state, forces)
        if stress:
            raise UnsupportedError("the model has no energy, and so no stress")
        if not forces:
            return Prediction(energy=None)
        with torch.set_grad_enabled(graph):
            return Prediction(energy=None, forces={"direct": self.network(state, self.neighbors(state))})


@dataclass(frozen=True)
class Options:
    """Options of a card: none."""


def load(card: ModelCard, system: System, *, device: str = "cpu", dtype: str | None = None) -> DirectModel:  # noqa: ARG001 - all loaders take these
    """Load the checkpoint that a card names.

    Raises:
        CardError: the card names no checkpoint or has an option, or the file is missing or has another checksum.
    """
    build(Options, card.options, f"{card.path}: [options]")
    network = read_network(checkpoint_of(card)).to(device=device, dtype=getattr(torch, dtype or card.dtype))
    return DirectModel(network.requires_grad_(False))
