"""``conservbench list``: what there is."""

from __future__ import annotations

from typing import Any

import click


@click.command("list")
@click.argument("what", type=click.Choice(["models", "protocols", "systems", "data"]))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_(what: str, as_json: bool) -> None:
    """List the models, protocols, systems or training data sets.

    \b
    Example: conservbench list models
    """
    rows = {"models": _models, "protocols": _protocols, "systems": _systems, "data": _data}[what]()
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    # what no row has is no column
    keys = [key for key in (rows[0] if rows else ["name"]) if not rows or any(row[key] is not None for row in rows)]
    table = Table(*keys, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*map(_text, (row[key] for key in keys)))
    Console().print(table)
    noun = "data sets" if what == "data" else what
    count = f"{len(rows)} {noun.removesuffix('s') if len(rows) == 1 else noun}"
    click.echo(count if what == "data" else f"{count}. More: conservbench show NAME")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(value) if isinstance(value, list) else str(value)


def _models() -> list[dict[str, Any]]:
    from conservbench.cards import find_model, list_models

    rows = []
    for card in map(find_model, list_models()):
        scheme = f"{card.scheme.kind}-{card.scheme.stride}" if card.scheme.kind == "mts" else card.scheme.kind
        rows.append(
            {
                "name": card.name,
                "version": card.version,
                "scheme": scheme,
                "role": card.role,
                "parent": card.parent,
                "target": None if card.tuning is None else card.tuning.target,
                "title": card.title,
            }
        )
    return rows


def _protocols() -> list[dict[str, Any]]:
    from conservbench.cards import find_protocol, list_protocols

    return [
        {
            "name": card.name,
            "version": card.version,
            "run": "by default" if card.by_default else "by name",
            "systems": list(card.systems),
            "more_systems": list(card.more_systems),
            "title": card.title,
        }
        for card in map(find_protocol, list_protocols())
    ]


def _systems() -> list[dict[str, Any]]:
    from conservbench.systems import list_systems

    return [{"name": name, "title": title} for name, title in list_systems().items()]


def _data() -> list[dict[str, Any]]:
    from conservbench.data.catalogue import catalogue

    return [{"name": each.name, "license": each.license, "title": each.title} for each in catalogue().values()]
