"""Figures: what plotly.js is given."""

import plotly.graph_objects as go

from conservbench.plot import Axis, Line, Plot, line
from conservbench.site.figures import figure_of, literal, overlaid


def plot(*lines, log=False):
    return Plot("key", "title", Axis("time", "ps"), Axis("energy <b>", "eV", log=log), lines)


def test_the_outline_of_a_band_goes_round_each_stretch_without_a_gap():
    # four points, the second last is missing: 30 points make it a curve, not points with bars
    x = tuple(float(step) for step in range(30))
    gap = tuple(None if step == 28 else 1.0 for step in range(30))
    low = tuple(None if y is None else 0.0 for y in gap)
    high = tuple(None if y is None else 2.0 for y in gap)
    band, _ = figure_of(plot(Line("", x, gap, low, high)))["data"]
    assert band["x"] == [*x[:28], *reversed(x[:28]), 0.0, None, 29.0, 29.0, 29.0, None]
    assert band["y"] == [*[2.0] * 28, *[0.0] * 28, 2.0, None, 2.0, 0.0, 2.0, None]
    assert band["fill"] == "toself"


def test_few_points_have_bars():
    (trace,) = figure_of(plot(line("", [1, 2], [1.0, 2.0], [0.5, 1.0], [4.0, 8.0])))["data"]
    assert trace["error_y"]["array"] == [3.0, 6.0]
    assert trace["error_y"]["arrayminus"] == [0.5, 1.0]


def test_nothing_at_or_below_zero_on_a_logarithmic_axis():
    x = [float(step) for step in range(30)]
    y = [-1.0 if step < 3 else 1.0 for step in range(30)]
    band, curve = figure_of(plot(line("", x, y, [v - 5 for v in y], [v + 5 for v in y]), log=True))["data"]
    assert curve["y"][:4] == [None, None, None, 1.0]
    assert min(value for value in band["y"] if value is not None) > 0


def test_overlaid_models_keep_their_colours_and_share_one_reference():
    limit = line("limit", [0, 1], [2.0, 2.0], style="reference")
    one = plot(line("1 fs", [0, 1], [0.0, 1.0]), line("2 fs", [0, 1], [0.0, 2.0]), limit)
    two = plot(line("1 fs", [0, 1], [0.0, 3.0]), limit)
    figure = overlaid({"a": one, "b": two}, {"a": 3, "b": 5})
    assert [(t["name"], t["meta"]["slot"]) for t in figure["data"]] == [
        ("limit", None),
        ("a, 1 fs", 3),
        ("a, 2 fs", 3),
        ("b, 1 fs", 5),
    ]
    assert len({trace["line"]["dash"] for trace in figure["data"]}) > 1
    assert [trace["meta"]["line"] for trace in figure["data"]] == ["limit", "1 fs", "2 fs", "1 fs"]


def test_a_level_of_two_lengths_is_one_and_references_that_differ_are_the_models_own():
    def of(length, target):
        return plot(
            line("", [0, 1], [0.0, 1.0]),
            line("level", [0, length], [2.0, 2.0], style="reference"),
            line("target", [0, 1], [1.0, target], style="reference"),
        )

    traces = overlaid({"a": of(1.0, 1.0), "b": of(5.0, 3.0)}, {"a": 0, "b": 1})["data"]
    references = [(t["name"], t["meta"]["model"], t["x"][-1]) for t in traces if t["meta"]["slot"] is None]
    assert references == [("level", "", 5.0), ("a, target", "a", 1.0), ("b, target", "b", 1.0)]


def opens(*plots):
    models = {f"m{place}": each for place, each in enumerate(plots)}
    return overlaid(models, dict.fromkeys(models, 0))["opens"]


def curve(name, style="curve", x=(0, 1)):
    return line(name, x, [1.0] * len(x), style=style)


def test_pictures_of_several_open_on_the_first_line_that_most_models_have():
    assert opens(plot(curve("1 fs"), curve("2 fs"), curve("limit", "reference"))) == "1 fs"
    common, broken = plot(curve("1 fs"), curve("2 fs")), plot(curve("1 fs exploded"), curve("2 fs"))
    assert opens(broken, common) == "2 fs"
    assert opens(broken, common, common, broken, common) == "2 fs"
    assert opens(plot(curve("")), plot(curve(""))) is None


def test_parts_of_one_curve_open_together():
    points = plot(curve("measured", "points", (1, 2)), curve("in the limit", "points", (0,)))
    assert opens(points, points) is None
    assert opens(plot(curve("64 atoms", "points"), curve("216 atoms", "points"))) == "64 atoms"
    pairs = [curve(name) for name in ("low", "high")] + [
        curve(f"reference {name}", "reference") for name in ("low", "high")
    ]
    assert opens(plot(*pairs)) is None
    assert opens(plot(*pairs[:3])) == "low"


def test_marks_are_thin_drawn_once_and_not_named():
    def marked(height):
        marks = line("special points", [0, 0, 0, 1, 1, 1], [0, height, None, 0, height, None], style="reference")
        return plot(curve(""), marks)

    figure = overlaid({"a": marked(1.0), "b": marked(2.0)}, {"a": 0, "b": 1})
    (marks,) = [trace for trace in figure["data"] if trace["meta"]["slot"] is None]
    assert marks["showlegend"] is False
    assert marks["line"]["width"] < 1
    (level,) = figure_of(plot(curve("level", "reference")))["data"]
    assert "showlegend" not in level


def test_lines_of_one_colour_differ_by_their_dash():
    curves = [line(f"{place}", [0, 1], [0.0, place]) for place in range(5)]
    traces = figure_of(plot(*curves))["data"]
    assert len({trace["line"]["dash"] for trace in traces}) == 5


def test_plotly_knows_every_key(cells):
    for cell in cells:
        for each in cell.plots:
            go.Figure(figure_of(each))  # refuses unknown keys and wrong values


def test_text_is_not_markup():
    assert literal("<b>&\x1b") == "&lt;b&gt;&amp;"
    assert figure_of(plot())["layout"]["yaxis"]["title"]["text"] == "energy &lt;b&gt; [eV]"
