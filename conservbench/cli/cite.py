"""``conservbench cite``: BibTeX of models, protocols, data and thermostats, of what they rest on, and of the suite."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from conservbench.cards import ModelCard, ProtocolCard
    from conservbench.cli.bibliography import Reference
    from conservbench.data.catalogue import DataSet
    from conservbench.systems import System

SUITE: Final = "conservbench"

PACKAGES = ("torch", "ase", "vesin", "numpy", "xarray")
"""Keys of ``packages.bib`` that every result rests on."""

LOADER_PACKAGES = {"mace": ("mace", "e3nn")}
"""Further ones, by the loader of a model."""

PROTOCOL_PACKAGES = {"thermostat": ("physical_validation",)}
"""Further ones, by the plugin of a protocol."""

THERMOSTATS = {
    "langevin": ("bussi2007accurate",),
    "svr": ("bussi2007canonical", "bussi2008stochastic"),
    "nose-hoover": ("martyna1992nose", "martyna1996explicit"),
}
"""Keys of ``thermostats.bib``, by the kind of thermostat."""

PROTOCOL_THERMOSTATS = {"fidelity": ("svr",), "finetune": ("svr",)}
"""Thermostats that the settings of a protocol do not name, by its plugin."""


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of the entries.")
def cite(names: tuple[str, ...], as_json: bool) -> None:
    """Print BibTeX of what was used: models, protocols, systems, data sets, references, thermostats, or the suite.

    A model brings its training data, its fast model and what it was tuned from, a protocol its thermostats; what was
    measured also rests on the suite and on packages. Works of several names are listed once.

    \b
    Example: conservbench cite si-mace-direct nve thermostat > references.bib
    """
    from conservbench.cli.bibliography import merged

    found = merged(each for part in _parts(names) for each in part)
    if as_json:
        import json

        click.echo(json.dumps([each.text for each in found], indent=1, ensure_ascii=False))
        return
    click.echo("\n\n".join(map(str, found)))


def package_entries() -> dict[str, str]:
    """BibTeX entries of packages by their key."""
    return _bibliography("packages.bib")


def thermostat_entries() -> dict[str, str]:
    """BibTeX entries of thermostats by their key."""
    return _bibliography("thermostats.bib")


def suite_entry() -> str:
    """BibTeX of the suite, in the version that is installed."""
    from conservbench.provenance import version_of

    return (
        f"@software{{{SUITE},\n"
        "  author = {{conservbench developers}},\n"
        "  title = {conservbench: do the forces of a machine-learned potential conserve energy?},\n"
        f"  version = {{{version_of(SUITE) or 'unknown'}}},\n"
        "  year = {2026},\n"
        "  note = {BSD-3-Clause}\n"
        "}"
    )


def data_entry(data: DataSet) -> str:
    """BibTeX of a data set of the catalogue."""
    return (
        f"@misc{{{data.name},\n"
        f"  title = {{{{{data.title}}}}},\n"
        f"  note = {{{data.citation}; license: {data.license}}},\n"
        f"  url = {{{data.home}}}" + (f",\n  doi = {{{data.doi}}}" if data.doi else "") + "\n}"
    )


def _parts(names: Iterable[str]) -> Iterator[Iterator[Reference]]:
    """What each name asks for, then what all that is measured rests on."""
    from conservbench.cli.bibliography import references

    packages: dict[str, None] = {}
    for name in names:
        own, further = _cited(name)
        yield (each for text in own for each in references(text))
        packages |= dict.fromkeys(further)
    known = package_entries()
    yield references(suite_entry())
    yield (each for key in packages for each in references(known[key]))


def _cited(name: str) -> tuple[list[str], tuple[str, ...]]:
    """BibTeX and words of a name, and keys of the packages that it rests on."""
    from conservbench.cards import ModelCard, ProtocolCard
    from conservbench.data.catalogue import catalogue
    from conservbench.references import list_references

    if name == SUITE:
        return [], ()
    if name in THERMOSTATS:
        return _thermostats([name]), ()
    if name in catalogue():
        return [data_entry(catalogue()[name])], ()
    if name in list_references():
        return _data(name), ()
    what = _find(name)
    if isinstance(what, ModelCard):
        return _of_model(what)
    if isinstance(what, ProtocolCard):
        further = PROTOCOL_PACKAGES.get(what.plugin, ())
        named = " ".join(str(settings.get("reference", "")) for settings in what.tiers.values())
        return [what.bibtex, *_data(named), *_thermostats(_kinds(what))], (*further, *PACKAGES)
    return [what.citation], PACKAGES


def _find(name: str) -> ModelCard | ProtocolCard | System:
    """What a name means.

    Raises:
        CardError: nothing, or its card is not as it must be.
    """
    from conservbench.cards import CardError, list_models, list_protocols
    from conservbench.cli.show import find_any
    from conservbench.data.catalogue import catalogue
    from conservbench.hint import did_you_mean
    from conservbench.references import list_references
    from conservbench.systems import list_systems

    cards = [*list_models(), *list_protocols(), *list_systems()]
    if name in cards or name.endswith(".toml") or name.startswith("ase:"):
        return find_any(name)
    choices = [*cards, *catalogue(), *list_references(), *THERMOSTATS, SUITE]
    raise CardError(f"nothing to cite is named {name!r}{did_you_mean(name, choices)}")


def _of_model(card: ModelCard) -> tuple[list[str], tuple[str, ...]]:
    """Of a model, then of the models it is made with, each with its data."""
    from conservbench.cards import find_parent

    texts = [card.bibtex or _doi_entry(card), *_data(card.training_data)]
    packages = [*LOADER_PACKAGES.get(card.loader, ())]
    for other in (card.fast, find_parent(card)):
        if other is not None:
            more, further = _of_model(other)
            texts += more
            packages += further
    return texts, tuple(dict.fromkeys((*packages, *PACKAGES)))


def _doi_entry(card: ModelCard) -> str:
    """An entry of what a card without BibTeX says of its source."""
    if not card.doi:
        return ""
    authors = " and ".join(f"{{{author}}}" for author in card.authors)
    return (
        f"@misc{{{card.name},\n  author = {{{authors}}},\n  title = {{{{{card.title}}}}},\n  doi = {{{card.doi}}}\n}}"
    )


def _data(said: str) -> list[str]:
    """Entries of the data sets, and of those behind the references, that a text names."""
    from conservbench.data.catalogue import catalogue
    from conservbench.references import list_references

    words = dict.fromkeys(re.findall(r"[A-Za-z0-9][\w.-]*", said))
    names = [word for word in words if word in catalogue()]
    names += [name for word in words if word in list_references() for name in _data_of_reference(word)]
    return [data_entry(catalogue()[name]) for name in dict.fromkeys(names)]


def _data_of_reference(name: str) -> list[str]:
    """The data sets that the sources of a reference name, by where they are published."""
    from conservbench.data.catalogue import catalogue
    from conservbench.references import find_reference

    found = find_reference(name)
    said = " ".join((*found.sources.values(), *(profile.source for profile in found.rdf.values())))
    marks = {each.name: (each.home, each.doi.replace("10.48550/arXiv.", "arXiv ")) for each in catalogue().values()}
    return [data for data, known in marks.items() if any(mark in said for mark in known)]


def _kinds(card: ProtocolCard) -> list[str]:
    """The kinds of thermostat that a protocol uses."""
    kinds = [*PROTOCOL_THERMOSTATS.get(card.plugin, ())]
    for settings in card.tiers.values():
        baths: Iterable[Any] = settings.get("baths", ())
        kinds += [bath["kind"] if isinstance(bath, dict) else str(bath) for bath in baths]
        # crystals and liquids are brought to their temperature by Langevin dynamics
        kinds += ["langevin"] if "equilibration_tau" in settings else []
    return [kind for kind in THERMOSTATS if kind in kinds]


def _thermostats(kinds: Iterable[str]) -> list[str]:
    known = thermostat_entries()
    return [known[key] for kind in kinds for key in THERMOSTATS[kind]]


def _bibliography(name: str) -> dict[str, str]:
    from importlib.resources import files

    from conservbench.cli.bibliography import references

    text = files("conservbench.cli").joinpath(name).read_text(encoding="utf-8")
    return {each.key: each.text for each in references(text)}
