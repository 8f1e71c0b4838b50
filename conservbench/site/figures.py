"""Pictures as figures of plotly.js: traces and axes in JSON types; the script of a page colours them.

Every trace says in ``meta`` what it is of, ``{"slot", "model", "line"}``: the slot is its colour, None for what
the models are compared with.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

from conservbench.leaderboard.sheet import plain

if TYPE_CHECKING:
    from conservbench.plot import Line, Plot

SLOTS: Final = 8
"""Colours that the style has; what comes after them starts again with other dashes."""

_DASHES: Final = ("solid", "dot", "dashdot", "longdash", "longdashdot")
_SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "triangle-down")
_FEW: Final = 8
"""A curve of no more points than this shows them, with bars in place of a band."""

Figure = dict[str, Any]
"""``data`` and ``layout`` of plotly.js; where several models are overlaid, ``opens`` is the line shown at first."""


def figure_of(plot: Plot) -> Figure:
    """One cell's picture: a colour, a dash and a symbol for each line."""
    traces = []
    place = 0
    for line in plot.lines:
        slot = None if line.style == "reference" else place
        place += slot is not None
        traces += _traces(line, plot, slot, place - 1, "", line.name or plot.y.label)
    return {"data": traces, "layout": _layout(plot)}


def overlaid(plots: Mapping[str, Plot], slots: Mapping[str, int]) -> Figure:
    """The same picture of several models: a colour for each model; dashes tell its lines apart, and models of one line.

    Args:
        plots: model to its picture, all of one key.
        slots: model to its colour.
    """
    traces: list[dict[str, Any]] = []
    shared, own = _references(plots)
    first = next(iter(plots.values()))
    for line in shared:
        traces += _traces(line, first, None, 0, "", line.name or "reference")
    for model, plot in plots.items():
        place = 0
        for line in plot.lines:
            if line.style == "reference":
                if line.name in own:
                    traces += _traces(line, plot, None, 0, model, f"{model}, {line.name or 'reference'}")
                continue
            name = f"{model}, {line.name}" if line.name else model
            traces += _traces(line, plot, slots[model], place + slots[model], model, name)
            place += 1
    return {"data": traces, "layout": _layout(first), "opens": _opening(list(plots.values()))}


def _opening(plots: Sequence[Plot]) -> str | None:
    """The line that a picture of several models shows at first: the first that most of them have; None for all lines.

    Several lines of many models are a tangle, unless they are parts of one curve.
    """
    count: Counter[str] = Counter()
    for plot in plots:
        count.update(list(dict.fromkeys(line.name for line in plot.lines if line.style != "reference")))
    if len(count) < 2 or all(map(_is_one_curve, plots)):
        return None
    # of equals the one that came first
    return count.most_common(1)[0][0]


def _is_one_curve(plot: Plot) -> bool:
    """Whether lines are parts of one curve: each has a reference of its own, or points at places of its own."""
    own = [line for line in plot.lines if line.style != "reference"]
    references = {line.name for line in plot.lines if line.style == "reference"}
    if all(f"reference {line.name}" in references for line in own):
        return True
    places = [x for line in own for x in set(line.x)]
    return all(line.style == "points" for line in own) and len(places) == len(set(places))


def _is_marks(line: Line) -> bool:
    """Whether a reference is of upright strokes, which mark places and are no curve."""
    steps = zip(zip(line.x, line.y, strict=True), zip(line.x[1:], line.y[1:], strict=True), strict=False)
    strokes = [start == end for (start, low), (end, high) in steps if low is not None and high is not None]
    return line.style == "reference" and bool(strokes) and all(strokes)


def _references(plots: Mapping[str, Plot]) -> tuple[list[Line], set[str]]:
    """What all models are compared with, drawn once each, and the names of references that models differ in."""
    named: dict[str, list[Line]] = {}
    for plot in plots.values():
        for line in plot.lines:
            if line.style == "reference":
                named.setdefault(line.name, []).append(line)
    # a level that reaches as far as each model's curves is one level, and marks of any height are of the same places
    same = {name: len({line.y for line in of}) == 1 or len({y for line in of for y in line.y}) == 1
            or all(map(_is_marks, of))
            for name, of in named.items()}  # fmt: skip
    widest = [max(of, key=lambda line: line.x[-1] - line.x[0] if line.x else 0.0) for of in named.values()]
    return [line for line in widest if same[line.name]], {name for name, alike in same.items() if not alike}


