"""Scores are compared by their intervals: known p-values, tolerances, outcomes, and what cannot be compared."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from conservbench.cards import Metric, find_protocol
from conservbench.compare import FAMILY_RATE, OUTCOME, CompareError, compare, holm, known_as
from conservbench.outcome import Outcome
from conservbench.scored import Score, ScoredCell
from conservbench.statistics import Interval, fraction_interval, mean_interval

DRIFT = Metric("drift", "energy drift", "meV/atom/ps", headline=True, better="zero", tolerance=0.1)


def scored(metric, interval, *, outcome=Outcome.COMPLETED, reason="", model="net"):
    ends = (None, None, None, 0) if interval is None else (interval.value, interval.low, interval.high, interval.n)
    return Score(model, "nve", "si-64", metric.key, *ends[:3], metric.unit, ends[3], outcome, None, reason)


def cell(*pairs, model="net", tier="quick", outcome=Outcome.COMPLETED, reason="", version=1, digest="p", boot=None):
    """A cell of (metric, interval or score) pairs."""
    scores = [
        replace(what, model=model) if isinstance(what, Score) else scored(metric, what, model=model)
        for metric, what in pairs
    ]
    return ScoredCell(
        model={"name": model, "version": 1, "title": "", "scheme": "direct", "digest": "m"},
        protocol={"name": "nve", "version": version, "title": "", "digest": digest},
        system="si-64",
        tier=tier,
        outcome=outcome,
        reason=reason,
        provenance={"boot": boot},
        metrics={metric.key: metric for metric, _ in pairs},
        scores=tuple(scores),
    )


def one(metric, base, head):
    """The row of the only metric of two cells."""
    (row,) = (row for row in compare([cell((metric, base))], [cell((metric, head))]).rows if row.metric != OUTCOME)
    return row


def exact(value):
    return Interval(value, value, value, 1)


@pytest.mark.parametrize("better", ["lower", "higher", "zero"])
def test_p_value_is_that_of_welchs_test(better):
    """Against scipy's own test of the raw samples, by direction; the size of positive numbers is themselves."""
    rng = np.random.default_rng(4)
    old, new = 5.0 + rng.normal(size=6), 5.4 + 2.0 * rng.normal(size=9)
    metric = replace(DRIFT, better=better, tolerance=0.0)
    row = one(metric, mean_interval(old), mean_interval(new))
    expected = stats.ttest_ind(new, old, equal_var=False, alternative="less" if better == "higher" else "greater")
    sign = -1.0 if better == "higher" else 1.0
    assert row.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert row.change == pytest.approx(sign * (new.mean() - old.mean()))
    two_sided = stats.ttest_ind(new, old, equal_var=False).confidence_interval(0.95)
    assert sorted((row.low, row.high)) == pytest.approx(sorted((sign * two_sided.low, sign * two_sided.high)))


def test_tolerance_is_taken_off_the_change():
    """A shift of the new samples by the tolerance gives the p-value of the test without one."""
    rng = np.random.default_rng(5)
    old, new = rng.normal(size=8) + 9.0, rng.normal(size=8) + 9.7
    metric = replace(DRIFT, better="lower", tolerance=0.5)
    row = one(metric, mean_interval(old), mean_interval(new))
    expected = stats.ttest_ind(new - 0.5, old, equal_var=False, alternative="greater").pvalue
    assert row.p_value == pytest.approx(expected, rel=1e-9)
    assert row.tolerance == 0.5


def test_relative_tolerance_carries_the_error_of_the_old_value():
    """new - 1.25 old > 0 is a Welch test of the new samples against 1.25 times the old; degrees of freedom apart."""
    rng = np.random.default_rng(6)
    old, new = rng.normal(size=400) + 20.0, rng.normal(size=400) + 25.1
    metric = replace(DRIFT, better="lower", tolerance=0.5, relative_tolerance=0.25)
    row = one(metric, mean_interval(old), mean_interval(new))
    expected = stats.ttest_ind(new, 1.25 * old, equal_var=False, alternative="greater").pvalue
    assert row.p_value == pytest.approx(expected, rel=0.02)
    assert row.tolerance == pytest.approx(0.25 * old.mean())


