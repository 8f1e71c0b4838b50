"""``pytest --conservbench``, in the repository of a model's author."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from conservbench.cards import find_model, find_protocol
from conservbench.leaderboard.entry import write_entry
from conservbench.outcome import Outcome
from conservbench.result import open_results
from conservbench.scored import ScoredCell
from conservbench.scoring import score
from conservbench.testing import conformance_checks

CARD = """name = "{name}"
version = 1
title = "Mine"
loader = "toy"
scheme = "{scheme}"
[options]
field = "{field}"
stiffness = 7.4
curl = {curl}
"""

SPRINGS = """
import warnings
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list


class Springs(Calculator):
    implemented_properties = ["energy", "forces"]
    twist = 0.0

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        warnings.warn("third-party noise")
        super().calculate(atoms, properties, system_changes)
        i, d, D = neighbor_list("idD", atoms, 3.2)
        w, x = (1 - (d / 3.2) ** 2) ** 4, d - 2.35
        slope = 20 * x * w - (10 * x**2 - 1) * 8 * d / 3.2**2 * (1 - (d / 3.2) ** 2) ** 3
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, i, 2 * (slope / d)[:, None] * D + self.twist * np.cross([0, 0, 1], D) * w[:, None])
        self.results = {"energy": ((10 * x**2 - 1) * w).sum(), "forces": forces}


class Twisted(Springs):
    twist = 1.0


def absent():
    raise RuntimeError("weights are not here")
