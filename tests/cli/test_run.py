"""``conservbench run`` and the same from Python."""

import json
from pathlib import Path

import pytest
import xarray as xr
from click.testing import CliRunner

import conservbench
from conservbench.cli import main
from conservbench.outcome import Outcome
from conservbench.protocols.base import Finding

PLUGIN = Path(__file__).parent.parent / "plugin"


@pytest.fixture(autouse=True)
def ticks(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(PLUGIN)
    monkeypatch.chdir(tmp_path)
    # the process of the tests keeps its own threads and memory settings
    monkeypatch.setattr("conservbench.process.configure", lambda: None)


def run(*models, words=()):
    chosen = [word for model in models for word in ("-m", f"ticks-{model}")]
    head = ["run", "-p", "ticks", "--tier", "smoke", "--jobs", "1", "--out", "out"]
    return CliRunner().invoke(main, [*head, *chosen, *words])


def test_run_prints_scores_and_what_to_do_next():
    said = run("fine", "refuse")
    assert said.exit_code == 0, said.stderr
    assert "ticks-fine" in said.stdout
    last = said.stdout.splitlines()[-1]
    assert last == "Results are in out. The smoke tier only tests the machinery: its numbers judge no model."
    assert said.stderr.splitlines() == [
        "1/2 ticks / si-64 / ticks-fine: completed",
        "2/2 ticks / si-64 / ticks-refuse: unsupported: not with me",
    ]
    assert run("fine").stderr == "1/1 ticks / si-64 / ticks-fine: completed (kept)\n"


def test_a_longer_tier_is_published_next():
    said = run("fine", words=["--tier", "quick"])
    last = said.stdout.splitlines()[-1]
    assert last == "Results are in out. Next: conservbench score out, or conservbench board out --out leaderboard"


def test_json_is_alone_on_standard_output():
    said = run("fine", words=["--json"])
    (row,) = json.loads(said.stdout)
    assert (row["model"], row["protocol"], row["system"], row["metric"]) == ("ticks-fine", "ticks", "si-64", "end")
    assert row["unit"] == "eV"


@pytest.mark.parametrize(
    ("models", "code"),
    [(["fine", "raise"], 3), (["fine", "memory"], 3), (["raise"], 4), (["refuse"], 4), (["explode"], 0)],
)
def test_exit_codes(models, code):
    assert run(*models).exit_code == code


@pytest.mark.parametrize(
    ("outcome", "code"), [("failed", 3), ("out_of_memory", 3), ("unsupported", 0), ("exploded", 0)]
)
def test_exit_code_of_a_metric_of_a_completed_cell(monkeypatch, outcome, code):
    findings = [Finding("end", "eV", None, Outcome(outcome), "only this one")]
    monkeypatch.setattr("ticks.judge.judge", lambda data: findings)
    assert run("fine").exit_code == code
    scored = CliRunner().invoke(main, ["score", "out", "--gates"])
    assert scored.exit_code == code


@pytest.mark.parametrize(
    ("device", "said"),
    [("foo", "unknown device 'foo'"), ("cuda", "device 'cuda': no CUDA device here")],
)
def test_wrong_device_is_told_before_anything_runs(monkeypatch, device, said):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    told = run("fine", words=["--device", device])
    assert told.exit_code == 2
    (line,) = told.stderr.splitlines()
    assert said in line
    assert not Path("out").exists()


def test_wrong_options_are_a_row_with_the_words_of_the_loader():
    text = (PLUGIN / "ticks/models/ticks-fine.toml").read_text().replace("ticks-fine", "mine")
    Path("mine.toml").write_text(text.replace("act =", "atc ="))
    said = run("fine", words=["-m", "mine.toml"])
    assert said.exit_code == 3
    (line,) = [line for line in said.stderr.splitlines() if "failed" in line]
    assert f"mine: failed: {Path('mine.toml').absolute()}: [options]: unknown key 'atc'; did you mean 'act'?" in line
    assert run(words=["-m", "mine.toml"]).exit_code == 4


def test_python_interface(capsys, tmp_path):
    tree = conservbench.run(["ticks-fine", "ticks-slow"], ["ticks"], tier="smoke", out=tmp_path / "out")
    assert set(tree["ticks/si-64"].children) == {"ticks-fine", "ticks-slow"}
    assert tree["ticks/si-64/ticks-fine"].sizes == {"time": 5}
    assert capsys.readouterr().err.count("completed") == 2
    conservbench.run(["ticks-fine"], ["ticks"], tier="smoke", out=tmp_path / "out", progress=False)
    assert capsys.readouterr().err == ""
    assert conservbench.open_results(tmp_path / "out").groups == tree.groups
    assert len(list(conservbench.score(tree))) == 2
    assert conservbench.__version__


def test_factory_in_the_working_folder():
    Path("coils.py").write_text(
        "from ase.calculators.lj import LennardJones\n\n\ndef make():\n    return LennardJones(rc=4.0)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ticks.measure.measure", lambda model, *rest: xr.Dataset(attrs={"made": type(model).__name__}))
        said = run(words=["-m", "ase:coils:make"])
    assert said.exit_code == 0, said.stderr
    tree = conservbench.open_results("out")
    assert tree["ticks/si-64/ase:coils:make"].attrs["made"] == "ASEModel"
    said = run(words=["-m", "ase:coils:makes"])
    assert said.exit_code == 4
    assert "coils has no 'makes'" in said.stderr


def test_a_run_leaves_a_report():
    said = run("fine")
    report = Path("out/report.html")
    assert f"The report of this run, with pictures: {report}" in said.stdout
    assert "ticks-fine" in report.read_text(encoding="utf-8")


def test_a_report_that_cannot_be_written_does_not_fail_the_run(monkeypatch):
    def refuse(cells, path):
        raise OSError("disk full")

    monkeypatch.setattr("conservbench.site.write_report", refuse)
    said = run("fine", words=["--json"])
    assert said.exit_code == 0
    assert json.loads(said.stdout)
    assert "conservbench: warning: no report: OSError: disk full" in said.stderr
