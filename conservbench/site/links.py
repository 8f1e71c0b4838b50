"""File names of pages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256


def file_names(names: Iterable[str]) -> dict[str, str]:
    """Name to the name of its page, without its ending: letters, digits, ``.``, ``_`` and ``-`` alone.

    A name that holds other characters, or that differs from an earlier one by case alone, gets a few digits of its
    hash, so that no two pages meet on any file system.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        # a dot or a dash at the start would hide the file, or pass for an option
        clean = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".-")[:80] or "page"
        if clean != name or clean.lower() in taken:
            clean = f"{clean}-{sha256(name.encode()).hexdigest()[:8]}"
        taken.add(clean.lower())
        found[name] = clean
    return found