@pytest.mark.parametrize(
    ("better", "old", "new", "state"),
    [
        ("lower", 1.0, 5.0, "regression"),
        ("lower", 5.0, 1.0, "improved"),
        ("lower", 5.0, 5.05, "pass"),
        ("higher", 5.0, 1.0, "regression"),
        ("higher", 1.0, 5.0, "improved"),
        ("zero", -1.0, -5.0, "regression"),
        ("zero", 1.0, -5.0, "regression"),
        ("zero", -5.0, 1.0, "improved"),
        ("zero", -5.0, 5.0, "pass"),
    ],
)
@pytest.mark.parametrize("half", [0.0, 0.1])
def test_direction(better, old, new, state, half):
    metric = replace(DRIFT, better=better)
    row = one(metric, *(Interval(value, value - half, value + half, 8) for value in (old, new)))
    assert row.state == state
    assert (row.p_value is None) == (half == 0.0)


def test_exact_numbers_go_by_tolerance_alone():
    metric = replace(DRIFT, better="lower", tolerance=0.1, relative_tolerance=0.02)
    assert one(metric, exact(10.0), exact(10.19)).state == "pass"
    assert one(metric, exact(10.0), exact(10.21)).state == "regression"
    assert one(metric, exact(10.0), exact(9.79)).state == "improved"
    row = one(metric, exact(1.0), exact(1.2))
    assert (row.state, row.low, row.high, row.detectable) == ("regression", row.change, row.change, 0.1)


def test_an_end_that_cannot_go_further_is_not_taken_for_precision():
    """0.5 [0, 3] cannot be below 0, so that its lower side says nothing of its scatter."""
    metric = replace(DRIFT, better="lower", tolerance=0.0, least=0.0)
    row = one(metric, Interval(0.5, 0.0, 3.5, 8), Interval(2.5, 0.0, 6.5, 8))
    error = math.hypot(3.0, 4.0) / stats.t.ppf(0.975, 7)
    freedom = (3.0**2 + 4.0**2) ** 2 / ((3.0**4 + 4.0**4) / 7)
    assert row.p_value == pytest.approx(stats.t.sf(2.0 / error, freedom))


def test_the_error_is_that_of_the_side_that_matters():
    """Worse is what lies above the old upper end, and below which the new lower end does not reach."""
    metric = replace(DRIFT, better="lower", tolerance=0.0)
    row = one(metric, Interval(5.0, 1.0, 5.5, 8), Interval(7.0, 6.5, 20.0, 8))
    error = math.hypot(0.5, 0.5) / stats.t.ppf(0.975, 7)
    assert row.p_value == pytest.approx(stats.t.sf(2.0 / error, 14))
    # but a side of no length beside one that has some is no precision
    row = one(metric, Interval(5.0, 4.0, 5.0, 8), Interval(7.0, 6.0, 8.0, 8))
    error = math.hypot(1.0, 1.0) / stats.t.ppf(0.975, 7)
    assert row.p_value == pytest.approx(stats.t.sf(2.0 / error, 14))


CONVERGED = Metric("converged", "converged", "%", headline=True, better="higher", tolerance=5.0, least=0.0, most=100.0)


def share(hits, n):
    return fraction_interval(hits, n).scaled(100.0)


@pytest.mark.parametrize(("before", "now"), [((6, 6), (0, 6)), ((8, 8), (1, 7)), ((5, 20), (3, 24)), ((2, 8), (8, 8))])
def test_fractions_go_by_fishers_exact_test(before, now):
    row = one(CONVERGED, share(*before), share(*now))
    table = [[before[0], before[1] - before[0]], [now[0], now[1] - now[0]]]
    worse = stats.fisher_exact(table, alternative="greater").pvalue
    better = stats.fisher_exact(table, alternative="less").pvalue
    if row.change > 0.0:
        assert row.p_value == pytest.approx(worse)
        assert row.state == ("regression" if worse <= FAMILY_RATE else "pass")
    else:
        assert (row.state, row.p_value) == ("improved", pytest.approx(better))


