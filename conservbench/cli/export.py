"""``conservbench export``: scores as tables for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

if TYPE_CHECKING:
    from conservbench.leaderboard.export import Format


@click.command()
@click.argument("source", metavar="SOURCE", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    required=True,
    type=click.Choice(["csv", "json", "parquet", "huggingface"]),
    help="parquet needs pyarrow; huggingface is the folder of a dataset.",
)
@click.option(
    "--out", required=True, metavar="PATH", type=click.Path(path_type=Path), help="File; for huggingface, folder."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object: scores, models, files.")
def export(source: Path, kind: str, out: Path, as_json: bool) -> None:
    """Write the scores of SOURCE, one row a score: results, an entry, or a folder of entries such as leaderboard.

    Where there is a value, an empty low or high is an end that nothing bounds. In CSV, text that a spreadsheet would
    run as a formula gets an apostrophe before it. Exit code: 0 fine, 2 wrong usage, 4 nothing to export.

    \b
    Example: conservbench export leaderboard --format csv --out scores.csv
    """
    import json

    from conservbench.leaderboard.export import export
    from conservbench.scoring import read_cells

    cells = read_cells(source)
    scores, models = sum(len(cell.scores) for cell in cells), len({cell.model["name"] for cell in cells})
    files = export(cells, cast("Format", kind), out) if scores else []
    if as_json:
        click.echo(json.dumps({"scores": scores, "models": models, "files": [str(path) for path in files]}, indent=1))
    elif files:
        click.echo(f"{scores} scores of {models} models: {', '.join(map(str, files))}")
    else:
        click.echo(f"no scores in {source}", err=True)
    click.get_current_context().exit(0 if files else 4)
