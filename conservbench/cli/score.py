"""``conservbench score``: judge results again and show them."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of the scores.")
@click.option("--gates", is_flag=True, help="Exit with 1 if a gate of a model, not of a control, fails.")
def score(folder: Path, as_json: bool, gates: bool) -> None:
    """Score the results in DIR, the folder that `conservbench run` wrote. Nothing is measured.

    Exit code: 0 fine, 1 a gate failed (with --gates), 2 wrong usage, 3 some could not be measured or judged, 4 nothing
    to score.

    \b
    Example: conservbench score conservbench-results --gates
    """
    from conservbench.cli.run import exit_code
    from conservbench.result import open_results
    from conservbench.scoring import score as score_tree

    table = score_tree(open_results(folder))
    if as_json:
        click.echo(table.to_json())
    else:
        from rich.console import Console

        Console().print(table)
    code = exit_code(table)
    if gates and (failed := table.failed_gates()):
        for each in failed:
            click.echo(f"gate failed: {each.model} / {each.protocol} / {each.system} / {each.metric}", err=True)
        code = 1
    click.get_current_context().exit(code)
