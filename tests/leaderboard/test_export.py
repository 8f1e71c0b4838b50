"""Exported tables say what the scores say, to the last bit, and nothing that a spreadsheet would run."""

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from conservbench.cards import find_protocol
from conservbench.cli.export import export as export_command
from conservbench.leaderboard import export as module
from conservbench.leaderboard.entry import write_entries
from conservbench.leaderboard.export import (
    FORMATS,
    MODELS,
    SCORES,
    ExportError,
    csv_bytes,
    export,
    huggingface_files,
    json_bytes,
    model_rows,
    parquet_bytes,
    score_rows,
)
from conservbench.outcome import Outcome
from conservbench.result import WriteError

PASSPORT = {
    "title": "A <b>net</b>, for Å",
    "authors": ["Ada One", "Bo Two"],
    "license": "MIT",
    "bibtex": "@article{a,\n title = {A}\n}",
    "loader": "mace",
    "notes": "=1+1",
}


@pytest.fixture
def cells(make_cell):
    installed = json.loads(find_protocol("nve").to_json())
    protocol = {key: installed[key] for key in ("version", "digest", "bibtex")}
    one = make_cell("b-net", model=PASSPORT, protocol=protocol)
    origin = {
        **one.provenance,
        "packages": {"torch": "2.8.0"},
        "threads": 2,
        "seconds": 3,
        "seeds": {"seed": 0},
        "boot": "00ff",
    }
    one = replace(one, provenance=origin)
    bound = replace(one.scores[0], value=0.1, low=-math.inf, high=1 / 3)
    return (
        replace(one, scores=(bound, one.scores[1])),
        make_cell("a-net", None, outcome=Outcome.FAILED, reason="-1 atoms", protocol=protocol),
        make_cell("a-net", system="si-liquid-64", protocol=protocol),
    )


def test_a_row_says_all_of_a_score(cells):
    row = score_rows(cells)[0]
    assert list(row) == list(SCORES)
    assert {key: row[key] for key in ("model", "protocol", "system", "tier", "metric", "unit")} == {
        "model": "b-net", "protocol": "nve", "system": "si-64", "tier": "standard", "metric": "drift",
        "unit": "meV/atom/ps",
    }  # fmt: skip
    # an end that nothing bounds is empty
    assert (row["value"], row["low"], row["high"], row["n"]) == (0.1, None, 1 / 3, 8)
    assert (row["outcome"], row["gate"], row["below"], row["above"], row["headline"]) == (
        "completed", "fail", 0.26, -0.26, True,
    )  # fmt: skip
    assert (row["model_version"], row["scheme"], row["stride"], row["role"]) == (2, "direct", 1, "model")
    assert (row["commit"], row["dirty"], row["torch"], row["threads"]) == ("0123456789abcdef", False, "2.8.0", 2)
    assert (row["seconds"], row["seed"], row["boot"]) == (3.0, 0, "00ff")


def test_every_score_is_a_row_also_without_a_value(cells):
    rows = score_rows(cells)
    assert len(rows) == sum(len(cell.scores) for cell in cells) == 6
    assert [rows[2][key] for key in ("value", "low", "high", "n", "outcome", "reason", "cell_outcome")] == [
        None, None, None, 0, "failed", "-1 atoms", "failed",
    ]  # fmt: skip


def test_every_model_is_a_row_once(cells):
    rows = model_rows(cells)
    assert [row["model"] for row in rows] == ["a-net", "b-net"]
    assert list(rows[1]) == list(MODELS)
    assert (rows[1]["authors"], rows[1]["license"]) == ("Ada One; Bo Two", "MIT")


def test_provenance_of_strange_types_leaves_a_gap(cells):
    strange = {"threads": "many", "seconds": True, "python": ["3"], "git": {"dirty": "no"}, "seeds": {"seed": 2**70}}
    row = score_rows([replace(cells[0], provenance=strange)])[0]
    assert [row[key] for key in ("threads", "seconds", "python", "dirty", "seed")] == [None] * 5


def read_csv(content):
    """Rows of a CSV table, by the types of its columns."""
    kinds = {"string": str, "int64": int, "float64": float, "bool": {"True": True, "False": False}.__getitem__}
    table = csv.DictReader(io.StringIO(content.decode(), newline=""))
    return [
        {key: kinds[SCORES[key]](text) if text or SCORES[key] == "string" else None for key, text in row.items()}
        for row in table
    ]


def test_csv_comes_back(cells):
    rows = [
        {key: "" if value is None and SCORES[key] == "string" else value for key, value in row.items()}
        for row in score_rows(cells)
    ]
    # the one reason that a spreadsheet would take for a formula
    rows[2]["reason"] = rows[3]["reason"] = rows[2]["cell_reason"] = rows[3]["cell_reason"] = "'-1 atoms"
    assert read_csv(csv_bytes(score_rows(cells), SCORES)) == rows


