"""Lists of references: BibTeX entries, and sources in words, merged without doubles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from string import ascii_lowercase

_KEY = re.compile(r"@\s*\w+\s*\{\s*([^\s,{}]+)\s*,")
_DOI = re.compile(r"\bdoi\s*=\s*[{\"]\s*([^}\"\s]+)", re.IGNORECASE)
_ARXIV = re.compile(r"\beprint\s*=\s*[{\"]\s*([^}\"\s]+)", re.IGNORECASE)
_ARXIV_DOI = "10.48550/arxiv."


@dataclass(frozen=True)
class Reference:
    """One work to cite.

    Attributes:
        text: a BibTeX entry, or a sentence where there is none.
        key: of the entry; empty for a sentence.
        works: what it is known by elsewhere: its DOI and its number on arXiv.
    """

    text: str
    key: str = ""
    works: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.text if self.key else "\n".join(f"% {line}" for line in self.text.splitlines())


def references(text: str) -> Iterator[Reference]:
    """The entries of a BibTeX text; one that holds none is a source in words."""
    found = list(_entries(text))
    if found:
        yield from found
    elif text.strip():
        yield Reference(" ".join(text.split()))


def merged(listed: Iterable[Reference]) -> tuple[Reference, ...]:
    """The works of a list, each once, in their order.

    Entries are of one work if they share a DOI or a number on arXiv, or have one key and nothing to tell them apart.
    Of two works under one key the later is renamed by a letter, as BibTeX takes a key once. Of two entries of one work
    the first is kept, unless it alone is ``@misc``.
    """
    kept: list[Reference] = []
    for each in listed:
        known = next((place for place, other in enumerate(kept) if _same(each, other)), None)
        if known is not None:
            if _is_misc(kept[known]) and not _is_misc(each) and each.key:
                kept[known] = each
            continue
        keys = {other.key for other in kept}
        if each.key and each.key in keys:
            fresh = next(each.key + letter for letter in ascii_lowercase[1:] if each.key + letter not in keys)
            kept.append(_renamed(each, fresh))
            continue
        kept.append(each)
    return tuple(kept)


def _renamed(each: Reference, key: str) -> Reference:
    start = each.text.index(each.key, each.text.index("{"))
    return replace(each, text=each.text[:start] + key + each.text[start + len(each.key) :], key=key)


def _is_misc(each: Reference) -> bool:
    return each.text.lower().startswith("@misc")


def _same(one: Reference, other: Reference) -> bool:
    if not (one.key and other.key):
        return one.text == other.text
    if one.works & other.works:
        return True
    return one.key == other.key and not (one.works and other.works)


def _entries(text: str) -> Iterator[Reference]:
    end = 0
    for match in _KEY.finditer(text):
        # what looks like an entry within another is part of a field
        if match.start() >= end:
            end = _closing(text, text.index("{", match.start()))
            whole = text[match.start() : end]
            yield Reference(whole, match[1], _works(whole))


def _closing(text: str, opening: int) -> int:
    """Place after the brace that closes one; the end of the text where none does."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    return len(text)


def _works(entry: str) -> frozenset[str]:
    found = [match[1].lower().removeprefix("https://doi.org/") for match in _DOI.finditer(entry)]
    works = {f"arxiv:{doi.removeprefix(_ARXIV_DOI)}" if doi.startswith(_ARXIV_DOI) else doi for doi in found}
    return frozenset(works | {f"arxiv:{match[1].lower().removeprefix('arxiv:')}" for match in _ARXIV.finditer(entry)})
