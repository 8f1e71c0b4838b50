"""``conservbench data``: data sets of labelled structures, found, shown, fetched and made."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conservbench.hint import did_you_mean

if TYPE_CHECKING:
    from conservbench.data.catalogue import DataSet

NOT_ALL = 3
"""Exit code of a labelling that could not keep all frames."""

FILES = 4
"""Files of a set that are shown one by one."""


class Acts(click.Group):
    """Group whose unknown words are told with the nearest."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find what the first word names."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(f"nothing to do with data is called {args[0]!r}{did_you_mean(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


@click.group(cls=Acts)
def data() -> None:
    """List, show and fetch data sets, or make one by labelling; each with --json.

    \b
    Example: conservbench data show water
    """


@data.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_(as_json: bool) -> None:
    """List the data sets, and whether their files are here.

    \b
    Example: conservbench data list
    """
    from conservbench.data.catalogue import catalogue

    rows = [
        {"name": each.name, "here": _here(each), "license": each.license, "split": _split(each), "title": each.title}
        for each in catalogue().values()
    ]
    if as_json:
        _print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    keys = ("name", "here", "license", "title")
    table = Table(*keys, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(Text(row[key]) for key in keys))
    Console().print(table)
    click.echo(f"{len(rows)} data sets. More: conservbench data show NAME")


@data.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def show(name: str, as_json: bool) -> None:
    """Show what is known of a data set: its source and files and, if it is here, what it holds.

    NAME may be the path of an extended XYZ file (.xyz, .extxyz, also with .xz or .gz). Nothing is downloaded. Labels
    are checked: a file that is cut off, has no forces or NaNs, or whose units cannot be eV and Å is told with the frame
    and the reason. What cannot be split into frames for training and testing is told in a note.

    Exit code: 0 fine, 2 wrong usage or a set that cannot be used.

    \b
    Example: conservbench data show mlearn-si
    """
    from conservbench.data.catalogue import find_data_set

    found = find_data_set(name)
    table = _described(found)
    if as_json:
        _print_json(table)
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for key, value in _flat(table):
            grid.add_row(Text(key, style="bold"), Text(value))
        Console().print(grid)
    if "error" in table:
        raise ValueError(table["error"])


@data.command()
@click.argument("name")
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), help="Folder to copy the files into.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of the paths.")
def fetch(name: str, to: Path | None, as_json: bool) -> None:
    """Fetch the files of a data set from its public home, unless they are here.

    A file counts when its checksum is right, not before. A folder given by --to can serve as $CONSERVBENCH_DATA.

    Exit code: 0 fine, 2 wrong usage, a wrong checksum or no connection.

    \b
    Example: conservbench data fetch water --to my-data
    """
    from conservbench.cli.progress import counted
    from conservbench.data.catalogue import find_data_set
    from conservbench.data.locate import fetch as fetch_files

    found = find_data_set(name)
    if not found.files:
        paths = _fetch_hosted(found, to)
    else:
        with counted(found.name, len(found.members()), "file") as report:
            paths = [str(path) for path in fetch_files(found, to, report)]
    if as_json:
        _print_json(paths)
    else:
        for path in paths:
            click.echo(path)


@data.command()
@click.argument("card", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("conservbench-data"))
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; one a core if nothing is said.")
@click.option("--fresh", is_flag=True, help="Begin anew; without it, unfinished trajectories go on.")
@click.option("--json", "as_json", is_flag=True, help="Print the provenance as JSON.")
def label(card: Path, out: Path, jobs: int | None, fresh: bool, as_json: bool) -> None:
    """Make a data set: move the atoms of a CARD and label what they come by.

    Molecular dynamics over a schedule of temperatures and strains, by any calculator of ASE; frames whose forces are
    too much like those of the last one are passed over. Writes NAME.extxyz.xz and NAME.provenance.json into --out. An
    interrupted labelling goes on where it was, and gives the same set. Trajectories that came to no frame begin anew.

    Exit code: 0 fine, 2 wrong usage, 3 some frames, or none, could be labelled.

    \b
    Example: conservbench data label data/ethanol-xtb.toml
    """
    from conservbench import process

    process.configure()

    from conservbench.cli import CommandError
    from conservbench.cli.progress import counted
    from conservbench.data.labelling.campaign import label as walk_all
    from conservbench.data.labelling.campaign import record_folder
    from conservbench.data.labelling.card import read_labelling
    from conservbench.data.labelling.product import LARGEST, NothingLabelledError, write_product

    what = read_labelling(card)
    n_jobs = min(jobs or process.usable_cores(), len(what.plan()))
    with process.quiet_stdout(), counted(what.name, what.frames, "frame") as report:
        records = walk_all(what, out, jobs=n_jobs, fresh=fresh, progress=report)
    failed = Counter(str(each["reason"]) for record in records for each in record.failures)
    try:
        path, origin = write_product(what, records, out)
    except NothingLabelledError as error:
        if as_json:
            _print_json({"error": str(error), "failures": dict(failed.most_common())})
        said = f"{error}: {_commonest(failed)}; all failures are in {record_folder(what, out)}"
        raise CommandError(said, NOT_ALL) from error
    if as_json:
        click.echo(origin.read_text(encoding="utf-8"), nl=False)
    else:
        click.echo(f"{path}: {path.stat().st_size / 1000:.0f} kB. How it was made: {origin}")
    missing = what.frames - sum(
        min(len(record.frames), each.frames) for record, each in zip(records, what.plan(), strict=True)
    )
    if failed:
        click.echo(f"{_commonest(failed)}; all failures are in {origin.name}", err=True)
    if path.stat().st_size > LARGEST:
        click.echo(
            f"{path.name} is larger than the {LARGEST / 1e6:g} MB of a set that travels with the package", err=True
        )
    if missing:
        click.echo(f"{missing} of {what.frames} frames could not be labelled", err=True)
        click.get_current_context().exit(NOT_ALL)


