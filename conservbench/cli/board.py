"""``conservbench board``: write the published tables and the site."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from conservbench.cli import USAGE, CommandError

if TYPE_CHECKING:
    from conservbench.scored import ScoredCell

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", type=_FOLDER, help="Folder of entries and README.md; leaderboard, or SOURCE if it is one.")
@click.option("--html", type=_FOLDER, help="Folder of the site, which opens from disk and from any web server.")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a file of --out is not up to date.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of the files written, or found stale.")
def board(source: Path, out: Path | None, html: Path | None, check: bool, as_json: bool) -> None:
    """Publish SOURCE: a folder of results, an entry, or a folder of entries.

    The entry of each model goes to the folder entries of --out, and README.md is written from all that are there.
    Protocols of a model that were not measured now are kept. Where SOURCE is a published folder itself, its README.md
    is written again. With --html and without --out, only the site is written.

    Exit code: 0 written or up to date, 1 stale (with --check), 2 wrong usage: nothing in SOURCE, or what is not to be
    published, such as results of the smoke tier.

    \b
    Example: conservbench board conservbench-results --out leaderboard --html site
    """
    if check and html is not None:
        raise CommandError("--check writes nothing: leave --html out", USAGE)
    from conservbench.scoring import read_cells

    own = (source / "entries").is_dir()
    if out is None and html is None:
        out = source if own else Path("leaderboard")
    cells = read_cells(source)
    paths: list[Path] = []
    if out is not None:
        again = own and out.resolve() == source.resolve()
        paths += _published(() if again else cells, out, check)
    site: list[Path] = []
    if html is not None:
        from conservbench.leaderboard.coverage import installed_protocols
        from conservbench.site import write_site

        site = write_site(cells, html, installed_protocols())
        paths += site
    if as_json:
        import json

        click.echo(json.dumps([str(path) for path in paths]))
    elif check:
        click.echo("\n".join(f"{path} is not up to date" for path in paths) or f"{out} is up to date")
    else:
        for path in paths[: len(paths) - len(site)]:
            click.echo(f"wrote {path}")
        if html is not None:
            click.echo(f"wrote {html / 'index.html'} and {len(site) - 1} more files of the site")
    click.get_current_context().exit(int(check and bool(paths)))


def _published(cells: tuple[ScoredCell, ...], out: Path, check: bool) -> list[Path]:
    """Files that were written, or that are stale."""
    from conservbench.leaderboard.folder import published, stale
    from conservbench.result import write_bytes

    files = published(cells, out)
    if check:
        return stale(files)
    for path, content in files.items():
        write_bytes(content, path)
    return list(files)
