"""``conservbench run`` and the same from Python."""

import json
from pathlib import Path

import pytest
import xarray as xr
from click.testing import CliRunner

import conservbench
from conservbench.cli import main
from conservbench.cli.run import exit_code
from conservbench.outcome import Outcome

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
    assert said.stdout.splitlines()[-1].startswith("Results are in out. Next: conservbench score out")
    assert said.stderr.splitlines() == [
        "1/2 ticks / si-64 / ticks-fine: completed",
        "2/2 ticks / si-64 / ticks-refuse: unsupported: not with me",
    ]
    assert run("fine").stderr == "1/1 ticks / si-64 / ticks-fine: completed (kept)\n"


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


def test_exit_code_of_outcomes():
    assert exit_code([Outcome.COMPLETED, Outcome.UNSUPPORTED]) == 0
    assert exit_code([Outcome.NOT_CONVERGED, Outcome.OUT_OF_MEMORY]) == 3
    assert exit_code([Outcome.UNSUPPORTED, Outcome.FAILED]) == 4


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
    Path("springs.py").write_text(
        "from ase.calculators.lj import LennardJones\n\n\ndef make():\n    return LennardJones(rc=4.0)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ticks.measure.measure", lambda model, *rest: xr.Dataset(attrs={"made": type(model).__name__}))
        said = run(words=["-m", "ase:springs:make"])
    assert said.exit_code == 0, said.stderr
    tree = conservbench.open_results("out")
    assert tree["ticks/si-64/ase:springs:make"].attrs["made"] == "ASEModel"
    said = run(words=["-m", "ase:springs:makes"])
    assert said.exit_code == 4
    assert "springs has no 'makes'" in said.stderr
