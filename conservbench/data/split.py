"""Which frames of a data set are for testing, where its home does not say so by a file of their own.

A rule is a few words: ``last 40``, ``every 10th``, ``marked`` (the frames that carry ``split=test``), or
``marked, or every 10th`` (the second where no frame is marked).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ase import Atoms

RULES = "'last N', 'every Nth', 'marked' or 'marked, or ' and one of the others"

MARKS = ("train", "test", "validation", "valid", "val")
"""What ``split`` of a frame may be; all but ``test`` is for training, which holds out frames of its own."""


def is_test(frames: Sequence[Atoms], rule: str) -> list[bool]:
    """Whether each frame is for testing.

    Raises:
        ValueError: the rule is none, or a frame has an unknown mark.
    """
    first, _, otherwise = rule.partition(", or ")
    chosen = _by(frames, first)
    return _by(frames, otherwise) if otherwise and not any(chosen) else chosen


def require_sides(chosen: Sequence[bool], rule: str, *, training: bool) -> None:
    """Check that a rule leaves frames for testing, and for training where some are asked for.

    Raises:
        ValueError: it does not.
    """
    if not any(chosen) or (training and all(chosen)):
        side = "training" if any(chosen) else "testing"
        raise ValueError(f"rule {rule!r} leaves none of {len(chosen)} frames for {side}")


def _by(frames: Sequence[Atoms], rule: str) -> list[bool]:
    if rule == "marked":
        marks = [atoms.info.get("split", "train") for atoms in frames]
        for index, mark in enumerate(marks):
            if mark not in MARKS:
                raise ValueError(f"frame {index}: split={mark}; expected one of {', '.join(MARKS)}")
        return [mark == "test" for mark in marks]
    if found := re.fullmatch(r"last (\d+)", rule):
        return [index >= len(frames) - int(found[1]) for index in range(len(frames))]
    if (found := re.fullmatch(r"every (\d+)(?:st|nd|rd|th)", rule)) and int(found[1]):
        step = int(found[1])
        return [index % step == step - 1 for index in range(len(frames))]
    raise ValueError(f"unknown rule {rule!r} of a split; expected {RULES}")
