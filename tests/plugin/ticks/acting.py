"""Models that end in every way a model can."""

import os
import time

import torch
from tqdm import tqdm

from conservbench.cards import exact_keys
from conservbench.models.base import InvalidPredictionError, UnsupportedError

LOCK = tqdm.get_lock()
"""As a progress bar of a model asks for it: by default one between processes, which a worker that is stopped leaves."""


class Acting:
    """A model that does what its card says when it is asked for the first time."""

    differentiable = False
    labelled = False
    device = torch.device("cpu")

    def __init__(self, act, elements=None):
        self.act = act
        self.elements = elements
        self.channels = ("gradient",)

    def tick(self):
        """Do it."""
        match self.act:
            case "slow":
                time.sleep(0.02)
            case "raise":
                raise RuntimeError("the network\nis confused")
            case "invalid":
                raise InvalidPredictionError("energy is NaN")
            case "refuse":
                raise UnsupportedError("not with me")
            case "memory":
                raise MemoryError
            case "torch memory":
                raise torch.OutOfMemoryError("CUDA out of memory")
            case "cpu memory":
                torch.empty(2**60)
            case "exit":
                raise SystemExit("bye")
            case "die":
                os._exit(9)


def load(card, system, *, device="cpu", dtype=None):
    """Load an acting model; it prints and warns as real ones do."""
    exact_keys(card.options, ["act", "elements"], f"{card.path}: [options]")
    print("third-party noise")
    elements = card.options.get("elements")
    return Acting(card.options["act"], None if elements is None else frozenset(elements))
