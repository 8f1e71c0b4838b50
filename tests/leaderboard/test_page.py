"""The published page."""

import json
import re

import pytest

from conservbench.leaderboard.page import BoardError, check_publishable, escaped, markdown, results_json, write_board
from conservbench.outcome import Outcome

EVIL = "<script>x</script> | `a` [b](c) *d*\nnew"


def unescaped_pipes(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


def test_page_has_tables_gates_models_and_the_command(make_cell):
    passport = {"authors": ["A. B.", "C"], "doi": "10.1/x", "license": "MIT", "training_data": "PBE"}
    cells = [
        make_cell("net", model=passport),
        make_cell("toy", (0.0, 0.1), model={"role": "control"}),
        make_cell("net", None, system="liquid", outcome=Outcome.UNSUPPORTED, reason="no element", model=passport),
        make_cell("toy", (0.0, 0.1), system="liquid", model={"role": "control"}),
    ]
    page = markdown(cells)
    assert "| net | 7.0 ± 0.4 ✗ | 1✓1✗ |" in page
    assert "| toy (control) | 0.00 ± 0.10 ✓ | 1✓1✗ |" in page
    assert "| net | unsupported | – |" in page
    assert "- net: unsupported: no element" in page
    assert "above -0.26 and below 0.26. paper" in page
    assert "- **net**, version 2: A network; forces direct; A. B., C; licence MIT; " in page
    assert "[10.1/x](https://doi.org/10.1/x); trained on: PBE." in page
    assert "conservbench run --tier standard -p nve -s si-64 -s liquid -m net -m toy\n" in page
    assert "conservbench 0.1.0 at commit 0123456789ab" in page


def test_passports_of_tuned_models(make_cell):
    record = {"parent": "net_1", "tuning": {"target": "rdf", "steps": 20}}
    cells = [make_cell("net_1"), make_cell("net-rdf", model=record)]
    assert "- **net-rdf**, version 2: A network; forces direct; tuned from net\\_1 to rdf." in markdown(cells)
    models = json.loads(results_json(cells))["models"]
    assert (models["net-rdf"]["parent"], models["net-rdf"]["tuning"]) == ("net_1", {"target": "rdf", "steps": 20})
    assert "parent" not in models["net_1"]


def test_one_command_for_each_block_of_cells(make_cell):
    page = markdown([make_cell("a"), make_cell("b"), make_cell("a", system="liquid")])
    commands = [line for line in page.splitlines() if line.startswith("conservbench run")]
    assert commands == [
        "conservbench run --tier standard -p nve -s si-64 -m a -m b",
        "conservbench run --tier standard -p nve -s liquid -m a",
    ]


def test_all_card_text_is_escaped(make_cell):
    cell = make_cell(
        drift=None,
        reason=EVIL,
        outcome=Outcome.FAILED,
        model={"title": EVIL, "authors": [EVIL], "doi": EVIL, "license": EVIL, "training_data": EVIL},
        protocol={"title": EVIL, "question": EVIL},
    )
    page = markdown([cell])
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {unescaped_pipes(line) for line in rows} == {4}
    assert escaped("a|b") == r"a\|b"


def test_json_has_scores_and_passports(make_cell):
    document = json.loads(results_json([make_cell(), make_cell(drift=None, system="liquid")]))
    assert document["schema"] == 1
    assert document["models"]["net"]["version"] == 2
    assert document["protocols"]["nve"]["version"] == 1
    assert [score["value"] for score in document["scores"]] == [7.0, 7.0, None, None]
    assert document["cells"][0] == {
        "model": "net",
        "protocol": "nve",
        "system": "si-64",
        "tier": "standard",
        "outcome": "completed",
        "reason": "",
        "provenance": {"conservbench": "0.1.0", "git": {"commit": "0123456789abcdef", "dirty": False}, "packages": {}},
    }


def test_writing_twice_gives_equal_bytes(make_cell, tmp_path):
    first = [path.read_bytes() for path in write_board([make_cell()], tmp_path / "a")]
    second = [path.read_bytes() for path in write_board([make_cell()], tmp_path / "b")]
    assert first == second
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["README.md", "results.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tier": "smoke"}, "smoke tier, which is never published"),
        ({"tier": "quick"}, "differ in their protocol: version 1, standard tier against version 1, quick tier"),
        ({"protocol": {"version": 3}}, "version 1, standard tier against version 3, standard tier"),
        ({"protocol": {"digest": "p2"}}, "different cards of one protocol version"),
        (
            {"protocol": {"metrics": {"drift": {"below": 9.0}}}},
            "for different metrics or gates of one protocol version",
        ),
        ({"model": {"version": 3}}, "differ in their model: version 2 against version 3"),
        ({"model": {"digest": "d2"}}, "different cards of one model version"),
    ],
)
def test_refusals(make_cell, change, message):
    with pytest.raises(BoardError, match=message):
        check_publishable([make_cell(), make_cell(system="liquid", **change)])


def test_nothing_is_no_page(tmp_path):
    with pytest.raises(BoardError, match="no results"):
        write_board([], tmp_path / "board")
    assert not (tmp_path / "board").exists()
