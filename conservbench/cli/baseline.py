"""``conservbench baseline``: keep scores to compare later ones with."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("baseline.json"),
    show_default=True,
    help="The file.",
)
@click.option("-m", "--model", "models", multiple=True, help="Name of a model to keep; by default all of them.")
@click.option("--json", "as_json", is_flag=True, help="Print what is kept as JSON.")
def baseline(folder: Path, out: Path, models: tuple[str, ...], as_json: bool) -> None:
    """Keep the scores of DIR, a folder of results or of entries, for `conservbench check`. Nothing is measured.

    The file holds every score with its interval, the cards' versions and where the numbers come from, without pictures.

    Exit code: 0 written, 2 wrong usage, 4 nothing there was measured.

    \b
    Example: conservbench baseline conservbench-results --out baseline.json
    """
    import json

    from conservbench.cli import USAGE, CommandError
    from conservbench.cli.check import measured
    from conservbench.hint import did_you_mean
    from conservbench.leaderboard.entry import without_plots, write_entry

    cells = measured(folder)
    names = {cell.model["name"] for cell in cells}
    for name in models:
        if name not in names:
            raise CommandError(f"no model {name!r} in {folder}{did_you_mean(name, names)}", USAGE)
    kept = without_plots(cell for cell in cells if not models or cell.model["name"] in models)
    if not any(score.value is not None for cell in kept for score in cell.scores):
        raise CommandError(f"{folder}: no score has a value: there is nothing to compare with later", 4)
    write_entry(kept, out)
    found = {
        "path": str(out),
        "models": sorted({cell.model["name"] for cell in kept}),
        "cells": len(kept),
        "scores": sum(score.value is not None for cell in kept for score in cell.scores),
    }
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        click.echo(
            f"wrote {out}: {found['scores']} scores of {found['cells']} cells."
            f" Next: conservbench check DIR --against {out}"
        )
