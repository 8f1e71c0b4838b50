"""Ranges that settings must keep, and what is said of those that do not. No torch."""

from __future__ import annotations

import math

from conservbench.elements import SYMBOLS


def require_positive(settings: object, *names: str) -> None:
    """Check that attributes, or all values of those that are tuples, are positive and finite.

    Raises:
        ValueError: one is not.
    """
    for name in names:
        value = getattr(settings, name)
        for each in value if isinstance(value, tuple) else (value,):
            # NaN compares false
            if not 0 < each < math.inf:
                raise ValueError(f"{name} is {each}; expected a positive number")


def require_at_least(least: int, settings: object, *names: str) -> None:
    """Check that attributes are finite and not below a limit.

    Raises:
        ValueError: one is.
    """
    for name in names:
        if not least <= getattr(settings, name) < math.inf:
            raise ValueError(f"{name} is {getattr(settings, name)}; expected {least} or more")


def require_element(settings: object, name: str) -> None:
    """Check that an attribute is the symbol of an element, or empty.

    Raises:
        ValueError: it is not.
    """
    symbol = getattr(settings, name)
    if symbol and symbol not in SYMBOLS:
        raise ValueError(f"{name} is {symbol!r}; expected the symbol of an element, such as O")
