"""``conservbench run``: measure models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from conservbench.cards import TIERS
from conservbench.cli import USAGE, CommandError
from conservbench.outcome import Outcome

if TYPE_CHECKING:
    import xarray as xr

    from conservbench.scoring import ScoreTable


@click.command()
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    help="Name, path of a card or a folder of cards, or ase:package.module:factory.",
)
@click.option("-p", "--protocol", "protocols", multiple=True, help="Name, or path of a card.")
@click.option(
    "-s", "--system", "systems", multiple=True, help="Name; by default those the protocol, or the model, lists."
)
@click.option("--tier", type=click.Choice(TIERS), default="quick", show_default=True, help="How long to measure.")
@click.option(
    "--seed", type=click.IntRange(min=0), help="Other random numbers: momenta, noise, loops; by default the protocol's."
)
@click.option("--device", default="cpu", show_default=True, help="Torch device: cpu, cuda, cuda:1, ...")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("conservbench-results"),
    show_default=True,
    help="Folder of the results.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Worker processes; by default one a core, one on a GPU.")
@click.option("--fresh/--resume", help="Measure finished cells again; by default they are kept.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def run(
    models: tuple[str, ...],
    protocols: tuple[str, ...],
    systems: tuple[str, ...],
    tier: str,
    seed: int | None,
    device: str,
    out: Path,
    jobs: int | None,
    fresh: bool,
    as_json: bool,
) -> None:
    """Measure models under protocols and print their scores.

    Without -m, -p or -s it takes all published models, all protocols that are run by default, and the systems that
    each protocol lists, or those that the model's card names; models that were tuned from another go to protocols about
    tuning. One file a model, protocol and system is written to the folder --out, and report.html
    beside them; the same command goes on after an interruption.

    Exit code: 0 all measured, 2 wrong usage, 3 some could not be measured, 4 nothing was measured.

    \b
    Example: conservbench run -m si-mace-gradient -m si-mace-direct -p nve --tier quick
    """
    from conservbench import process

    process.configure()

    from conservbench.cli.progress import shown
    from conservbench.runner import RunError, plan, run_cells

    cells = plan(models, protocols, systems, tier, seed)
    if not cells:
        raise CommandError("nothing to run: no models or no protocols", USAGE)
    process.check_device(device)
    jobs = jobs or (process.usable_cores() if device == "cpu" else 1)
    try:
        with shown(len(cells)) as on_event:
            run_cells(cells, out, jobs=jobs, device=device, fresh=fresh, on_event=on_event)
    except KeyboardInterrupt:
        advice = f"what is finished is kept in {out}: the same command goes on from there"
        raise CommandError(f"stopped; {advice}", 130) from None
    except RunError as error:
        raise CommandError(str(error), 3) from error

    from conservbench.result import open_cells
    from conservbench.scoring import score

    tree = open_cells(cell.path(out) for cell in cells)
    table = score(tree)
    report = _reported(table, tree, out / "report.html")
    if as_json:
        click.echo(table.to_json())
    else:
        from rich.console import Console

        Console().print(table)
        if report:
            click.echo(f"The report of this run, with pictures: {report}")
        click.echo(_next(out, tier))
    click.get_current_context().exit(exit_code(table))


def _next(out: Path, tier: str) -> str:
    """Where the results are and what to do with them; those of the smoke tier are not for publication."""
    if tier == "smoke":
        return f"Results are in {out}. The smoke tier only tests the machinery: its numbers judge no model."
    return f"Results are in {out}. Next: conservbench score {out}, or conservbench board {out} --out leaderboard"


def _reported(table: ScoreTable, tree: xr.DataTree, path: Path) -> Path | None:
    """Write the report of a run; what was measured is worth more than its report, which may fail."""
    try:
        from conservbench.scoring import with_plots
        from conservbench.site import write_report

        write_report(with_plots(table, tree).cells, path)
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        click.echo(f"conservbench: warning: no report: {what}", err=True)
        return None
    return path


def exit_code(table: ScoreTable) -> int:
    """4 where no cell was measured, 3 where some cells or metrics could not be, else 0."""
    broken = {Outcome.FAILED, Outcome.OUT_OF_MEMORY}
    cells = {cell.outcome for cell in table.cells}
    if not cells - broken - {Outcome.UNSUPPORTED}:
        return 4
    return 3 if broken & (cells | {score.outcome for score in table}) else 0
