"""``conservbench show`` and ``conservbench cite``."""

import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from conservbench.cards import find_model, find_protocol
from conservbench.cli import main
from conservbench.cli.cite import LOADER_PACKAGES, PACKAGES, PROTOCOL_PACKAGES, package_entries
from conservbench.systems import find_system

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


def test_citations(tmp_path):
    path = tmp_path / "net.toml"
    head = 'name = "net"\nversion = 1\ntitle = "x"\nloader = "mace"\nscheme = "direct"\n'
    path.write_text(head + 'bibtex = """\n@article{net2024,\n  title = {A net}\n}\n"""\n')
    entries = json.loads(said("cite", str(path), "--json"))
    keys = [re.match(r"@\w+\{([\w-]+),", entry).group(1) for entry in entries]
    assert keys == ["net2024", "mace", "e3nn", *PACKAGES]
    assert said("cite", str(path)).count("@") == len(keys)
    assert find_system("si-64").citation in said("cite", "si-64")


def test_a_fast_model_is_cited_too():
    cited = said("cite", "si-mace-mts-sw")
    assert find_model("si-sw").bibtex.strip() in cited
    assert find_model("si-mace-mts-sw").bibtex.strip() in cited


def test_ase_factory_in_the_working_folder(monkeypatch, tmp_path):
    (tmp_path / "show_springs.py").write_text("def make(): ...\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert json.loads(said("show", "ase:show_springs:make", "--json"))["loader"] == "ase"
    assert "@" in said("cite", "ase:show_springs:make")
    assert sys.path.count(str(tmp_path)) == 1
    assert sys.path[-1] == str(tmp_path)


def test_package_entries_are_whole():
    entries = package_entries()
    further = [*LOADER_PACKAGES.values(), *PROTOCOL_PACKAGES.values()]
    assert {*PACKAGES, *(key for keys in further for key in keys)} == set(entries)
    for entry in entries.values():
        assert entry.count("{") == entry.count("}")
        assert "title" in entry
        assert "author" in entry
