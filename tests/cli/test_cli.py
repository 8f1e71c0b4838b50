"""The command line as a whole: quick to answer, one line for an error, exit codes that mean one thing."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import conservbench.cli
from conservbench.cli import VERBS, main


def call(*words):
    return CliRunner().invoke(main, words)


@pytest.mark.parametrize("words", ["--help", "run --help", "list models", "list data", "show --help"])
def test_answers_without_the_simulation_stack(words):
    code = (
        "import sys; from conservbench.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: print('\\n', end.code, *{'torch', 'xarray', 'ase', 'mace'} & set(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, *words.split()], capture_output=True, text=True, check=True
    ).stdout
    assert out.splitlines()[-1].strip() == "0"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example_and_json(verb):
    said = call(verb, "--help")
    assert said.exit_code == 0
    assert f"Example: conservbench {verb}" in said.output
    assert "--json" in said.output


def test_help_names_every_verb():
    for words in ([], ["--help"], ["-h"]):
        said = call(*words)
        assert said.exit_code == 0
        assert all(verb in said.output for verb in VERBS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lst"], "no verb 'lst'; did you mean 'list'?"),
        (["list", "modles"], "'modles' is not one of"),
        (["run", "--tier", "quik"], "'quik' is not one of 'smoke', 'quick', 'standard'"),
        (["run", "--teir", "quick"], "--teir"),
        (["run", "-m", "no-such-model"], "no model 'no-such-model'"),
        (["run", "-p", "no-such-protocol"], "no protocol 'no-such-protocol'"),
        (["show", "si-65"], "no model, protocol or system 'si-65'; did you mean 'si-64'"),
        (["cite", "si-65"], "did you mean 'si-64'"),
    ],
)
def test_usage_errors_are_one_line(words, said):
    result = call(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("conservbench: ")
    assert said in line


@pytest.mark.parametrize(("error", "code"), [(ValueError("bad card"), 2), (OSError("no disk"), 2), (KeyError("x"), 70)])
def test_errors_of_a_verb(monkeypatch, error, code):
    @click.command()
    def broken():
        raise error

    monkeypatch.setitem(VERBS, "broken", "conservbench.cli:broken")
    monkeypatch.setattr(conservbench.cli, "broken", broken, raising=False)
    quiet, loud = call("broken"), call("--debug", "broken")
    assert quiet.exit_code == loud.exit_code == code
    assert len(quiet.stderr.splitlines()) == 1
    assert "Traceback" in loud.stderr