"""

INI = """[pytest]
addopts = --strict-markers --strict-config -p no:cacheprovider
filterwarnings = error
xfail_strict = true
"""

AUDIT = ("--conservbench-protocol", "audit", "--conservbench-tier", "smoke", "--conservbench-system", "si-64")


@pytest.fixture(scope="module")
def author(tmp_path_factory):
    """A repository with a test of its own, cards and calculators."""
    folder = tmp_path_factory.mktemp("author")
    (folder / "cards").mkdir()
    for name, scheme, field, curl in [
        ("calm", "gradient", "harmonic", 0.0),
        ("curled", "direct", "swirl", 0.15),
        ("wrong", "gradient", "swirl", 0.15),
    ]:
        text = CARD.format(name=name, scheme=scheme, field=field, curl=curl)
        (folder / "cards" / f"{name}.toml").write_text(text, encoding="utf-8")
    (folder / "springs.py").write_text(SPRINGS, encoding="utf-8")
    (folder / "test_own.py").write_text("def test_own():\n    assert True\n", encoding="utf-8")
    (folder / "pytest.ini").write_text(INI, encoding="utf-8")

    def run(*words):
        command = [sys.executable, "-m", "pytest", *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
        return done.returncode, done.stdout + done.stderr

    run.folder = folder
    return run


@pytest.fixture
def asked(author, monkeypatch, capsys):
    """A session in this process, where what it needs is imported."""
    monkeypatch.chdir(author.folder)

    def run(*words):
        code = pytest.main(["-p", "no:xdist", *words])
        return code, "".join(capsys.readouterr())

    return run


def outcomes(path):
    """Test to outcome and words, from a JUnit file."""
    found = {}
    for case in ET.parse(path).iter("testcase"):
        child = next(iter(case), None)
        words = "" if child is None else f"{child.get('message', '')} {child.text or ''}"
        found[f"{case.get('classname')}::{case.get('name')}"] = ("passed" if child is None else child.tag, words)
    return found


def test_without_the_option_nothing_happens(author):
    code = (
        "import sys, pytest; code = pytest.main(['-q', '-p', 'no:xdist']);"
        "print(sorted(set(sys.modules) & {'torch', 'ase', 'numpy', 'xarray', 'conservbench.cards'})); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=author.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="module")
def session(author):
    """A session with a card that conserves and one that does not."""
    cards = ("--conservbench", "cards/calm.toml", "--conservbench", "cards/curled.toml")
    code, said = author(*cards, *AUDIT, "--conservbench-out", "kept", "--junitxml", "session.xml")
    return code, said, outcomes(author.folder / "session.xml")


def test_a_test_for_each_check_ending_and_gate(session):
    _, said, found = session
    metrics = find_protocol("audit").metrics
    gates = [key for key, metric in metrics.items() if metric.below is not None or metric.above is not None]
    expected = {"test_own::test_own"}
    for name in ("calm", "curled"):
        expected |= {f"conservbench.{name}.conformance::{check.name}" for check in conformance_checks()}
        expected |= {f"conservbench.{name}.audit.si-64::{key}" for key in ("outcome", *gates)}
    assert set(found) == expected
    assert "conservbench/calm/audit/si-64 " in said


def test_a_conservative_card_passes(session):
    _, _, found = session
    calm = {name: outcome for name, (outcome, _) in found.items() if ".calm." in name}
    assert set(calm.values()) == {"passed", "skipped"}
    assert calm["conservbench.calm.audit.si-64::asymmetry"] == "passed"
    assert calm["conservbench.calm.conformance::gradient"] == "passed"
    # what cannot be asked is skipped, with the reason
    assert "it tells atoms apart by their index" in found["conservbench.calm.conformance::permutation"][1]
    assert "atoms are labelled" in found["conservbench.calm.audit.si-64::permutation_error"][1]


def test_a_curl_fails_its_gate_and_is_told_in_words(session):
    code, said, found = session
    assert code == 1
    wrong = [name for name, (outcome, _) in found.items() if outcome == "failure"]
    assert wrong == ["conservbench.curled.audit.si-64::asymmetry"]
    assert re.search(r"audit / si-64 / curled: Jacobian asymmetry is 0\.0164\d .*; its limit: below 1e-06", said)
    assert find_protocol("audit").metrics["asymmetry"].source in said
    assert re.search(r"again: conservbench run -m \S+/cards/curled\.toml -p audit -s si-64 --tier smoke --fresh", said)
    # two snapshots do not tell what a loop costs: that is no pass
    outcome, words = found["conservbench.curled.audit.si-64::loop_work_relative"]
    assert (outcome, "unclear: work of a loop over its path is" in words) == ("skipped", True)
    assert re.search(r"conservbench: \d gates unclear, which -rs shows; --conservbench-tier quick knows more", said)
    assert "Traceback" not in said
    assert "pytest_plugin.py" not in said


def test_results_are_kept(session, author):
    _, said, _ = session
    assert f"results are in {author.folder / 'kept'}" in said
    for name in ("calm", "curled"):
        assert (author.folder / "kept" / "audit" / "si-64" / f"{name}.nc").is_file()
        assert name in (author.folder / "kept" / "report.html").read_text(encoding="utf-8")
    assert not list((author.folder / "kept").rglob("*.lock"))


@pytest.mark.slow
def test_a_baseline_is_compared(session, author):
    cells = score(open_results(author.folder / "kept")).cells
    write_entry([cell for cell in cells if cell.model["name"] == "curled"], author.folder / "other.json")
    # ten times less curled, and under another name
    text = (author.folder / "other.json").read_text(encoding="utf-8").replace('"curled"', '"before"')
    document = json.loads(text)
    for row in document["cells"][0]["scores"]:
        if row["metric"] == "asymmetry":
            row.update({key: row[key] / 10 for key in ("value", "low", "high")})
    (author.folder / "baseline.json").write_text(json.dumps(document), encoding="utf-8")
    words = ("--conservbench", "cards/curled.toml", *AUDIT, "--conservbench-baseline", "baseline.json")
    code, said = author(*words, "-m", "conservbench", "-k", "baseline", "--junitxml", "compared.xml")
    assert code == 1
    found = outcomes(author.folder / "compared.xml")
    # the same random numbers: whatever else has a value is the same
    wrong = [name for name, (outcome, _) in found.items() if outcome == "failure"]
    assert wrong == ["conservbench.curled.audit.si-64.baseline::asymmetry"]
    assert found["conservbench.curled.audit.si-64.baseline::outcome"][0] == "passed"
    assert re.search(r"curled / audit / si-64 / asymmetry: regression: .* was 0\.0016\d+, is 0\.016\d+", said)


@pytest.fixture(scope="module")
def earlier(author):
    """An entry of two cells in the smoke tier, made up, and how to write one of it."""
    systems = ("si-64", "si-liquid-64")

    def write(name, model="curled", tier="smoke", systems=systems):
        card = find_model(str(author.folder / "cards" / "curled.toml"))
        document = json.loads(card.to_json())
        protocol = json.loads(find_protocol("audit").to_json())
        cells = [
            ScoredCell({**document, "name": model}, protocol, system, tier, Outcome.COMPLETED, "", {}, {}, ())
            for system in systems
        ]
        write_entry(cells, author.folder / name)
        return ("--conservbench", "cards/curled.toml", *AUDIT, "--conservbench-baseline", name)

    return write


def test_cells_of_one_side_alone_are_skipped_with_the_reason(asked, earlier):
    words = earlier("two.json")
    words = ("--conservbench", "cards/calm.toml", *words)
    code, said = asked(*words, "-k", "baseline and (liquid or calm)", "-rs")
    assert code == 0, said
    assert "curled/audit/si-liquid-64: missing: not measured now" in said
    assert "audit / si-64 / calm: new: not in the baseline" in said


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"systems": ["si-liquid-64"]}, "nothing of what is measured: it has curled/audit/si-liquid-64; measured is"),
        (
            {"tier": "quick"},
            "has curled/audit/si-64 in tier quick, measured is tier smoke: add --conservbench-tier quick",
        ),
    ],
)
def test_a_baseline_that_cannot_be_compared_is_told_before_anything_is_measured(asked, earlier, how, expected):
    code, said = asked(*earlier("strange.json", **how), "--collect-only")
    assert code == 4
    assert expected in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_any_ase_calculator(author):
    """Warnings are errors in this repository; those of a calculator under test are shown, and break no measurement."""
    models = ("--conservbench", "ase:springs:Springs", "--conservbench", "ase:springs:Twisted")
    code, said = author(
        *models, *AUDIT, "-n", "2", "--junitxml", "ase.xml", "-k", "conformance or outcome or asymmetry"
    )
    found = outcomes(author.folder / "ase.xml")
    wrong = {name for name, (outcome, _) in found.items() if outcome == "failure"}
    assert code == 1, said
    assert {name for name in wrong if "Springs" in name} == set()
    assert "conservbench.ase:springs:Twisted.conformance::gradient" in wrong
    assert found["conservbench.ase:springs:Twisted.audit.si-64::outcome"][0] == "passed"
    assert "not minus the derivative of the energy" in said


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_told_once(author):
    """Once of the checks and once of the cell; the rest is skipped."""
    models = ("--conservbench", "ase:springs:absent", "--conservbench", "cards/wrong.toml")
    code, _ = author(*models, *AUDIT, "-m", "conservbench", "--junitxml", "absent.xml")
    assert code == 1
    found = outcomes(author.folder / "absent.xml")
    wrong = {name: words for name, (outcome, words) in found.items() if outcome == "failure"}
    absent = [name for name in wrong if "absent" in name]
    assert [name.rpartition(":")[2] for name in absent] == ["interface", "outcome"]
    assert all("weights are not here" in wrong[name] for name in absent)
    assert "scheme needs gradient forces; it has direct" in wrong["conservbench.wrong.conformance::interface"]
    assert found["conservbench.wrong.audit.si-64::outcome"][0] == "skipped"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--conservbench", "swirll"), "did you mean 'swirl'"),
        (("--conservbench", "cards/none.toml"), "no card cards/none.toml"),
        (("--conservbench", "ase:nowhere:make"), "no module 'nowhere'"),
        (("--conservbench", "swirl", "--conservbench-protocol", "nvee"), "did you mean 'nve'"),
        (("--conservbench", "swirl", "--conservbench-tier", "long"), "invalid choice: 'long'"),
        (("--conservbench", "swirl", "--conservbench-baseline", "none.json"), "no entry"),
    ],
)
def test_wrong_words_are_told_in_a_line(asked, words, expected):
    code, said = asked(*words, "--collect-only")
    assert code == 4
    assert expected in said
    assert "Traceback" not in said
