"""``conservbench check``: has a model become worse than a baseline says it was?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from conservbench.cli import USAGE, CommandError

if TYPE_CHECKING:
    from conservbench.compare import Verdict
    from conservbench.scored import ScoredCell

EXIT: Final[dict[Verdict, int]] = {"pass": 0, "improved": 0, "regression": 1, "nothing comparable": 4}
"""Exit code of each verdict."""

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--against",
    required=True,
    type=click.Path(path_type=Path),
    help="Baseline: what `conservbench baseline` wrote, a published entry or a folder of them, or other results.",
)
@click.option("--as", "name", help="Name, in the baseline, of the one model in DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print every compared metric as JSON.")
@click.option("--github", is_flag=True, help="Print annotations for GitHub Actions.")
@click.option("--junitxml", type=_FILE, help="Write a report that test tools read: a test a metric.")
@click.option("--markdown", type=_FILE, help="Write a summary in markdown.")
def check(
    folder: Path,
    against: Path,
    name: str | None,
    as_json: bool,
    github: bool,
    junitxml: Path | None,
    markdown: Path | None,
) -> None:
    """Compare the results in DIR with a baseline, metric by metric. Nothing is measured.

    A metric is a regression if it is worse by more than its protocol card tolerates and both intervals say that this is
    no chance: the tests of an unchanged model call any of them one in no more than 1 % of cases, however many there
    are. That covers tests, not endings: a cell that was measured before and failed or exploded now, and a metric that
    lost its value as nothing converged, are regressions without a test, and so is an exact number beyond its tolerance.
    Where DIR and the baseline hold one model each, they are compared whatever their names. Other versions of a protocol
    or a system, or other tiers, are not compared; times and memory only within one running machine.

    Exit code: 0 no regression, 1 regression, 2 wrong usage or other versions, 4 nothing comparable.

    \b
    Example: conservbench check conservbench-results --against leaderboard/entries
    """
    if as_json and github:
        raise CommandError("--json and --github both print: choose one", USAGE)
    from conservbench.cli.check_report import junit, rich_report, summary, workflow_commands
    from conservbench.compare import compare
    from conservbench.result import write_bytes

    head = measured(folder)
    base = baseline_of(against, head)
    head = renamed(head, base, name)
    comparison = compare(base, head)
    if junitxml is not None:
        write_bytes(junit(comparison), junitxml)
    if markdown is not None:
        write_bytes(summary(comparison).encode(), markdown)
    if as_json:
        click.echo(json.dumps(comparison.to_document(), indent=1, ensure_ascii=False, allow_nan=False))
    elif github:
        click.echo("\n".join(workflow_commands(comparison)))
    else:
        from rich.console import Console

        Console().print(rich_report(comparison))
    there, here = ({cell.model["name"] for cell in cells} for cells in (base, head))
    if not there & here:
        click.echo(
            f"the baseline has {', '.join(sorted(there))}; measured was {', '.join(sorted(here))}: see --as", err=True
        )
    click.get_current_context().exit(EXIT[comparison.verdict])


def measured(folder: Path) -> tuple[ScoredCell, ...]:
    """The cells of a folder of results, or of an entry or a folder of them; results come first where there are both.

    Raises:
        ValueError: there is nothing of the kind.
    """
    from conservbench.leaderboard.entry import read_entries

    if (entries := _entries(folder)) is not None:
        return read_entries(entries)
    return _scored(folder)


def baseline_of(path: Path, head: Sequence[ScoredCell]) -> tuple[ScoredCell, ...]:
    """The cells of a baseline, whose protocols are those of what is measured now; found as :func:`measured` finds them.

    Raises:
        CommandError: it holds no cell.
        ValueError: there is no baseline, or it was measured by other versions of the protocols.
    """
    from conservbench.leaderboard.entry import read_entries

    entries = _entries(path) if path.exists() else path
    if entries is None:
        return _scored(path)
    cells = read_entries(entries, [cell.protocol for cell in head])
    if not cells:
        raise CommandError(f"{path} has no cells: there is nothing to compare with", USAGE)
    return cells


def _entries(path: Path) -> Path | None:
    """Where entries are read from; None where results are."""
    if any(path.glob("*/*/*.nc")):
        return None
    if (path / "entries").is_dir():
        return path / "entries"
    return path if path.is_file() or any(path.glob("*.json")) else None


def renamed(head: Sequence[ScoredCell], base: Sequence[ScoredCell], name: str | None) -> tuple[ScoredCell, ...]:
    """What was measured now, under the name it has in the baseline.

    Args:
        head: what was measured now.
        base: the baseline.
        name: that of the one model of ``head`` in the baseline; None keeps names, unless each side has one model.

    Raises:
        CommandError: the baseline has no such model.
        conservbench.compare.CompareError: ``head`` has several models, and a name was given.
    """
    from conservbench.compare import known_as
    from conservbench.hint import did_you_mean

    there, here = ({cell.model["name"] for cell in cells} for cells in (base, head))
    if name is None:
        return known_as(head, *there) if len(there) == len(here) == 1 else tuple(head)
    if name not in there:
        raise CommandError(f"--as: no model {name!r} in the baseline{did_you_mean(name, there)}", USAGE)
    return known_as(head, name)


def _scored(folder: Path) -> tuple[ScoredCell, ...]:
    from conservbench.result import open_results
    from conservbench.scoring import score

    return score(open_results(folder)).cells
