"""Numbers are written with the digits their interval carries."""

from math import inf, isclose, isinf, nextafter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conservbench.leaderboard.number import spelled


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (7.0, 6.6, 7.4, "7.0 ± 0.4"),
        (0.0002, -0.0028, 0.0032, "0.000 ± 0.003"),
        (-0.0002, -0.0032, 0.0028, "0.000 ± 0.003"),
        (2.1e-13, 1.8e-13, 2.4e-13, "(2.1 ± 0.3)e-13"),
        (-2.1e-13, -2.4e-13, -1.8e-13, "(-2.1 ± 0.3)e-13"),
        # a half-width that starts with 1 keeps two digits
        (7.0, 6.86, 7.14, "7.00 ± 0.14"),
        (0.00634, 0.0063, 0.00638, "0.00634 ± 0.00004"),
        # and rounds up across a power of ten
        (3.0, 2.904, 3.096, "3.00 ± 0.10"),
        (0.00092, 0.00072, 0.00112, "(9 ± 2)e-4"),
        # tens and hundreds are rounded too
        (494.0, -2921.0, 3909.0, "0 ± 3000"),
        (8609.0, -29391.0, 46609.0, "10000 ± 40000"),
        (3.2e6, 3.1e6, 3.3e6, "(3.20 ± 0.10)e6"),
        # lopsided
        (0.5, 0.0, 1.2, "0.5 [0.0, 1.2]"),
        (1.1e-16, 0.0, 6.7e-16, "1.1e-16 [0, 6.7e-16]"),
        (0.0, 0.0, 6.7e-16, "0 [0, 6.7e-16]"),
        # nothing bounds it
        (7.0123, -inf, inf, "7.012 ± ∞"),
        (10.0, 10.0, inf, "≥ 10.000"),
        (0.2, -inf, 0.2, "≤ 0.200"),
        (0.2, 0.1, inf, "0.200 [0.100, ∞]"),
        (2e-9, -inf, inf, "2.0e-9 ± ∞"),
        # no spread at all, or next to none
        (0.25, 0.25, 0.25, "0.250"),
        (0.0, 0.0, 0.0, "0.000"),
        (100001.0, 100001.0, 100001.0, "1.00001e5"),
        (0.0213, 0.0213 - 2e-9, 0.0213 + 2e-9, "0.0213000 ± 2.0e-9"),
    ],
)
def test_spelled(value, low, high, text):
    assert spelled(value, low, high, 3) == text


@given(st.floats(-1e8, 1e8), st.floats(1e-6, 1e8))
def test_what_is_written_lies_in_the_interval(value, half):
    """Rounding moves a value by half of its last digit: at most half a half-width, or the sixth significant digit."""
    text = spelled(value, value - half, value + half)
    head, _, power = text.rpartition(")e")
    middle, _, written_half = (head.removeprefix("(") if power and head else text).partition(" ± ")
    scale = 10.0 ** int(power) if head else 1.0
    assert abs(float(middle) * scale - value) <= max(0.51 * half, 5e-6 * abs(value))
    # one digit moves a half-width by up to a quarter (2.5 is written as 2), two by up to a twentieth
    assert isclose(float(written_half) * scale, half, rel_tol=0.26)


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.0, -1.7e308, 1.7e308, "0 [-1.7e308, 1.7e308]"),
        (0.0, -5e-324, 5e-324, "0 [-4.9e-324, 4.9e-324]"),
        (1e308, 0.9e308, 1.1e308, "1.0e308 [9.0e307, 1.1e308]"),
        (1.7e308, 1.7e308, 1.7e308, "1.70000e308"),
        (1.0, -1.7e308, 1.7e308, "1.0e0 [-1.7e308, 1.7e308]"),
    ],
)
def test_the_ends_of_doubles(value, low, high, text):
    assert spelled(value, low, high) == text


@given(st.lists(st.floats(allow_nan=False), min_size=3, max_size=3), st.integers(0, 6))
def test_any_interval_can_be_written(numbers, digits):
    low, value, high = sorted(numbers)
    if isinf(value):
        return
    text = spelled(value, low, high, digits)
    assert text
    assert "nan" not in text
    assert "inf" not in text


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-60, 60), st.integers(-60, 60))
def test_any_narrow_interval_can_be_written(value, below, above):
    """A few steps of the doubles to each side, which no free choice of three numbers comes by."""
    low, high = value, value
    for _ in range(abs(below) % 8):
        low = nextafter(low, -inf)
    for _ in range(abs(above) % 8):
        high = nextafter(high, inf)
    assert "nan" not in spelled(value, low, high)
