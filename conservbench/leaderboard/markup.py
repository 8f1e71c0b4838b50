"""Markdown of text that others wrote: escaped, on one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from conservbench.leaderboard.sheet import plain

_ESCAPES: Final = str.maketrans({
    **{letter: f"\\{letter}" for letter in "\\`*_[]|#~$"},
    "<": "&lt;",
    ">": "&gt;",
    "&": "&amp;",
})  # fmt: skip


_ADDRESS: Final = re.compile(r":(?=//)|www(?=\.)|@", re.IGNORECASE)
"""Where renderers take a bare address for a link: after these signs it is broken off by what nobody sees."""


def escaped(text: str) -> str:
    """Text that markdown and HTML leave as it is, on one line; no address in it becomes a link."""
    return _ADDRESS.sub(r"\g<0><!-- -->", plain(text).translate(_ESCAPES))


def table(headings: Sequence[str], body: Iterable[Sequence[str]], words: int = 1) -> list[str]:
    """Lines of a table; all text is escaped.

    Args:
        headings: of the columns.
        body: one field a heading.
        words: columns from the left that hold words; the others hold numbers and are flush right.
    """
    rule = "|".join([*[" --- "] * words, *[" ---: "] * (len(headings) - words)])
    drawn = [f"| {' | '.join(map(escaped, row))} |" for row in (headings, *body)]
    return [drawn[0], f"|{rule}|", *drawn[1:], ""]


def folded(summary: str, lines: Sequence[str]) -> list[str]:
    """Lines that a reader opens by the summary."""
    body = "\n".join(lines).strip("\n").splitlines()
    return ["<details>", f"<summary>{escaped(summary)}</summary>", "", *body, "", "</details>", ""]
