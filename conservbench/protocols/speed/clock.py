"""A clock that stands still while others have the processor, and a model that knows how long it was asked.

The account is that of the calling thread. A model that computes in several threads waits for the slowest of them, and
what that waits for a processor lengthens the time of all: nothing tells how much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from conservbench.models.base import Model, Prediction
    from conservbench.scheme import Channel
    from conservbench.state import State

_SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")
"""On Linux: nanoseconds that this thread has run, and that it was ready to run while others did."""


@dataclass(frozen=True)
class Reading:
    """What the clock shows.

    Attributes:
        wall: seconds of a clock that never goes back.
        waited: of them, those in which this thread was ready to run and others had the processor; NaN where nothing
            tells.
    """

    wall: float
    waited: float

    @property
    def own(self) -> float:
        """Seconds that others do not lengthen; those on the wall where nothing tells."""
        return self.wall if math.isnan(self.waited) else self.wall - self.waited


Clock = Callable[[], Reading]


@contextmanager
def clock_of(device: torch.device) -> Iterator[Clock]:
    """A clock for acts on a device; it is read once the device has done all that it was given.

    What a thread waits for a processor is not told for a CUDA device, whose work goes on meanwhile; nor is it for the
    other threads of a model, whose waiting counts.
    """
    if device.type == "cuda":
        yield lambda: _after(device)
    elif device.type == "cpu" and _is_accounted():
        with _SCHEDSTAT.open("rb", buffering=0) as file:

            def waited() -> int:
                file.seek(0)
                return int(file.read(128).split()[1])

            yield lambda: _read(waited)
    else:
        yield lambda: Reading(perf_counter(), math.nan)


def _is_accounted() -> bool:
    """Whether the system keeps the account; one that does not may show zeros, also for the time that this has run."""
    return _SCHEDSTAT.is_file() and int(_SCHEDSTAT.read_bytes().split()[0]) > 0


def _after(device: torch.device) -> Reading:
    torch.cuda.synchronize(device)
    return Reading(perf_counter(), math.nan)


def _read(waited: Callable[[], int]) -> Reading:
    """Both numbers of one moment: between two that differ, others have had the processor."""
    while True:
        before, wall = waited(), perf_counter()
        if waited() == before:
            return Reading(wall, 1e-9 * before)


class ClockedModel:
    """A model, and the time that its predictions have taken.

    The time between the call and the prediction counts, and so does a neighbour search within.

    Args:
        model: any.
        clock: what to read.

    Attributes:
        seconds: in all calls so far.
    """

    def __init__(self, model: Model, clock: Clock) -> None:
        self.model = model
        self.clock = clock
        self.seconds = 0.0
        self.channels = model.channels
        self.elements = model.elements
        self.differentiable = model.differentiable
        self.labelled = model.labelled

    @property
    def device(self) -> torch.device:
        """See :meth:`conservbench.models.base.Model.device`."""
        return self.model.device

    def evaluate(
        self, state: State, *, forces: Collection[Channel] = (), stress: bool = False, graph: bool = False
    ) -> Prediction:
        """See :meth:`conservbench.models.base.Model.evaluate`."""
        begun = self.clock().own
        prediction = self.model.evaluate(state, forces=forces, stress=stress, graph=graph)
        self.seconds += self.clock().own - begun
        return prediction
