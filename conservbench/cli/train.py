"""``conservbench train``: train a model as a recipe says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """Train the model of a RECIPE.

    The recipe's key model says of which kind it is: a two-headed network without it, on energies, gradient forces
    and direct forces; "descriptor" for a read-out of fixed descriptors, solved by least squares; "kernel" for a
    kernel model.

    Writes NAME.safetensors and, for a network, NAME.metrics.nc (errors of every epoch) and NAME.state.pt, from which
    the same command goes on after an interruption. The data set is looked for in the folder
    $CONSERVBENCH_DATA, then fetched from its public home; its checksum is always verified.

    Example: conservbench train models/recipes/si-mace.toml --out training
    """
    from conservbench import process

    process.configure(threads=threads)

    from conservbench.cards import parse
    from conservbench.hint import did_you_mean

    kind = parse(recipe).get("model", "mace")
    if kind not in _KINDS:
        raise ValueError(f"{recipe}: model is {kind!r}{did_you_mean(str(kind), _KINDS)}")
    process.check_device(device)
    _KINDS[kind](recipe, out, device, fresh=fresh, as_json=as_json)


def _network(recipe: Path, out: Path, device: str, *, fresh: bool, as_json: bool) -> None:
    """A two-headed network."""
    from conservbench.cli.progress import counted
    from conservbench.models.mace import read_checkpoint
    from conservbench.training import fit as fitting
    from conservbench.training.recipe import read_recipe

    what = read_recipe(recipe)
    if fresh:
        fitting.state_path(what, out).unlink(missing_ok=True)
    with counted(what.name, what.epochs, "epoch") as report:
        checkpoint = fitting.fit(what, out, device=device, progress=report)
    errors = fitting.split_errors(read_checkpoint(checkpoint), what.data, "test")
    _print_errors(errors, checkpoint, as_json)


def _descriptor(recipe: Path, out: Path, device: str, *, fresh: bool, as_json: bool) -> None:
    """A read-out of fixed descriptors."""
    from conservbench.cli.progress import counted
    from conservbench.models.descriptor.potential import read_potential
    from conservbench.training.descriptor import fit as fitting
    from conservbench.training.descriptor.errors import split_errors
    from conservbench.training.descriptor.recipe import read_recipe

    if device != "cpu":
        raise ValueError(f"device is {device!r}; least squares of descriptors are solved on the cpu")
    what = read_recipe(recipe)
    if fresh:
        fitting.state_path(what, out).unlink(missing_ok=True)
    with counted(what.name, fitting.pieces(what), "piece") as report:
        checkpoint = fitting.fit(what, out, progress=report)
    errors = split_errors(read_potential(checkpoint), what.data, "test")
    if as_json:
        _print_json(errors, checkpoint)
        return
    rows = {
        group: (error.energy_mean, error.energy_rms, error.gradient_mean, error.gradient_rms, error.direct_mean)
        for group, error in errors.items()
    }
    columns = ("energy meV/atom", "its rms", "gradient force meV/Å", "its rms", "direct force meV/Å")
    _print_table(f"Mean absolute errors of {checkpoint.name}", columns, rows, checkpoint)


def _kernel(recipe: Path, out: Path, device: str, *, fresh: bool, as_json: bool) -> None:  # noqa: ARG001 - solved at once
    """A kernel model."""
    from conservbench.models.kernel.checkpoint import read_checkpoint
    from conservbench.models.kernel.model import KernelModel
    from conservbench.training.kernel.fit import fit, split_errors
    from conservbench.training.kernel.recipe import read_recipe

    if device != "cpu":
        raise ValueError(f"device is {device!r}; kernels are solved on the cpu")
    what = read_recipe(recipe)
    checkpoint = fit(what, out)
    errors = split_errors(KernelModel(read_checkpoint(checkpoint)), what, "test")
    if as_json:
        _print_json(errors, checkpoint)
        return
    rows = {group: (error.energy, error.gradient) for group, error in errors.items()}
    columns = ("energy meV/atom", "gradient force meV/Å")
    _print_table(f"Mean absolute errors of {checkpoint.name}", columns, rows, checkpoint)


_KINDS: Mapping[str, Callable[..., None]] = {"mace": _network, "descriptor": _descriptor, "kernel": _kernel}
"""By the recipe's key ``model``."""


def _print_errors(errors: dict[str, Errors], checkpoint: Path, as_json: bool) -> None:
    if as_json:
        _print_json(errors, checkpoint)
        return
    rows = {group: (error.energy, error.gradient, error.direct) for group, error in errors.items()}
    columns = ("energy meV/atom", "gradient force meV/Å", "direct force meV/Å")
    _print_table(f"Mean absolute errors of {checkpoint.name}", columns, rows, checkpoint)


def _print_json(errors: Mapping[str, Any], checkpoint: Path) -> None:
    import json
    from dataclasses import asdict

    click.echo(json.dumps({"checkpoint": str(checkpoint), "test": {k: asdict(v) for k, v in errors.items()}}, indent=1))


def _print_table(
    title: str, columns: tuple[str, ...], rows: Mapping[str, tuple[float | None, ...]], checkpoint: Path
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("test frames", title=title)
    for column in columns:
        table.add_column(column, justify="right")
    for group, values in rows.items():
        table.add_row(group, *("–" if value is None else f"{value:.1f}" for value in values))
    Console().print(table)
    click.echo(f"Checkpoint: {checkpoint}. Name it in a model card to run it (see models/README.md).")
