"""Models as signs over two axes, with their intervals as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from conservbench.leaderboard.sheet import plain
from conservbench.site.figures import SLOTS, Figure, axis_of, length, literal

if TYPE_CHECKING:
    from conservbench.cards import Metric
    from conservbench.statistics import Interval

_SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up", "star", "hexagon", "cross", "x")


@dataclass(frozen=True)
class Sign:
    """One model.

    Attributes:
        model: its name.
        said: what else its sign is called.
        x: its value and interval across.
        y: those up.
        filled: whether its sign is filled, not open.
        line: which line of the picture it is, where readers choose among these.
    """

    model: str
    said: str
    x: Interval
    y: Interval
    filled: bool
    line: str = ""


def scatter(signs: Sequence[Sign], x: Metric, y: Metric, below: Sequence[dict[str, Any]] = ()) -> Figure:
    """A sign for each model, in powers of ten across, and up where all are above zero.

    Args:
        signs: in the order of their colours.
        x: the metric across.
        y: the metric up.
        below: traces that are drawn first.
    """
    log = all(sign.y.value > 0 for sign in signs)
    axes = {"xaxis": axis_of(plain(x.label), x.unit, log=True), "yaxis": axis_of(plain(y.label), y.unit, log=log)}
    return {"data": [*below, *(_trace(sign, place) for place, sign in enumerate(signs))], "layout": axes}


def _trace(sign: Sign, place: int) -> dict[str, Any]:
    bars = {
        key: {
            "type": "data",
            "symmetric": False,
            "array": [length(each.value, each.high)],
            "arrayminus": [length(each.low, each.value)],
            "thickness": 1.5,
            "width": 3,
        }
        for key, each in (("error_x", sign.x), ("error_y", sign.y))
    }
    # models of one colour differ in their symbol
    symbol = _SYMBOLS[place // SLOTS % len(_SYMBOLS)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": literal(f"{sign.model} ({sign.said})"),
        "x": [sign.x.value],
        "y": [sign.y.value],
        "customdata": [[sign.y.low, sign.y.high]],
        "line": {},
        "marker": {"symbol": symbol if sign.filled else f"{symbol}-open", "size": 11},
        "meta": {"slot": place % SLOTS, "model": "", "line": sign.line},
        **bars,
    }