def _commonest(failed: Counter[str]) -> str:
    """What failed most often."""
    if not failed:
        return "no failure was recorded"
    (reason, count), *others = failed.most_common()
    if not others:
        return f"{reason} ({count} times)"
    return f"{failed.total()} failures, most often: {reason} ({count} times)"


def _print_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


def _here(data_set: DataSet) -> str:
    from conservbench.data.locate import present

    files = data_set.members()
    if not files:
        return "by load-atoms"
    try:
        count = sum(present(file) is not None for file in files)
    except ValueError:
        return "damaged"
    if count == len(files):
        return "yes"
    return f"{count} of {len(files)} files" if count else "no"


def _split(data_set: DataSet) -> str:
    if {"train", "test"} <= set(data_set.files):
        return "by file"
    return data_set.split or "none"


def _described(data_set: DataSet) -> dict[str, Any]:
    """All that is known of a data set, as JSON types; its errors under ``error``."""
    table: dict[str, Any] = {
        key: getattr(data_set, key)
        for key in ("name", "title", "license", "citation", "doi", "home", "units", "reader")
        if getattr(data_set, key)
    }
    table["split"] = _split(data_set)
    table["here"] = _here(data_set)
    files = [{key: value for key, value in vars(file).items() if value} for file in data_set.members()]
    table["files"] = files or dict(data_set.options)
    try:
        table |= _contents(data_set, table["here"])
    except (ValueError, OSError) as error:
        table["error"] = str(error)
    return table


def _contents(data_set: DataSet, here: str) -> dict[str, Any]:
    from conservbench.data import readers

    if here == "no" or here.endswith("files") or not data_set.files or not readers.gives_frames(data_set.reader):
        return {}
    from itertools import chain

    from conservbench.data.frames import load_all, load_frames
    from conservbench.data.split import is_test, require_sides
    from conservbench.data.summary import summary

    if not data_set.split:
        parts = {name: load_frames(data_set, name) for name in data_set.files}
        return {
            "frames": {name: len(part) for name, part in parts.items()},
            "holds": summary([*chain(*parts.values())]),
        }
    frames = load_all(data_set)
    try:
        chosen = is_test(frames, data_set.split)
        require_sides(chosen, data_set.split, training=True)
    except ValueError as error:
        # to be looked at, it needs no split
        return {"note": f"cannot be split into frames for training and testing: {error}", "holds": summary(frames)}
    n_test = sum(chosen)
    return {"frames": {"train": len(frames) - n_test, "test": n_test}, "holds": summary(frames)}


def _fetch_hosted(data_set: DataSet, to: Path | None) -> list[str]:
    from conservbench.data.frames import load_all

    if to is not None:
        raise ValueError(f"{data_set.name} is kept by load-atoms where it keeps its sets: leave out --to")
    click.echo(f"{data_set.name}: {len(load_all(data_set))} frames, kept by load-atoms", err=True)
    return []


def _flat(table: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in table.items():
        if value is None:
            continue
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        elif key == "files":
            rows += [("file", _file(file)) for file in value[:FILES]]
            rows += [("file", f"and {len(value) - FILES} more: --json lists them")] if len(value) > FILES else []
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((prefix + key, shown))
    return rows


def _file(file: dict[str, str]) -> str:
    digest = f"  sha256 {file['sha256'][:12]}..." if "sha256" in file else ""
    return file["local"] + digest
