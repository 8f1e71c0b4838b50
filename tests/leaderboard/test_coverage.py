"""Cells measured of cells asked."""

import pytest

from conservbench.leaderboard.coverage import asked, coverage, installed_protocols
from conservbench.outcome import Outcome

NVE = {"name": "nve", "systems": ["si-64", "liquid"]}
CARBIDE = {"systems": ["sic-64"], "more_systems": ["si-64"]}


@pytest.mark.parametrize(
    ("model", "protocol", "is_parent", "systems"),
    [
        ({"scheme": "direct"}, NVE, False, ["si-64", "liquid"]),
        ({"scheme": "direct", "systems": ["z"]}, NVE, False, ["z"]),
        ({"scheme": "direct", "elements": ["Si"]}, {**NVE, "systems": ["si-64", "sic-64"]}, False, ["si-64"]),
        (
            {"scheme": "direct", "elements": ["Si"]},
            {"systems": ["sic-64"], "more_systems": ["si-64"]},
            False,
            ["si-64"],
        ),
        ({"scheme": "direct", "elements": ["Xe"]}, CARBIDE, False, []),
        ({"scheme": "direct"}, CARBIDE, False, ["sic-64"]),
        ({"scheme": "direct"}, {**NVE, "schemes": ["mts"]}, False, []),
        ({"scheme": "direct"}, {**NVE, "by_default": False}, False, []),
        ({"scheme": "direct", "parent": "p"}, NVE, False, []),
        ({"scheme": "direct", "parent": "p"}, {**NVE, "tuned": True}, False, ["si-64", "liquid"]),
        ({"scheme": "direct"}, {**NVE, "tuned": True}, True, ["si-64", "liquid"]),
        ({"scheme": "direct"}, {**NVE, "tuned": True}, False, []),
    ],
)
def test_what_is_asked(model, protocol, is_parent, systems):
    assert list(asked(model, protocol, is_parent)) == systems


def test_missing_and_failed_cells_count_and_unsupported_ones_do_not(make_cell):
    def cell(name, system, outcome=Outcome.COMPLETED):
        return make_cell(name, None, system=system, outcome=outcome, protocol=NVE)

    cells = [
        cell("whole", "si-64"),
        cell("whole", "liquid", Outcome.EXPLODED),
        cell("holes", "si-64", Outcome.OUT_OF_MEMORY),
        cell("dumb", "si-64"),
        cell("dumb", "liquid", Outcome.UNSUPPORTED),
    ]
    found = {each.model: (each.text, each.missing, each.unsupported) for each in coverage(cells)}
    assert found == {
        "whole": ("2 of 2", (), ()),
        "holes": ("0 of 2", ("nve on si-64 (out of memory)", "nve on liquid"), ()),
        "dumb": ("1 of 1", (), ("nve on liquid",)),
    }


def test_a_system_that_nobody_asked_about_by_default_may_be_unsupported(make_cell):
    cells = [make_cell(system="si-64", protocol=NVE), make_cell(system="liquid", protocol=NVE)]
    cells += [make_cell(system="z", outcome=Outcome.UNSUPPORTED, protocol=NVE)]
    assert coverage(cells)[0].unsupported == ()


def test_protocols_that_nobody_measured_ask_too(make_cell):
    more = [
        {"name": "relax", "systems": ["vacancy"]},
        {"name": "mts", "systems": ["si-64"], "schemes": ["mts"]},
        {"name": "speed", "systems": ["si-64"], "by_default": False},
        # the card that a cell was measured by goes before the one that is installed
        {"name": "nve", "systems": ["elsewhere"]},
    ]
    (found,) = coverage([make_cell(protocol=NVE)], more)
    assert (found.text, sorted(found.missing)) == ("1 of 3", ["nve on liquid", "relax on vacancy"])


def test_of_a_model_that_was_measured_by_name_alone_nothing_else_is_asked(make_cell):
    ladder = {**NVE, "name": "ladder", "by_default": False}
    cells = [make_cell("rung", protocol=ladder), make_cell("net", protocol=ladder), make_cell("net", protocol=NVE)]
    assert {each.model: each.text for each in coverage(cells)} == {"rung": "1 of 1", "net": "2 of 3"}


def test_installed_protocols_have_what_coverage_asks_for():
    cards = {card["name"]: card for card in installed_protocols()}
    assert {"audit", "nve", "relax", "speed"} <= set(cards)
    assert all(card["digest"] for card in cards.values())
    assert list(asked({"scheme": "gradient"}, cards["nve"], is_parent=False)) == ["si-64", "si-liquid-64"]
