"""The model of a card: what its loader makes of it, with the fast force of another model where the card names one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conservbench import plugins
from conservbench.models.two_models import TwoModels

if TYPE_CHECKING:
    from conservbench.cards import ModelCard
    from conservbench.models.base import Model
    from conservbench.systems import System


def load_model(card: ModelCard, system: System, *, device: str = "cpu", dtype: str | None = None) -> Model:
    """Load the model of a card.

    Args:
        card: its passport.
        system: what it is loaded for.
        device: torch device.
        dtype: precision asked for; that of the card, and of the card of the fast model, if none is.

    Raises:
        PluginError: no installed package declares the loader.
        CardError: the loader refuses the card.
    """
    model: Model = plugins.loader(card.loader)(card, system, device=device, dtype=dtype)
    if card.fast is None:
        return model
    channel = card.fast.scheme.mean_channel
    return TwoModels(slow=model, fast=load_model(card.fast, system, device=device, dtype=dtype), channel=channel)
