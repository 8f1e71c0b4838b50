"""``conservbench board`` on result files and on entries."""

import json
import re

import pytest
import xarray as xr
from click.testing import CliRunner

from conservbench.cards import find_protocol
from conservbench.cli import CommandError
from conservbench.cli.board import board
from conservbench.leaderboard.entry import EntryError
from conservbench.leaderboard.page import BoardError
from conservbench.result import result_path, write_result


@pytest.fixture
def results(tmp_path):
    """A folder with one cell of a tier, which the model could not be asked."""

    def write(tier: str = "quick", name: str = "net"):
        attrs = {
            "outcome": "unsupported",
            "outcome_reason": "no energy",
            "model": name,
            "protocol": "nve",
            "system": "si-64",
            "tier": tier,
            "model_card": json.dumps({"name": name, "version": 1, "title": "Net", "scheme": "direct", "digest": "d"}),
            "protocol_card": find_protocol("nve").to_json(),
            "provenance": json.dumps({"conservbench": "0.1.0"}),
        }
        folder = tmp_path / f"results-{name}"
        write_result(xr.Dataset(attrs=attrs), result_path(folder, "nve", "si-64", name))
        return str(folder)

    return write


def invoke(*words):
    return CliRunner().invoke(board, [str(word) for word in words], catch_exceptions=False)


def test_page_and_entries_are_written(results, tmp_path):
    out = tmp_path / "board"
    run = invoke(results(), "--out", out, "--json")
    assert run.exit_code == 0
    assert json.loads(run.stdout) == [str(out / "entries" / "net.json"), str(out / "README.md")]
    assert "- net: unsupported: no energy" in (out / "README.md").read_text()
    entry = json.loads((out / "entries" / "net.json").read_text())
    assert entry["cells"][0]["outcome"] == "unsupported"


def test_a_published_folder_writes_its_page_again(results, tmp_path):
    out = tmp_path / "board"
    invoke(results(), "--out", out)
    page = (out / "README.md").read_bytes()
    (out / "README.md").unlink()
    run = invoke(out)
    assert run.stdout.splitlines() == [f"wrote {out / 'README.md'}"]
    assert (out / "README.md").read_bytes() == page


def test_entries_are_published_like_results(results, tmp_path):
    out, again = tmp_path / "board", tmp_path / "again"
    invoke(results(), "--out", out)
    invoke(results(name="other"), "--out", again)
    invoke(out, "--out", again)
    assert sorted(path.name for path in (again / "entries").iterdir()) == ["net.json", "other.json"]
    assert (again / "entries" / "net.json").read_bytes() == (out / "entries" / "net.json").read_bytes()


def test_check_tells_a_stale_page_and_writes_nothing(results, tmp_path):
    out = tmp_path / "board"
    invoke(results(), "--out", out)
    fresh = invoke(out, "--check")
    assert (fresh.exit_code, fresh.stdout) == (0, f"{out} is up to date\n")
    (out / "README.md").write_text("old")
    old = invoke(out, "--check")
    assert (old.exit_code, old.stdout) == (1, f"{out / 'README.md'} is not up to date\n")
    assert (out / "README.md").read_text() == "old"
    assert json.loads(invoke(out, "--check", "--json").stdout) == [str(out / "README.md")]


def test_check_of_results_that_were_not_published(results, tmp_path):
    run = invoke(results(), "--out", tmp_path / "board", "--check")
    assert run.exit_code == 1
    assert not (tmp_path / "board").exists()


def test_the_folder_leaderboard_is_the_default(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    invoke(results())
    assert (tmp_path / "leaderboard" / "README.md").is_file()


def test_the_smoke_tier_is_not_published(results, tmp_path):
    out = tmp_path / "board"
    with pytest.raises(BoardError, match="nve / si-64 / net is of the smoke tier"):
        invoke(results("smoke"), "--out", out)
    assert not out.exists()


def test_check_and_site_exclude_each_other(results, tmp_path):
    with pytest.raises(CommandError, match="leave --html out"):
        invoke(results(), "--check", "--html", tmp_path / "site")


def test_a_folder_with_nothing_in_it(tmp_path):
    with pytest.raises(EntryError, match="no entries"):
        invoke(tmp_path, "--out", tmp_path / "board")


def test_the_site_counts_what_installed_protocols_ask(results, tmp_path):
    run = invoke(results(), "--html", tmp_path / "site")
    assert run.exit_code == 0
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    (measured, asked) = re.search(r">(\d+) of (\d+)</td></tr>", page).groups()
    assert measured == "0"
    assert int(asked) > 5
