"""Speed against fidelity."""

from dataclasses import replace

import pytest

from conservbench.cards import Metric
from conservbench.leaderboard.machine import machine_name, machine_of, on_one_machine
from conservbench.leaderboard.page import markdown
from conservbench.leaderboard.pareto import fronts
from conservbench.leaderboard.ranking import ranks
from conservbench.leaderboard.sheet import sheets
from conservbench.outcome import Outcome
from conservbench.scored import Score

SPEED = Metric("ns_per_day", "speed", "ns/day", headline=True, digits=1, better="higher")


@pytest.fixture
def make(make_cell):
    """Both cells of a model: its speed and its drift, each a value and a half-width."""

    def cells(name, speed, drift, *, boot="b1", role="model", better="zero", tier="standard", **machine):
        model = {"role": role}
        value, half = speed
        score = Score(
            name,
            "speed",
            "si-64",
            "ns_per_day",
            value,
            value - half,
            value + half,
            "ns/day",
            7,
            Outcome.COMPLETED,
            None,
        )
        fast = make_cell(name, model=model, tier=tier, protocol={"name": "speed", "title": "Speed"})
        provenance = {**fast.provenance, "boot": boot, "threads": 1, "processor": "P", **machine}
        fast = replace(fast, provenance=provenance, metrics={"ns_per_day": SPEED}, scores=(score,))
        slow = make_cell(name, drift, model=model)
        return fast, replace(slow, metrics={**slow.metrics, "drift": replace(slow.metrics["drift"], better=better)})

    return cells


def standings(cells):
    (front,) = fronts(cells)
    return {point.model: point.standing for point in front.points}


def test_the_front_and_what_is_surely_behind_it(make):
    cells = [
        *make("fast", (10.0, 1.0), (7.0, 0.4)),
        *make("right", (4.0, 0.5), (0.1, 0.05)),
        # slower than "right" and further off, by whole intervals
        *make("behind", (2.0, 0.5), (-1.0, 0.4)),
        # behind "right" as well, but within the error of its speed
        *make("perhaps", (3.8, 0.5), (1.0, 0.4)),
    ]
    assert standings(cells) == {
        "fast": "front",
        "right": "front",
        "perhaps": "dominated",
        "behind": "surely dominated",
    }
    (front,) = fronts(cells)
    assert [point.model for point in front.points] == ["fast", "right", "perhaps", "behind"]
    # a size, for what is to be near zero
    assert (front.points[-1].other.value, front.points[-1].other.low) == pytest.approx((1.0, 0.6))


def test_a_metric_that_is_to_be_high(make):
    low, high = (
        make("low", (2.0, 0.1), (1.0, 0.1), better="higher"),
        make("high", (4.0, 0.1), (9.0, 0.1), better="higher"),
    )
    assert standings([*low, *high]) == {"low": "surely dominated", "high": "front"}


def test_the_size_of_an_interval_about_zero_starts_at_zero(make):
    (front,) = fronts([*make("a", (1.0, 0.1), (-0.1, 0.4)), *make("b", (2.0, 0.1), (3.0, 0.4))])
    assert (front.points[1].other.low, front.points[1].other.high) == pytest.approx((0.0, 0.5))


def test_of_equals_the_faster_one_is_on_the_front(make):
    cells = [*make("slow", (1.0, 0.1), (1.0, 0.1)), *make("fast", (2.0, 0.1), (-1.0, 0.1))]
    assert standings(cells) == {"fast": "front", "slow": "dominated"}
    same = [*make("one", (1.0, 0.1), (1.0, 0.1)), *make("other", (1.0, 0.1), (1.0, 0.1))]
    assert standings(same) == {"one": "front", "other": "front"}


def test_times_of_two_machines_do_not_meet(make):
    one, other = make("a", (1.0, 0.1), (0.1, 0.1)), make("b", (2.0, 0.1), (0.1, 0.1), boot="b2")
    assert fronts([*one, *other]) == ()
    assert fronts([*make("a", (1.0, 0.1), (0.1, 0.1), boot=None), *make("b", (2.0, 0.1), (0.1, 0.1), boot=None)]) == ()


