"""Is this the molecule that a model was trained on, its atoms in the same order?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from conservbench.elements import SYMBOLS
from conservbench.models.base import UnsupportedError
from conservbench.state import State

_STRETCH = 1.3
"""Atoms within this many times the sum of their covalent radii are bonded."""


class AtomOrder:
    """Checks states against the molecule of the training points.

    Distances tell bonds apart, so that atoms of one element in another order are found too; a molecule that broke in a
    simulation is no such order, and passes.

    Args:
        numbers: (n_atoms,), in the order of the training points.
        positions: (n_atoms, 3) of one of them, Å.
    """

    def __init__(self, numbers: Tensor, positions: Tensor) -> None:
        from ase.data import covalent_radii

        self.numbers = numbers
        radii = torch.as_tensor(covalent_radii, device=numbers.device)[numbers]
        self._first, self._second = torch.triu_indices(len(numbers), len(numbers), 1, device=numbers.device)
        self._reach = _STRETCH * (radii[:, None] + radii)
        self._bonded = self._bonded_in(positions[None])
        self._bonds = self._bonded[0, self._first, self._second]
        self._print = self._fingerprint(self._bonds)

    def check(self, state: State) -> None:
        """Check every system of a batch.

        Raises:
            UnsupportedError: one is another molecule, is periodic, or has its atoms in another order.
        """
        n, batch = len(self.numbers), state.n_systems
        if not bool((state.counts == n).all()) or not bool((state.numbers.view(batch, n) == self.numbers).all()):
            self._refuse(state)
        bonded = self._bonded_in(state.positions.detach().view(batch, n, 3))
        if torch.equal(bonded, self._bonded.expand_as(bonded)):
            return
        rows = bonded[:, self._first, self._second]
        for row in rows[(rows != self._bonds).any(1)]:
            if self._fingerprint(row) == self._print:
                raise UnsupportedError(
                    f"atom order: equal atoms are exchanged; the model was trained on {_names(self.numbers)} with "
                    f"bonds {self._listed(self._bonds)}, and was given bonds {self._listed(row)}; reorder the atoms"
                )

    def _refuse(self, state: State) -> None:
        """Say what the first system is that is not this molecule in this order."""
        for index in range(state.n_systems):
            mine = state.numbers[state.system == index]
            if torch.equal(mine, self.numbers):
                continue
            if sorted(mine.tolist()) == sorted(self.numbers.tolist()):
                raise UnsupportedError(
                    f"atom order: the model was trained on {_names(self.numbers)}, and was given {_names(mine)}; "
                    "reorder the atoms"
                )
            raise UnsupportedError(
                f"the model is of one molecule, {_formula(self.numbers)}, and was given {_formula(mine)}"
            )

    def _bonded_in(self, positions: Tensor) -> Tensor:
        """(n_systems, n_atoms, n_atoms) whether atoms are so near each other that they are bonded."""
        return torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist") < self._reach

    def _fingerprint(self, bonds: Tensor) -> Counter[str]:
        """Atoms by their neighbours' neighbours' neighbours: the same for the same molecule in any order."""
        pairs = [(int(i), int(j)) for i, j, bond in zip(self._first, self._second, bonds, strict=True) if bond]
        labels = [SYMBOLS[number - 1] for number in self.numbers.tolist()]
        for _ in range(3):
            around: list[list[str]] = [[] for _ in labels]
            for i, j in pairs:
                around[i].append(labels[j])
                around[j].append(labels[i])
            labels = [f"{own}({','.join(sorted(others))})" for own, others in zip(labels, around, strict=True)]
        return Counter(labels)

    def _listed(self, bonds: Tensor) -> str:
        chosen = torch.nonzero(bonds)[:, 0].tolist()
        return " ".join(f"{int(self._first[k])}-{int(self._second[k])}" for k in chosen)


def _names(numbers: Tensor) -> str:
    return " ".join(SYMBOLS[number - 1] for number in numbers.tolist())


def _formula(numbers: Sequence[int] | Tensor) -> str:
    counts = Counter(SYMBOLS[int(number) - 1] for number in numbers)
    return "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in sorted(counts.items()))