def test_a_fraction_within_its_tolerance_passes():
    """From 100 % to 96 %, of 2000: no chance, but tolerated."""
    assert one(CONVERGED, share(2000, 2000), share(1920, 2000)).p_value == 1.0
    assert one(CONVERGED, share(2000, 2000), share(1880, 2000)).state == "regression"


def test_what_a_check_sees_of_a_fraction():
    """Of 6, 1 hit is rare enough beside 6 (7/924), 2 are not (28/924): 83.3 % more that fail. Of 4, nothing is."""
    assert one(CONVERGED, share(6, 6), share(6, 6)).detectable == pytest.approx(500.0 / 6.0)
    assert one(CONVERGED, share(4, 4), share(4, 4)).detectable == math.inf
    orbits = replace(CONVERGED, better="lower")
    assert one(orbits, share(0, 6), share(0, 6)).detectable == pytest.approx(500.0 / 6.0)


@pytest.mark.parametrize("outcome", [Outcome.NOT_CONVERGED, Outcome.EXPLODED])
def test_what_is_left_never_shows_an_improvement(outcome):
    """Those that survive, or converge, are the better ones: they may be worse now, and may have been worse before."""
    metric = replace(DRIFT, better="lower", tolerance=0.0)
    low, high = (Interval(value, value - 0.1, value + 0.1, 8) for value in (1.0, 5.0))

    def rest(interval):
        return scored(metric, interval, outcome=outcome, reason="3 of 8 left")

    assert one(metric, high, rest(low)).state == "pass"
    assert one(metric, low, rest(high)).state == "regression"
    assert one(metric, rest(low), high).state == "pass"
    assert one(metric, rest(high), low).state == "improved"
    row = one(metric, rest(low), rest(high))
    assert (row.state, row.reason[:38]) == ("not comparable", "of both sides only a part is left: " + str(outcome)[:3])
    same = [Interval(value, value, value, 8) for value in (1.0, 5.0)]
    assert one(metric, same[1], rest(same[0])).state == "pass"


def test_a_fraction_is_of_all_starts():
    """Explosions are among those that do not converge: fewer of them now are compared, more are no improvement."""
    before, now = (
        scored(CONVERGED, share(hits, 12), outcome=Outcome.EXPLODED, reason="some exploded") for hits in (11, 0)
    )
    assert one(CONVERGED, before, now).state == "regression"
    assert one(CONVERGED, now, before).state == "pass"


def test_relaxations_that_stop_converging_are_a_regression():
    """All of the few starts of a quick run, among fifty metrics that did not change: their steps have no value now."""
    others = [(replace(DRIFT, key=f"drift_{k}"), Interval(1.0, 0.9, 1.1, 8)) for k in range(50)]
    steps = Metric("steps", "steps", "1", better="lower", tolerance=2.0, least=0.0, exact=True)
    before, none = Interval(80.0, 70.0, 90.0, 6), scored(steps, None, outcome=Outcome.NOT_CONVERGED, reason="6 of 6")
    comparison = compare(
        [cell((CONVERGED, share(6, 6)), (steps, before), *others)],
        [cell((CONVERGED, share(0, 6)), (steps, none), *others, outcome=Outcome.NOT_CONVERGED)],
    )
    assert [row.metric for row in comparison.of("regression")] == ["steps"]
    partly = scored(steps, Interval(40.0, 38.0, 42.0, 3), outcome=Outcome.NOT_CONVERGED, reason="3 of 6")
    comparison = compare(
        [cell((CONVERGED, share(6, 6)), (steps, before))],
        [cell((CONVERGED, share(3, 6)), (steps, partly), outcome=Outcome.NOT_CONVERGED)],
    )
    assert comparison.verdict == "pass"


