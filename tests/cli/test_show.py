"""``conservbench show``."""

import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from conservbench.cards import find_model, find_protocol
from conservbench.cli import main

PLUGIN = Path(__file__).parent.parent / "plugin"


@pytest.fixture(autouse=True)
def ticks(monkeypatch):
    monkeypatch.syspath_prepend(PLUGIN)


def said(*words):
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_card_in_full():
    shown = json.loads(said("show", "ticks", "--json"))
    assert shown["settings"] == {"steps": 50, "seed": 7}
    assert shown["metrics"]["end"]["unit"] == "eV"
    assert shown["digest"] == find_protocol("ticks").digest
    assert re.search(r"^tiers\.smoke\.steps +5\s*$", said("show", "ticks"), re.MULTILINE)
    assert json.loads(said("show", "ticks-fine", "--json"))["digest"] == find_model("ticks-fine").digest


def test_card_by_path():
    for kind, name in [("models", "ticks-fine"), ("protocols", "ticks")]:
        path = PLUGIN / "ticks" / kind / f"{name}.toml"
        assert json.loads(said("show", str(path), "--json"))["name"] == name


def test_system():
    shown = json.loads(said("show", "si-64", "--json"))
    assert (shown["formula"], shown["atoms"], shown["snapshots"]) == ("Si64", 64, 8)
    assert shown["cell"][0] == [2 * 5.431, 0.0, 0.0]


def test_ase_factory_in_the_working_folder(monkeypatch, tmp_path):
    (tmp_path / "show_springs.py").write_text("def make(): ...\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert json.loads(said("show", "ase:show_springs:make", "--json"))["loader"] == "ase"
    assert sys.path.count(str(tmp_path)) == 1
    assert sys.path[-1] == str(tmp_path)
