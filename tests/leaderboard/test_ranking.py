"""Ranks with intervals, against orders and rates known on paper."""

import math
from dataclasses import replace

import numpy as np
import pytest

from conservbench.cards import Metric
from conservbench.leaderboard.ranking import Rank, ranks
from conservbench.outcome import Outcome
from conservbench.scored import Score, ScoredCell
from conservbench.statistics import Interval, mean_interval


def cell(name, interval, better="lower", *, system="a", outcome=Outcome.COMPLETED, ending=None, role="model", **metric):
    """A cell with one metric; a number stands for one that is known exactly, None for no value."""
    if isinstance(interval, int | float):
        interval = Interval(interval, interval, interval, 1)
    declared = Metric("x", "x", "1", better=better, **metric)
    values = (interval.value, interval.low, interval.high) if interval else (None, None, None)
    n = interval.n if interval else 0
    score = Score(name, "p", system, "x", *values, "1", n, outcome, None)
    card = {"name": "p", "version": 1, "digest": "d", "systems": ["a", "b", "c"]}
    return ScoredCell(
        {"name": name, "role": role}, card, system, "quick", ending or outcome, "", {}, {"x": declared}, (score,)
    )


def texts(cells):
    return {rank.model: rank.text for rank in ranks(cells, "x")}


def test_exact_values_have_exact_ranks_and_ties_within_the_tolerance():
    cells = [cell(name, value, tolerance=0.1) for name, value in (("d", 5.0), ("a", 1.0), ("b", 1.05), ("c", 2.0))]
    assert ranks(cells, "x") == (Rank("a", 1, 1, 2), Rank("b", 1, 1, 2), Rank("c", 3, 3, 3), Rank("d", 4, 4, 4))


def test_a_relative_tolerance_is_of_the_larger_value():
    near, far = (texts([cell("a", 100.0, relative_tolerance=0.1), cell("b", b)]) for b in (111.0, 112.0))
    assert near == {"a": "1–2", "b": "1–2"}
    assert far == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("better", "first"), [("lower", "minus"), ("higher", "large"), ("zero", "small")], ids=["lower", "higher", "zero"]
)
def test_direction(better, first):
    values = {"minus": -3.0, "small": 1.0, "large": 9.0}
    assert ranks([cell(name, value, better) for name, value in values.items()], "x")[0] == Rank(first, 1, 1, 1)


def test_no_direction_is_no_rank_and_controls_take_no_part():
    assert ranks([cell("a", 1.0, None), cell("b", 2.0, None)], "x") == ()
    assert ranks([cell("a", 1.0), cell("b", 2.0)], "y") == ()
    assert ranks([cell("a", 1.0), cell("toy", 0.0, role="control")], "x") == ()
    assert texts([cell("a", 2.0), cell("b", 3.0), cell("toy", 0.0, role="control")]) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("outcome", [Outcome.EXPLODED, Outcome.FAILED, Outcome.OUT_OF_MEMORY])
def test_what_ended_badly_is_behind_all_that_did_not(outcome):
    # survivors of an explosion may look best
    values = {Outcome.EXPLODED: 0.0}
    worst = [cell("c", values.get(outcome), outcome=outcome), cell("d", None, outcome=outcome)]
    assert texts([cell("a", 1e9), cell("b", 1.0), *worst]) == {"b": "1", "a": "2", "c": "3–4", "d": "3–4"}


def test_a_model_that_cannot_be_asked_at_all_is_last_and_one_that_only_lacks_the_metric_is_not_ranked():
    cells = [cell("a", 1.0), cell("b", 2.0)]
    dumb = cell("c", None, outcome=Outcome.UNSUPPORTED)
    assert texts([*cells, dumb])["c"] == "3"
    assert "c" not in texts([*cells, replace(dumb, outcome=Outcome.COMPLETED)])


def test_missing_on_one_of_two_systems_is_last_there():
    cells = [cell("a", 1.0), cell("a", 1.0, system="b"), cell("b", 2.0), cell("b", 2.0, system="b"), cell("c", 0.0)]
    # c leads on the one and is last on the other: nobody is surely ahead of it, nor it of anybody
    assert texts(cells) == {"a": "1–2", "b": "2–3", "c": "1–3"}


def test_models_of_other_systems_are_not_compared():
    # z is none of the protocol's systems
    cells = [cell("a", 1.0), cell("b", 2.0), cell("c", 0.0, system="z")]
    cells[2] = replace(cells[2], model={"name": "c", "systems": ["z"]})
    assert texts(cells) == {"a": "1", "b": "2"}
    # one that its card does not keep from them is missing there
    assert texts([*cells[:2], cell("c", 0.0, system="z")])["c"] == "3"


def test_the_systems_are_resampled():
    # equal scores in three systems say more than in one, where they disagree
    agreeing = [cell(name, value, system=s) for s in "abc" for name, value in (("x", 1.0), ("y", 2.0))]
    assert texts(agreeing) == {"x": "1", "y": "2"}
    mixed = [cell(n, v if s != "c" else -v, system=s) for s in "abc" for n, v in (("x", 1.0), ("y", 2.0))]
    assert ranks(mixed, "x") == (Rank("x", 1, 1, 2), Rank("y", 2, 1, 2))


