"""``conservbench cite``: BibTeX of a model or protocol and of what it rests on."""

from __future__ import annotations

import re

import click

PACKAGES = ("torch", "ase", "vesin", "numpy", "xarray")
"""Keys of ``packages.bib`` that every result rests on."""

LOADER_PACKAGES = {"mace": ("mace", "e3nn")}
"""Further ones, by the loader of a model."""

PROTOCOL_PACKAGES = {"thermostat": ("physical_validation",)}
"""Further ones, by the plugin of a protocol."""


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of the entries.")
def cite(name: str, as_json: bool) -> None:
    """Print BibTeX of a model, protocol or system, and of the packages it rests on.

    \b
    Example: conservbench cite nve > references.bib
    """
    from conservbench.cli.show import find_any

    what = find_any(name)
    known = package_entries()
    # a model may have the fast force of another
    parts = [part for part in (what, getattr(what, "fast", None)) if part is not None]
    # a system is cited in words
    own = [getattr(part, "bibtex", "") or getattr(part, "citation", "") for part in parts]
    loaders = [key for part in parts for key in LOADER_PACKAGES.get(getattr(part, "loader", ""), ())]
    judging = PROTOCOL_PACKAGES.get(getattr(what, "plugin", ""), ())
    packages = [known[key] for key in dict.fromkeys((*loaders, *judging, *PACKAGES))]
    entries = [entry.strip() for entry in (*own, *packages) if entry.strip()]
    if as_json:
        import json

        click.echo(json.dumps(entries, indent=1, ensure_ascii=False))
        return
    click.echo("\n\n".join(entry if entry.startswith("@") else f"% {entry}" for entry in entries))


def package_entries() -> dict[str, str]:
    """BibTeX entries of packages by their key."""
    from importlib.resources import files

    text = files("conservbench.cli").joinpath("packages.bib").read_text(encoding="utf-8")
    entries = [part.strip() for part in re.split(r"^(?=@)", text, flags=re.MULTILINE) if part.strip()]
    return {entry[entry.index("{") + 1 : entry.index(",")]: entry for entry in entries}
