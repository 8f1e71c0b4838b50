"""``conservbench check`` and ``conservbench baseline``: verdicts, exit codes and what tools read."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from conservbench.cards import Metric, find_protocol
from conservbench.cli import main
from conservbench.cli.check_report import headline, junit, summary, workflow_commands
from conservbench.compare import Comparison, Row
from conservbench.leaderboard.entry import write_entry
from conservbench.outcome import Outcome
from conservbench.plot import Axis, Plot, line
from conservbench.scored import Score, ScoredCell
from conservbench.statistics import Interval


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def nve_cell(drift, *, model="net", outcome=Outcome.COMPLETED, tier="quick", half=0.1):
    card = find_protocol("nve")
    metric = card.metrics["drift"]
    interval = None if drift is None else Interval(drift, drift - half, drift + half, 8)
    ends = (None, None, None, 0) if interval is None else (interval.value, interval.low, interval.high, 8)
    score = Score(model, "nve", "si-64", "drift", *ends[:3], metric.unit, ends[3], outcome, None)
    return ScoredCell(
        model={"name": model, "version": 1, "title": "A network", "scheme": "direct", "digest": "d"},
        protocol=json.loads(card.to_json()),
        system="si-64",
        tier=tier,
        outcome=outcome,
        reason="" if outcome is Outcome.COMPLETED else "all replicas left",
        provenance={"conservbench": "0.1.0"},
        metrics=card.metrics,
        scores=(score,),
        plots=(Plot("drift", "Drift", Axis("t", "ps"), Axis("E", "meV"), (line("net", [0, 1], [0, 1]),)),),
    )


def check(base, head, *words):
    write_entry(base, Path("base.json"))
    write_entry(head, Path("head.json"))
    return CliRunner().invoke(main, ["check", "head.json", "--against", "base.json", *words])


@pytest.mark.parametrize(
    ("before", "now", "code", "said"),
    [
        (1.0, 1.0, 0, "No regression: 1 metric compared"),
        (1.0, 9.0, 1, "Regression: 1 metric compared, 1 regression"),
        (1.0, -9.0, 1, "Regression"),
        (9.0, 1.0, 0, "No regression, and something improved: 1 metric compared, 1 improved"),
        (None, None, 4, "Nothing comparable: 0 metrics compared"),
    ],
)
def test_verdict_and_exit_code(before, now, code, said):
    told = check([nve_cell(before)], [nve_cell(now)])
    assert told.exit_code == code, told.stderr
    assert told.stdout.startswith(said)


def test_an_explosion_is_a_regression_without_numbers():
    told = check([nve_cell(1.0)], [nve_cell(None, outcome=Outcome.EXPLODED)])
    assert told.exit_code == 1
    words = " ".join(told.stdout.split())
    assert "net / nve / si-64 / outcome: completed before, exploded now: all replicas left" in words


def test_other_models_are_nothing_comparable_unless_there_is_one_on_each_side():
    assert check([nve_cell(1.0)], [nve_cell(9.0, model="mine")]).exit_code == 1
    several = [nve_cell(1.0), nve_cell(1.0, model="net-2")]
    told = check(several, [nve_cell(9.0, model="mine")])
    assert (told.exit_code, told.stderr) == (4, "the baseline has net, net-2; measured was mine: see --as\n")
    assert check(several, [nve_cell(9.0, model="mine")], "--as", "net-2").exit_code == 1
    told = check(several, [nve_cell(9.0, model="mine")], "--as", "net-3")
    assert told.exit_code == 2
    assert "--as: no model 'net-3' in the baseline; did you mean 'net-2'?" in told.stderr
    both = [nve_cell(9.0, model="mine"), nve_cell(9.0)]
    assert "only one model can be taken for 'net-2'; there are 2" in check(several, both, "--as", "net-2").stderr


def test_other_versions_and_tiers_are_refused():
    told = check([nve_cell(1.0)], [nve_cell(1.0, tier="standard")])
    assert told.exit_code == 2
    assert "measured in tier standard, the baseline in tier quick" in told.stderr
    write_entry([nve_cell(1.0)], Path("head.json"))
    old = json.loads(Path("head.json").read_text())
    old["protocols"]["nve"]["version"] = 99
    Path("old.json").write_text(json.dumps(old))
    told = CliRunner().invoke(main, ["check", "head.json", "--against", "old.json"])
    assert told.exit_code == 2
    assert "measured by version 99 of protocol nve" in told.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "gone", "--against", "gone.json"], "no results folder gone"),
        (["check", ".", "--against", "gone.json"], "not a results folder"),
        (["check", "head.json", "--against", "gone.json"], "no entry gone.json"),
        (["check", "head.json"], "Missing option '--against'"),
        (["check", "head.json", "--against", "head.json", "--json", "--github"], "--json and --github both print"),
        (["baseline", "head.json", "-m", "nett"], "no model 'nett' in head.json; did you mean 'net'?"),
    ],
)
def test_wrong_usage_is_told_in_a_line(words, said):
    if words[1] == "head.json":
        write_entry([nve_cell(1.0)], Path("head.json"))
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 2
    assert said in told.stderr
    assert len(told.stderr.splitlines()) == 1


def test_json_has_every_row():
    told = check([nve_cell(1.0)], [nve_cell(9.0)], "--json")
    document = json.loads(told.stdout)
    assert (told.exit_code, document["verdict"], document["rate"]) == (1, "regression", 0.01)
    row = next(row for row in document["rows"] if row["metric"] == "drift")
    assert (row["state"], row["change"], row["base"]["value"], row["head"]["value"]) == ("regression", 8.0, 1.0, 9.0)


def test_baseline_of_a_folder_holds_a_model_once():
    for version, model in ((1, "net"), (2, "net")):
        one = nve_cell(1.0, model=model)
        Path("entries").mkdir(exist_ok=True)
        path = Path("entries") / f"{version}.json"
        write_entry([replace(one, system=f"s{version}", model={**one.model, "version": version})], path)
    told = CliRunner().invoke(main, ["baseline", "entries", "--out", "kept.json"])
    assert told.exit_code == 2
    assert "1.json: expected the entry of one model, in a file of its name: net.json" in told.stderr
    assert not Path("kept.json").exists()


def test_baseline_keeps_scores_without_pictures():
    write_entry([nve_cell(1.0), nve_cell(2.0, model="other")], Path("all.json"))
    told = CliRunner().invoke(main, ["baseline", "all.json", "--out", "kept/baseline.json", "-m", "net", "--json"])
    assert told.exit_code == 0, told.stderr
    assert json.loads(told.stdout) == {"path": "kept/baseline.json", "models": ["net"], "cells": 1, "scores": 1}
    document = json.loads(Path("kept/baseline.json").read_text())
    assert [cell["plots"] for cell in document["cells"]] == [[]]
    same = CliRunner().invoke(main, ["check", "all.json", "--against", "kept/baseline.json"])
    assert same.exit_code == 0


def test_a_baseline_of_nothing_is_refused():
    write_entry([nve_cell(None, outcome=Outcome.FAILED)], Path("failed.json"))
    told = CliRunner().invoke(main, ["baseline", "failed.json"])
    assert (told.exit_code, Path("baseline.json").exists()) == (4, False)
    assert "no score has a value" in told.stderr


def test_a_baseline_without_cells_is_refused():
    write_entry([nve_cell(1.0)], Path("head.json"))
    document = json.loads(Path("head.json").read_text())
    Path("empty.json").write_text(json.dumps({**document, "protocols": {}, "models": {}, "cells": []}))
    told = CliRunner().invoke(main, ["check", "head.json", "--against", "empty.json"])
    assert told.exit_code == 2
    assert "empty.json has no cells: there is nothing to compare with" in told.stderr
    assert len(told.stderr.splitlines()) == 1


def test_from_measurement_to_check(monkeypatch):
    """A toy is measured, kept as a baseline, and measured again with other random numbers."""
    monkeypatch.setattr("conservbench.process.configure", lambda: None)

    def invoke(*words):
        told = CliRunner().invoke(main, list(words))
        assert told.exit_code == 0, told.stderr
        return told.stdout

    for seed in ("1", "2"):
        invoke("run", "-m", "harmonic", "-p", "nve", "--tier", "smoke", "--jobs", "1", "--seed", seed, "--out", seed)
    invoke("baseline", "1")
    document = json.loads(invoke("check", "2", "--against", "baseline.json", "--json"))
    drift = next(row for row in document["rows"] if row["metric"] == "drift")
    assert drift["state"] == "pass"
    assert drift["base"]["value"] != drift["head"]["value"]
    assert invoke("check", "2", "--against", "1").startswith("No regression")
    # a baseline that lies among results is not taken for them
    invoke("baseline", "1", "--out", "2/baseline.json")
    document = json.loads(invoke("check", "2", "--against", "2/baseline.json", "--json"))
    drift = next(row for row in document["rows"] if row["metric"] == "drift")
    assert drift["base"]["value"] != drift["head"]["value"]
    document = json.loads(invoke("check", "1", "--against", "2", "--json"))
    again = next(row for row in document["rows"] if row["metric"] == "drift")
    assert again["base"]["value"] == drift["head"]["value"]


# what tools read

HOSTILE = "<b>%0A|`x`:a,b\n\x1b::error::"


def comparison(*, state="regression", model="net", reason=""):
    metric = Metric("drift", "energy drift", "meV/atom/ps")
    scores = [
        Score(model, "nve", "si-64", metric.key, value, value, value, metric.unit, 8, Outcome.COMPLETED, None)
        for value in (1.0, 9.0)
    ]
    row = Row(
        model=model,
        protocol="nve",
        system="si-64",
        metric="drift",
        label=metric.label,
        unit=metric.unit,
        state=state,
        base=scores[0],
        head=scores[1],
        change=8.0,
        low=7.0,
        high=9.0,
        tolerance=0.1,
        detectable=0.5,
        p_value=1e-9,
        reason=reason,
    )
    missing = replace(row, system="si-liquid-64", state="missing", change=None, p_value=None, reason="not measured now")
    return Comparison((row, missing))


def test_junit_counts_failures_and_skips():
    root = ET.fromstring(junit(comparison()))
    assert {key: root.get(key) for key in ("tests", "failures", "skipped", "errors")} == {
        "tests": "2",
        "failures": "1",
        "skipped": "1",
        "errors": "0",
    }
    (suite, other) = root
    assert (suite.get("name"), suite.get("tests"), other.get("skipped")) == ("net / nve / si-64", "1", "1")
    failure = suite[0][0]
    assert failure.get("message") == (
        "energy drift: 1.000 meV/atom/ps before, 9.000 meV/atom/ps now, worse by 8.000 meV/atom/ps"
        " (tolerated: 0.1 meV/atom/ps; p = 1e-09 over all metrics)"
    )


def test_junit_of_hostile_names_is_xml():
    root = ET.fromstring(junit(comparison(model=HOSTILE)))
    assert "<b>%0A|`x`:a,b" in root[0].get("name")
    assert "\x1b" not in root[0].get("name")


def test_workflow_commands():
    lines = workflow_commands(comparison())
    assert [re.match(r"::(\w+) title=", text)[1] for text in lines] == ["error", "warning", "error"]
    assert lines[0].startswith("::error title=Regression%3A net / nve / si-64 / drift::energy drift: 1.000 meV")
    assert lines[1].endswith("::not measured now")


def test_a_name_cannot_end_a_workflow_command():
    for text in workflow_commands(comparison(model=HOSTILE, reason=HOSTILE)):
        assert "\n" not in text
        assert text.count("title=") == 1
        title = text.partition("title=")[2].partition("::")[0]
        assert ":" not in title.replace("%3A", "")
        assert "," not in title


def test_summary_escapes_what_cards_say():
    text = summary(comparison(model=HOSTILE, reason=HOSTILE))
    assert "<b>" not in text
    rows = [row for row in text.splitlines() if row.startswith("| ") and "energy drift" in row]
    # a pipe of a name does not make a column
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [8, 8]
    assert "❌ Regression: 1 metric compared, 1 regression, 1 missing." in text


def test_headline_of_a_clean_check():
    assert headline(Comparison(())) == "Nothing comparable: 0 metrics compared."
    assert headline(comparison(state="pass")) == "No regression: 1 metric compared, 1 missing."


def test_no_address_in_a_summary_becomes_a_link():
    text = summary(comparison(model="x https://x.org www.x.org", reason="ask me@x.org"))
    assert "https:<!-- -->//x.org" in text
    assert not re.search(r"://|www\.|@x", text)
