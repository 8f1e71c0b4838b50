"""conservbench: which machine-learned forces are conservative, and what it costs when they are not.

    import conservbench

    tree = conservbench.run(models=["swirl"], protocols=["nve"])
    print(conservbench.score(tree))

Importing the package imports neither torch nor xarray.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

    from conservbench.scoring import ScoreTable

    __version__: str

__all__ = ["__version__", "open_results", "run", "score"]


def run(
    models: Sequence[str] | None = None,
    protocols: Sequence[str] | None = None,
    systems: Sequence[str] | None = None,
    *,
    tier: str = "quick",
    out: str | Path = "conservbench-results",
    jobs: int | None = None,
    device: str = "cpu",
    fresh: bool = False,
    progress: bool = True,
) -> xr.DataTree:
    """Measure models under protocols on systems; what is finished in ``out`` is kept.

    Args:
        models: names, paths of cards, or ``ase:package.module:factory``; None for all published models.
        protocols: names or paths of cards; None for all.
        systems: names; None for those that each protocol lists.
        tier: ``smoke`` (seconds), ``quick`` (minutes) or ``standard`` (what the board publishes).
        out: results folder, one file a cell.
        jobs: worker processes. None takes one a core on the CPU, but measures in this process where workers would
            run a script again that calls this: with more than one job, a script must call it under
            ``if __name__ == "__main__":``.
        device: torch device of the models.
        fresh: measure finished cells again too.
        progress: show progress on standard error.

    Returns:
        Raw series of the cells asked for, in groups ``/<protocol>/<system>/<model>``, each with an
        attribute ``outcome``.

    Raises:
        ValueError: a name, a card, a plugin or a checkpoint is not there or not as it must be.
    """
    import sys
    from contextlib import nullcontext

    from conservbench import process, runner
    from conservbench.cli.progress import shown
    from conservbench.result import open_cells

    process.check_device(device)
    cells = runner.plan(models or (), protocols or (), systems or (), tier)
    if jobs is None:
        # spawned workers import the file of __main__, which a notebook and a prompt do not have
        jobs = 1 if hasattr(sys.modules["__main__"], "__file__") or device != "cpu" else process.usable_cores()
    with shown(len(cells)) if progress else nullcontext(lambda _: None) as on_event:
        runner.run_cells(cells, Path(out), jobs=jobs, device=device, fresh=fresh, on_event=on_event)
    return open_cells(cell.path(Path(out)) for cell in cells)


def open_results(path: str | Path) -> xr.DataTree:
    """Open a results folder as a tree with groups ``/<protocol>/<system>/<model>``.

    Raises:
        ValueError: the folder is not there, or holds no results.
    """
    from conservbench import result

    return result.open_results(path)


def score(tree: xr.DataTree) -> ScoreTable:
    """Scores of a tree of results: values, 95 % intervals and gates; nothing is measured."""
    from conservbench.scoring import score as judge_all

    return judge_all(tree)


def __getattr__(name: str) -> str:
    if name == "__version__":
        from conservbench.provenance import version_of

        return version_of("conservbench") or "0+unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
