"""Neighbour pairs: the one place that asks a library (vesin) for them.

Only the pairs and their periodic shifts are taken; vectors are rebuilt from the positions, so that gradients through
them are exact. A Verlet skin keeps a list over many steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import vesin
from numpy.typing import NDArray
from torch import Tensor

from conservbench.state import State

_MOST_NEIGHBORS: Final = 1e5
"""Neighbours an atom that no physical system has."""


@dataclass(frozen=True)
class Pairs:
    """A full neighbour list: every pair appears as (i, j) and as (j, i).

    Attributes:
        first: (n_pairs,) index of the central atom i.
        second: (n_pairs,) index of its neighbour j.
        shift: (n_pairs, 3) whole cell vectors added to j, int64.
    """

    first: Tensor
    second: Tensor
    shift: Tensor

    def vectors(self, positions: Tensor, cell: Tensor, system: Tensor) -> Tensor:
        """(n_pairs, 3) vectors r_j - r_i in Å, differentiable in positions (n_atoms, 3) and cell (n_systems, 3, 3)."""
        offset = torch.einsum("pa,pab->pb", self.shift.to(cell.dtype), cell[system[self.first]])
        return positions[self.second] - positions[self.first] + offset


def find_pairs(state: State, cutoff: float) -> Pairs:
    """All pairs closer than ``cutoff`` (Å), sorted by the central atom.

    Raises:
        ValueError: a position or a cell is not finite, or a cell has collapsed far below the cutoff.
    """
    positions = state.positions.detach().cpu().numpy()
    cells = state.cell.detach().cpu().numpy()
    pbc = state.pbc.cpu().numpy()
    ends = np.cumsum(state.counts.cpu().numpy())
    search = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    first, second, shift = [], [], []
    for index, (cell, periodic, start, end) in enumerate(zip(cells, pbc, [0, *ends[:-1]], ends, strict=True)):
        _check(index, positions[start:end], cell, periodic, cutoff)
        i, j, s = search.compute(points=positions[start:end], box=cell, periodic=periodic, quantities="ijS")
        first.append(i.astype(np.int64) + start)
        second.append(j.astype(np.int64) + start)
        shift.append(s.astype(np.int64))
    device = state.positions.device
    return Pairs(*(torch.from_numpy(np.concatenate(part)).to(device) for part in (first, second, shift)))


def _check(
    index: int, positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_], cutoff: float
) -> None:
    """Keep from the library what stops its process, or never ends, with no error: such cells come from a bad run."""
    if not np.isfinite(positions).all():
        atom = int(np.argwhere(~np.isfinite(positions))[0, 0])
        raise ValueError(f"system {index}: the position of atom {atom} is not finite: {positions[atom].tolist()}")
    if not np.isfinite(cell).all():
        raise ValueError(f"system {index}: the cell is not finite: {cell.tolist()}")
    if pbc.all():
        volume = max(abs(float(np.linalg.det(cell))), 1e-12)
        expected = len(positions) / volume * 4.19 * cutoff**3
        if expected > _MOST_NEIGHBORS:
            raise ValueError(f"system {index}: the cell has collapsed: {expected:.1g} neighbours an atom are expected")


class VerletList:
    """Neighbour pairs that are searched again only when an atom has moved half the skin (Verlet 1967).

    A cache, not a state: what it returns depends on the state it is given alone (up to the order of the pairs).

    Args:
        cutoff: Å.
        skin: Å added to the cutoff when searching.
    """

    def __init__(self, cutoff: float, skin: float = 0.5) -> None:
        self.cutoff = cutoff
        self.skin = skin
        self.n_searches = 0
        self._reference: State | None = None
        self._pairs: Pairs | None = None

    def __call__(self, state: State) -> Pairs:
        """All pairs closer than the cutoff."""
        if self._pairs is None or self._is_stale(state):
            self._pairs = find_pairs(state, self.cutoff + self.skin)
            self._reference = state.replace(positions=state.positions.detach(), cell=state.cell.detach())
            self.n_searches += 1
        wide = self._pairs
        with torch.no_grad():
            square = wide.vectors(state.positions, state.cell, state.system).square().sum(-1)
            near = torch.nonzero(square < self.cutoff**2)[:, 0]
        return Pairs(wide.first[near], wide.second[near], wide.shift[near])

    def _is_stale(self, state: State) -> bool:
        old = self._reference
        if old is None or state.positions.shape != old.positions.shape:
            return True
        if not (torch.equal(state.system, old.system) and torch.equal(state.pbc, old.pbc)):
            return True
        if not torch.equal(state.cell, old.cell):
            return True
        moved = (state.positions.detach() - old.positions).square().sum(-1).max()
        # a NaN compares false both ways: search again and let the library see it
        return not bool(moved < (0.5 * self.skin) ** 2)
