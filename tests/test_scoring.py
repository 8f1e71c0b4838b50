"""Scores of result trees, with judges of a made-up protocol whose findings are the file's own."""

import json
import math
import sys

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from conservbench.cards import Metric, find_protocol
from conservbench.cli.score import score as score_command
from conservbench.leaderboard.entry import EntryError, write_entries
from conservbench.outcome import Outcome
from conservbench.plot import Axis, Plot, line
from conservbench.result import open_results, result_path, write_result
from conservbench.scored import KEYS, Score, gate_of
from conservbench.scoring import ScoreError, read_cells, score, with_plots
from conservbench.statistics import Interval

JUDGE = """
import json
from conservbench.outcome import Outcome
from conservbench.protocols.base import Finding
from conservbench.statistics import Interval

def judge(data):
    if data.attrs["findings"] == "raise":
        raise KeyError("no variable 'x'")
    return [
        Finding(metric, unit, interval and Interval(*interval), Outcome(outcome), reason)
        for metric, unit, interval, outcome, reason in json.loads(data.attrs["findings"])
    ]

def compare(data, twin):
    value = float(len(data.attrs["model"]) - len(twin.attrs["model"]))
    return [Finding("shift", "K", Interval(value, value, value, 1))]

def after(data, parent):
    value = float(len(data.attrs["model"]) - len(parent.attrs["model"]))
    return [Finding("change", "K", Interval(value, value, value, 1))]

def against(data, control):
    value = float(len(data.attrs["model"]) - len(control.attrs["model"]))
    return [Finding("gain", "K", Interval(value, value, value, 1))]

def below(data, top):
    value = float(len(data.attrs["model"]) - len(top.attrs["model"]))
    return [Finding("beneath", "K", Interval(value, value, value, 1))]
"""

PLOTS = """
from conservbench.plot import Axis, Plot, line

def plots(data):
    if data.attrs["model"] == "artless":
        raise KeyError("no variable 'x'")
    return [Plot("energy", data.attrs["model"], Axis("t", "ps"), Axis("E", "eV"), (line("", [0, 1], data.energy),))]
"""

METRICS = {
    "drift": {"label": "energy drift", "unit": "meV/atom/ps", "headline": True, "below": 1.0, "above": -1.0},
    "order": {"label": "order", "unit": "1"},
}
TOPPED = {**METRICS, "beneath": {"label": "beneath", "unit": "K", "headline": True, "top": True}}
COMPARED = {**METRICS, "shift": {"label": "shift", "unit": "K", "headline": True, "twin": True}}


@pytest.fixture(autouse=True)
def protocol_plugin(tmp_path, monkeypatch):
    """An installed distribution that brings the protocol ``echo``."""
    site = tmp_path / "site"
    (site / "echo_protocol").mkdir(parents=True)
    (site / "echo_protocol" / "__init__.py").touch()
    (site / "echo_protocol" / "judge.py").write_text(JUDGE)
    (site / "echo_protocol" / "plots.py").write_text(PLOTS)
    info = site / "echo_protocol-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: echo-protocol\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[conservbench.protocols]\necho = echo_protocol\n")
    monkeypatch.syspath_prepend(site)
    yield
    for name in [name for name in sys.modules if name.startswith("echo_protocol")]:
        del sys.modules[name]


def cell(
    model="net",
    findings=(),
    *,
    outcome="completed",
    reason="",
    role="model",
    system="si-64",
    plugin="echo",
    metrics=METRICS,
    version=1,
    **card,
):
    attrs = {
        "outcome": outcome,
        "outcome_reason": reason,
        "model": model,
        "protocol": "nve",
        "system": system,
        "tier": "quick",
        "model_card": json.dumps(
            {"name": model, "version": 1, "title": model, "scheme": "direct", "role": role, **card}
        ),
        "protocol_card": json.dumps({"name": "nve", "version": version, "plugin": plugin, "metrics": metrics}),
        "provenance": "{}",
        "findings": findings if isinstance(findings, str) else json.dumps(findings),
    }
    measured = bool(findings)
    return xr.Dataset({"energy": ("time", np.zeros(2), {"units": "eV"})} if measured else {}, attrs=attrs)


