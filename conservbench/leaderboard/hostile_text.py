"""Text that strangers send: what would lead a reader or a program astray is found, and shown harmlessly. HTML is text.

Markup is no concern here: everything that is shown is escaped where it is shown.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

LONGEST: Final = 20_000
"""Characters of one text."""

MOST_FOUND: Final = 100
"""Sentences that are told; who reads a hundred has read enough."""

LONGEST_KEY: Final = 80
"""Characters of a key that are told of the place of a text."""

MOST_MARKS: Final = 4
"""Combining marks on one letter; those of all living scripts need fewer."""

WITH_LINES: Final = ("bibtex", "notes")
"""Keys whose text may have several lines."""

_BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u2800\u3164\uffa0")
"""Letters, marks and symbols that are drawn as nothing."""

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

    There are :data:`MOST_FOUND` at most, and what lies below a key that is wrong is not looked at.

    Args:
        document: of plain types, not deep, as :func:`conservbench.leaderboard.entry.check_plain` leaves it.
        where: start of each sentence.
    """
    return islice(_hostile(document, where), MOST_FOUND)


def _hostile(document: Any, where: str) -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            if wrong := list(_wrong(key, f"{where}: a key", lines=False)):
                yield from wrong
            elif isinstance(value, str):
                yield from _wrong(value, f"{where}: {key:.{LONGEST_KEY}}", lines=key in WITH_LINES)
            else:
                yield from _hostile(value, f"{where}: {key:.{LONGEST_KEY}}")
    elif isinstance(document, list):
        for place, value in enumerate(document):
            # most are numbers, and a name for the place of each takes time
            if isinstance(value, dict | list | str):
                yield from _hostile(value, f"{where}[{place}]")
    elif isinstance(document, str):
        yield from _wrong(document, where, lines=False)


def shown(text: str, longest: int = 300) -> str:
    """Text as it can be printed anywhere: on one line, without anything unseen, cut where it is too long."""
    line = " ".join(text[: 4 * longest].split())
    plain = "".join(f"<U+{ord(each):04X}>" if _is_unseen(each) else each for each in line)
    return plain if len(plain) <= longest else f"{plain[:longest]}..."


def _is_unseen(letter: str) -> bool:
    return letter in _BLANK or unicodedata.category(letter) in _UNSEEN


def _wrong(text: str, where: str, *, lines: bool) -> Iterator[str]:
    if len(text) > LONGEST:
        yield f"{where} has {len(text)} characters; expected {LONGEST} or fewer"
        return
    marks = 0
    for letter in text:
        category = "Cf" if letter in _BLANK else unicodedata.category(letter)
        if category in _UNSEEN and not (lines and letter in "\n\t"):
            yield f"{where} has {_UNSEEN[category]}, U+{ord(letter):04X}"
            return
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks > MOST_MARKS:
            yield f"{where} heaps more than {MOST_MARKS} marks on one letter"
            return
