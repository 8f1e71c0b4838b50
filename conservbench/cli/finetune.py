"""``conservbench finetune``: tune a model through its simulated properties."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from conservbench.training.finetune import Tuned


@click.command()
@click.argument("card")
@click.option("-t", "--target", "targets", multiple=True, help="rdf, elastic or force-constants; repeatable.")
@click.option("--recipe", type=click.Path(path_type=Path, dir_okay=False, exists=True), required=True)
@click.option("--steps", type=click.IntRange(min=1), help="In place of those of the recipe.")
@click.option("--name", help="Of the tuned model; by default the card's and the targets'.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("conservbench-tuning"))
@click.option("--device", default="cpu", show_default=True, help="Torch device: cpu, cuda, cuda:1, ...")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Threads on a CPU.")
@click.option("--fresh", is_flag=True, help="Start anew; without it an unfinished tuning goes on.")
@click.option("--json", "as_json", is_flag=True, help="Print what was tuned as JSON.")
def finetune(
    card: str,
    targets: tuple[str, ...],
    recipe: Path,
    steps: int | None,
    name: str | None,
    out: Path,
    device: str,
    threads: int,
    fresh: bool,
    as_json: bool,
) -> None:
    """Tune the model of a CARD to properties of its simulations, under its force scheme.

    Without a target it is tuned to labelled energies and forces alone: the control. Writes NAME.toml, a card that names
    its parent, with NAME.safetensors beside it where the model has a checkpoint, NAME.history.nc and NAME.png (losses
    of every step), and NAME.state.pt, from which the same command goes on after an interruption. A step at which
    something breaks is taken back; after too many in a row the tuning stops, keeps the last sound parameters, and exits
    with 3.

    \b
    Example: conservbench finetune si-mace-gradient -t elastic --recipe models/recipes/silicon-tuning.toml
    """
    from dataclasses import replace

    from conservbench import process

    process.configure(threads=threads)

    from conservbench.cards import CardError, find_model
    from conservbench.cli import CommandError
    from conservbench.cli.progress import counted
    from conservbench.models.base import UnsupportedError
    from conservbench.outcome import Outcome
    from conservbench.result import WriteError, write_result
    from conservbench.training import finetune as tuning
    from conservbench.training.tuned_card import check_place, write_tuned_card
    from conservbench.training.tuning_plot import plot_history
    from conservbench.training.tuning_recipe import check_targets, name_of, read_tuning_recipe

    parent, wanted, how = find_model(card), check_targets(targets), read_tuning_recipe(recipe)
    how = how if steps is None else replace(how, steps=steps)
    process.check_device(device)
    row = name or name_of(parent.name, wanted)
    if row == parent.name:
        raise CardError(f"--name {row}: that is the model itself")
    check_place(row, parent, wanted, out)
    with counted(row, how.steps, "step") as report:
        try:
            tuned = tuning.finetune(
                parent, wanted, how, out / f"{row}.state.pt", fresh=fresh, device=device, progress=report
            )
        except (UnsupportedError, WriteError) as error:
            raise CommandError(str(error), 3) from error
    history = tuned.descent.dataset()
    try:
        write_tuned_card(tuned, parent, wanted, how, out / f"{row}.toml")
        write_result(history, out / f"{row}.history.nc")
        plot_history(history, row, out / f"{row}.png")
    except WriteError as error:
        raise CommandError(f"{error}; make room, and the same command goes on", 3) from error
    _tell(tuned, card, out / f"{row}.toml", as_json)
    if tuned.descent.outcome is not Outcome.COMPLETED:
        raise CommandError(f"{tuned.descent.reason}; the last sound parameters were kept", 3)


def _tell(tuned: Tuned, parent: str, card: Path, as_json: bool) -> None:
    if as_json:
        import json

        said = {"card": str(card), "outcome": tuned.descent.outcome.value, "before": tuned.before, "after": tuned.after}
        click.echo(json.dumps(said, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "test error", title=f"{card.stem}: {tuned.descent.accepted} of {len(tuned.descent.history)} steps taken"
    )
    for column in ("before", "after"):
        table.add_column(column, justify="right")
    for name, value in tuned.before.items():
        label = "energy meV/atom" if name == "energy" else f"{name} force meV/Å"
        table.add_row(label, f"{value:.1f}", f"{tuned.after[name]:.1f}")
    Console().print(table)
    click.echo(f"Card: {card}. What it changed: conservbench run -p finetune -m {parent} -m {card}")
