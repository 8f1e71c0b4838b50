"""Rows of one network side by side."""

from dataclasses import replace

import pytest

from conservbench.cards import Metric
from conservbench.leaderboard.page import markdown
from conservbench.leaderboard.twins import change_of, is_lost, scheme_of, twins
from conservbench.outcome import Outcome
from conservbench.scored import Score

GRADIENT = {"scheme": "gradient", "twin": "direct"}
DIRECT = {"scheme": "direct", "twin": "gradient"}
MTS = {"scheme": "mts", "stride": 8, "twin": "gradient"}


def test_members_are_found_by_twin_and_ordered_by_scheme(make_cell):
    cells = [
        make_cell("mts", model=MTS),
        make_cell("direct", model=DIRECT),
        make_cell("alone", model={"scheme": "direct"}),
        make_cell("gradient", (0.0, 0.1), model=GRADIENT),
        make_cell("other", model={"scheme": "gradient"}),
    ]
    (table,) = twins(cells)
    assert (table.network, table.members) == ("gradient", ("gradient", "direct", "mts"))
    assert table.schemes == ("gradient", "direct", "mts-8")
    (row,) = table.costs
    assert [score.value for score in row.scores] == [0.0, 7.0, 7.0]
    assert (row.metric.key, row.system, row.tier, row.version) == ("drift", "si-64", "standard", 1)
    assert table.saves == ()


def test_a_twin_may_be_named_by_the_path_of_its_card_or_by_the_gradient_row_alone(make_cell):
    for card in ({"scheme": "direct", "twin": "cards/gradient.toml"}, {"scheme": "direct"}):
        (table,) = twins([make_cell("gradient", model=GRADIENT), make_cell("direct", model=card)])
        assert table.members == ("gradient", "direct")


def test_changes_are_of_independent_errors(make_cell):
    # half-widths 0.3 and 0.4 make 0.5
    cells = [make_cell("gradient", (1.0, 0.3), model=GRADIENT), make_cell("direct", (7.0, 0.4), model=DIRECT)]
    none, change = twins(cells)[0].costs[0].changes
    assert none is None
    assert (change.value, change.low, change.high) == pytest.approx((6.0, 5.5, 6.5))


def test_a_lopsided_change():
    def score(value, low, high):
        return Score("m", "p", "s", "x", value, low, high, "1", 8, Outcome.COMPLETED, None)

    change = change_of(score(10.0, 6.0, 11.0), score(1.0, 0.0, 4.0))
    # below: 4 of one's own and 3 above the other; above: 1 and 1
    assert (change.low, change.high) == pytest.approx((9.0 - 5.0, 9.0 + 2.0**0.5))
    assert change_of(None, score(1.0, 0.0, 4.0)) is None


def test_what_is_not_comparable_does_not_share_a_row(make_cell):
    cells = [make_cell("gradient", model=GRADIENT), make_cell("direct", model=DIRECT, tier="quick")]
    assert twins(cells)[0].costs == ()


def test_times_come_from_speed_or_else_from_mts(make_cell):
    ratio = Metric("cost_ratio", "cost ratio", "1", headline=True)
    time = Metric("time_1", "time", "µs/atom", headline=True)

    def timed(name, card, protocol, metric):
        cell = make_cell(name, model=card, protocol={"name": protocol})
        score = Score(name, protocol, "si-64", metric.key, 2.6, 2.5, 2.7, metric.unit, 6, Outcome.COMPLETED, None)
        return replace(cell, metrics={metric.key: metric}, scores=(score,))

    base = [make_cell("gradient", model=GRADIENT), make_cell("mts", model=MTS)]
    (table,) = twins([*base, timed("mts", MTS, "mts", ratio)])
    assert [(row.protocol, row.metric.key) for row in table.saves] == [("mts", "cost_ratio")]
    assert [score and score.value for score in table.saves[0].scores] == [None, 2.6]
    (table,) = twins([*base, timed("mts", MTS, "mts", ratio), timed("mts", MTS, "speed", time)])
    assert [(row.protocol, row.metric.key) for row in table.saves] == [("speed", "time_1")]


def test_times_of_two_machines_have_a_row_each_that_says_so(make_cell):
    time = Metric("time_1", "time", "µs/atom", headline=True)

    def timed(name, card, boot):
        cell = make_cell(name, model=card, protocol={"name": "speed"})
        score = Score(name, "speed", "si-64", "time_1", 2.6, 2.5, 2.7, time.unit, 6, Outcome.COMPLETED, None)
        provenance = {**cell.provenance, "boot": boot, "processor": "P", "threads": 1}
        return replace(cell, metrics={"time_1": time}, scores=(score,), provenance=provenance)

    base = [make_cell("gradient", (0.0, 0.1), model=GRADIENT), make_cell("mts", model=MTS)]
    one = [timed("gradient", GRADIENT, "b1"), timed("mts", MTS, "b1")]
    other = [make_cell("direct", model=DIRECT), timed("direct", DIRECT, "b2")]
    (table,) = twins([*base, *one, *other])
    assert [row.machine for row in table.costs] == [""]
    assert [row.machine for row in table.saves] == ["P, threads: 1, boot b1", "P, threads: 1, boot b2"]
    page = markdown([*base, *one, *other])
    assert r"| time \[µs/atom\], si-64, on P, threads: 1, boot b1 | 2.60 ± 0.10 | – | 2.60 ± 0.10 |" in page
    assert r"| time \[µs/atom\], si-64, on P, threads: 1, boot b2 | – | 2.60 ± 0.10 | – |" in page
    assert r"| time \[µs/atom\], si-64 | 2.60 ± 0.10 | 2.60 ± 0.10 |" in markdown([*base, *one])


@pytest.mark.parametrize(
    ("outcome", "gate", "lost"),
    [
        (Outcome.FAILED, None, True),
        (Outcome.NOT_CONVERGED, None, True),
        (Outcome.COMPLETED, None, True),
        (Outcome.EXPLODED, "fail", True),
        (Outcome.UNSUPPORTED, None, False),
    ],
)
def test_a_gate_without_a_value_is_lost(outcome, gate, lost):
    assert is_lost(Score("m", "p", "s", "x", None, None, None, "1", 0, outcome, gate)) is lost
    assert not is_lost(None)


def test_controls_come_last(make_cell):
    cells = [make_cell(name, model={**card, "role": "control"}) for name, card in (("a", GRADIENT), ("direct", DIRECT))]
    cells = [
        replace(cell, model={**cell.model, "twin": "a"}) if cell.model["name"] == "direct" else cell for cell in cells
    ]
    more = [make_cell("z", model={"scheme": "gradient"}), make_cell("zz", model={"scheme": "direct", "twin": "z"})]
    assert [(table.network, table.control) for table in twins([*cells, *more])] == [("z", False), ("a", True)]


def test_scheme_in_short():
    assert scheme_of({"scheme": "mts", "stride": 4}) == "mts-4"
    assert scheme_of({"scheme": "direct"}) == "direct"
