"""The action and the workflows: least rights, pinned actions, words of others kept from shells; steps run for real."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conservbench.cli import VERBS
from conservbench.leaderboard.entry import write_entry
from conservbench.result import open_results
from conservbench.scoring import score

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (extra: test)")

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPT = ROOT / ".github" / "scripts" / "validate-submission"
PINNED = re.compile(r"\./|[\w.-]+/[\w./-]+@[0-9a-f]{40}")
EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)


def load(path):
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    # YAML 1.1 takes the key `on` for true
    return {"on" if key is True else key: value for key, value in document.items()}


def steps_of(document):
    if "runs" in document:
        return document["runs"]["steps"]
    return [step for job in document["jobs"].values() for step in job["steps"]]


@pytest.fixture(scope="module")
def action():
    return load(ROOT / "action.yml")


@pytest.mark.parametrize("path", [*WORKFLOWS, ROOT / "action.yml"], ids=lambda path: path.name)
def test_actions_are_pinned_and_words_are_no_code(path):
    text = path.read_text(encoding="utf-8")
    assert "secrets." not in text
    assert "GITHUB_TOKEN" not in text
    for step in steps_of(load(path)):
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert PINNED.fullmatch(step["uses"]), step["uses"]
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        # what others write reaches a shell through its environment only
        assert not EXPRESSION.search(step.get("run", "")), step
        if path.name == "action.yml" and "run" in step:
            assert step["shell"] == "bash"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_ask_for_least_rights(path):
    document = load(path)
    assert document["permissions"] == {"contents": "read"}
    assert "concurrency" in document
    for name, job in document["jobs"].items():
        assert job["timeout-minutes"] <= 90
        if "permissions" in job:
            assert (path.stem, name) == ("pages", "deploy")
            # it runs nothing but the one action that publishes what was built
            assert [step["uses"].partition("@")[0] for step in job["steps"]] == ["actions/deploy-pages"]


def test_only_submissions_run_with_the_rights_of_the_base():
    trusted = [path.stem for path in WORKFLOWS if "pull_request_target" in load(path)["on"]]
    assert trusted == ["submission"]
    document = load(ROOT / ".github" / "workflows" / "submission.yml")
    checkouts = [step for step in steps_of(document) if step.get("uses", "").startswith("actions/checkout@")]
    assert [step["with"]["ref"] for step in checkouts] == ["${{ github.event.pull_request.base.sha }}"]
    # the head is named in an environment, and is never what a step checks out, installs or runs
    for step in steps_of(document):
        run = step.get("run", "")
        assert not re.search(r"git (checkout|switch|restore|reset|merge|worktree|submodule)", run)
        for value in step.get("with", {}).values():
            assert "head" not in str(value)
    for expression in EXPRESSION.findall(json.dumps(document)):
        assert "head.ref" not in expression
        assert "title" not in expression
        assert "body" not in expression


def test_pages_are_published_from_main_alone():
    on = load(ROOT / ".github" / "workflows" / "pages.yml")["on"]
    assert set(on) == {"push", "workflow_dispatch"}
    assert on["push"] == {"branches": ["main"]}


def test_what_is_run_is_there(action):
    texts = [SCRIPT.read_text(encoding="utf-8")]
    for document in (action, *map(load, WORKFLOWS)):
        texts += [step.get("run", "") for step in steps_of(document)]
    said = re.findall(r"conservbench ([a-z]+) ", "\n".join(texts))
    assert {"run", "check", "score", "board", "validate"} <= set(said)
    # "ended with" is a sentence
    assert set(said) - {"ended"} <= set(VERBS)
    for script in (SCRIPT, ROOT / ".ci" / "run"):
        assert os.access(script, os.X_OK)


def test_inputs_of_the_action_are_described_and_used(action):
    used = set(re.findall(r"inputs\.([\w-]+)", json.dumps(action["runs"])))
    assert used == set(action["inputs"])
    for name, each in action["inputs"].items():
        assert each["description"], name
        assert each.get("required") is True or "default" in each
        assert isinstance(each.get("default", ""), str)
    assert [name for name, each in action["inputs"].items() if each.get("required")] == ["models"]


class Runner:
    """Runs the shell steps of the action as GitHub does: bash -eo pipefail, inputs by environment."""

    def __init__(self, action, folder):
        self.action, self.folder = action, folder
        self.outputs, self.summary = folder / "outputs", folder / "summary"
        for file in (self.outputs, self.summary):
            file.touch()

    def __call__(self, step, **inputs):
        given = {name: each.get("default", "") for name, each in self.action["inputs"].items()}
        given.update({name.replace("_", "-"): value for name, value in inputs.items()})
        (found,) = (each for each in self.action["runs"]["steps"] if each["name"] == step)

        def value(text):
            text = text.replace("${{ github.action_path }}", str(ROOT))
            return EXPRESSION.sub(lambda match: given[match[1].strip().removeprefix("inputs.")], text)

        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_OUTPUT": str(self.outputs),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "RUNNER_TEMP": str(self.folder),
            **{name: value(text) for name, text in found["env"].items()},
        }
        bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]]
        return subprocess.run(bash, cwd=self.folder, env=environment, capture_output=True, text=True)


TOY = """name = "mytoy"
version = 1
title = "Mine"
loader = "toy"
scheme = "direct"
[options]
field = "swirl"
stiffness = 7.4
curl = {curl}
"""


@pytest.fixture(scope="module")
def measured(action, tmp_path_factory):
    """A toy of a model author, measured by the action in the smoke tier."""
    folder = tmp_path_factory.mktemp("author")
    (folder / "cards").mkdir()
    (folder / "cards" / "mytoy.toml").write_text(TOY.format(curl=0.15), encoding="utf-8")
    runner = Runner(action, folder)
    words = {
        "models": "\n  cards/mytoy.toml \n",
        "protocols": "audit\n",
        "systems": "si-64",
        "tier": "smoke",
        "jobs": "1",
    }
    done = runner("Measure", **words)
    assert done.returncode == 0, done.stdout + done.stderr
    return runner


def test_the_action_measures(measured):
    assert (measured.folder / "conservbench-results" / "audit" / "si-64" / "mytoy.nc").is_file()
    assert "results=conservbench-results" in measured.outputs.read_text()
    assert "Jacobian asymmetry" in measured.summary.read_text()


def test_the_action_fails_on_a_gate(measured):
    done = measured("Judge the gates")
    assert done.returncode == 1
    assert "gate failed: mytoy / audit / si-64 / asymmetry" in done.stderr


def test_the_action_compares(measured):
    cells = score(open_results(measured.folder / "conservbench-results")).cells
    write_entry(cells, measured.folder / "same.json")
    done = measured("Compare with the baseline", baseline="same.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert measured.outputs.read_text().endswith("verdict=pass\n")
    document = json.loads((measured.folder / "same.json").read_text())
    for row in document["cells"][0]["scores"]:
        if row["metric"] == "asymmetry":
            # a tenth of what it is: the model of the baseline was ten times less curled
            row.update({key: row[key] / 10 for key in ("value", "low", "high")})
    (measured.folder / "better.json").write_text(json.dumps(document))
    done = measured("Compare with the baseline", baseline="better.json")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "::error" in done.stdout
    assert measured.outputs.read_text().endswith("verdict=regression\n")
    assert (measured.folder / "conservbench-results" / "check.xml").is_file()

    for row in document["cells"][0]["scores"]:
        if row["metric"] == "asymmetry":
            row.update({key: row[key] * 100 for key in ("value", "low", "high")})
    (measured.folder / "worse.json").write_text(json.dumps(document))
    done = measured("Compare with the baseline", baseline="worse.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert measured.outputs.read_text().endswith("verdict=improved\n")


def fakes_of(folder, runner, code):
    """A stand-in for the command, which ends as told."""
    fakes = folder / "bin"
    fakes.mkdir(exist_ok=True)
    (fakes / "conservbench").write_text(f"#!/bin/bash\nexit {code}\n", encoding="utf-8")
    (fakes / "conservbench").chmod(0o755)
    steps = [{**each, "run": f'export PATH="{fakes}:$PATH"\n{each.get("run", "")}'} for each in steps_of(runner.action)]
    return Runner({**runner.action, "runs": {"steps": steps}}, folder)


@pytest.mark.parametrize(("code", "goes_on"), [(0, True), (3, True), (4, True), (2, False)])
def test_what_failed_is_compared_too_and_fails_the_job(action, tmp_path, code, goes_on):
    runner = fakes_of(tmp_path, Runner(action, tmp_path), code)
    assert runner("Measure", models="mytoy").returncode == code
    assert ("measured=true" in runner.outputs.read_text()) == goes_on


def test_no_step_keeps_what_follows_from_telling(action):
    """A step without a condition is left out once one has failed: measuring, or a comparison with a regression."""
    conditions = {step["name"]: step.get("if", "") for step in action["runs"]["steps"]}
    for name, wanted in [("Compare with the baseline", "baseline"), ("Judge the gates", "gates")]:
        words = conditions[name].split(" && ")
        assert words[0] == "always()"
        assert words[1].startswith(f"inputs.{wanted} ")
        assert words[2] == "steps.measure.outputs.measured == 'true'"
    steps = load(ROOT / ".github" / "workflows" / "check.yml")["jobs"]["regression"]["steps"]
    (compare,) = (step for step in steps if step.get("name") == "Compare")
    assert compare["if"] == "always() && steps.head.outputs.measured == 'true'"
    assert not any("continue-on-error" in step for step in (*steps, *action["runs"]["steps"]))


@pytest.mark.parametrize(
    ("code", "base", "head"), [(0, 0, 0), (3, 0, 3), (4, 4, 4), (2, 2, 2)], ids=["fine", "failed", "none", "usage"]
)
def test_a_base_that_cannot_be_measured_stops_nothing(tmp_path, code, base, head):
    fakes = tmp_path / "bin"
    fakes.mkdir()
    for name, ends in (("conservbench", code), ("git", 0), ("python", 0)):
        (fakes / name).write_text(f"#!/bin/bash\nexit {ends}\n", encoding="utf-8")
        (fakes / name).chmod(0o755)
    given = {"PATH": f"{fakes}{os.pathsep}{os.environ['PATH']}", "RUNNER_TEMP": str(tmp_path), "BASE": "0"}
    given["GITHUB_OUTPUT"] = str(tmp_path / "outputs")
    for name, expected in (("Measure the base", base), ("Measure the head", head)):
        steps = load(ROOT / ".github" / "workflows" / "check.yml")["jobs"]["regression"]["steps"]
        (step,) = (each for each in steps if each.get("name") == name)
        done = subprocess.run(["bash", "-e", "-c", step["run"]], env={**os.environ, **given}, cwd=tmp_path)
        assert done.returncode == expected
    assert (tmp_path / "outputs").exists() == (code != 2)


def test_the_action_refuses_wrong_words(action, tmp_path):
    runner = Runner(action, tmp_path)
    for models in ("", "  \n "):
        done = runner("Measure", models=models, tier="smoke")
        assert done.returncode == 2
        assert "no model is named" in done.stdout
    done = runner("Measure", models="$(touch pwned)\n`touch pwned`", tier="smoke; touch pwned")
    assert done.returncode == 2
    assert not (tmp_path / "pwned").exists()


def test_the_action_installs_what_is_asked_for(action, tmp_path):
    fakes = tmp_path / "bin"
    fakes.mkdir()
    for name in ("python", "conservbench"):
        (fakes / name).write_text(f'#!/bin/bash\nprintf "%s\\n" {name} "$@" >> "{tmp_path}/said"\n', encoding="utf-8")
        (fakes / name).chmod(0o755)
    runner = Runner(action, tmp_path)
    step = next(each for each in action["runs"]["steps"] if each["name"] == "Install")
    step = {**step, "run": f'export PATH="{fakes}:$PATH"\n{step["run"]}'}
    runner.action = {**action, "runs": {"steps": [step]}}
    assert runner("Install", requirements="my-model\n\nother>=1; touch pwned").returncode == 0
    said = (tmp_path / "said").read_text().splitlines()
    constraint = ["--constraint", f"{ROOT}/constraints.txt"]
    expected = ["-m", "pip", "install", "--quiet", str(ROOT), *constraint, "my-model", "other>=1; touch pwned"]
    assert said == ["python", *expected, "conservbench", "--version"]
    assert not (tmp_path / "pwned").exists()


def card_of(name, weights):
    """A card, as far as the script reads it."""
    return (
        f"# good card\ncheckpoint = '{name}.safetensors'\nsha256 = '{hashlib.sha256(weights.encode()).hexdigest()}'\n"
    )


@pytest.fixture
def repository(tmp_path):
    """A repository with a base, and a way to make pull requests of files; a stand-in validates."""
    folder = tmp_path / "repository"
    folder.mkdir()
    fakes = tmp_path / "bin"
    fakes.mkdir()
    # says what it is given, and refuses what holds the word bad
    (fakes / "conservbench").write_text(
        '#!/bin/bash\nprintf "%s " "$@"; echo\nfor each in "${@:2}"; do [[ $each == --* ]] || '
        '{ echo "read: $(head -c 300 "$each")"; grep -q bad "$each" && exit 1; }; done; exit 0\n',
        encoding="utf-8",
    )
    (fakes / "conservbench").chmod(0o755)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
        "PATH": f"{fakes}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "nobody"),
        **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "nobody@example.org"),
    }

    def git(*words):
        done = subprocess.run(["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    class Repository:
        root = folder

        def propose(self, files, links=None, *, taken=(), orphan=False):
            """Exit code and output of the script for a pull request with these files, and without those taken away."""
            git("checkout", "-q", *(("--orphan", "proposal") if orphan else ("-b", "proposal", "main")))
            for path in taken:
                (folder / path).unlink()
            for path, content in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(content, encoding="utf-8")
            for path, target in (links or {}).items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).symlink_to(target)
            git("add", "-A")
            git("commit", "-q", "-m", "Propose")
            git("checkout", "-q", "main")
            done = subprocess.run(
                [SCRIPT, "main", "proposal"], cwd=folder, env=environment, capture_output=True, text=True
            )
            assert git("status", "--porcelain") == ""
            assert git("rev-parse", "--abbrev-ref", "HEAD") == "main"
            return done.returncode, done.stdout + done.stderr

    git("init", "-q", "-b", "main")
    (folder / "README.md").write_text("base\n", encoding="utf-8")
    (folder / "models").mkdir()
    (folder / "models" / "old.toml").write_text(card_of("old", "weights\n"), encoding="utf-8")
    (folder / "models" / "other.toml").write_text(card_of("old", "weights\n"), encoding="utf-8")
    (folder / "models" / "old.safetensors").write_text("weights\n", encoding="utf-8")
    git("add", "-A")
    git("commit", "-q", "-m", "Base")
    return Repository()


PAIR = {"models/net.toml": card_of("net", "weights\n"), "leaderboard/entries/net.json": "good entry\n"}


def test_a_submission_is_read_from_the_head(repository):
    code, said = repository.propose({**PAIR, "models/net.safetensors": "weights\n"})
    assert code == 0, said
    for content in ("# good card", "good entry", "weights"):
        assert f"read: {content}" in said
    assert re.search(r"validate --card \S+/net\.toml --entry \S+/net\.json --artifact \S+/net\.safetensors", said)


def test_a_refusal_is_told(repository):
    code, said = repository.propose({**PAIR, "leaderboard/entries/net.json": "bad entry\n"})
    assert code == 1, said


def test_an_entry_of_a_card_that_is_there(repository):
    code, said = repository.propose({"leaderboard/entries/old.json": "good entry\n"})
    assert code == 0
    assert "read: # good card" in said
    assert re.search(r"--card \S+/old\.toml --entry \S+/old\.json --artifact \S+/old\.safetensors", said)


def test_what_has_no_ancestor_with_the_base_is_no_empty_submission(repository):
    code, said = repository.propose(PAIR, orphan=True)
    assert code not in (0, 1)
    assert "no merge base" in said
    assert "no submission" not in said


def test_a_checkpoint_is_that_of_every_card_that_names_it(repository):
    code, said = repository.propose({"models/old.safetensors": "evil\n"})
    assert code == 1
    digest = hashlib.sha256(b"evil\n").hexdigest()
    for card in ("old", "other"):
        assert (
            f"refused: models/{card}.toml names old.safetensors, but its sha256 is not the card's: it is {digest}"
            in said
        )
    assert "taken away" not in said


def test_a_checkpoint_that_is_named_stays(repository):
    code, said = repository.propose({}, taken=["models/old.safetensors"])
    assert code == 1
    assert "its sha256 is not the card's: it is absent" in said


def test_what_goes_with_all_its_cards_is_taken_away(repository):
    gone = [f"models/{each}" for each in ("old.toml", "other.toml", "old.safetensors")]
    code, said = repository.propose({}, taken=gone)
    assert code == 0, said
    assert "old.safetensors: taken away" in said
    assert said.count("taken away, for a reviewer") == 2


def test_a_checkpoint_of_no_card_is_refused(repository):
    code, said = repository.propose({"models/new.safetensors": "weights\n"})
    assert code == 1
    assert "refused: no card names new.safetensors" in said


def test_a_card_is_checked_against_the_checkpoint_it_names(repository):
    code, said = repository.propose({**PAIR, "models/net.toml": card_of("old", "weights\n")})
    assert code == 0, said
    assert re.search(r"--artifact \S+/net/old\.safetensors", said)


def test_half_a_submission_is_refused(repository):
    code, said = repository.propose({"models/net.toml": card_of("net", "")})
    assert code == 1
    assert "leaderboard/entries/net.json: not in the pull request" in said


def test_what_is_no_submission_is_left_to_reviewers(repository):
    code, said = repository.propose({"README.md": "other\n", "conservbench/x.py": "bad\n"})
    assert (code, "no submission" in said) == (0, True)


def test_a_link_is_not_followed(repository, tmp_path):
    secret = tmp_path / "secret.toml"
    secret.write_text("the secret\n", encoding="utf-8")
    entry = {"leaderboard/entries/net.json": "good entry\n"}
    code, said = repository.propose(entry, links={"models/net.toml": secret})
    assert code == 1
    assert "models/net.toml: not a regular file" in said
    assert "the secret" not in said


def test_strange_paths_and_words_stay_text(repository):
    strange = {"models/$(touch pwned).toml": "bad\n", "models/a\n::error::x.toml": "bad\n", "models/-x.toml": "bad\n"}
    code, said = repository.propose({**PAIR, **strange, "models/net.toml": "::error::hello\n"})
    assert code == 1, said
    assert not list(repository.root.rglob("pwned"))
    lines = said.splitlines()
    token = lines[0].removeprefix("::stop-commands::")
    assert re.fullmatch(r"quiet-[0-9a-f]{32}", token)
    assert lines[-1] == f"::{token}::"
    assert sum(line.startswith("refused: not the file of a model") for line in lines) == 3


@pytest.mark.parametrize("name", ["_best.json", ".evil.json", "evil%41.json", "more/net.json"])
def test_what_the_board_would_read_is_the_entry_of_a_model(repository, name):
    code, said = repository.propose({**PAIR, f"leaderboard/entries/{name}": "good entry\n"})
    assert (code, "refused: not the file of a model" in said) == (1, True), said


def test_code_of_the_head_is_not_run(repository):
    code, said = repository.propose({**PAIR, ".github/scripts/validate-submission": "#!/bin/bash\necho owned\n"})
    assert code == 0
    assert "owned" not in said
    assert not (repository.root / ".github").exists()


@pytest.mark.skipif(shutil.which("git") is None, reason="no git on the path: install git")
def test_two_commits_are_asked_for(repository):
    for words in ((), ("main",), ("main", "--upload-pack=x"), ("main", "nothing")):
        done = subprocess.run([SCRIPT, *words], cwd=repository.root, capture_output=True, text=True)
        assert done.returncode != 0
