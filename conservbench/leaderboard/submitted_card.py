"""A model card that a stranger submits: read as data, with nothing opened or imported that it names."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from conservbench.cards import CardError, ModelCard, check_name, find_model, list_models, model_of
from conservbench.elements import SYMBOLS
from conservbench.hint import did_you_mean
from conservbench.leaderboard.entry import DEEPEST, EntryError, check_plain
from conservbench.leaderboard.hostile_text import hostile_texts
from conservbench.systems.catalogue import system_names

LARGEST: Final = 64 * 1024
"""Bytes of a card."""

LONGEST_NAME: Final = 60
"""Characters of a name."""

LONGEST_LINE: Final = 300
"""Characters of a title, a licence, an author, or what it was trained on."""

MOST_AUTHORS: Final = 500
"""Authors of a model."""

_PART: Final = r"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_MANY_DOTS: Final = re.compile(rf"""(?<![\w"'-])(?:{_PART}[ \t]*+\.[ \t]*+){{{DEEPEST}}}""")
"""A key of so many parts; what reads TOML takes time by the square of them."""

_CHECKPOINT: Final = ".safetensors"
"""The one kind of checkpoint that holds numbers alone; others may run code where they are opened."""

_ANALYTIC: Final = ("edip", "stillinger_weber", "toy")
"""Loaders of the suite whose models are made of their options; all others need a checkpoint."""

_GRADIENT_ALONE: Final = ("edip", "stillinger_weber")
"""Loaders of the suite whose models have no direct forces."""

_RUNS_CODE: Final = ("ase", "metatomic")
"""Loaders that run what their options name, or what their checkpoint holds."""

_FILES: Final = (".csv", ".html", ".json", ".md", ".nc", ".toml", ".xml")
_DOI: Final = re.compile(r"10\.[0-9]{4,9}/[!-~]{1,200}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TAKEN: Final = ("aux", "con", "index", "nul", "prn", "readme")

_ALIKE: Final = (("rn", "m"), ("vv", "w"), ("cl", "d"), ("1", "l"), ("i", "l"), ("0", "o"), ("5", "s"))


def read_submitted(text: str) -> tuple[ModelCard | None, list[str]]:
    """The card of a TOML text, and all that stands against it.

    Args:
        text: the TOML.

    Returns:
        The card, None where it cannot be read at all; sentences that start with ``card:``.
    """
    where = "card"
    if (size := len(text.encode(errors="replace"))) > LARGEST:
        return None, [f"{where}: {size} bytes; expected {LARGEST} or fewer"]
    if _MANY_DOTS.search(text):
        return None, [f"{where}: a key of {DEEPEST} parts or more"]
    try:
        document = tomllib.loads(text)
        check_plain(document, where)
    except EntryError as error:
        return None, [str(error)]
    except (ValueError, RecursionError) as error:
        return None, [f"{where}: not TOML: {error}"]
    hostile = list(hostile_texts(document, where))
    models = list_models()
    if wrong := [*_name(document, models), *_references(document), *_checkpoint(document)]:
        # what names files and cards is not followed
        return None, [f"{where}: {each}" for each in wrong] + hostile
    try:
        card = model_of(document, Path(f"{document['name']}.toml"))
    except CardError as error:
        return None, [f"{where}: {error}", *hostile]
    return card, [*hostile, *(f"{where}: {each}" for each in _against(card, models))]


def _name(document: dict[str, Any], models: Sequence[str]) -> Iterator[str]:
    name = document.get("name")
    if not isinstance(name, str):
        yield "missing key 'name' (expected a string)"
        return
    if said := _no_name(name):
        yield f"name is {name!r:.80}; {said}"
    elif name.lower() in _TAKEN or name.lower().endswith(_FILES) or name.endswith(".") or ".." in name:
        yield f"name {name!r} is that of a file, or of something else"
    else:
        for other in models:
            if name != other and _skeleton(name) == _skeleton(other):
                yield f"name {name!r} looks like that of the model {other!r}"


def _no_name(name: str) -> str:
    if len(name) > LONGEST_NAME:
        return f"expected {LONGEST_NAME} characters or fewer"
    try:
        check_name(name, "name")
    except CardError as error:
        return str(error).rpartition("; ")[2]
    return ""


def _skeleton(name: str) -> str:
    """What is left of a name for a hasty eye."""
    bare = re.sub(r"[-._]", "", name.lower())
    for seen, meant in _ALIKE:
        bare = bare.replace(seen, meant)
    return bare


def _references(document: dict[str, Any]) -> Iterator[str]:
    """Other cards are named, never pointed at by a path: no file is opened that a submission names."""
    tuning = document.get("tuning")
    control = tuning.get("control") if isinstance(tuning, dict) else None
    for key, name in (*((key, document.get(key)) for key in ("fast", "twin", "parent")), ("tuning: control", control)):
        if isinstance(name, str) and (_no_name(name) or name.endswith(".toml")):
            yield f"{key} is {name!r:.80}; expected the name of a model"


def _checkpoint(document: dict[str, Any]) -> Iterator[str]:
    checkpoint, sha256 = document.get("checkpoint"), document.get("sha256")
    if isinstance(checkpoint, str):
        if _no_name(checkpoint):
            yield f"checkpoint is {checkpoint!r:.80}; expected the name of a file beside the card"
        elif not checkpoint.endswith(_CHECKPOINT):
            yield f"checkpoint is {checkpoint!r}; expected {_CHECKPOINT}: others may run code where they are opened"
        if sha256 is None:
            yield "missing key 'sha256': a checkpoint is known by its checksum"
    elif document.get("loader") not in _ANALYTIC:
        yield f"missing key 'checkpoint': loader {document.get('loader')!r:.80} makes no model without one"
    if isinstance(sha256, str) and not _SHA256.fullmatch(sha256):
        yield f"sha256 is {sha256!r:.80}; expected 64 hexadecimal digits in lower case"


def _against(card: ModelCard, models: Sequence[str]) -> Iterator[str]:
    loaders = entry_points(group="conservbench.models").names
    if card.loader not in loaders:
        yield f"unknown loader {card.loader!r:.80}{did_you_mean(card.loader, loaders)}"
    elif card.loader in _RUNS_CODE:
        yield f"loader {card.loader!r} runs code that the card names; expected one that reads a checkpoint"
    elif card.loader in _GRADIENT_ALONE and card.scheme.kind == "direct":
        yield f"scheme is 'direct'; loader {card.loader!r} has gradient forces alone"
    known = system_names()
    for name in card.systems:
        if name not in known:
            yield f"systems: no system {name!r:.80}{did_you_mean(name, known)}"
    if len(set(card.systems)) < len(card.systems):
        yield "systems: one is there twice"
    for symbol in card.elements:
        if symbol not in SYMBOLS:
            yield f"elements: no element {symbol!r:.80}"
    for key in ("title", "license"):
        if not getattr(card, key).strip():
            yield f"missing key {key!r}: who reads a number must know of what"
    if not card.authors or not all(author.strip() for author in card.authors):
        yield "missing key 'authors': who reads a number must know whose it is"
    lines = (card.title, card.license, card.training_data, *card.authors)
    if max(map(len, lines)) > LONGEST_LINE or len(card.authors) > MOST_AUTHORS:
        yield f"title, license, training_data and each author have {LONGEST_LINE} characters or fewer"
    if card.doi and not _DOI.fullmatch(card.doi):
        yield f"doi is {card.doi!r:.80}; expected one such as 10.1000/182"
    if card.bibtex.strip() and not card.bibtex.strip().startswith("@"):
        yield "bibtex does not start with '@'"
    if card.version < 1:
        yield f"version is {card.version}; expected 1 or more"
    if card.parent is not None and card.parent not in models:
        yield f"parent {card.parent!r} is no model of this suite: submit it first"
    older = find_model(card.name) if card.name in models else None
    if card.twin is not None and card.twin in models:
        # what has no checkpoint is a toy, whose twins this suite chooses itself
        chosen = older is not None and older.twin == card.twin and older.digest == card.digest
        yield from _against_twin(card, find_model(card.twin), of_this_suite=chosen)
    if card.role == "control" and (older is None or older.role != "control"):
        yield "role is 'control'; the controls of this suite are its own, a model is a 'model'"
    if older is not None:
        yield from _against_older(card, older)


def _against_twin(card: ModelCard, twin: ModelCard, *, of_this_suite: bool) -> Iterator[str]:
    """A twin is made of the same network, so it has the same checkpoint."""
    if twin.sha256 != card.sha256 or twin.loader != card.loader:
        yield f"twin {twin.name!r} is made of another network: its checkpoint or loader is another"
    elif card.sha256 is None and not of_this_suite and dict(card.options) != dict(twin.options):
        yield f"twin {twin.name!r} is another model: without a checkpoint, it is made of its options, and they differ"


def _against_older(card: ModelCard, older: ModelCard) -> Iterator[str]:
    """The numbers of a version stay what they are."""
    if card.version < older.version:
        yield f"version is {card.version}; that of this suite is {older.version} already"
    elif card.version == older.version and card.digest != older.digest:
        yield f"it differs from version {older.version} of this suite in what makes the numbers: raise the version"
