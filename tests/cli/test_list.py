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
        "title": "A model that will fine",
    }
    assert rows["ticks-direct"]["scheme"] == "direct"


def test_protocols_systems_and_data():
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
