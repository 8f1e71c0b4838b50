"""Submissions: a model card, the entry of its scores and the checksum of its checkpoint, sent by a stranger. No torch.

They are data. Nothing that a submission names is opened or imported: not its loader, not its checkpoint's content, not
a file, not a protocol that is not installed here. What stands against one is told all at once, in sentences that can be
printed anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from conservbench.cards import ModelCard, find_model, find_protocol, list_models, list_protocols
from conservbench.leaderboard.entry import EntryError, cells_of, parse
from conservbench.leaderboard.hostile_text import hostile_texts, shown
from conservbench.leaderboard.submitted_card import LARGEST, read_submitted
from conservbench.leaderboard.submitted_cells import against_cells

LARGEST_ENTRY: Final = 4 * 1024 * 1024
"""Bytes of an entry; those of one model with all their pictures have a tenth."""

MOST_PROBLEMS: Final = 50
"""Problems that are told; further ones are counted."""


def validate(card_text: str, entry_text: str, artifact: Path | None = None, *, tier: str = "standard") -> list[str]:
    """What stands against a submission.

    Args:
        card_text: TOML of the model card.
        entry_text: JSON of the entry, which holds the cells of this model alone.
        artifact: the checkpoint, whose checksum is compared with the card's; None where it is not at hand.
        tier: the tier the cells must be of.

    Returns:
        Sentences on one line each that start with ``card:``, ``entry:`` or ``artifact:``; none where it is accepted.
    """
    card, problems = read_submitted(card_text)
    problems += _of_entry(entry_text, card, tier)
    problems += _of_artifact(artifact, card)
    told = list(dict.fromkeys(map(shown, problems)))
    more = len(told) - MOST_PROBLEMS
    return [*told[:MOST_PROBLEMS], f"and {more} more"] if more > 0 else told


def remarks(card_text: str, entry_text: str) -> list[str]:
    """What a person should look at in a submission that nothing stands against: it may be right, or may hide something.

    Args:
        card_text: TOML of the model card.
        entry_text: JSON of the entry.

    Returns:
        Sentences on one line each; none where the submission cannot be read.
    """
    card, _ = read_submitted(card_text)
    try:
        cells = cells_of(parse(entry_text, "entry"), "entry")
    except EntryError:
        cells = []
    if card is None or not cells:
        return []
    said = []
    if card.options:
        said.append(f"card: the loader {card.loader} is told {json.dumps(card.options, ensure_ascii=False)}")
    if card.systems:
        said.append(f"card: it is made for {', '.join(card.systems)}, in place of the systems of the protocols")
    models = list_models()
    if card.name in models:
        older = find_model(card.name)
        said.append(f"card: it replaces version {older.version} of the model, by {', '.join(older.authors)}")
    if card.twin is not None and card.twin not in models:
        said.append(f"card: its twin {card.twin} is no model of this suite")
    for cell in cells:
        if not cell.protocol.get("by_default", True) and not cell.protocol.get("tuned"):
            said.append(f"entry: {cell.protocol['name']} / {cell.system}: nobody asked for it")
        shown_in_tables = {metric.key for metric in cell.headlines}
        holes: dict[str, list[str]] = {}
        for score in cell.scores:
            if score.value is None and score.metric in shown_in_tables:
                holes.setdefault(score.reason or cell.reason or str(score.outcome), []).append(score.metric)
        where = f"entry: {cell.protocol['name']} / {cell.system}"
        said += [f"{where}: no value of {', '.join(keys)}: {reason}" for reason, keys in holes.items()]
    return list(dict.fromkeys(map(shown, said)))[:MOST_PROBLEMS]


def validate_files(card: Path, entry: Path, artifact: Path | None = None, *, tier: str = "standard") -> list[str]:
    """What stands against a submission as files ``NAME.toml`` and ``NAME.json``; see :func:`validate`.

    Raises:
        ValueError: one of the files is not there, or is a link.
    """
    texts, problems = [], []
    for kind, path, most in (("card", card, LARGEST), ("entry", entry, LARGEST_ENTRY)):
        if path.is_symlink() or not path.is_file():
            raise ValueError(f"no file {path}")
        with path.open("rb") as file:
            content = file.read(most + 1)
        try:
            texts.append(content.decode())
        except UnicodeDecodeError:
            problems.append(f"{kind}: not text in UTF-8")
    if problems:
        return problems
    read, _ = read_submitted(texts[0])
    if read is not None and card.name != f"{read.name}.toml":
        problems.append(f"card: its file is named {card.name}; expected {read.name}.toml")
    if read is not None and entry.name != f"{read.name}.json":
        problems.append(f"entry: its file is named {entry.name}; expected {read.name}.json")
    return [*validate(texts[0], texts[1], artifact, tier=tier), *map(shown, problems)]


def _of_entry(text: str, card: ModelCard | None, tier: str) -> Iterator[str]:
    where = "entry"
    if (size := len(text.encode(errors="replace"))) > LARGEST_ENTRY:
        yield f"{where}: {size} bytes; expected {LARGEST_ENTRY} or fewer"
        return
    try:
        document = parse(text, where)
        protocols = {name: find_protocol(name) for name in list_protocols()}
        cells = cells_of(document, where, [json.loads(each.to_json()) for each in protocols.values()])
    except EntryError as error:
        yield str(error)
        return
    yield from hostile_texts(document, where)
    for name in document["protocols"]:
        if name not in {cell.protocol["name"] for cell in cells}:
            yield f"{where}: protocols: {name} has no cell"
    if card is None:
        return
    for name in document["models"]:
        if name != card.name:
            yield f"{where}: it has model {name!r:.80}; expected {card.name!r} alone: a model has an entry of its own"
    if card.name not in document["models"]:
        yield f"{where}: it has no model {card.name!r}"
        return
    yield from (f"{where}: {said}" for said in _differences(document["models"][card.name], card))
    own = [cell for cell in cells if cell.model["name"] == card.name]
    yield from (f"{where}: {said}" for said in against_cells(own, card, protocols, tier))


def _differences(given: Mapping[str, Any], card: ModelCard) -> Iterator[str]:
    """Between the card that an entry holds and the one submitted."""
    wanted = json.loads(card.to_json())
    if given.get("digest") != wanted["digest"]:
        yield (
            f"measured with a card of digest {given.get('digest')!s:.16}; the card submitted has"
            f" {wanted['digest']:.16}: measure it again"
        )
    keys = [key for key in (*wanted, *given) if key != "digest" and given.get(key) != wanted.get(key)]
    if keys:
        yield f"its model differs from the card submitted in {', '.join(dict.fromkeys(keys))}"


def _of_artifact(artifact: Path | None, card: ModelCard | None) -> Iterator[str]:
    if artifact is None:
        return
    if artifact.is_symlink() or not artifact.is_file():
        yield f"artifact: {artifact.name} is no file"
        return
    if card is None:
        return
    if card.sha256 is None:
        yield "artifact: the card has no sha256 to compare it with"
        return
    with artifact.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != card.sha256:
        yield f"artifact: it has sha256 {found}; the card says {card.sha256}"
