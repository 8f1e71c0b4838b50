"""The published folder: entries and the page that is written from them."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from conservbench.cards import find_protocol, metrics_of
from conservbench.cli.baseline import baseline
from conservbench.leaderboard.entry import EntryError, read_entries, write_entries
from conservbench.leaderboard.folder import published, stale
from conservbench.leaderboard.page import BoardError


def in_force(name="nve"):
    """The card of a protocol as a result carries it: entries are read with the cards at hand."""
    return json.loads(find_protocol(name).to_json())


@pytest.fixture
def cell(make_cell):
    """A cell of a protocol in force; of another one than NVE, without scores."""

    def make(name, drift=(7.0, 0.4), protocol="nve", **more):
        made = make_cell(name, drift, protocol=in_force(protocol), **more)
        scores = made.scores[:1] if protocol == "nve" else ()
        return replace(made, metrics=metrics_of(made.protocol, name), scores=scores)

    return make


def publish(cells, out):
    files = published(cells, out)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return sorted(path.relative_to(out).as_posix() for path in files)


def test_entries_and_page(cell, tmp_path):
    assert publish([cell("a"), cell("b")], tmp_path) == ["README.md", "entries/a.json", "entries/b.json"]
    assert "| a | 7.0 ± 0.4 ✗ |" in (tmp_path / "README.md").read_text()
    assert [each.model["name"] for each in read_entries(tmp_path / "entries")] == ["a", "b"]


def test_nothing_is_written_by_asking(cell, tmp_path):
    published([cell("a")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_models_stay_and_are_on_the_page(cell, tmp_path):
    publish([cell("a")], tmp_path)
    assert publish([cell("b", (1.0, 0.2))], tmp_path) == ["README.md", "entries/b.json"]
    page = (tmp_path / "README.md").read_text()
    assert "| a | 7.0 ± 0.4 ✗ |" in page
    assert "| b | 1.0 ± 0.2 ✗ |" in page


def test_protocols_that_were_not_measured_now_are_kept(cell, tmp_path):
    publish([cell("a"), cell("a", protocol="audit")], tmp_path)
    publish([cell("a", (1.0, 0.2))], tmp_path)
    kept = {each.protocol["name"]: each for each in read_entries(tmp_path / "entries" / "a.json")}
    assert sorted(kept) == ["audit", "nve"]
    assert kept["nve"].scores[0].value == 1.0


def test_what_is_kept_has_the_passport_of_what_was_measured_last(cell, tmp_path):
    publish([cell("a", protocol="audit", model={"notes": "old", "digest": "d"})], tmp_path)
    publish([cell("a", model={"notes": "new", "elements": ["Si"], "digest": "d"})], tmp_path)
    kept = read_entries(tmp_path / "entries" / "a.json")
    assert [(each.protocol["name"], each.model["notes"], each.model["elements"]) for each in kept] == [
        ("audit", "new", ["Si"]),
        ("nve", "new", ["Si"]),
    ]


def test_a_protocol_measured_now_is_replaced_whole(cell, tmp_path):
    publish([cell("a"), cell("a", system="si-liquid-64")], tmp_path)
    publish([cell("a", (1.0, 0.2))], tmp_path)
    assert [each.system for each in read_entries(tmp_path / "entries")] == ["si-64"]


def test_cells_of_another_version_of_the_model_are_not_kept(cell, tmp_path):
    publish([cell("a"), cell("a", protocol="audit")], tmp_path)
    publish([cell("a", model={"digest": "d2"})], tmp_path)
    assert [each.protocol["name"] for each in read_entries(tmp_path / "entries")] == ["nve"]


@pytest.mark.parametrize("damage", ["version", "text"])
def test_cells_that_can_no_longer_be_read_are_not_kept(cell, tmp_path, damage):
    publish([cell("a"), cell("a", protocol="audit")], tmp_path)
    path = tmp_path / "entries" / "a.json"
    document = json.loads(path.read_text())
    document["protocols"]["audit"]["version"] = 99
    path.write_text(json.dumps(document) if damage == "version" else "{")
    publish([cell("a")], tmp_path)
    assert [each.protocol["name"] for each in read_entries(tmp_path / "entries")] == ["nve"]


def test_an_entry_of_another_model_that_cannot_be_read_is_an_error(cell, tmp_path):
    publish([cell("a")], tmp_path)
    path = tmp_path / "entries" / "a.json"
    document = json.loads(path.read_text())
    document["protocols"]["nve"]["version"] = 99
    path.write_text(json.dumps(document))
    with pytest.raises(EntryError, match="measured by version 99 of protocol nve"):
        published([cell("b")], tmp_path)


def test_equal_cells_in_any_order_give_equal_bytes(cell, tmp_path):
    cells = [cell("a"), cell("b"), cell("a", system="si-liquid-64")]
    first, second = published(cells, tmp_path), published(cells[::-1], tmp_path)
    assert first == second


def test_stale_is_what_is_not_there_or_differs(cell, tmp_path):
    files = published([cell("a")], tmp_path)
    assert stale(files) == list(files)
    publish([cell("a")], tmp_path)
    assert stale(published([cell("a")], tmp_path)) == []
    assert stale(published((), tmp_path)) == []
    write_entries([cell("b")], tmp_path / "entries")
    assert stale(published((), tmp_path)) == [tmp_path / "README.md"]


def test_the_smoke_tier_is_refused(cell, tmp_path):
    with pytest.raises(BoardError, match="smoke tier"):
        published([cell("a", tier="smoke")], tmp_path)


def test_names_that_file_systems_refuse(cell, tmp_path):
    assert publish([cell("ase:a.b:c")], tmp_path) == ["README.md", "entries/ase%3Aa.b%3Ac.json"]
    assert "](entries/ase%253Aa.b%253Ac.json)" in (tmp_path / "README.md").read_text()


def test_the_page_counts_what_installed_protocols_ask(cell, tmp_path):
    publish([cell("a", (0.0, 0.1), system=system) for system in ("si-64", "si-liquid-64")], tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "| a | usable | 2 of 2 |" not in page
    (row,) = [line for line in page.splitlines() if line.startswith("| a | usable with care |")]
    measured, _, asked = row.split("|")[3].split()
    assert int(measured) == 2
    assert int(asked) > 5
    assert "relax on si-vacancy-63" in page


def test_a_baseline_follows_the_entries(cell, tmp_path):
    publish([cell("b"), cell("a", protocol="audit"), cell("a")], tmp_path)
    assert CliRunner().invoke(baseline, [str(tmp_path), "--out", str(tmp_path / "baseline.json")]).exit_code == 0
    # it is what the command makes, to the byte
    assert stale(published([], tmp_path)) == []
    assert publish([cell("a", (1.0, 0.2))], tmp_path) == ["README.md", "baseline.json", "entries/a.json"]
    kept = {(each.model["name"], each.protocol["name"]): each for each in read_entries(tmp_path / "baseline.json")}
    assert list(kept) == [("a", "audit"), ("a", "nve"), ("b", "nve")]
    assert kept["a", "nve"].scores[0].value == 1.0
    write_entries([cell("b", (2.0, 0.2))], tmp_path / "entries")
    assert [path.name for path in stale(published([], tmp_path))] == ["README.md", "baseline.json"]