def test_an_interval_without_a_bound_is_sure_of_nothing():
    wide = Interval(100.0, -math.inf, math.inf, 1)
    assert texts([cell("a", 1.0), cell("b", wide)]) == {"a": "1–2", "b": "1–2"}


def test_an_upper_bound_is_below_what_is_surely_above_it():
    bound = Interval(1.0, -math.inf, 1.0, 6)
    assert texts([cell("a", bound), cell("b", 2.0)]) == {"a": "1", "b": "2"}


def test_what_is_not_comparable_is_refused():
    cells = [cell("a", 1.0), replace(cell("b", 2.0), tier="standard")]
    with pytest.raises(ValueError, match="cells of 2 protocols, versions, tiers or machines"):
        ranks(cells, "x")
    with pytest.raises(ValueError, match="two cells of a on a"):
        ranks([cell("a", 1.0), cell("a", 2.0)], "x")


def test_the_order_of_the_cells_does_not_matter():
    rng = np.random.default_rng(5)
    cells = [cell(name, mean_interval(rng.normal(place, 2.0, 8))) for place, name in enumerate("abcde")]
    assert ranks(cells, "x") == ranks(cells[::-1], "x")


def missed(truths, errors, better, n, trials):
    """Share of intervals that miss a rank: of equals, each rank that they share is to be inside."""
    rng = np.random.default_rng(11)
    costs = np.abs(truths) if better == "zero" else np.asarray(truths)
    ahead = [int((costs < cost).sum()) for cost in costs]
    behind = [int((costs > cost).sum()) for cost in costs]
    misses = 0
    for _ in range(trials):
        cells = [
            cell(f"{place}", mean_interval(rng.normal(truth, error * math.sqrt(n), n)), better)
            for place, (truth, error) in enumerate(zip(truths, errors, strict=True))
        ]
        for rank in ranks(cells, "x"):
            place = int(rank.model)
            misses += not (rank.low <= 1 + ahead[place] and rank.high >= len(truths) - behind[place])
    return misses / (trials * len(truths))


@pytest.mark.parametrize(
    ("truths", "errors", "better"),
    [
        ([0.0] * 6, [1.0] * 6, "lower"),
        ([0.0] * 4, [0.01, 0.1, 1.0, 1.0], "zero"),
        ([1.0, -1.0, 1.0, -1.0], [0.01, 0.1, 1.0, 1.0], "zero"),
    ],
    ids=["equal", "equal-about-zero", "equal-sizes"],
)
def test_intervals_miss_a_rank_no_more_often_than_stated(truths, errors, better):
    """At 5 % a model, 120 trials exceed 11 % in 0.2 % of tests (binomial; models of a trial are not independent)."""
    assert missed(truths, errors, better, n=8, trials=120) <= 0.11


def test_models_far_apart_are_told_apart():
    rng = np.random.default_rng(3)
    cells = [cell(f"{k}", mean_interval(rng.normal(10.0 * k, math.sqrt(8), 8))) for k in range(5)]
    assert texts(cells) == {f"{k}": f"{k + 1}" for k in range(5)}


@pytest.mark.parametrize(("boots", "ranked"), [(("b", "b"), 2), (("b", "c"), 0), ((None, None), 0)])
def test_what_rests_on_times_is_ranked_on_one_machine_alone(boots, ranked):
    cells = [
        replace(cell(name, value, timed=True), provenance={"boot": boot})
        for name, value, boot in zip("ab", (1.0, 2.0), boots, strict=True)
    ]
    assert len(ranks(cells, "x")) == ranked


@pytest.mark.parametrize(("errors_apart", "told"), [(1.8, False), (2.1, True)])
def test_two_models_are_told_apart_at_the_two_sided_rate(errors_apart, told):
    """The normal quantile of 95 % is 1.96 on two sides and 1.64 on one; 10 000 draws are sure of it to 0.03."""
    error = 1.0 / math.sqrt(2.0)
    cells = [
        cell(name, Interval(value, value - 1.96 * error, value + 1.96 * error, 1))
        for name, value in (("a", 0.0), ("b", errors_apart))
    ]
    assert texts(cells) == ({"a": "1", "b": "2"} if told else {"a": "1–2", "b": "1–2"})


@pytest.mark.parametrize(
    ("interval", "told"),
    [
        ((1.0, 0.5, 100.0), True),
        ((1.0, -5.0, 1.01), False),
        ((-1.0, -100.0, -0.5), True),
        ((-1.0, -1.01, 5.0), False),
    ],
)
def test_of_a_lopsided_interval_the_side_towards_the_other_model_counts(interval, told):
    found = texts([cell("known", 0.0), cell("b", Interval(*interval, 8))])
    assert (set(found.values()) == {"1", "2"}) is told