def tree(*cells):
    return xr.DataTree.from_dict({f"/nve/{each.attrs['system']}/{each.attrs['model']}": each for each in cells})


GATED = {**METRICS, "order": {**METRICS["order"], "above": 1.5}}
DRIFT = ["drift", "meV/atom/ps", [0.5, 0.2, 0.8, 8], "completed", ""]
ORDER = ["order", "1", [2.0, 1.0, 3.0, 4], "completed", ""]


def test_a_finding_becomes_a_score():
    (one,) = score(tree(cell(findings=[DRIFT])))
    assert one == Score("net", "nve", "si-64", "drift", 0.5, 0.2, 0.8, "meV/atom/ps", 8, Outcome.COMPLETED, "pass", "")


def test_json_has_exactly_the_keys_and_no_infinity():
    bound = ["order", "1", [0.0, -math.inf, math.inf, 1], "completed", ""]
    table = score(tree(cell(findings=[DRIFT, bound], metrics=GATED)))
    rows = json.loads(table.to_json())
    assert [list(row) for row in rows] == [list(KEYS)] * 2
    assert KEYS == ("model", "protocol", "system", "metric", "value", "low", "high", "unit", "n", "outcome", "gate")
    assert (rows[1]["value"], rows[1]["low"], rows[1]["high"], rows[1]["gate"]) == (0.0, None, None, "unclear")
    assert (rows[0]["outcome"], rows[0]["unit"]) == ("completed", "meV/atom/ps")
    assert rows == table.to_rows()


@pytest.mark.parametrize("outcome", ["unsupported", "failed", "out_of_memory", "not_converged"])
def test_a_cell_that_was_not_measured_is_a_row(outcome):
    (one,) = score(tree(cell(outcome=outcome, reason="why")))
    assert (one.metric, one.value, one.low, one.high, one.n, one.unit) == ("drift", None, None, None, 0, "meV/atom/ps")
    assert (one.outcome, one.gate, one.reason) == (outcome, None, "why")


def test_a_headline_metric_without_finding_is_a_row():
    scores = score(tree(cell(findings=[ORDER])))
    assert [(each.metric, each.value) for each in scores] == [("order", 2.0), ("drift", None)]
    assert (scores[1].outcome, scores[1].reason[:26]) == (Outcome.UNSUPPORTED, "its judge gives no such me")


def test_a_gate_that_was_not_asked_about_is_a_row():
    scores = score(tree(cell(findings=[DRIFT], metrics=GATED)))
    assert [(each.metric, each.value, each.gate) for each in scores] == [("drift", 0.5, "pass"), ("order", None, None)]
    assert scores[1].outcome is Outcome.UNSUPPORTED
    # a cell that was not measured at all has its headlines alone
    (one,) = score(tree(cell(outcome="failed", metrics=GATED)))
    assert one.metric == "drift"


def test_what_a_judge_raises_is_an_outcome_of_its_cell_alone():
    scores = score(tree(cell("bad", "raise"), cell("good", [DRIFT])))
    assert [(each.model, each.outcome, each.value) for each in scores] == [
        ("bad", "failed", None),
        ("good", "completed", 0.5),
    ]
    assert scores[0].reason.startswith("cannot be judged: KeyError")


def test_a_unit_other_than_the_cards_is_refused():
    (one,) = score(tree(cell(findings=[["drift", "eV/atom/ps", [0.0, 0.0, 0.0, 2], "completed", ""]])))
    assert one.outcome is Outcome.FAILED
    assert one.reason.endswith("metric drift is judged in 'eV/atom/ps', its card says 'meV/atom/ps'")


def test_a_protocol_that_is_not_installed_is_named():
    (one,) = score(tree(cell(findings=[DRIFT], plugin="ecco")))
    assert one.outcome is Outcome.FAILED
    assert "no plugin 'ecco'" in one.reason
    assert "did you mean 'echo'" in one.reason


def test_a_value_that_is_no_number_is_no_value():
    (one,) = score(tree(cell(findings=[["drift", "meV/atom/ps", [math.nan, 0.0, 1.0, 2], "failed", "not finite"]])))
    assert (one.value, one.low, one.n, one.gate) == (None, None, 0, None)


