"""``conservbench train``: train a two-headed network as a recipe says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from conservbench.training.fit import Errors


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("conservbench-training"))
@click.option("--device", default="cpu", show_default=True, help="Torch device: cpu, cuda, cuda:1, ...")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Threads on a CPU.")
@click.option("--fresh", is_flag=True, help="Start anew; without it an unfinished training goes on.")
@click.option("--json", "as_json", is_flag=True, help="Print the test errors as JSON.")
def train(recipe: Path, out: Path, device: str, threads: int, fresh: bool, as_json: bool) -> None:
    """Train the network of a RECIPE, on energies, gradient forces and direct forces.

    Writes NAME.safetensors, NAME.metrics.nc (errors of every epoch) and NAME.state.pt, from which the same command
    goes on after an interruption. The data set is looked for in the folder
    $CONSERVBENCH_DATA, then fetched from its public home; its checksum is always verified.

    Example: conservbench train models/recipes/si-mace.toml --out training
    """
    from conservbench import process

    process.configure(threads=threads)

    from conservbench.cli.progress import counted
    from conservbench.models.mace import read_checkpoint
    from conservbench.training import fit as fitting
    from conservbench.training.recipe import read_recipe

    what = read_recipe(recipe)
    process.check_device(device)
    if fresh:
        fitting.state_path(what, out).unlink(missing_ok=True)
    with counted(what.name, what.epochs, "epoch") as report:
        checkpoint = fitting.fit(what, out, device=device, progress=report)
    errors = fitting.split_errors(read_checkpoint(checkpoint), what.data, "test")
    _print_errors(errors, checkpoint, as_json)


def _print_errors(errors: dict[str, Errors], checkpoint: Path, as_json: bool) -> None:
    if as_json:
        import json
        from dataclasses import asdict

        click.echo(
            json.dumps({"checkpoint": str(checkpoint), "test": {k: asdict(v) for k, v in errors.items()}}, indent=1)
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("test frames", title=f"Mean absolute errors of {checkpoint.name}")
    for column in ("energy meV/atom", "gradient force meV/Å", "direct force meV/Å"):
        table.add_column(column, justify="right")
    for group, error in errors.items():
        table.add_row(group, f"{error.energy:.1f}", f"{error.gradient:.1f}", f"{error.direct:.1f}")
    Console().print(table)
    click.echo(f"Checkpoint: {checkpoint}. Name it in a model card to run it (see models/README.md).")