def test_a_bracket_of_no_length_is_not_exact():
    """The largest stride within a limit is one of the few that were tried: another explosion halves it."""
    metric = Metric("stride", "largest stride", "1", better="higher", relative_tolerance=0.4, least=0.0, bound=True)
    row = one(metric, Interval(16.0, 16.0, math.inf, 4), Interval(8.0, 8.0, 8.0, 4))
    assert (row.state, row.reason[:13]) == ("not comparable", "the value now")
    assert "one of the few that were tried" in row.reason
    assert one(metric, Interval(32.0, 32.0, math.inf, 8), Interval(4.0, 4.0, 8.0, 8)).state == "regression"


def test_what_a_check_sees_is_where_its_regressions_begin():
    metric = replace(DRIFT, better="lower", tolerance=0.1)
    base = Interval(3.0, 2.9, 3.1, 8)
    seen = one(metric, base, base).detectable
    just = [Interval(3.0 + shift, 2.9 + shift, 3.1 + shift, 8) for shift in (0.999 * seen, 1.001 * seen)]
    assert [one(metric, base, head).state for head in just] == ["pass", "regression"]


def test_holm_against_values_on_paper():
    assert holm([]) == []
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.001]) == pytest.approx([0.5, 0.002])
    assert holm([0.9, 0.9]) == [1.0, 1.0]


def test_all_metrics_of_a_check_share_its_rate():
    """Fifty metrics: a change that one alone would show is not one among them."""
    metrics = [replace(DRIFT, key=f"drift_{k}", better="lower", tolerance=0.0) for k in range(50)]
    base, head = (Interval(value, value - 1.0, value + 1.0, 8) for value in (5.0, 6.9))
    assert one(metrics[0], base, head).state == "regression"
    many = compare(
        [cell(*((metric, base) for metric in metrics))],
        [cell((metrics[0], head), *((metric, base) for metric in metrics[1:]))],
    )
    assert many.verdict == "pass"
    alone = one(metrics[0], base, head).p_value
    assert many.rows[1].p_value == pytest.approx(50 * alone)
    assert many.rows[1].detectable > one(metrics[0], base, head).detectable


@pytest.mark.parametrize("better", ["lower", "zero"])
def test_checks_of_nothing_new_raise_the_stated_rate_at_most(better):
    """1000 checks of five metrics, 8 replicas each: 1 % is 10; fewer than 22 in 999 of 1000 such tests."""
    rng = np.random.default_rng(11)
    metrics = [replace(DRIFT, key=f"drift_{k}", better=better, tolerance=0.0) for k in range(5)]
    centre = 0.0 if better == "zero" else 3.0
    raised = 0
    for _ in range(1000):
        base, head = (
            cell(*((metric, mean_interval(centre + rng.normal(size=8))) for metric in metrics)) for _ in range(2)
        )
        raised += compare([base], [head]).verdict == "regression"
    assert raised < 22
    if better == "lower":
        # the rate is used, not only kept
        assert raised > 2


ENDINGS = [
    (Outcome.COMPLETED, Outcome.EXPLODED, "regression"),
    (Outcome.COMPLETED, Outcome.FAILED, "regression"),
    (Outcome.COMPLETED, Outcome.OUT_OF_MEMORY, "regression"),
    (Outcome.COMPLETED, Outcome.UNSUPPORTED, "regression"),
    (Outcome.EXPLODED, Outcome.FAILED, "regression"),
    (Outcome.EXPLODED, Outcome.COMPLETED, "improved"),
    (Outcome.FAILED, Outcome.COMPLETED, "improved"),
    (Outcome.FAILED, Outcome.EXPLODED, "new"),
    (Outcome.FAILED, Outcome.NOT_CONVERGED, "new"),
    (Outcome.COMPLETED, Outcome.NOT_CONVERGED, "pass"),
    (Outcome.EXPLODED, Outcome.EXPLODED, "pass"),
    (Outcome.FAILED, Outcome.FAILED, "not comparable"),
]


@pytest.mark.parametrize(("before", "now", "state"), ENDINGS)
def test_how_a_cell_ended(before, now, state):
    comparison = compare(
        [cell((DRIFT, None), outcome=before)], [cell((DRIFT, None), outcome=now, reason="at 1.2 ps, all")]
    )
    assert comparison.rows[0].state == state
    if state == "regression":
        assert comparison.verdict == "regression"
        assert comparison.rows[0].reason.endswith(f"{str(now).replace('_', ' ')} now: at 1.2 ps, all")


