"""How much of what is asked of a model was measured: missing and failed cells are counted, never passed over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conservbench.cards import row_name
from conservbench.outcome import Outcome

if TYPE_CHECKING:
    from conservbench.scored import ScoredCell

_NOT_MEASURED = frozenset({Outcome.FAILED, Outcome.OUT_OF_MEMORY})


@dataclass(frozen=True)
class Coverage:
    """Cells of one model.

    Attributes:
        model: its name.
        measured: cells that gave an answer, also an explosion; what the model cannot be asked counts nowhere.
        asked: cells that the protocols at hand ask of it.
        missing: those without an answer, as ``protocol on system`` or with how they ended.
    """

    model: str
    measured: int
    asked: int
    missing: tuple[str, ...]

    @property
    def text(self) -> str:
        """``8 of 9``."""
        return f"{self.measured} of {self.asked}"


def coverage(cells: Iterable[ScoredCell]) -> tuple[Coverage, ...]:
    """The coverage of each model by the protocols of all the cells.

    Args:
        cells: of any models and protocols, one a model, protocol and system.
    """
    every = list(cells)
    models = {str(cell.model["name"]): cell.model for cell in every}
    protocols = {str(cell.protocol["name"]): cell.protocol for cell in every}
    parents = {row_name(card["parent"]) for card in models.values() if card.get("parent")}
    found = {(str(cell.model["name"]), str(cell.protocol["name"]), cell.system): cell for cell in every}
    covered = []
    for name, card in models.items():
        wanted = [(name, key, system) for key, its in protocols.items() for system in asked(card, its, name in parents)]
        wanted = list(dict.fromkeys([*wanted, *(key for key in found if key[0] == name)]))
        covered.append(_coverage(name, [(key[1:], found.get(key)) for key in wanted]))
    return tuple(covered)


def asked(model: Mapping[str, Any], protocol: Mapping[str, Any], is_parent: bool) -> Sequence[str]:
    """Systems that a protocol asks a model about where nobody chose by name.

    Args:
        model: its card as parsed.
        protocol: likewise.
        is_parent: whether another model was tuned from it.
    """
    if not protocol.get("by_default", True) or model["scheme"] not in protocol.get("schemes", (model["scheme"],)):
        return ()
    tuned = bool(model.get("parent"))
    if protocol.get("tuned") and not (tuned or is_parent):
        return ()
    if tuned and not protocol.get("tuned"):
        return ()
    return list(model.get("systems") or protocol.get("systems", ()))


def _coverage(name: str, wanted: Sequence[tuple[tuple[str, str], ScoredCell | None]]) -> Coverage:
    counted = [(place, cell) for place, cell in wanted if cell is None or cell.outcome is not Outcome.UNSUPPORTED]
    missing = [
        f"{' on '.join(place)}{_ending(cell)}"
        for place, cell in counted
        if cell is None or cell.outcome in _NOT_MEASURED
    ]
    return Coverage(name, len(counted) - len(missing), len(counted), tuple(missing))


def _ending(cell: ScoredCell | None) -> str:
    return "" if cell is None else f" ({cell.outcome.replace('_', ' ')})"
