"""The report of one run: one file with everything in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conservbench.result import write_bytes
from conservbench.site.pages import report_page

if TYPE_CHECKING:
    from conservbench.scored import ScoredCell


def write_report(cells: Sequence[ScoredCell], path: Path) -> None:
    """Write the report of a run, whole or not at all: it opens from disk and loads nothing.

    Args:
        cells: what was measured, with pictures.
        path: the file, such as ``report.html``.

    Raises:
        conservbench.result.WriteError: it cannot be written.
    """
    write_bytes(report_page(cells).encode(), path)
