"""Relax a batch with an optimiser: systems that converge, explode, stall or use up their steps leave it.

What is left at the end of a relaxation that did not converge is told by its last window of steps: how far it went, how
far from where it ended it was, and how near it came to where it had been.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conservbench.dynamics import fire, lbfgs
from conservbench.dynamics.coordinates import Coordinates
from conservbench.dynamics.rows import Rows
from conservbench.models.base import InvalidPredictionError
from conservbench.state import State, concatenate, select

MAX_FORCE: Final = 1e3
"""eV/Å: a greater force on an atom is that of no solid or liquid."""
MAX_STRETCH: Final = 2.0
"""A cell whose volume grew or shrank by this factor is no longer that of its start."""


@dataclass(frozen=True)
class Optimizer:
    """A way down that needs forces alone.

    Attributes:
        init: what it remembers of a batch at first; ``take`` of it gives that of some systems.
        step: memory, coordinates (n_rows, 3) and forces (n_rows, 3) to memory and displacement (n_rows, 3).
    """

    init: Callable[[Rows], Any]
    step: Callable[[Any, Tensor, Tensor], tuple[Any, Tensor]]


OPTIMIZERS: Final[dict[str, Optimizer]] = {
    "lbfgs": Optimizer(lbfgs.init, lbfgs.step),
    "fire": Optimizer(fire.init, lambda memory, _, forces: fire.step(memory, forces)),
}


class Ending(StrEnum):
    """How a relaxation ended."""

    CONVERGED = "converged"
    STALLED = "stalled"
    """No lower force within the patience."""
    EXPLODED = "exploded"
    EXHAUSTED = "exhausted"
    """All steps were used."""


@dataclass(frozen=True)
class Relaxation:
    """What a run left of each system.

    Attributes:
        fmax: (n_systems, n_steps + 1), eV/Å, longest force on a row; NaN after the end.
        energy: (n_systems, n_steps + 1), eV; None for a model without one.
        ending: how each ended.
        steps: (n_systems,) steps made; one model call more.
        final: the systems as they ended; those that exploded, at the last forces in range.
        path: (n_systems,) Å, length of the path of all coordinates, as one vector, over the last window.
        extent: (n_systems,) Å, farthest from the end within it.
        recurrence: (n_systems,) Å, nearest to the end within it after having been farther than half the extent.
    """

    fmax: NDArray[np.float64]
    energy: NDArray[np.float64] | None
    ending: tuple[Ending, ...]
    steps: NDArray[np.int64]
    final: State
    path: NDArray[np.float64]
    extent: NDArray[np.float64]
    recurrence: NDArray[np.float64]


def relax(
    start: State,
    coordinates: Coordinates,
    optimizer: Optimizer,
    *,
    fmax: float,
    max_steps: Sequence[int],
    patience: int | None = None,
    window: int = 100,
    report: Callable[[float], object] = float,
) -> Relaxation:
    """Relax every system until its longest force is below ``fmax``.

    Args:
        start: the batch.
        coordinates: what is moved.
        optimizer: which way.
        fmax: eV/Å, of the generalised forces, cell rows included.
        max_steps: of each system.
        patience: steps without a lower ``fmax`` after which a system leaves; None for no limit.
        window: steps that ``path``, ``extent`` and ``recurrence`` look back.
        report: told the fraction done.

    Raises:
        InvalidPredictionError: forces have a wrong shape.
    """
    longest = max(max_steps)
    forces_of = np.full((start.n_systems, longest + 1), np.nan)
    energy_of = np.full((start.n_systems, longest + 1), np.nan)
    has_energy = True
    ending: list[Ending | None] = [None] * start.n_systems
    steps = np.zeros(start.n_systems, dtype=np.int64)
    wanderings = np.full((3, start.n_systems), np.nan)
    finals: list[State | None] = [None] * start.n_systems
    members, state, budget = np.arange(start.n_systems), start, np.asarray(max_steps)
    rows = coordinates.rows(state)
    memory, trail = optimizer.init(rows), coordinates.of(state)[None]
    last = state
    for step in range(longest + 1):
        forces, energy = coordinates.forces(state)
        if forces.shape != trail[-1].shape:
            raise InvalidPredictionError(f"forces have shape {tuple(forces.shape)}, expected {tuple(trail[-1].shape)}")
        has_energy = has_energy and energy is not None
        lengths = rows.longest(forces)
        healthy = _in_range(state, start, members, lengths)
        heights = lengths.detach().cpu().numpy()
        sound = healthy.cpu().numpy()
        forces_of[members[sound], step] = heights[sound]
        if energy is not None:
            energy_of[members[sound], step] = energy.detach().cpu().numpy()[sound]
        steps[members] = step
        leaves = np.zeros(len(members), dtype=bool)
        for index, member in enumerate(members):
            end = _ending(forces_of[member], step, sound[index], fmax, int(budget[member]), patience)
            if end is None:
                continue
            leaves[index] = True
            ending[member] = end
            finals[member] = select(state if sound[index] else last, [index])
            mine = (rows.system == index).cpu()
            wanderings[:, member] = wandering(trail[:, mine].cpu().numpy()) if sound[index] else np.nan
        report(1 - (len(members) - leaves.sum()) / start.n_systems * (1 - step / longest if longest else 0))
        if leaves.all():
            break
        if leaves.any():
            kept = torch.as_tensor(~leaves, device=state.cell.device)
            members = members[~leaves]
            state = select(state, np.flatnonzero(~leaves).tolist())
            coordinates, memory = coordinates.take(kept), memory.take(kept)
            rows, mine = rows.take(kept)
            forces, trail = forces[mine], trail[:, mine]
        here = coordinates.of(state)
        memory, move = optimizer.step(memory, here, forces)
        last, state = state, coordinates.place(state, here + move)
        trail = torch.cat([trail, (here + move)[None]])[-window - 1 :]
    path, extent, recurrence = wanderings
    used = int(steps.max()) + 1
    return Relaxation(
        fmax=forces_of[:, :used],
        energy=energy_of[:, :used] if has_energy else None,
        ending=tuple(end for end in ending if end is not None),
        steps=steps,
        final=concatenate([final for final in finals if final is not None]),
        path=path,
        extent=extent,
        recurrence=recurrence,
    )


def wandering(trail: NDArray[np.float64]) -> tuple[float, float, float]:
    """Path, extent and recurrence of a trail, Å (see :class:`Relaxation`).

    Args:
        trail: (n_points, n_rows, 3), Å.
    """
    points = trail.reshape(len(trail), -1)
    path = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
    away = np.linalg.norm(points - points[-1], axis=1)
    extent = float(away.max())
    far = np.flatnonzero(away > 0.5 * extent)
    # before the last time it was far, it was somewhere else on its way
    returned = away[: far[-1]] if len(far) else away[:0]
    return path, extent, float(returned.min()) if len(returned) else extent


def _in_range(state: State, start: State, members: NDArray[np.int64], lengths: Tensor) -> Tensor:
    """(n_systems,) bool; NaN compares false."""
    origin = start.volume[torch.as_tensor(members, device=start.cell.device)]
    stretch = torch.where(origin > 0, state.volume / origin, 1.0)
    return (lengths < MAX_FORCE) & (stretch < MAX_STRETCH) & (stretch > 1 / MAX_STRETCH)


def _ending(
    fmax_of: NDArray[np.float64], step: int, sound: bool, fmax: float, max_steps: int, patience: int | None
) -> Ending | None:
    if not sound:
        return Ending.EXPLODED
    if fmax_of[step] < fmax:
        return Ending.CONVERGED
    if step >= max_steps:
        return Ending.EXHAUSTED
    if patience is not None and step - int(np.argmin(fmax_of[: step + 1])) >= patience:
        return Ending.STALLED
    return None