def test_a_metric_that_lost_its_value():
    base = Interval(1.0, 0.9, 1.1, 8)
    exploded = scored(DRIFT, None, outcome=Outcome.EXPLODED, reason="8 of 8 replicas exploded")
    row = one(DRIFT, base, exploded)
    assert (row.state, row.reason) == ("regression", "no value now: 8 of 8 replicas exploded")
    stalled = scored(DRIFT, None, outcome=Outcome.NOT_CONVERGED, reason="none converged")
    row = one(DRIFT, base, stalled)
    assert (row.state, row.reason) == ("regression", "no value now: none converged")
    partly = scored(DRIFT, base, outcome=Outcome.NOT_CONVERGED, reason="3 of 8 did not converge")
    assert one(DRIFT, partly, stalled).state == "not comparable"
    alone = scored(DRIFT, None, outcome=Outcome.UNSUPPORTED, reason="no result of its twin here")
    assert one(replace(DRIFT, twin=True), base, alone).state == "missing"
    assert one(DRIFT, base, alone).state == "regression"
    assert one(DRIFT, exploded, base).state == "new"


@pytest.mark.parametrize(
    ("base", "head", "said"),
    [
        (Interval(1.0, -math.inf, math.inf, 8), Interval(3.0, 2.9, 3.1, 8), "the baseline has no interval"),
        (Interval(1.0, 0.9, 1.1, 8), Interval(3.0, -math.inf, math.inf, 1), "the value now rests on one sample"),
        (Interval(1.0, 0.9, 1.1, 8), Interval(3.0, -math.inf, math.inf, 5), "the value now has no interval"),
        (Interval(1.0, 0.9, 1.1, 1), Interval(3.0, 2.9, 3.1, 8), "the baseline rests on one sample"),
    ],
)
def test_what_has_no_error_is_not_compared(base, head, said):
    comparison = compare([cell((DRIFT, base))], [cell((DRIFT, head))])
    assert comparison.rows[1].state == "not comparable"
    assert said in comparison.rows[1].reason
    assert comparison.verdict == "nothing comparable"


def test_a_bound_is_compared_on_the_side_where_it_is_one():
    """At most 1e-5 before, 0.1 now: worse. At least 0.1 before: nobody knows whether 0.2 is worse."""
    metric = replace(DRIFT, better="lower", tolerance=0.0)
    at_most = Interval(1e-5, -math.inf, 1e-5, 6)
    row = one(metric, at_most, Interval(0.1, 0.09, 0.12, 6))
    assert (row.state, row.high) == ("regression", math.inf)
    # its own lower side is what matters
    assert row.low == pytest.approx(0.1 - 1e-5 - 0.01)
    assert one(metric, Interval(0.1, 0.09, 0.12, 6), at_most).state == "improved"
    at_least = Interval(0.1, 0.1, math.inf, 6)
    row = one(metric, at_least, Interval(0.2, 0.19, 0.21, 6))
    assert (row.state, row.detectable) == ("pass", math.inf)
    assert one(metric, at_least, Interval(0.02, 0.01, 0.03, 6)).state == "improved"


def test_a_metric_that_is_no_better_either_way_takes_no_part():
    metric = replace(DRIFT, better=None)
    comparison = compare([cell((metric, exact(1.0)))], [cell((metric, exact(9.0)))])
    assert [row.metric for row in comparison.rows] == [OUTCOME]
    assert comparison.verdict == "nothing comparable"


def test_times_are_compared_on_one_running_machine_only():
    metric = replace(DRIFT, better="lower", timed=True)

    def states(before, now):
        rows = compare([cell((metric, exact(1.0)), boot=before)], [cell((metric, exact(9.0)), boot=now)]).rows
        return rows[1].state

    assert states("a1", "a1") == "regression"
    assert states("a1", "b2") == "not comparable"
    assert states(None, None) == "not comparable"
    before, now = cell((metric, exact(1.0)), boot="a1"), cell((metric, exact(9.0)), boot="a1")
    now = replace(now, provenance={**now.provenance, "device": "cuda"})
    assert compare([before], [now]).rows[1].state == "not comparable"


