"""How a cell ended: a named value, always a row of the table, never a gap."""

from enum import StrEnum


class Outcome(StrEnum):
    """Ending of one cell (model x protocol x system)."""

    COMPLETED = "completed"
    """Everything asked for was measured."""
    EXPLODED = "exploded"
    """At least one replica left the physical range; its time is recorded and the rest was measured."""
    NOT_CONVERGED = "not_converged"
    """An iteration used its whole budget without reaching its target."""
    UNSUPPORTED = "unsupported"
    """The model cannot be asked this; the reason is recorded."""
    OUT_OF_MEMORY = "out_of_memory"
    """The device ran out of memory."""
    FAILED = "failed"
    """The model or the measurement raised, or its worker died; the reason is recorded."""

    @property
    def is_final(self) -> bool:
        """Whether a resumed run keeps the cell: failures of the machine or the code are tried again."""
        return self not in (Outcome.OUT_OF_MEMORY, Outcome.FAILED)