def test_a_foreign_tree_is_an_error():
    with pytest.raises(ScoreError, match=r"/a/b/c: attribute 'model_card' is missing"):
        score(xr.DataTree.from_dict({"/a/b/c": xr.Dataset(attrs={"outcome": "completed"})}))


def test_models_come_before_controls():
    cells = cell("a", [DRIFT], role="control"), cell("b", [DRIFT]), cell("c", [DRIFT], system="alpha")
    assert [each.model for each in score(tree(*cells))] == ["c", "b", "a"]


def test_scoring_leaves_the_tree_alone():
    results = tree(cell(findings=[DRIFT]))
    before = results.copy(deep=True)
    score(results)
    assert results.identical(before)


def twins(**changes):
    """A direct row and its gradient twin, and what a change of the twin makes of the comparison."""
    here = cell("direct", [DRIFT], metrics=COMPARED, twin="gradient")
    there = {"findings": [DRIFT], "metrics": COMPARED, "twin": "direct", "scheme": "gradient", **changes}
    results = tree(here, cell("gradient", **there))
    return {(each.model, each.metric): each for each in score(results)}


def test_a_row_is_compared_with_its_twin():
    scores = twins()
    assert (scores["direct", "shift"].value, scores["direct", "shift"].outcome) == (-2.0, "completed")
    reference = scores["gradient", "shift"]
    assert (reference.value, reference.outcome) == (None, "unsupported")
    assert reference.reason == "gradient forces are what others are compared with"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"system": "alpha"}, "no result of its twin gradient here"),
        ({"scheme": "mts"}, "its twin gradient has no gradient forces either"),
        ({"findings": [], "outcome": "out_of_memory"}, "its twin gradient was not measured: out of memory"),
        ({"version": 2}, "its twin gradient was measured by another card, or in another tier"),
    ],
)
def test_why_a_row_is_not_compared(changes, said):
    shift = twins(**changes)["direct", "shift"]
    assert (shift.value, shift.outcome, shift.gate, shift.reason) == (None, "unsupported", None, said)


def described(model, tier="quick", digest="d1", structure="s1", **card):
    """A cell whose file says all of how it was measured."""
    made = cell(model, [DRIFT], metrics=COMPARED, **card)
    protocol = {**json.loads(made.attrs["protocol_card"]), "digest": digest}
    identity = json.dumps({"system": structure})
    return made.assign_attrs(tier=tier, protocol_card=json.dumps(protocol), identity=identity)


@pytest.mark.parametrize(
    ("changes", "value"),
    [({}, -2.0), ({"tier": "standard"}, None), ({"digest": "d2"}, None), ({"structure": "s2"}, None)],
)
def test_only_what_was_measured_alike_is_compared(changes, value):
    results = tree(described("direct", twin="gradient"), described("gradient", scheme="gradient", **changes))
    (shift,) = [each for each in score(results) if (each.model, each.metric) == ("direct", "shift")]
    assert shift.value == value
    if value is None:
        assert shift.reason == "its twin gradient was measured by another card, or in another tier"


def test_a_row_without_twin_says_so_once():
    results = tree(cell("alone", [DRIFT], metrics=COMPARED))
    assert [each.metric for each in score(results)] == ["drift", "shift"]
    notes = [line.strip() for line in str(score(results)).splitlines() if "si-64, alone" in line]
    assert notes == ["si-64, alone: shift: unsupported: the model has no twin with gradient forces to be compared with"]


KIN = {
    **METRICS,
    "change": {"label": "change", "unit": "K", "headline": True, "parent": True},
    "gain": {"label": "gain", "unit": "K", "headline": True, "control": True},
}


def tuned(name, parent="net", **tuning):
    words = {"findings": [DRIFT], "metrics": KIN, "parent": parent, "tuning": {"target": "rdf", **tuning}}
    return cell(name, **words)


def kin(**changes):
    """A parent, a control and another tuned row, and what a change of the parent makes of the comparisons."""
    there = {"findings": [DRIFT], "metrics": KIN, **changes}
    results = tree(cell("net", **there), tuned("net-rdf", control="net-force"), tuned("net-force"))
    return score(results)


