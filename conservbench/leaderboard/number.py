"""How a value and its 95 % interval are written: as many digits as the interval carries, no more."""

from __future__ import annotations

import math
from typing import Final

SMALL: Final = 1e-3
"""Numbers below this are written with a power of ten."""

LARGE: Final = 1e5
"""Numbers from this on are written with a power of ten."""

MOST_DIGITS: Final = 6
"""Significant digits of a value whose interval would carry more."""

_LOPSIDED = 0.1

_FINEST: Final = 1e-290
"""Half-widths below this, and numbers above the other, are next to where doubles end: powers of ten would overflow."""

_COARSEST: Final = 1e290


def spelled(value: float, low: float, high: float, digits: int = 3) -> str:
    """A value with its interval.

    The half-width keeps one significant digit, two where it starts with a 1, and sets the decimals of the value:
    ``7.0 ± 0.4``, ``(2.1 ± 0.3)e-13``. A lopsided interval is written by its ends: ``0.5 [0.0, 1.2]``; one without
    width, such as that of a probability, not at all.

    Args:
        value: finite.
        low: lower end; may be minus infinity.
        high: upper end; may be infinity.
        digits: decimals where no interval sets them.
    """
    if math.isinf(low) or math.isinf(high):
        return _unbounded(value, low, high, digits)
    # half of a difference of doubles may be beyond the largest one, or below the smallest one
    half = 0.5 * high - 0.5 * low
    if low == high:
        return _alone(value, digits)
    if not _FINEST <= half <= _COARSEST or abs(value) > _COARSEST:
        return f"{_short(value)} [{_short(low)}, {_short(high)}]"
    decimals = _decimals(half)
    size = max(abs(value), half)
    if _exponent(size) + decimals >= MOST_DIGITS:
        return f"{_precise(value)} ± {_short(max(high - value, value - low))}"
    scale = 0 if SMALL <= size < LARGE else _exponent(size)
    if abs(high + low - 2.0 * value) <= _LOPSIDED * half:
        text = " ± ".join(_fixed(part, scale, decimals + scale) for part in (value, half))
        return f"({text})e{scale}" if scale else text
    value_text, *ends = (_short(part) if scale else _fixed(part, 0, decimals) for part in (value, low, high))
    return f"{value_text} [{', '.join(ends)}]"


def _unbounded(value: float, low: float, high: float, digits: int) -> str:
    number = _alone(value, digits)
    if math.isinf(low) and math.isinf(high):
        return f"{number} ± ∞"
    if low == value:
        return f"≥ {number}"
    if high == value:
        return f"≤ {number}"
    return f"{number} [{_end(low, digits)}, {_end(high, digits)}]"


def _end(end: float, digits: int) -> str:
    if math.isinf(end):
        return "∞" if end > 0 else "-∞"
    return _alone(end, digits)


def _alone(value: float, digits: int) -> str:
    """A number no interval speaks for."""
    if value == 0.0 or SMALL <= abs(value) < LARGE:
        return _fixed(value, 0, digits)
    return _short(value) if abs(value) < SMALL else _precise(value)


def _precise(value: float) -> str:
    exponent = _exponent(value)
    if SMALL <= abs(value) < LARGE:
        return _fixed(value, 0, max(MOST_DIGITS - 1 - exponent, 0))
    if not _FINEST <= abs(value) <= _COARSEST:
        return f"{value:.{MOST_DIGITS - 1}e}".replace("e+", "e")
    return f"{_fixed(value, exponent, MOST_DIGITS - 1)}e{exponent}"


def _short(value: float) -> str:
    """Two significant digits with a power of ten."""
    if value == 0.0:
        return "0"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _fixed(value: float, scale: int, decimals: int) -> str:
    text = f"{round(value / 10.0**scale, decimals):.{max(decimals, 0)}f}"
    # no minus in front of a zero
    return text.lstrip("-") if float(text) == 0.0 else text


def _decimals(half: float) -> int:
    """Decimals that keep one significant digit of a half-width, two where it starts with a 1."""
    exponent = _exponent(half)
    return -exponent + (1 if half / 10.0**exponent < 1.95 else 0)


def _exponent(value: float) -> int:
    """Power of ten of a number's first digit."""
    return int(f"{abs(value):e}".partition("e")[2])
