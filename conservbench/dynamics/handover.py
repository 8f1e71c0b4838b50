"""Relax with a fast force first and hand over to a slow one to finish: what two forces save where there is no time.

The optimiser forgets its history at the handover, which was that of another force.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conservbench.dynamics.coordinates import Coordinates
from conservbench.dynamics.relaxation import Ending, Optimizer, Relaxation, relax
from conservbench.state import State, concatenate, select


@dataclass(frozen=True)
class Handover:
    """A relaxation in two legs.

    Attributes:
        whole: both legs as one; its longest forces are the slow ones from the handover on.
        at: (n_systems,) steps with the fast force; a system that exploded under it was never handed over.
        fast_calls: (n_systems,) calls of the fast force.
        slow_calls: (n_systems,) calls of the slow force.
    """

    whole: Relaxation
    at: NDArray[np.int64]
    fast_calls: NDArray[np.int64]
    slow_calls: NDArray[np.int64]


def relax_with_handover(
    start: State,
    fast: Coordinates,
    slow: Coordinates,
    optimizer: Optimizer,
    *,
    handover_fmax: float,
    patience: int,
    fmax: float,
    max_steps: int,
    window: int,
    report: Callable[[float], object] = float,
) -> Handover:
    """Relax with the fast force until its longest is below ``handover_fmax`` or falls no more, then with the slow one.

    Args:
        start: the batch.
        fast: coordinates with the fast force.
        slow: coordinates with the slow force.
        optimizer: of both legs, begun afresh.
        handover_fmax: eV/Å.
        patience: steps without a lower fast force that end the first leg, too.
        fmax: eV/Å, below which the slow force ends the second.
        max_steps: of both legs together.
        window: see :func:`~conservbench.dynamics.relaxation.relax`.
        report: told the fraction done.
    """
    first = relax(
        start,
        fast,
        optimizer,
        fmax=handover_fmax,
        max_steps=[max_steps] * start.n_systems,
        patience=patience,
        window=window,
        report=lambda fraction: report(0.5 * fraction),
    )
    handed = np.array([end is not Ending.EXPLODED for end in first.ending])
    fast_calls = first.steps + 1
    if not handed.any():
        return Handover(first, first.steps, fast_calls, np.zeros_like(fast_calls))
    members = np.flatnonzero(handed)
    second = relax(
        select(first.final, members.tolist()),
        slow,
        optimizer,
        fmax=fmax,
        max_steps=[max_steps - int(first.steps[member]) for member in members],
        window=window,
        report=lambda fraction: report(0.5 + 0.5 * fraction),
    )
    steps = first.steps.copy()
    steps[members] += second.steps
    ending = list(first.ending)
    finals = [select(first.final, [index]) for index in range(start.n_systems)]
    for index, member in enumerate(members):
        ending[member] = second.ending[index]
        finals[member] = select(second.final, [index])
    # the fast force may have no energy, as where it is another model's
    fast_energy = np.full_like(first.fmax, np.nan) if first.energy is None else first.energy
    whole = Relaxation(
        fmax=_joined(first.fmax, second.fmax, first.steps, members, steps),
        energy=None if second.energy is None else _joined(fast_energy, second.energy, first.steps, members, steps),
        ending=tuple(ending),
        steps=steps,
        final=concatenate(finals),
        path=_replaced(first.path, second.path, members),
        extent=_replaced(first.extent, second.extent, members),
        recurrence=_replaced(first.recurrence, second.recurrence, members),
    )
    slow_calls = np.zeros_like(fast_calls)
    slow_calls[members] = second.steps + 1
    return Handover(whole, first.steps, fast_calls, slow_calls)


def _joined(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    at: NDArray[np.int64],
    members: NDArray[np.int64],
    steps: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The first series of each system, and the second from the handover on."""
    series = np.full((len(first), int(steps.max()) + 1), np.nan)
    for index in range(len(first)):
        series[index, : at[index] + 1] = first[index, : at[index] + 1]
    for index, member in enumerate(members):
        leg = second[index, : steps[member] - at[member] + 1]
        series[member, at[member] : at[member] + len(leg)] = leg
    return series


def _replaced(
    first: NDArray[np.float64], second: NDArray[np.float64], members: NDArray[np.int64]
) -> NDArray[np.float64]:
    values = first.copy()
    values[members] = second
    return values
