"""``conservbench board`` on result files."""

import json

import pytest
import xarray as xr
from click.testing import CliRunner

from conservbench.cli.board import board
from conservbench.leaderboard.page import BoardError
from conservbench.result import result_path, write_result


@pytest.fixture
def results(tmp_path):
    """A folder with one cell of a tier, which the model could not be asked."""

    def write(tier: str):
        metrics = {"drift": {"label": "energy drift", "unit": "meV/atom/ps", "headline": True}}
        attrs = {
            "outcome": "unsupported",
            "outcome_reason": "no energy",
            "model": "net",
            "protocol": "nve",
            "system": "si-64",
            "tier": tier,
            "model_card": json.dumps({"name": "net", "version": 1, "title": "Net", "scheme": "direct"}),
            "protocol_card": json.dumps({"name": "nve", "version": 1, "title": "NVE", "metrics": metrics}),
            "provenance": json.dumps({"conservbench": "0.1.0"}),
        }
        write_result(xr.Dataset(attrs=attrs), result_path(tmp_path / "results", "nve", "si-64", "net"))
        return str(tmp_path / "results")

    return write


def test_page_and_entries_are_written(results, tmp_path):
    out = tmp_path / "board"
    run = CliRunner().invoke(board, [results("quick"), "--out", str(out), "--json"], catch_exceptions=False)
    assert run.exit_code == 0
    assert json.loads(run.stdout) == [str(out / "README.md"), str(out / "results.json")]
    assert "| net | unsupported | – |" in (out / "README.md").read_text()
    assert json.loads((out / "results.json").read_text())["scores"][0]["outcome"] == "unsupported"


def test_the_smoke_tier_is_not_published(results, tmp_path):
    out = tmp_path / "board"
    with pytest.raises(BoardError, match="nve / si-64 / net is of the smoke tier"):
        CliRunner().invoke(board, [results("smoke"), "--out", str(out)], catch_exceptions=False)
    assert not out.exists()
