"""Which times can be compared: those of the protocol ``speed`` that were taken on one running machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from conservbench.scored import ScoredCell

TIMED: Final = "speed"
"""The protocol whose metrics are times."""


def machine_of(cell: ScoredCell) -> tuple[str, ...]:
    """What the times of a cell depend on beside the model: equal where they can be compared; empty for other cells.

    Where the running machine is not known, the kind of it stands in, by which tables are told apart, but nothing is
    compared: see :func:`is_known`.
    """
    if cell.protocol["name"] != TIMED:
        return ()
    return tuple(str(cell.provenance.get(key)) for key in ("boot", "processor", "device", "threads"))


def is_known(cell: ScoredCell) -> bool:
    """Whether the running machine of a cell of times is known."""
    return bool(cell.provenance.get("boot"))


def machine_name(cell: ScoredCell) -> str:
    """The machine in words: ``AMD EPYC, cpu, threads: 1``."""
    known = [cell.provenance[key] for key in ("processor", "device") if cell.provenance.get(key)]
    return ", ".join([*map(str, known), f"threads: {cell.provenance.get('threads', '?')}"])
