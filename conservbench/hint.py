"""What to tell someone who spelled a name wrongly."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """End of an error message about an unknown name: the nearest choice, then all of them."""
    known = sorted(choices)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    question = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{question} expected one of: {', '.join(known) or '(none)'}"
