"""How much of what is asked of a model was measured: missing and failed cells are counted, never passed over."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conservbench.cards import find_protocol, list_protocols, row_name
from conservbench.outcome import Outcome
from conservbench.systems.catalogue import asked_about, concerns

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
        unsupported: those that protocols ask of it by default and that it cannot be asked, likewise.
    """

    model: str
    measured: int
    asked: int
    missing: tuple[str, ...]
    unsupported: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """``8 of 9``."""
        return f"{self.measured} of {self.asked}"


def coverage(cells: Iterable[ScoredCell], protocols: Iterable[Mapping[str, Any]] = ()) -> tuple[Coverage, ...]:
    """The coverage of each model by the protocols of all the cells.

    Of a model that was measured by name alone, as a rung of a ladder is, nothing else is asked.

    Args:
        cells: of any models and protocols, one a model, protocol and system.
        protocols: cards as parsed of more protocols that ask, measured or not.
    """
    every = list(cells)
    models = {str(cell.model["name"]): cell.model for cell in every}
    asking = {str(card["name"]): card for card in (*protocols, *(cell.protocol for cell in every))}
    parents = {row_name(card["parent"]) for card in models.values() if card.get("parent")}
    found = {(str(cell.model["name"]), str(cell.protocol["name"]), cell.system): cell for cell in every}
    covered = []
    for name, card in models.items():
        own = [key[1:] for key in found if key[0] == name]
        wanted = [(key, system) for key, its in asking.items() for system in asked(card, its, name in parents)]
        if not any(asking[protocol].get("by_default", True) for protocol, _ in own):
            wanted = []
        places = {place: found.get((name, *place)) for place in (*wanted, *own)}
        covered.append(_coverage(name, places, wanted))
    return tuple(covered)


def coverage_of_run(cells: Iterable[ScoredCell]) -> tuple[Coverage, ...]:
    """The coverage of each model of a run by what that run asked, which left a cell for everything."""
    places: dict[str, dict[tuple[str, str], ScoredCell | None]] = {}
    for cell in cells:
        places.setdefault(str(cell.model["name"]), {})[str(cell.protocol["name"]), cell.system] = cell
    return tuple(_coverage(name, own, own) for name, own in places.items())


def installed_protocols() -> tuple[Mapping[str, Any], ...]:
    """The cards of the protocols that are installed, as parsed."""
    return tuple(json.loads(find_protocol(name).to_json()) for name in list_protocols())


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
    listed = protocol.get("systems", ()), protocol.get("more_systems", ())
    places = asked_about(model.get("systems", ()), model.get("elements", ()), *listed)
    # a protocol about silicon has nothing to say of a model made for a molecule
    return [name for name in places if concerns(*listed, name)]


def _coverage(
    name: str, places: Mapping[tuple[str, str], ScoredCell | None], wanted: Collection[tuple[str, str]]
) -> Coverage:
    counted = {place: cell for place, cell in places.items() if not _is_unsupported(cell)}
    missing = [
        f"{' on '.join(place)}{_ending(cell)}"
        for place, cell in counted.items()
        if cell is None or cell.outcome in _NOT_MEASURED
    ]
    unsupported = [" on ".join(place) for place, cell in places.items() if _is_unsupported(cell) and place in wanted]
    return Coverage(name, len(counted) - len(missing), len(counted), tuple(missing), tuple(unsupported))


def _is_unsupported(cell: ScoredCell | None) -> bool:
    return cell is not None and cell.outcome is Outcome.UNSUPPORTED


def _ending(cell: ScoredCell | None) -> str:
    return "" if cell is None else f" ({cell.outcome.replace('_', ' ')})"
