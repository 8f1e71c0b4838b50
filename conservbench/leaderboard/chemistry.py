"""Systems of the same elements: models are ranked where they know the same ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from conservbench.systems.catalogue import elements_of

if TYPE_CHECKING:
    from conservbench.scored import ScoredCell


def by_chemistry(cells: Iterable[ScoredCell]) -> dict[str, list[ScoredCell]]:
    """Cells by the elements of their systems, such as ``Ga, N``, in the order in which they come.

    All under no name where there is one chemistry alone; systems that this suite does not have are one.
    """
    found: dict[str, list[ScoredCell]] = {}
    for cell in cells:
        found.setdefault(", ".join(sorted(elements_of(cell.system))), []).append(cell)
    return found if len(found) > 1 else {"": next(iter(found.values()))} if found else {}
