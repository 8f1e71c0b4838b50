"""``conservbench show``: everything a card says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from conservbench.cards import ModelCard, ProtocolCard
    from conservbench.systems import System


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def show(name: str, as_json: bool) -> None:
    """Show the card of a model, protocol or system in full; NAME may be the path of a card.

    \b
    Example: conservbench show nve
    """
    table = describe(find_any(name))
    if as_json:
        click.echo(json.dumps(table, indent=1, ensure_ascii=False, default=str))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for key, value in _flat(table):
        grid.add_row(Text(key, style="bold"), Text(value))
    Console().print(grid)


def find_any(name: str) -> ModelCard | ProtocolCard | System:
    """The model, protocol or system of a name.

    Raises:
        CardError: there is none, or its card is not as it must be.
    """
    from conservbench.cards import CardError, find_model, find_protocol, list_models, list_protocols
    from conservbench.hint import did_you_mean
    from conservbench.systems import find_system, list_systems

    models, protocols, systems = list_models(), list_protocols(), list(list_systems())
    if name in protocols:
        return find_protocol(name)
    if name in systems:
        return find_system(name)
    if name in models or name.startswith("ase:"):
        return find_model(name)
    if name.endswith(".toml"):
        try:
            return find_model(name)
        except CardError as error:
            try:
                return find_protocol(name)
            except CardError:
                raise error from None
    raise CardError(f"no model, protocol or system {name!r}{did_you_mean(name, [*models, *protocols, *systems])}")


def describe(what: ModelCard | ProtocolCard | System) -> dict[str, Any]:
    """All that is known of it, as JSON types."""
    from conservbench.cards import ModelCard, ProtocolCard

    if isinstance(what, ModelCard | ProtocolCard):
        return json.loads(what.to_json())
    return {
        "name": what.name,
        "version": what.version,
        "title": what.title,
        "formula": what.sites.get_chemical_formula(),
        "atoms": len(what.sites),
        "cell": what.sites.cell.array.tolist(),
        "temperature": what.temperature,
        "snapshots": len(what.snapshots),
        "citation": what.citation,
        "provenance": what.provenance,
    }


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield prefix + key, shown.strip()
