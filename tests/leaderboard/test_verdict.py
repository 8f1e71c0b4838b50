"""What a model is fit for."""

from dataclasses import replace

import pytest

from conservbench.cards import Metric
from conservbench.leaderboard.coverage import Coverage
from conservbench.leaderboard.verdict import limit_of, verdict
from conservbench.outcome import Outcome


@pytest.fixture
def make(make_cell):
    """A cell of a protocol whose one gate is on the headline metric."""

    def cell(drift=(0.0, 0.1), protocol="nve", **more):
        made = make_cell("net", drift, protocol={"name": protocol}, **more)
        return replace(made, scores=made.scores[:1])

    return cell


def test_all_passed_is_usable(make):
    said = verdict([make(), make(system="liquid")])
    assert (said.level, said.reasons) == ("usable", ())
    assert said.sentence == "net is usable: it passes the gates of one protocol."


def test_most_protocols_failed_is_not_usable_and_each_has_its_gravest_number(make):
    cells = [make((7.0, 0.4)), make((30.0, 0.4), system="liquid"), make((1.0, 0.1), "relax"), make(protocol="audit")]
    said = verdict(cells)
    assert said.level == "not usable"
    assert said.sentence == (
        "net is not usable: it fails 2 of 3 protocols, all but audit: "
        "energy drift 30.0 ± 0.4 meV/atom/ps (limit ±0.26) on liquid; "
        "energy drift 1.00 ± 0.10 meV/atom/ps (limit ±0.26) on si-64."
    )
    assert [reason.split()[3] for reason in said.reasons] == ["30.0", "7.0", "1.00"]


def test_one_of_two_failed_is_usable_with_care(make):
    said = verdict([make((7.0, 0.4)), make(protocol="audit")])
    assert said.level == "usable with care"
    assert said.because == "energy drift 7.0 ± 0.4 meV/atom/ps (limit ±0.26) on si-64"


def test_what_is_not_resolved_asks_for_care(make):
    said = verdict([make((0.2, 0.4)), make((0.2, 0.4), system="liquid")])
    assert said.sentence == ("net is usable with care: not resolved: energy drift on si-64; energy drift on liquid.")


def test_a_gate_that_no_table_shows_asks_for_care(make_cell):
    said = verdict([make_cell(drift=(0.0, 0.1))])
    assert said.level == "usable with care"
    assert said.because == "order in dt 0.00 ± 0.10 (limit above 1.5) on si-64"


def test_an_explosion_fails(make):
    said = verdict([make(None, outcome=Outcome.EXPLODED, reason="8 of 8 replicas")])
    assert said.level == "not usable"
    assert said.sentence == "net is not usable: it fails 1 of 1 protocols: energy drift exploded on si-64."
    assert "exploded: nve on si-64: 8 of 8 replicas" in said.reasons


def test_nothing_measured_is_told_with_the_reason(make):
    said = verdict([make(None, outcome=Outcome.FAILED, reason="it raised")])
    assert said.sentence == "net is not measured: failed: nve on si-64: it raised."
    assert verdict([make(None, outcome=Outcome.UNSUPPORTED)]).level == "not measured"


def test_without_gates_there_is_no_verdict(make):
    cell = make()
    open_ = {key: replace(metric, below=None, above=None) for key, metric in cell.metrics.items()}
    said = verdict([replace(cell, metrics=open_, scores=tuple(replace(score, gate=None) for score in cell.scores))])
    assert (said.level, said.sentence) == (
        "no verdict",
        "net has no verdict: no table that it is in has a gate.",
    )


def test_a_cell_that_failed_fails_its_protocol(make):
    failed = make(None, outcome=Outcome.FAILED, reason="it raised", system="liquid")
    said = verdict([make(), failed, make(protocol="audit"), make(protocol="relax")])
    assert said.level == "usable with care"
    assert said.because == "energy drift failed on liquid: it raised; failed: nve on liquid: it raised"
    said = verdict([make(), failed])
    assert said.sentence == ("net is not usable: it fails 1 of 1 protocols: energy drift failed on liquid: it raised.")


@pytest.mark.parametrize(
    ("outcome", "how"),
    [
        (Outcome.FAILED, "failed"),
        (Outcome.OUT_OF_MEMORY, "out of memory"),
        (Outcome.NOT_CONVERGED, "not converged"),
        (Outcome.COMPLETED, "without a value"),
    ],
)
def test_a_gate_without_a_value_in_a_completed_cell_is_failed(make, outcome, how):
    def silent(protocol):
        made = make(None, protocol)
        return replace(made, scores=tuple(replace(score, outcome=outcome) for score in made.scores))

    said = verdict([silent("nve"), silent("audit"), make(protocol="relax")])
    assert said.level == "not usable"
    assert said.because.startswith(f"it fails 2 of 3 protocols, all but relax: energy drift {how} on si-64")
    assert said.reasons == (f"no value: energy drift {how} on si-64",) * 2


def test_a_number_says_more_than_that_there_is_none(make):
    silent = make(None, system="liquid")
    said = verdict([silent, make((7.0, 0.4))])
    assert "energy drift 7.0 ± 0.4" in said.because
    assert "without" not in said.because


def test_a_metric_that_has_no_meaning_here_is_not_held_against_the_model(make):
    idle = replace(make(), scores=tuple(replace(score, value=None, low=None, high=None, n=0, gate=None,
                   outcome=Outcome.UNSUPPORTED) for score in make().scores))  # fmt: skip
    assert verdict([make(), replace(idle, system="liquid")]).level == "usable"


def test_a_protocol_none_of_whose_gates_has_a_value_caps_the_verdict(make):
    def idle(**protocol):
        made = make()
        scores = [replace(score, value=None, low=None, high=None, n=0, gate=None, outcome=Outcome.UNSUPPORTED)
                  for score in made.scores]  # fmt: skip
        return replace(made, scores=tuple(scores), protocol={**made.protocol, **protocol})

    said = verdict([make(), idle(name="audit"), idle(name="relax")])
    assert said.sentence == "net is usable with care: no gate of audit has a value; no gate of relax has a value."
    assert verdict([make(), idle(name="audit", by_default=False)]).level == "usable"


def test_what_is_missing_or_not_supported_caps_the_verdict(make):
    cells = [make(), make(protocol="audit")]
    assert verdict(cells, Coverage("net", 2, 2, ())).level == "usable"
    said = verdict(cells, Coverage("net", 2, 4, ("nve on liquid", "relax on vacancy")))
    assert said.sentence == "net is usable with care: not measured: nve on liquid, relax on vacancy."
    said = verdict(cells, Coverage("net", 2, 2, (), ("relax on vacancy",)))
    assert said.sentence == "net is usable with care: not supported: relax on vacancy."
    # and lifts none
    said = verdict([make((7.0, 0.4))], Coverage("net", 1, 2, ("nve on liquid",)))
    assert said.level == "not usable"
    assert said.because.endswith("; not measured: nve on liquid")


def test_one_model_at_a_time(make_cell):
    with pytest.raises(ValueError, match="cells of 2"):
        verdict([make_cell("a"), make_cell("b")])
    with pytest.raises(ValueError, match="cells of 0"):
        verdict([])


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({}, ""),
        ({"below": 1e-6}, "below 1e-06"),
        ({"above": 50}, "above 50"),
        ({"above": -0.26, "below": 0.26}, "±0.26"),
        ({"above": 1.0, "below": 3.0}, "1 to 3"),
    ],
)
def test_limits_in_few_signs(limits, text):
    assert limit_of(Metric("x", "x", "1", **limits)) == text