def test_controls_are_shown_and_dominate_nobody(make):
    cells = [
        *make("a", (1.0, 0.1), (1.0, 0.1)),
        *make("b", (2.0, 0.1), (3.0, 0.1)),
        *make("toy", (9.0, 0.1), (0.0, 0.1), role="control"),
    ]
    assert standings(cells) == {"toy": None, "b": "front", "a": "front"}


def test_the_page_marks_the_front(make):
    cells = [*make("a", (1.0, 0.1), (7.0, 0.4)), *make("b", (2.0, 0.1), (0.0, 0.1))]
    page = markdown(cells)
    table = page.split("On P, threads: 1, boot b1:\n\n")[1].splitlines()
    assert table[:4] == [
        "| fastest first | b | a |",
        "| --- | ---: | ---: |",
        r"| speed \[ns/day\], si-64 | 2.00 ± 0.10 | 1.00 ± 0.10 |",
        r"| energy drift \[meV/atom/ps\], si-64 | 0.00 \[0.00, 0.10\] ● | 7.0 ± 0.4 ▽ |",
    ]


def test_times_of_two_machines_share_neither_a_table_nor_ranks(make):
    fast = [make("a", (1.0, 0.1), (0.1, 0.1))[0], make("b", (2.0, 0.1), (0.1, 0.1))[0]]
    elsewhere = make("c", (9.0, 0.1), (0.1, 0.1), boot="b2")[0]
    assert [sheet.title for sheet in sheets(fast)] == ["Speed: version 1, standard tier, on P, threads: 1, boot b1"]
    assert [rank.model for rank in ranks(fast, "ns_per_day")] == ["b", "a"]
    assert len(sheets([*fast, elsewhere])) == 2
    with pytest.raises(ValueError, match="cells of 2 protocols, versions, tiers or machines"):
        ranks([*fast, elsewhere], "ns_per_day")
    unknown = [make(name, (speed, 0.1), (0.1, 0.1), boot=None)[0] for name, speed in (("a", 1.0), ("b", 2.0))]
    assert ranks(unknown, "ns_per_day") == ()


@pytest.mark.parametrize("other", [{"boot": "b2"}, {"threads": 2}, {"device": "cuda"}, {"processor": "Q"}])
def test_what_makes_another_machine(make, other):
    one, elsewhere = make("a", (1.0, 0.1), (0.1, 0.1))[0], make("b", (2.0, 0.1), (0.1, 0.1), **other)[0]
    assert machine_of(one) != machine_of(elsewhere)
    assert machine_name(one) != machine_name(elsewhere)
    assert not on_one_machine([one, elsewhere])
    assert len(sheets([one, elsewhere])) == 2


def test_times_of_two_boots_and_tiers_have_tables_of_their_own(make):
    def pair(*names, **where):
        return [cell for k, name in enumerate(names) for cell in make(name, (1.0 + k, 0.1), (0.1, 0.1), **where)]

    page = markdown([*pair("a", "b"), *pair("c", "d", boot="b2")])
    assert page.count("| fastest first | b | a |") == page.count("| fastest first | d | c |") == 1
    assert "On P, threads: 1, boot b1:" in page
    assert "On P, threads: 1, boot b2:" in page
    page = markdown([*pair("a", "b"), *pair("c", "d", tier="quick")])
    assert "On P, threads: 1, boot b1, standard tier:\n\n| fastest first | b | a |" in page
    assert "On P, threads: 1, boot b1, quick tier:\n\n| fastest first | d | c |" in page


def test_survivors_of_an_explosion_are_not_on_the_front(make):
    cells = [cell for name, speed in (("a", 1.0), ("b", 2.0)) for cell in make(name, (speed, 0.1), (1.0, 0.1))]
    fast, slow = make("c", (9.0, 0.1), (0.0, 0.1))
    exploded = replace(slow, scores=tuple(replace(score, outcome=Outcome.EXPLODED) for score in slow.scores))
    assert standings([*cells, fast, slow]) == {"c": "front", "b": "surely dominated", "a": "surely dominated"}
    assert standings([*cells, fast, exploded]) == {"b": "front", "a": "dominated"}