def test_json_comes_back(cells):
    content = json_bytes(score_rows(cells), SCORES)
    assert json.loads(content) == score_rows(cells)
    assert len(content.splitlines()) == 8
    assert json.loads(json_bytes([], SCORES)) == []


def test_parquet_comes_back_with_types(cells, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra: parquet)")
    (path,) = export(cells, "parquet", tmp_path / "scores.parquet")
    table = pq.read_table(path)
    assert table.to_pylist() == score_rows(cells)
    assert {field.name: str(field.type) for field in table.schema} == {
        key: {"float64": "double"}.get(kind, kind) for key, kind in SCORES.items()
    }
    assert pq.read_table(io.BytesIO(parquet_bytes([], SCORES))).num_rows == 0


def test_parquet_without_its_package_says_what_to_install(cells, tmp_path, monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(module, "import_module", absent)
    with pytest.raises(ExportError, match=r"install conservbench\[parquet\], or export csv or json"):
        export(cells, "parquet", tmp_path / "scores.parquet")
    assert not list(tmp_path.iterdir())


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 10**12))
@settings(max_examples=50, deadline=None)
def test_numbers_are_written_to_the_last_bit(value, n):
    row = {**dict.fromkeys(SCORES), "value": value, "n": n}
    assert read_csv(csv_bytes([row], SCORES))[0]["value"] == value
    assert json.loads(json_bytes([row], SCORES))[0] == row


FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "  =1",
    "\n=1+1",
    "\u00a0=1",
    "\x0b=1",
    "\u200b=1",
    "\ufeff@x",
    "＝1",
    '=HYPERLINK("x")',
    "=cmd|' /C calc'!A0",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_defused(text):
    row = {**dict.fromkeys(SCORES), "reason": text, "value": -1.5}
    (back,) = read_csv(csv_bytes([row], SCORES))
    assert back["reason"] == f"'{text}"
    assert back["value"] == -1.5


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_text_stays_one_field_and_no_formula(text):
    row = {**dict.fromkeys(SCORES), "reason": text, "cell_reason": "after"}
    (back,) = read_csv(csv_bytes([row], SCORES))
    assert back["reason"].removeprefix("'") == text.removeprefix("'")
    assert back["cell_reason"] == "after"
    assert not back["reason"].lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r"))


def test_a_dataset_has_a_card_that_describes_its_tables(cells):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (extra: test)")
    files = huggingface_files(cells)
    text = files["README.md"].decode()
    _, front, page = text.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["license"] == "bsd-3-clause"
    assert metadata["size_categories"] == ["n<1K"]
    assert "benchmark" in metadata["tags"]
    configs = {each["config_name"]: each for each in metadata["configs"]}
    assert configs["scores"]["default"] is True
    for each in metadata["dataset_info"]:
        name = each["config_name"]
        rows = [json.loads(line) for line in files[configs[name]["data_files"]].splitlines()]
        features = {feature["name"]: feature["dtype"] for feature in each["features"]}
        assert rows == {"scores": score_rows, "models": model_rows}[name](cells)
        assert list(rows[0]) == list(features)
        python = {"string": str, "int64": int, "float64": float, "bool": bool}
        for row in rows:
            assert all(value is None or type(value) is python[features[key]] for key, value in row.items())
    assert "6 scores of 2 models by the protocols nve" in page
    assert "@software{conservbench," in page
    assert page.count("```") == 2
    # each source once
    keys = [line for line in page.splitlines() if line.startswith("@")]
    assert len(keys) == len(set(keys)) > 1


def test_sizes_are_named_as_the_hub_names_them():
    assert [module._size(rows) for rows in (0, 999, 1000, 99_999, 10**6)] == [
        "n<1K", "n<1K", "1K<n<10K", "10K<n<100K", "1M<n<10M",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_the_command_writes_each_format(kind, cells, tmp_path):
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra: parquet)")
    installed = json.loads(find_protocol("nve").to_json())
    real = [replace(cell, protocol=installed) for cell in cells]
    write_entries(real, tmp_path / "board" / "entries")
    done = CliRunner().invoke(
        export_command, [str(tmp_path / "board"), "--format", kind, "--out", str(tmp_path / "out"), "--json"]
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["scores"], report["models"]) == (6, 2)
    assert all(Path(path).stat().st_size for path in report["files"])


def test_the_command_tells_what_it_wrote_and_where_there_is_nothing(tmp_path):
    (tmp_path / "a.json").write_text('{"schema": 2, "protocols": {}, "models": {}, "cells": []}')
    words = [str(tmp_path / "a.json"), "--format", "csv", "--out", str(tmp_path / "out.csv")]
    done = CliRunner().invoke(export_command, words)
    assert (done.exit_code, done.stderr) == (4, f"no scores in {tmp_path / 'a.json'}\n")
    assert not (tmp_path / "out.csv").exists()
    assert CliRunner().invoke(export_command, [*words[:1], "--format", "xlsx", *words[3:]]).exit_code == 2


def test_a_place_that_cannot_be_written_is_told(cells, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        export(cells, "csv", tmp_path / "file" / "scores.csv")
