"""How models stand: verdicts by what was measured of what was asked, lost gates, and fronts."""

import json
import math
from dataclasses import replace

import pytest

from conservbench.leaderboard.coverage import coverage, coverage_of_run
from conservbench.leaderboard.pareto import fronts
from conservbench.leaderboard.twins import twins
from conservbench.outcome import Outcome
from conservbench.site.pages import report_page, site_pages
from conservbench.site.standing import front_figure, network_view, standings
from conservbench.site.views import groups, title_of

RELAX = {"name": "relax", "systems": ["si-vacancy-63"]}


def without_values(cell, outcome):
    scores = [replace(score, value=None, low=None, high=None, n=0, gate=None, outcome=outcome) for score in cell.scores]
    return replace(cell, scores=tuple(scores))


def test_the_first_table_counts_cells_as_coverage_does(cells):
    found = standings(cells, coverage(cells, [RELAX]))
    assert {name: (each.measured, each.asked) for name, each in found.items()} == {
        each.model: (each.measured, each.asked) for each in coverage(cells, [RELAX])
    }
    # nve on two systems, speed on one, and relax, which nobody measured
    assert (found["net-gradient"].measured, found["net-gradient"].asked) == (3, 4)
    assert found["net-gradient"].share == pytest.approx(0.75)
    assert found["net-gradient"].verdict.level == "usable with care"
    assert "not measured: relax on si-vacancy-63" in found["net-gradient"].verdict.because
    assert standings(cells, coverage(cells))["net-gradient"].asked == 3


def test_a_report_counts_what_its_run_asked(cells):
    chosen = [cell for cell in cells if cell.system == "si-64"]
    asked = {each.model: each.asked for each in coverage(chosen)}
    found = standings(chosen, coverage_of_run(chosen))
    for name, standing in found.items():
        own = [cell for cell in chosen if cell.model["name"] == name]
        assert (standing.measured, standing.asked) == (len(own), len(own))
        assert "not measured" not in standing.verdict.because
    # the card of the protocol names a system that was not chosen
    assert asked["net-gradient"] > found["net-gradient"].asked
    failed = [replace(without_values(cell, Outcome.FAILED), outcome=Outcome.FAILED) for cell in chosen]
    assert {each.measured for each in standings(failed, coverage_of_run(failed)).values()} == {0}
    assert report_page(chosen).count("not measured: nve") == 0


def test_the_page_shows_what_was_asked(cells):
    text = site_pages(cells, [RELAX])[0]["index.html"]
    assert ">3 of 4</td>" in text
    assert ">3 of 4</td>" not in site_pages(cells)[0]["index.html"]


def test_gates_without_a_value_are_lost(cells):
    (network,) = map(network_view, twins(cells))
    assert network.members == ("net-gradient", "net-direct", "net-mts8")
    # of two gates that the gradient passes: net-direct fails both, net-mts8 was measured on one and stays unclear
    assert (network.shared, network.lost, network.silent) == ((2, 2, 1), (0, 2, 0), (0, 0, 0))
    assert network.unclear == (0, 0, 1)
    assert ">0 of 1, 1 unclear</td>" in site_pages(cells)[0]["index.html"]
    crashed = [without_values(c, Outcome.FAILED) if c.model["name"] == "net-direct" else c for c in cells]
    (network,) = map(network_view, twins(crashed))
    assert (network.lost, network.silent) == ((0, 2, 0), (0, 2, 0))
    assert ">2 of 2, 2 without a value</td>" in site_pages(crashed)[0]["index.html"]
    idle = [without_values(c, Outcome.UNSUPPORTED) if c.model["name"] == "net-direct" else c for c in cells]
    (network,) = map(network_view, twins(idle))
    assert (network.lost, network.shared) == ((0, 0, 0), (1, 0, 1))
    assert ">–</td>" in site_pages(idle)[0]["index.html"]


def test_what_has_no_meaning_is_a_dash_and_a_change_without_bounds_is_not_said(cells):
    def changed(name, **score):
        return [
            replace(c, scores=tuple(replace(s, **score) if s.metric == "drift" else s for s in c.scores))
            if (c.model["name"], c.system) == (name, "si-64")
            else c
            for c in cells
        ]

    def drifts(cells):
        (network,) = map(network_view, twins(cells))
        return next(row for row in network.costs if row.label.startswith("energy drift")).fields

    idle = changed("net-gradient", value=None, low=None, high=None, gate=None, outcome=Outcome.UNSUPPORTED)
    assert drifts(idle)[0].text == "–"
    assert drifts(cells)[1].note.startswith("change 13")
    unbounded = drifts(changed("net-direct", low=-math.inf, high=math.inf))[1]
    assert (unbounded.text.split()[-1], unbounded.note) == ("∞", "")


def test_times_of_two_machines_have_tables_and_titles_of_their_own(cells):
    moved = [
        replace(cell, provenance={**cell.provenance, "boot": "cd34"})
        if (cell.protocol["name"], cell.model["name"]) == ("speed", "net-mts8")
        else cell
        for cell in cells
    ]
    titles = [title_of(group) for group in groups(moved) if group[0].protocol["name"] == "speed"]
    assert titles == [
        "Speed: version 1, standard tier, on CPU, threads: 2, boot ab12",
        "Speed: version 1, standard tier, on CPU, threads: 2, boot cd34",
    ]
    # ranks of one group are of one machine: else they are refused
    text = site_pages(moved)[0]["protocols/speed.html"]
    assert all(title in text for title in titles)


def test_an_end_that_nothing_bounds_has_no_bar(cells):
    (front,) = fronts(cells)
    open_end = replace(front.points[0], other=replace(front.points[0].other, high=math.inf))
    points = front_figure(replace(front, points=(open_end,)))["data"]
    assert points[-1]["error_y"]["array"] == [0.0]
    huge = replace(front.points[0].other, value=-1e308, low=-1.1e308, high=1e308)
    points = front_figure(replace(front, points=(replace(front.points[0], other=huge),)))["data"]
    assert math.isfinite(points[-1]["error_y"]["array"][0])


def test_figures_are_json_whatever_the_numbers(cells):
    def unbounded(score):
        return score if score.value is None else replace(score, low=-math.inf, high=math.inf)

    def huge(plot):
        few = [
            replace(line, x=line.x[:2], y=(-1e308, 0.0), low=(-1.1e308, 0.0), high=(1e308, 1.0))
            for line in plot.lines
            if line.style != "reference"
        ]
        return replace(plot, lines=tuple(few))

    wild = [
        replace(cell, scores=tuple(map(unbounded, cell.scores)), plots=tuple(map(huge, cell.plots))) for cell in cells
    ]

    def refused(constant):
        raise AssertionError(constant)

    for path, text in site_pages(wild)[0].items():
        figures = text.split('id="figures">')[1].split("</script>")[0]
        found = json.loads(figures, parse_constant=refused)
        assert found or "networks" not in path