def test_a_tuned_row_is_compared_with_its_parent_and_its_control():
    scores = {(each.model, each.metric): each for each in kin()}
    assert (scores["net-rdf", "change"].value, scores["net-rdf", "change"].outcome) == (4.0, "completed")
    assert scores["net-force", "change"].value == 6.0
    assert scores["net-rdf", "gain"].value == -2.0


def test_what_has_no_parent_or_control_has_a_dash_and_no_note():
    scores = {(each.model, each.metric): each for each in kin()}
    for key in [("net", "change"), ("net", "gain"), ("net-force", "gain")]:
        assert (scores[key].value, scores[key].outcome, scores[key].reason) == (None, "unsupported", "")
    said = str(kin())
    assert not [line for line in said.splitlines() if "si-64, " in line]
    (row,) = [line for line in said.splitlines() if line.split()[:1] == ["net"]]
    assert row.split()[-3:-1] == ["–", "–"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"system": "alpha"}, "no result of its parent net here"),
        ({"scheme": "gradient"}, "its parent net has forces by another scheme"),
        ({"scheme": "direct", "stride": 4}, "its parent net has forces by another scheme"),
        ({"findings": [], "outcome": "out_of_memory"}, "its parent net was not measured: out of memory"),
        ({"version": 2}, "its parent net was measured by another card, or in another tier"),
    ],
)
def test_why_a_tuned_row_is_not_compared(changes, said):
    change = {(each.model, each.metric): each for each in kin(**changes)}["net-rdf", "change"]
    assert (change.value, change.outcome, change.gate, change.reason) == (None, "unsupported", None, said)


def test_a_parent_named_by_the_path_of_its_card_is_a_row():
    results = tree(cell("net", findings=[DRIFT], metrics=KIN), tuned("net-rdf", "cards/net.toml"))
    assert {each.metric: each.value for each in score(results) if each.model == "net-rdf"}["change"] == 4.0


def test_rows_of_a_protocol_about_tuning_are_in_families():
    rows = [
        tuned("a-rdf", "c-direct", control="b-force"),
        tuned("b-force", "c-direct"),
        cell("c-direct", [DRIFT]),
        tuned("d-elastic", "c-direct", control="b-force"),
        # one whose answer is known stays with what was tuned from it
        cell("z-gradient", [DRIFT], scheme="gradient", role="control"),
        cell("y-gradient", [DRIFT], scheme="gradient", parent="z-gradient", tuning={"target": "rdf"}),
    ]
    rows[3].attrs["model_card"] = rows[3].attrs["model_card"].replace('"rdf"', '"elastic"')
    plain = [each.model["name"] for each in score(tree(*rows)).cells]
    assert plain == ["a-rdf", "b-force", "c-direct", "d-elastic", "y-gradient", "z-gradient"]
    for each in rows:
        each.attrs["protocol_card"] = each.attrs["protocol_card"].replace("{", '{"tuned": true, ', 1)
    ordered = [each.model["name"] for each in score(tree(*rows)).cells]
    assert ordered == ["z-gradient", "y-gradient", "c-direct", "b-force", "d-elastic", "a-rdf"]


BOTH = Metric("m", "m", "1", below=1.0, above=-1.0)
BELOW = Metric("m", "m", "1", below=1.0)
ABOVE = Metric("m", "m", "1", above=5.0)


