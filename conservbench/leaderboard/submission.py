"""Submissions: a model card, the entry of its scores and the checksum of its checkpoint, sent by a stranger. No torch.

They are data. Nothing that a submission names is opened or imported: not its loader, not its checkpoint's content, not
a file, not a protocol that is not installed here. What stands against one is told all at once, in sentences that can be
printed anywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from conservbench.cards import ModelCard, file_digest, find_model, find_protocol, list_models, list_protocols
from conservbench.leaderboard.entry import EntryError, cells_of, parse
from conservbench.leaderboard.hostile_text import hostile_texts, shown
from conservbench.leaderboard.submitted_card import LARGEST, read_submitted
from conservbench.leaderboard.submitted_cells import against_cells

if TYPE_CHECKING:
    from conservbench.scored import ScoredCell

LARGEST_ENTRY: Final = 4 * 1024 * 1024
"""Bytes of an entry; those of one model with all their pictures have a tenth."""

MOST_ITEMS: Final = 200_000
"""Keys and values of an entry; those of one model with all their pictures have a tenth."""

LONGEST_SHOWN: Final = 90
"""Characters of a reason or an option in a remark."""

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
    return _counted(problems)


def remarks(
    card_text: str, entry_text: str, artifact: Path | None = None, published: Sequence[ScoredCell] = ()
) -> list[str]:
    """What a person should look at in a submission that nothing stands against: it may be right, or may hide something.

    Args:
        card_text: TOML of the model card.
        entry_text: JSON of the entry.
        artifact: the checkpoint; None where it is not at hand.
        published: cells of the models that are published already.

    Returns:
        Sentences on one line each; none where the submission cannot be read. All that has no value comes first and
        whole; further ones are counted after :data:`MOST_PROBLEMS`.
    """
    card, _ = read_submitted(card_text)
    try:
        cells = cells_of(parse(entry_text, "entry", MOST_ITEMS), "entry")
    except EntryError:
        cells = []
    if card is None or not cells:
        return []
    first = list(dict.fromkeys(shown(said) for cell in cells for said in _holes(cell)))
    others = [*_of_card(card, artifact), *_of_origins(card, cells, published)]
    return [*first, *_dropped(card, cells, published), *_counted(others)]


def _dropped(card: ModelCard, cells: Sequence[ScoredCell], published: Sequence[ScoredCell]) -> list[str]:
    """Protocols that judge the published version and are not in the new one, which would lose its verdict."""
    before = {str(cell.protocol["name"]) for cell in published if cell.model["name"] == card.name}
    lost = sorted(before - {str(cell.protocol["name"]) for cell in cells})
    # with the digest of its card unchanged, what is published is kept
    same = any(cell.model["name"] == card.name and cell.model.get("digest") == card.digest for cell in published)
    return [f"entry: what is published of the model by {', '.join(lost)} would go"] if lost and not same else []


def _counted(sentences: Iterable[str]) -> list[str]:
    """The first :data:`MOST_PROBLEMS`, each once and as it can be printed, and how many more there are."""
    told = list(dict.fromkeys(map(shown, sentences)))
    more = len(told) - MOST_PROBLEMS
    return [*told[:MOST_PROBLEMS], f"and {more} more"] if more > 0 else told


def _holes(cell: ScoredCell) -> Iterator[str]:
    """What has no value, or none with an interval: the whole cell, or metrics that tables show or that have a gate."""
    where = f"entry: {cell.protocol['name']} / {cell.system}"
    if all(score.value is None for score in cell.scores):
        yield f"{where}: nothing has a value: it ended as {cell.outcome}: {cell.reason:.{LONGEST_SHOWN}}"
        return
    in_tables = {metric.key for metric in cell.headlines}
    holes: dict[str, list[str]] = {}
    for score in cell.scores:
        metric = cell.metrics.get(score.metric)
        if score.metric not in in_tables and not (metric and metric.gated):
            continue
        if score.low == -math.inf and score.high == math.inf:
            holes.setdefault(f"nothing bounds what {score.n} samples gave", []).append(score.metric)
        elif score.value is None:
            reason = f"{score.outcome}: {score.reason or cell.reason or 'without a reason'}"
            holes.setdefault(f"{reason:.{LONGEST_SHOWN}}", []).append(score.metric)
    for reason, keys in holes.items():
        # so few that none is cut off
        for start in range(0, len(keys), 3):
            yield f"{where}: no value of {', '.join(keys[start : start + 3])}: {reason}"


def _of_card(card: ModelCard, artifact: Path | None) -> Iterator[str]:
    models = list_models()
    if card.name in models:
        older = find_model(card.name)
        yield f"card: it replaces version {older.version} of the model, by {', '.join(older.authors)}"
        if card.version == older.version:
            for key in ("title", "authors", "license", "doi", "bibtex", "training_data", "notes"):
                if getattr(card, key) != getattr(older, key):
                    yield f"card: its {key} changed without a new version"
    if card.checkpoint is not None and artifact is None:
        yield f"card: its checkpoint is not at hand: nothing here has sha256 {card.sha256}"
    if card.parent is not None:
        yield f"card: that it was tuned from {card.parent}, and what that took, is its word alone"
    if card.systems:
        yield f"card: it is made for {', '.join(card.systems)}, in place of the systems of the protocols"
    if card.twin is not None and card.twin not in models:
        yield f"card: its twin {card.twin} is no model of this suite"
    for key, value in _leaves(card.options):
        spelled = json.dumps(value, ensure_ascii=False)
        cut = f" (the first of {len(spelled)} characters)" if len(spelled) > LONGEST_SHOWN else ""
        yield f"card: the loader {card.loader} is told {key:.{LONGEST_SHOWN}} = {spelled:.{LONGEST_SHOWN}}{cut}"


def _leaves(options: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    """Each option by itself, so that none hides behind another."""
    for key, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{start}{key:.20}.")
        else:
            yield f"{start}{key}", value


def _of_origins(card: ModelCard, cells: Sequence[ScoredCell], published: Sequence[ScoredCell]) -> Iterator[str]:
    for cell in cells:
        where = f"entry: {cell.protocol['name']} / {cell.system}"
        if not cell.protocol.get("by_default", True) and not cell.protocol.get("tuned"):
            yield f"{where}: nobody asked for it"
        if cell.provenance.get("git") is None:
            yield f"{where}: it does not say by which commit it was measured"
    boots = {
        boot: str(cell.model["name"])
        for cell in published
        if cell.model["name"] != card.name and (boot := cell.provenance.get("boot")) is not None
    }
    for boot in dict.fromkeys(str(cell.provenance.get("boot")) for cell in cells):
        if boot in boots:
            yield f"entry: boot {boot} is that of {boots[boot]}: was it measured on one running machine with it?"


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
        document = parse(text, where, MOST_ITEMS)
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
    found = file_digest(artifact)
    if found != card.sha256:
        yield f"artifact: it has sha256 {found}; the card says {card.sha256}"
