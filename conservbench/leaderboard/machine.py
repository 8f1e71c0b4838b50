"""Which times can be compared: those of the protocol ``speed`` that were taken on one running machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from conservbench import provenance

if TYPE_CHECKING:
    from conservbench.scored import ScoredCell

TIMED: Final = "speed"
"""The protocol whose metrics are times."""


def machine_of(cell: ScoredCell) -> tuple[str, ...]:
    """What the times of a cell depend on beside the model; empty for cells of other protocols.

    Where the running machine is not known, the kind of it stands in, by which tables are told apart, but nothing is
    compared: see :func:`on_one_machine`.
    """
    return provenance.machine_of(cell.provenance) if cell.protocol["name"] == TIMED else ()


def on_one_machine(cells: Iterable[ScoredCell]) -> bool:
    """Whether all were measured, with as many threads, on one running machine."""
    return provenance.on_one_machine(cell.provenance for cell in cells)


def machine_name(cell: ScoredCell) -> str:
    """The machine in words: ``AMD EPYC, cpu, threads: 1, boot ab12cd34``."""
    known = [cell.provenance[key] for key in ("processor", "device") if cell.provenance.get(key)]
    # two machines of one kind, or one that was started again, differ in nothing else
    boot = [f"boot {str(cell.provenance['boot'])[:8]}"] if cell.provenance.get("boot") else []
    return ", ".join([*map(str, known), f"threads: {cell.provenance.get('threads', '?')}", *boot])