@pytest.mark.parametrize(
    ("metric", "interval", "outcome", "gate"),
    [
        (BOTH, (0.0, -0.9, 0.9), "completed", "pass"),
        (BOTH, (0.8, 0.4, 1.2), "completed", "unclear"),
        (BOTH, (-0.8, -1.2, -0.4), "completed", "unclear"),
        (BOTH, (0.0, -2.0, 2.0), "completed", "unclear"),
        (BOTH, (2.0, 1.5, 2.5), "completed", "fail"),
        (BOTH, (-2.0, -2.5, -1.5), "completed", "fail"),
        # a limit itself is outside: the value must be below it
        (BOTH, (0.5, 0.0, 1.0), "completed", "unclear"),
        (BOTH, (1.5, 1.0, 2.0), "completed", "fail"),
        (BOTH, (0.0, -math.inf, math.inf), "completed", "unclear"),
        (BELOW, (0.0, -math.inf, 0.5), "completed", "pass"),
        (BELOW, (0.0, -math.inf, math.inf), "completed", "unclear"),
        # a lower bound of the time to an explosion
        (ABOVE, (10.0, 10.0, math.inf), "completed", "pass"),
        (ABOVE, (3.0, 3.0, math.inf), "completed", "unclear"),
        (ABOVE, (3.0, 2.0, 4.0), "exploded", "fail"),
        # survivors cannot pass, but they can fail
        (BOTH, (0.0, -0.5, 0.5), "exploded", "unclear"),
        (BOTH, (2.0, 1.5, 2.5), "exploded", "fail"),
        (BOTH, None, "exploded", "fail"),
        (BOTH, None, "unsupported", None),
        (BOTH, None, "failed", None),
        (Metric("m", "m", "1"), (0.0, -1.0, 1.0), "completed", None),
        (Metric("m", "m", "1"), None, "exploded", None),
        (None, (0.0, -1.0, 1.0), "completed", None),
    ],
)
def test_gates(metric, interval, outcome, gate):
    assert gate_of(metric, interval and Interval(*interval, 8), Outcome(outcome)) == gate


@pytest.fixture
def scored(tmp_path):
    """Run ``conservbench score`` on result files of cells."""

    def run(*cells, words=()):
        for each in cells:
            write_result(each, result_path(tmp_path / "out", "nve", each.attrs["system"], each.attrs["model"]))
        return CliRunner().invoke(score_command, [str(tmp_path / "out"), *words], catch_exceptions=False)

    return run


FAILING = ["drift", "meV/atom/ps", [7.0, 6.6, 7.4, 8], "completed", ""]


@pytest.mark.parametrize(
    ("cells", "words", "code"),
    [
        ([cell(findings=[DRIFT])], [], 0),
        ([cell(findings=[FAILING])], [], 0),
        ([cell(findings=[DRIFT])], ["--gates"], 0),
        ([cell(findings=[FAILING])], ["--gates"], 1),
        ([cell(findings=[FAILING]), cell("b", outcome="failed")], ["--gates"], 1),
        # a control is there to fail
        ([cell(findings=[FAILING], role="control")], ["--gates"], 0),
        ([cell(findings=[["drift", "meV/atom/ps", None, "exploded", "all"]], outcome="exploded")], ["--gates"], 1),
        ([cell(findings=[DRIFT]), cell("b", outcome="failed")], [], 3),
        ([cell(findings=[DRIFT]), cell("b", outcome="out_of_memory")], ["--gates"], 3),
        ([cell(findings=[DRIFT]), cell("b", outcome="unsupported")], [], 0),
        ([cell(findings=[DRIFT]), cell("b", "raise")], [], 3),
        ([cell(outcome="failed")], ["--gates"], 4),
        ([cell(outcome="unsupported")], [], 4),
    ],
)
def test_exit_codes(scored, cells, words, code):
    assert scored(*cells, words=words).exit_code == code


def test_a_folder_without_results_is_wrong_usage(tmp_path):
    with pytest.raises(ValueError, match="is not a results folder"):
        CliRunner().invoke(score_command, [str(tmp_path)], catch_exceptions=False)


def test_the_table_and_the_json_are_printed(scored):
    assert "0.5 ± 0.3 ✓" in scored(cell(findings=[DRIFT])).stdout
    assert json.loads(scored(words=["--json"]).stdout)[0]["gate"] == "pass"


def test_failed_gates_are_named(scored):
    assert scored(cell(findings=[FAILING]), words=["--gates"]).stderr == "gate failed: net / nve / si-64 / drift\n"


def picture(model):
    return Plot("energy", model, Axis("t", "ps"), Axis("E", "eV"), (line("", [0, 1], [0, 0]),))


