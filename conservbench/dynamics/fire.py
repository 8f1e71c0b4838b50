"""FIRE: dynamics that turns its velocity towards the force and stops when it goes uphill. Forces alone, no energy.

Bitzek, Koskinen, Gähler, Moseler and Gumbsch, Phys. Rev. Lett. 97, 170201 (2006), with the semi-implicit Euler step,
the unit masses, the limit on the length of a step and the parameters of ASE's ``FIRE``. Every system of a batch has
its own time step, mixing and count of downhill steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from conservbench.dynamics.rows import Rows

TIME_STEP: Final = 0.1
MAX_TIME_STEP: Final = 1.0
MAX_STEP: Final = 0.2
"""Å: of the whole displacement of a system, as one vector."""
DELAY: Final = 5
"""Downhill steps before the time step grows."""
GROWTH: Final = 1.1
SHRINKAGE: Final = 0.5
MIXING: Final = 0.1
MIXING_DECAY: Final = 0.99


@dataclass(frozen=True)
class Fire:
    """What FIRE remembers of a batch.

    Attributes:
        rows: whose the rows are.
        velocities: (n_rows, 3); masses are 1.
        time_step: (n_systems,).
        mixing: (n_systems,) part of the velocity that is turned towards the force.
        downhill: (n_systems,) steps since the power was not positive, int64.
        begun: whether a step was made.
    """

    rows: Rows
    velocities: Tensor
    time_step: Tensor
    mixing: Tensor
    downhill: Tensor
    begun: bool

    def take(self, kept: Tensor) -> Fire:
        """Some systems, by a mask (n_systems,)."""
        rows, members = self.rows.take(kept)
        return Fire(
            rows, self.velocities[members], self.time_step[kept], self.mixing[kept], self.downhill[kept], self.begun
        )


def init(rows: Rows) -> Fire:
    """At rest."""
    each = torch.ones(rows.n_systems, dtype=torch.float64, device=rows.system.device)
    velocities = each.new_zeros((len(rows.system), 3))
    return Fire(rows, velocities, TIME_STEP * each, MIXING * each, each.new_zeros(len(each), dtype=torch.int64), False)


def step(fire: Fire, forces: Tensor) -> tuple[Fire, Tensor]:
    """One step.

    Args:
        fire: its memory.
        forces: (n_rows, 3), eV/Å, of the present coordinates.

    Returns:
        Its memory, and the displacement (n_rows, 3) in Å.
    """
    rows, velocities = fire.rows, fire.velocities
    time_step, mixing, downhill = fire.time_step, fire.mixing, fire.downhill
    if fire.begun:
        falls = rows.dot(forces, velocities) > 0
        speed = rows.dot(velocities, velocities).sqrt()
        along = mixing / rows.dot(forces, forces).sqrt() * speed
        turned = rows.spread(1 - mixing) * velocities + rows.spread(along) * forces
        velocities = torch.where(rows.spread(falls), turned, 0.0)
        ripe = falls & (downhill > DELAY)
        time_step = torch.where(ripe, (time_step * GROWTH).clamp(max=MAX_TIME_STEP), time_step)
        mixing = torch.where(ripe, mixing * MIXING_DECAY, mixing)
        time_step = torch.where(falls, time_step, time_step * SHRINKAGE)
        mixing = torch.where(falls, mixing, MIXING)
        downhill = torch.where(falls, downhill + 1, 0)
    velocities = velocities + rows.spread(time_step) * forces
    move = rows.spread(time_step) * velocities
    length = rows.dot(move, move).sqrt()
    move = move * rows.spread(torch.where(length > MAX_STEP, MAX_STEP / length, 1.0))
    return Fire(rows, velocities, time_step, mixing, downhill, True), move