def test_a_faster_model_is_no_regression():
    """Ratios of two times say nothing of a model: each is worse where its denominator, or the rest, became faster."""
    cards = {name: find_protocol(name).metrics for name in ("speed", "mts", "relax")}
    ratios = ("engine", "batch_gain", "speedup", "speedup_twin")
    assert all(cards["speed"][key].better is None for key in ratios)
    elsewhere = [metric for name in ("mts", "relax") for metric in cards[name].values() if "speedup" in metric.key]
    assert len(elsewhere) > 3
    assert all(metric.better is None for metric in elsewhere)
    # what is compared depends on the machine, and moves by a tenth and more between two runs on it
    compared = [metric for metric in cards["speed"].values() if metric.better]
    assert all(metric.timed and metric.relative_tolerance >= 0.25 for metric in compared)
    assert {"time_1", "time_8", "memory_8", "ns_per_day"} <= {metric.key for metric in compared}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": 2}, "by version 2 of the protocol, the baseline by version 1"),
        ({"digest": "other"}, "another card of version 1"),
        ({"tier": "standard"}, "in tier standard, the baseline in tier quick"),
    ],
)
def test_answers_to_different_questions_are_refused(changed, said):
    pair = (DRIFT, exact(1.0))
    with pytest.raises(CompareError, match=said):
        compare([cell(pair)], [cell(pair, **changed)])


def test_other_versions_of_a_system_are_refused():
    def on(system):
        known = {} if system is None else {"digests": {"system": system}}
        return replace(cell((DRIFT, exact(1.0))), provenance=known)

    with pytest.raises(CompareError, match=r"measured on si-64 2, the baseline on si-64 1: make a new baseline"):
        compare([on("si-64 1")], [on("si-64 2")])
    # where one side does not say
    for known in ("si-64 2", None):
        assert compare([on(None)], [on(known)]).verdict == "pass"


def test_cells_on_one_side_only():
    pair = (DRIFT, exact(1.0))
    comparison = compare([cell(pair), cell(pair, model="other")], [cell(pair), cell(pair, model="mine")])
    assert [(row.model, row.metric, row.state) for row in comparison.rows] == [
        ("net", OUTCOME, "pass"),
        ("net", "drift", "pass"),
        ("mine", OUTCOME, "new"),
    ]
    elsewhere = replace(cell(pair), system="si-liquid-64")
    unmeasured = replace(cell(pair, outcome=Outcome.UNSUPPORTED), system="si-liquid-64")
    assert compare([cell(pair), elsewhere], [cell(pair)]).of("missing")[0].system == "si-liquid-64"
    assert not compare([cell(pair), unmeasured], [cell(pair)]).of("missing")
    with pytest.raises(CompareError, match=r"the baseline has the cell net / nve / si-64 twice"):
        compare([cell(pair), cell(pair)], [cell(pair)])


def test_known_as():
    pair = (DRIFT, exact(1.0))
    (renamed,) = known_as([cell(pair, model="mine")], "net")
    assert (renamed.model["name"], renamed.scores[0].model) == ("net", "net")
    assert compare([cell(pair)], [renamed]).verdict == "pass"
    with pytest.raises(CompareError, match=r"there are 2: mine, net"):
        known_as([cell(pair), cell(pair, model="mine")], "net")


def test_document_is_json():
    comparison = compare([cell((DRIFT, Interval(1.0, 0.9, 1.1, 8)))], [cell((DRIFT, Interval(3.0, 2.9, 3.1, 8)))])
    document = json.loads(json.dumps(comparison.to_document(), allow_nan=False))
    assert (document["verdict"], document["rate"]) == ("regression", FAMILY_RATE)
    assert document["rows"][1]["head"]["value"] == 3.0
