"""Text that strangers send: what would lead a reader or a program astray is found, and shown harmlessly. HTML is text.

Markup is no concern here: everything that is shown is escaped where it is shown.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any, Final

LONGEST: Final = 20_000
"""Characters of one text."""

MOST_MARKS: Final = 4
"""Combining marks on one letter; those of all living scripts need fewer."""

WITH_LINES: Final = ("bibtex", "notes")
"""Keys whose text may have several lines."""

_UNSEEN: Final = {
    "Cc": "a control character",
    "Cf": "a character that is not seen, or turns the direction of text",
    "Cn": "a code that is no character",
    "Co": "a character of private use",
    "Cs": "half a character",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}


def hostile_texts(document: Any, where: str) -> Iterator[str]:
    """What is wrong with the texts of a parsed document, keys included: one sentence for each that is.

    Args:
        document: of plain types, not deep, as :func:`conservbench.leaderboard.entry.check_plain` leaves it.
        where: start of each sentence.
    """
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _wrong(key, f"{where}: a key", lines=False)
            if isinstance(value, str):
                yield from _wrong(value, f"{where}: {key}", lines=key in WITH_LINES)
            else:
                yield from hostile_texts(value, f"{where}: {key}")
    elif isinstance(document, list):
        for place, value in enumerate(document):
            yield from hostile_texts(value, f"{where}[{place}]")
    elif isinstance(document, str):
        yield from _wrong(document, where, lines=False)


def shown(text: str, longest: int = 300) -> str:
    """Text as it can be printed anywhere: on one line, without anything unseen, cut where it is too long."""
    line = " ".join(text[: 4 * longest].split())
    plain = "".join(each if unicodedata.category(each) not in _UNSEEN else f"<U+{ord(each):04X}>" for each in line)
    return plain if len(plain) <= longest else f"{plain[:longest]}..."


def _wrong(text: str, where: str, *, lines: bool) -> Iterator[str]:
    if len(text) > LONGEST:
        yield f"{where} has {len(text)} characters; expected {LONGEST} or fewer"
        return
    marks = 0
    for letter in text:
        category = unicodedata.category(letter)
        if category in _UNSEEN and not (lines and letter in "\n\t"):
            yield f"{where} has {_UNSEEN[category]}, U+{ord(letter):04X}"
            return
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks > MOST_MARKS:
            yield f"{where} heaps more than {MOST_MARKS} marks on one letter"
            return
