"""``conservbench board``: write the published tables."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("leaderboard"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of the files written.")
def board(folder: Path, out: Path, as_json: bool) -> None:
    """Write README.md and results.json of the results in DIR to the folder --out.

    Exit code: 0 written, 2 wrong usage: DIR holds no results, or results that are not to be published together.

    \b
    Example: conservbench board conservbench-results --out leaderboard
    """
    from conservbench.leaderboard.page import write_board
    from conservbench.result import open_results
    from conservbench.scoring import score

    paths = write_board(score(open_results(folder)).cells, out)
    if as_json:
        import json

        click.echo(json.dumps([str(path) for path in paths]))
        return
    for path in paths:
        click.echo(f"wrote {path}")