def length(start: float, end: float) -> float:
    """How far two numbers are apart, as JSON can say it; zero, which is no bar, where nothing bounds one of them."""
    if math.isinf(start) or math.isinf(end):
        return 0.0
    return min(end - start, sys.float_info.max)


def in_json(figure: Any) -> Any:
    """The same without numbers that JSON does not know: a gap in the place of each."""
    if isinstance(figure, Mapping):
        return {key: in_json(value) for key, value in figure.items()}
    if isinstance(figure, list | tuple):
        return [in_json(value) for value in figure]
    return None if isinstance(figure, float) and not math.isfinite(figure) else figure


def literal(text: str) -> str:
    """Text that plotly.js shows as it is: it reads tags and entities."""
    return escape(plain(text), quote=False)


def _layout(plot: Plot) -> dict[str, Any]:
    return {key: axis_of(axis.label, axis.unit, log=axis.log) for key, axis in (("xaxis", plot.x), ("yaxis", plot.y))}


def axis_of(label: str, unit: str, *, log: bool) -> dict[str, Any]:
    """An axis with its label and unit."""
    text = label if unit == "1" else f"{label} [{unit}]"
    # a picture is not much higher than thirty letters are wide
    lines = " <br>".join(map(literal, wrap(plain(text), 32)))
    return {"title": {"text": lines}, "type": "log" if log else "linear"}


def _traces(line: Line, plot: Plot, slot: int | None, place: int, model: str, name: str) -> list[dict[str, Any]]:
    """A line, after its band where it has one: what comes later is drawn above."""
    meta = {"slot": None if slot is None else slot % SLOTS, "model": model, "line": line.name}
    shared = {"type": "scatter", "name": literal(name), "legendgroup": literal(name), "meta": meta}
    dash = "dash" if slot is None else _DASHES[place % len(_DASHES)]
    drawn: dict[str, Any] = {
        **shared,
        "mode": "markers" if line.style == "points" else "lines+markers" if _few(line) else "lines",
        "x": list(line.x),
        "y": _drawable(line.y, log=plot.y.log),
        "line": {"dash": dash, "width": 2},
        "marker": {"symbol": _SYMBOLS[place % len(_SYMBOLS)], "size": 7},
    }
    if _is_marks(line):
        return [{**drawn, "showlegend": False, "hoverinfo": "skip", "line": {"dash": "solid", "width": 0.5}}]
    if not (line.low and line.high):
        return [drawn]
    drawn["customdata"] = [list(ends) for ends in zip(line.low, line.high, strict=True)]
    if line.style == "points" or _few(line):
        return [{**drawn, "error_y": _bars(line)}]
    band = {**shared, "mode": "lines", "fill": "toself", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    across, along = _outline(line, log=plot.y.log)
    return [{**band, "meta": {**meta, "band": True}, "x": across, "y": along}, drawn]


def _few(line: Line) -> bool:
    return len(line.x) <= _FEW and line.style != "reference"


def _drawable(values: Sequence[float | None], *, log: bool) -> list[float | None]:
    return [None if value is None or (log and value <= 0) else value for value in values]


def _bars(line: Line) -> dict[str, Any]:
    up = [0.0 if y is None or high is None else length(y, high) for y, high in zip(line.y, line.high, strict=True)]
    down = [0.0 if y is None or low is None else length(low, y) for y, low in zip(line.y, line.low, strict=True)]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.5, "width": 3}


def _outline(line: Line, *, log: bool) -> tuple[list[float | None], list[float | None]]:
    """The band as closed outlines, one for each stretch without a gap, with a gap between two."""
    edges: list[tuple[float, float, float]] = []
    across: list[float | None] = []
    along: list[float | None] = []
    positive = [value for value in (*line.low, *line.y, *line.high) if value is not None and value > 0]
    least = min(positive, default=1.0)

    def close() -> None:
        if edges:
            across.extend([*(x for x, _, _ in edges), *(x for x, _, _ in reversed(edges)), edges[0][0], None])
            along.extend([*(h for _, _, h in edges), *(low for _, low, _ in reversed(edges)), edges[0][2], None])
            edges.clear()

    for x, low, high in zip(line.x, line.low, line.high, strict=True):
        if low is None or high is None or (log and high <= 0):
            close()
        else:
            # an edge at or below zero reaches the foot of a logarithmic axis
            edges.append((x, max(low, least) if log else low, high))
    close()
    return across, along
