"""Run a batch and record it; a replica that leaves the physical range ends there, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conservbench.dynamics.md_state import MDState

_Moving = TypeVar("_Moving", bound=MDState)
Observe = Callable[[MDState], Tensor]
"""A number, or an array of any one shape, for each system of a batch: (n_systems, ...)."""


@dataclass(frozen=True)
class Recording(Generic[_Moving]):
    """What a run left.

    Attributes:
        series: name to (n_replicas, n_records + 1, ...), with the shape that was observed of one system; NaN from the
            record on at which a replica was found exploded. All NaN and (n_replicas, n_records + 1) if none started.
        exploded: (n_replicas,) index of that record, 0 for a replica that was gone before; -1 for one that lasted.
        final: the replicas that lasted, at the last record; None if none did.
    """

    series: Mapping[str, NDArray[np.float64]]
    exploded: NDArray[np.int64]
    final: _Moving | None


def simulate(
    start: _Moving | None,
    step: Callable[[_Moving], _Moving],
    *,
    n_replicas: int,
    n_records: int,
    interval: int,
    observe: Mapping[str, Observe],
    healthy: Callable[[MDState], Tensor],
    report: Callable[[float], object] = float,
) -> Recording[_Moving]:
    """Record the start and then every ``interval`` steps.

    Explosions are looked for at the records: a replica that is not healthy, or of which something observed is not
    finite, is taken out of the batch.

    Args:
        start: the replicas still there, by their numbers; None if none is.
        step: moves a batch by one step.
        n_replicas: of the whole measurement.
        n_records: records after that of the start.
        interval: steps from one record to the next.
        observe: what to record.
        healthy: (n_systems,) bool, whether each system is in the physical range.
        report: told the fraction done.
    """
    series: dict[str, NDArray[np.float64]] = {}
    exploded = np.zeros(n_replicas, dtype=np.int64)
    md = start
    if md is not None:
        exploded[list(md.replica)] = -1
    for record in range(n_records + 1):
        if md is None:
            break
        for _ in range(interval if record else 0):
            md = step(md)
        values = {name: function(md) for name, function in observe.items()}
        alive = healthy(md)
        for value in values.values():
            alive = alive & torch.isfinite(value).reshape(md.n_systems, -1).all(1)
        kept = torch.nonzero(alive)[:, 0].tolist()
        replicas = np.array(md.replica)
        for name, value in values.items():
            if name not in series:
                series[name] = np.full((n_replicas, n_records + 1, *value.shape[1:]), np.nan)
            series[name][replicas[kept], record] = value.detach().cpu().numpy()[kept]
        if len(kept) < md.n_systems:
            exploded[np.setdiff1d(replicas, replicas[kept])] = record
            md = md.take(kept) if kept else None
        report(record / max(n_records, 1))
    nobody = np.full((n_replicas, n_records + 1), np.nan)
    return Recording({name: series.get(name, nobody) for name in observe}, exploded, md)


def advance(
    start: _Moving | None,
    step: Callable[[_Moving], _Moving],
    n_steps: int,
    *,
    n_replicas: int,
    healthy: Callable[[MDState], Tensor],
) -> _Moving | None:
    """Steps that are not recorded; the replicas that lasted, None if none did. See :func:`simulate`."""
    return simulate(
        start, step, n_replicas=n_replicas, n_records=n_steps, interval=1, observe={}, healthy=healthy
    ).final
