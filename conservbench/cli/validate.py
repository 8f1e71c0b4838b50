"""``conservbench validate``: whether a model card and its entry can be published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from conservbench.scored import ScoredCell

_FILE = click.Path(path_type=Path)


@click.command()
@click.option("--card", required=True, metavar="FILE", type=_FILE, help="Model card, NAME.toml.")
@click.option("--entry", required=True, metavar="FILE", type=_FILE, help="Entry of its scores, NAME.json.")
@click.option("--artifact", metavar="FILE", type=_FILE, help="Checkpoint; its checksum is compared with the card's.")
@click.option(
    "--tier",
    type=click.Choice(["quick", "standard"]),
    default="standard",
    show_default=True,
    help="Tier that the cells must be of; the leaderboard takes standard.",
)
@click.option(
    "--published",
    type=_FILE,
    metavar="DIR",
    default=Path("leaderboard"),
    show_default=True,
    help="Folder of what is published, whose entries the provenance is compared with; it need not exist.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object: model, accepted, problems, remarks.")
def validate(card: Path, entry: Path, artifact: Path | None, tier: str, published: Path, as_json: bool) -> None:
    """Check a submission: a model card, the entry of its scores and, if it is at hand, its checkpoint.

    The files are data: nothing that they name is opened or imported. What is accepted may come with remarks on what a
    person should look at. Exit code: 0 accepted, 1 refused, with every reason on a line of its own, 2 wrong usage.

    \b
    Example: conservbench validate --card models/net.toml --entry leaderboard/entries/net.json
    """
    import json
    from contextlib import suppress

    from conservbench.leaderboard.entry import EntryError, read_entries
    from conservbench.leaderboard.hostile_text import shown
    from conservbench.leaderboard.submission import remarks, validate_files

    problems = validate_files(card, entry, artifact, tier=tier)
    looked_at: list[str] = []
    if not problems:
        texts = card.read_text(encoding="utf-8"), entry.read_text(encoding="utf-8")
        cells: list[ScoredCell] = []
        for path in sorted((published / "entries").glob("*.json")):
            # what an older version of a protocol measured is not compared with
            with suppress(EntryError):
                cells += read_entries(path)
        looked_at = remarks(*texts, artifact, cells)
    if as_json:
        report = {"model": shown(card.stem), "accepted": not problems, "problems": problems, "remarks": looked_at}
        click.echo(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        for problem in problems:
            click.echo(problem, err=True)
        for remark in looked_at:
            click.echo(f"look at: {remark}")
        click.echo(f"refused: {len(problems)} problem{'s' * (len(problems) > 1)}" if problems else "accepted")
    click.get_current_context().exit(1 if problems else 0)