def test_cells_get_their_own_pictures():
    results = tree(cell("b", [DRIFT]), cell("a", [DRIFT]), cell("a", [DRIFT], system="si-liquid-64"))
    table = score(results)
    drawn = with_plots(table, results)
    assert [each.plots for each in drawn.cells] == [(picture(each.model["name"]),) for each in table.cells]
    assert list(drawn) == list(table)
    assert all(each.plots == () for each in table.cells)


def test_a_cell_without_data_has_no_picture():
    results = tree(cell(outcome="failed"))
    assert with_plots(score(results), results).cells[0].plots == ()


def test_a_picture_that_cannot_be_drawn_is_a_warning_and_spoils_no_other():
    results = tree(cell("artless", [DRIFT]), cell("b", [DRIFT]))
    with pytest.warns(UserWarning, match="no plots of nve / si-64 / artless: \"no variable 'x'\""):
        drawn = with_plots(score(results), results)
    assert [len(each.plots) for each in drawn.cells] == [0, 1]
    assert [each.value for each in drawn] == [0.5, 0.5]


def test_a_protocol_without_a_module_of_pictures_has_none(tmp_path):
    (tmp_path / "site" / "echo_protocol" / "plots.py").unlink()
    results = tree(cell(findings=[DRIFT]))
    assert with_plots(score(results), results).cells[0].plots == ()


INSTALLED = json.loads(find_protocol("nve").to_json())


@pytest.fixture
def folder(tmp_path):
    """Results of two models by the installed card of ``nve``, as far as their judge of this test finds any."""
    card = {**INSTALLED, "plugin": "echo"}
    for name in ("a", "b"):
        each = cell(name, [DRIFT]).assign_attrs(protocol_card=json.dumps(card))
        each.attrs["model_card"] = json.dumps({**json.loads(each.attrs["model_card"]), "digest": "d"})
        write_result(each, result_path(tmp_path / "out", "nve", "si-64", name))
    return tmp_path / "out"


def test_results_and_the_entries_made_of_them_are_read_by_one_function(folder, tmp_path):
    cells = read_cells(folder)
    assert [each.model["name"] for each in cells] == ["a", "b"]
    assert [each.plots for each in cells] == [(picture("a"),), (picture("b"),)]
    paths = write_entries(cells, tmp_path / "board" / "entries")
    assert read_cells(paths[1]) == cells[1:]
    # a folder of entries, and the folder above it
    assert read_cells(tmp_path / "board" / "entries") == cells
    assert read_cells(tmp_path / "board") == cells
    (tmp_path / "board" / "notes.json").write_text("{")
    assert read_cells(tmp_path / "board") == cells


def test_scores_do_not_depend_on_what_they_are_read_from(folder, tmp_path):
    write_entries(read_cells(folder), tmp_path / "entries")
    assert [each.scores for each in read_cells(tmp_path)] == [each.scores for each in score(open_results(folder)).cells]


def test_what_is_neither_results_nor_entries_is_named(tmp_path):
    with pytest.raises(ValueError, match="no results folder"):
        read_cells(tmp_path / "none")
    with pytest.raises(EntryError, match="no entries in"):
        read_cells(tmp_path)
    (tmp_path / "a.txt").write_text("no entry")
    with pytest.raises(EntryError, match=r"a.txt: not a JSON file"):
        read_cells(tmp_path / "a.txt")


def test_a_row_is_compared_with_the_top_of_its_ladder():
    rungs = [cell(name, [DRIFT], metrics=TOPPED).assign_attrs(top="highest") for name in ("low", "highest")]
    scores = {each.model: each for each in score(tree(*rungs)) if each.metric == "beneath"}
    assert (scores["low"].value, scores["low"].outcome) == (-4.0, "completed")
    assert (scores["highest"].value, scores["highest"].reason) == (
        None,
        "the model is the top that others are compared with",
    )
    (alone,) = [each for each in score(tree(rungs[0])) if each.metric == "beneath"]
    assert (alone.value, alone.reason) == (None, "no result of its top highest here")
    (none,) = [each for each in score(tree(cell("low", [DRIFT], metrics=TOPPED))) if each.metric == "beneath"]
    assert (none.value, none.reason) == (None, "no model is the top here")
