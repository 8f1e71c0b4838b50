"""Cells measured of cells asked."""

import pytest

from conservbench.leaderboard.coverage import asked, coverage
from conservbench.outcome import Outcome

NVE = {"name": "nve", "systems": ["si-64", "liquid"]}


@pytest.mark.parametrize(
    ("model", "protocol", "is_parent", "systems"),
    [
        ({"scheme": "direct"}, NVE, False, ["si-64", "liquid"]),
        ({"scheme": "direct", "systems": ["z"]}, NVE, False, ["z"]),
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
    found = {each.model: (each.text, each.missing) for each in coverage(cells)}
    assert found == {
        "whole": ("2 of 2", ()),
        "holes": ("0 of 2", ("nve on si-64 (out of memory)", "nve on liquid")),
        "dumb": ("1 of 1", ()),
    }
