"""``conservbench list``."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from conservbench.cli import main

PLUGIN = Path(__file__).parent.parent / "plugin"


@pytest.fixture(autouse=True)
def ticks(monkeypatch):
    monkeypatch.syspath_prepend(PLUGIN)


def listed(what):
    return {row["name"]: row for row in json.loads(CliRunner().invoke(main, ["list", what, "--json"]).stdout)}


def test_models():
    rows = listed("models")
    assert rows["ticks-fine"] == {
        "name": "ticks-fine",
        "version": 1,
        "scheme": "gradient",
        "role": "model",
        "parent": None,
        "target": None,
        "title": "A model that will fine",
    }
    assert rows["ticks-direct"]["scheme"] == "direct"


def test_parents_are_columns_where_there_are_any(monkeypatch, tmp_path):
    tuned = tmp_path / "net-rdf.toml"
    tuned.write_text(
        'name = "net-rdf"\nversion = 1\ntitle = "Tuned"\nloader = "toy"\nscheme = "direct"\nparent = "ticks-direct"\n'
        '[tuning]\ntarget = "rdf"\nsteps = 2\nevaluations = 8\nseconds = 1\n'
    )
    monkeypatch.setattr("conservbench.cards.list_models", lambda: ["ticks-direct"])
    assert "parent" not in CliRunner().invoke(main, ["list", "models"]).stdout
    monkeypatch.setattr("conservbench.cards.list_models", lambda: ["ticks-direct", str(tuned)])
    rows = listed("models")
    assert (rows["net-rdf"]["parent"], rows["net-rdf"]["target"]) == ("ticks-direct", "rdf")
    assert rows["ticks-direct"]["parent"] is None
    told = CliRunner().invoke(main, ["list", "models"]).stdout.splitlines()
    assert told[0].split() == ["name", "version", "scheme", "role", "parent", "target", "title"]
    (row,) = [line for line in told if line.startswith("net-rdf")]
    assert row.split() == ["net-rdf", "1", "direct", "model", "ticks-direct", "rdf", "Tuned"]
    shown = CliRunner().invoke(main, ["show", str(tuned)]).stdout
    assert "ticks-direct" in shown
    assert "tuning.target" in shown


def test_protocols_systems_and_data():
    assert listed("protocols")["ticks"]["run"] == "by default"
    assert listed("protocols")["ticks"]["systems"] == ["si-64"]
    assert "silicon" in listed("systems")["si-64"]["title"]
    assert listed("data")["mlearn-si"]["license"] == "BSD-3-Clause"


@pytest.mark.parametrize(
    ("what", "said"), [("data", "1 data set"), ("systems", "1 system. More: conservbench show NAME")]
)
def test_one_of_them(monkeypatch, what, said):
    monkeypatch.setattr(f"conservbench.cli.list_._{what}", lambda: [{"name": "x"}])
    assert CliRunner().invoke(main, ["list", what]).stdout.splitlines()[-1] == said


def test_table_for_people():
    said = CliRunner().invoke(main, ["list", "models"])
    assert said.exit_code == 0
    assert "ticks-fine" in said.stdout
    assert said.stdout.splitlines()[-1].endswith("More: conservbench show NAME")
