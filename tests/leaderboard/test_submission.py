"""Submissions that a stranger forges are refused, each with its reason; one that a run could have made is accepted.

The sound submission holds every cell that a model of direct forces is asked for, with values that the cards allow.
"""

import copy
import hashlib
import json
import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import tomli_w
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from conservbench.cards import build, find_model, find_protocol, list_models, list_protocols, model_of
from conservbench.cli.validate import validate as validate_command
from conservbench.leaderboard import submission, submitted_card, submitted_cells
from conservbench.leaderboard.entry import cells_of, spelled_out
from conservbench.leaderboard.hostile_text import hostile_texts, shown
from conservbench.leaderboard.submission import validate, validate_files
from conservbench.leaderboard.submitted_card import LARGEST, read_submitted
from conservbench.outcome import Outcome
from conservbench.plugins import protocol_module


@pytest.fixture(scope="module", autouse=True)
def cards_are_looked_up_once():
    """What is installed does not change while these tests run, and looking it up takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submission, "find_protocol", cache(find_protocol))
        patch.setattr(submission, "list_protocols", cache(list_protocols))
        patch.setattr(submitted_card, "list_models", cache(list_models))
        patch.setattr(submitted_cells, "_settings", cache(submitted_cells._settings))
        yield


WEIGHTS = b"not really a network"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
CARD = {
    "name": "acme-direct",
    "version": 1,
    "title": "A <b>direct</b> network for Si & Å",
    "loader": "mace",
    "scheme": "direct",
    "checkpoint": "acme.safetensors",
    "sha256": SHA256,
    "dtype": "float32",
    "authors": ["Ada One", "Bo Two"],
    "license": "MIT",
    "doi": "10.1000/182",
    "bibtex": "@article{acme,\n\ttitle = {A}\n}\n",
    "training_data": "their own",
}


def score(metric, most):
    """A score that a run could have given."""
    if metric.twin or metric.parent or metric.control:
        value, n, outcome, reason = None, 0, "unsupported", "nothing to be compared with"
    else:
        value, n, outcome, reason = 0.5, most, "completed", ""
    width = 0.0 if metric.exact else 0.25
    return {
        "metric": metric.key,
        "value": value,
        "low": None if value is None else value - width,
        "high": None if value is None else value + width,
        "unit": metric.unit,
        "n": n,
        "outcome": outcome,
        "reason": reason,
    }


def cell(card, digest, protocol, system):
    """A cell of the standard tier with a score for each metric of its protocol."""
    tier = build(protocol_module(protocol.plugin, "settings").Settings, protocol.settings("standard"), "here")
    return {
        "model": card["name"],
        "protocol": protocol.name,
        "system": system,
        "tier": "standard",
        "outcome": "completed",
        "reason": "",
        "provenance": {
            "conservbench": "0.1.0",
            "git": {"commit": "0123456789" * 4, "dirty": False},
            "python": "3.12.1",
            "packages": {"torch": "2.8.0", "vesin": None},
            "platform": "Linux x86_64",
            "processor": "Some (R) processor",
            "device": "cpu",
            "dtype": card["dtype"] if protocol.dtype == "model" else protocol.dtype,
            "threads": 1,
            "seeds": {"seed": tier.seed},
            "digests": {"model": digest, "protocol": protocol.digest},
            "seconds": 12.5,
        },
        "scores": [score(metric, getattr(tier, "most_samples", 6)) for metric in protocol.metrics.values()],
        "plots": [
            {
                "key": "picture",
                "title": "A picture",
                "x": {"label": "t", "unit": "ps"},
                "y": {"label": "E", "unit": "eV"},
                "lines": [{"name": "", "x": [0.0, 1.0], "y": [0.5, None]}],
            }
        ],
    }


def entry_of(card):
    """The whole entry of a card."""
    digest = model_of(card, Path(f"{card['name']}.toml")).digest
    protocols = [find_protocol(name) for name in list_protocols()]
    asked = [each for each in protocols if each.by_default and not each.tuned and card["scheme"] in each.schemes]
    return {
        "schema": 2,
        "protocols": {each.name: {"version": each.version, "digest": each.digest} for each in asked},
        "models": {card["name"]: {**card, "digest": digest}},
        "cells": [cell(card, digest, each, system) for each in asked for system in each.systems],
    }


SOUND = entry_of(CARD)


def checked(card=CARD, entry=SOUND, artifact=None, tier="standard"):
    return validate(tomli_w.dumps(card), json.dumps(entry), artifact, tier=tier)


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "acme.safetensors"
    path.write_bytes(WEIGHTS)
    return path


def test_what_a_run_could_have_given_is_accepted(artifact):
    assert len(SOUND["cells"]) > 5
    assert checked(artifact=artifact) == []
    assert checked() == []


def test_nothing_that_it_names_is_imported():
    before = set(sys.modules)
    card = {**CARD, "loader": "ase", "options": {"factory": "antigravity:fly"}}
    said = "card: loader 'ase' runs code that the card names; expected one that reads a checkpoint"
    assert checked(card, entry_of(card)) == [said]
    assert not {name for name in set(sys.modules) - before if name.startswith(("antigravity", "ase", "torch", "mace"))}


@pytest.mark.parametrize("name", list_models())
def test_every_card_of_the_suite_would_be_accepted(name):
    text = (Path(__file__).parents[2] / "models" / f"{name}.toml").read_text(encoding="utf-8")
    card, problems = read_submitted(text)
    if find_model(name).loader == "metatomic":
        # what is exported is code of its author: the suite trusts its own alone
        assert card is None
        assert [each for each in problems if "others may run code where they are opened" in each]
        return
    assert card is not None
    assert problems == []


CARDS = {
    "a path for a name": ({"name": "../acme"}, r"name is '../acme'; expected letters, digits"),
    "a folder in a name": ({"name": "models/acme"}, "expected letters, digits"),
    "an absolute path": ({"name": "/etc/passwd"}, "expected letters, digits"),
    "a hidden file": ({"name": ".bashrc"}, "expected letters, digits"),
    "HTML in a name": ({"name": "<script>alert(1)</script>"}, "expected letters, digits"),
    "a quote in a name": ({"name": 'a"onmouseover="x'}, "expected letters, digits"),
    "a space in a name": ({"name": "acme direct"}, "expected letters, digits"),
    "a Cyrillic letter": ({"name": "аcme-direct"}, "expected letters, digits"),
    "a line in a name": ({"name": "acme\n::error::x"}, "expected letters, digits"),
    "an empty name": ({"name": ""}, "expected letters, digits"),
    "a long name": ({"name": "a" * 61}, "expected 60 characters or fewer"),
    "a name of a file": ({"name": "acme.toml"}, "is that of a file"),
    "a name of the index": ({"name": "Index"}, "is that of a file, or of something else"),
    "a name for going up": ({"name": "a..b"}, "is that of a file"),
    "a number for a name": ({"name": 7}, "missing key 'name'"),
    "one for l": ({"name": "si-mace-d1rect"}, "looks like that of the model 'si-mace-direct'"),
    "another case": ({"name": "SI-MACE-DIRECT"}, "looks like that of the model 'si-mace-direct'"),
    "I for l": ({"name": "harmonIc"}, "looks like that of the model 'harmonic'"),
    "rn for m": ({"name": "harrnonic"}, "looks like that of the model 'harmonic'"),
    "other separators": ({"name": "si_mace.direct"}, "looks like that of the model 'si-mace-direct'"),
    "an unknown key": ({"titel": "x"}, "unknown key 'titel'; did you mean 'title'"),
    "a wrong type": ({"version": "1"}, "version is '1'; expected a whole number"),
    "version zero": ({"version": 0}, "version is 0; expected 1 or more"),
    "an unknown scheme": ({"scheme": "curl"}, "scheme is 'curl'"),
    "a stride alone": ({"stride": 8}, "stride 8 does not go with scheme 'direct'"),
    "an unknown loader": ({"loader": "maze"}, "unknown loader 'maze'; did you mean 'mace'"),
    "a module for a loader": ({"loader": "os:system"}, "unknown loader 'os:system'"),
    "control": ({"role": "control"}, "the controls of this suite are its own"),
    "no author": ({"authors": []}, "missing key 'authors'"),
    "a blank author": ({"authors": [" "]}, "missing key 'authors'"),
    "no licence": ({"license": ""}, "missing key 'license'"),
    "a doi that is a link": ({"doi": "javascript:alert(1)"}, "doi is 'javascript:alert"),
    "a bibtex that is none": ({"bibtex": "<img>"}, "bibtex does not start with '@'"),
    "no such system": ({"systems": ["si-65"]}, "no system 'si-65'; did you mean 'si-64'"),
    "a system twice": ({"systems": ["si-64", "si-64"]}, "one is there twice"),
    "a checkpoint elsewhere": ({"checkpoint": "../../etc/passwd"}, "expected the name of a file beside the card"),
    "an absolute checkpoint": ({"checkpoint": "/etc/passwd"}, "expected the name of a file beside the card"),
    "a pickle": ({"checkpoint": "acme.pt"}, "expected .safetensors: others may run code"),
    "an archive": ({"checkpoint": "acme.pkl.gz"}, "expected .safetensors: others may run code"),
    "a program": ({"checkpoint": "acme.py"}, "expected .safetensors: others may run code"),
    "no ending": ({"checkpoint": "acme"}, "expected .safetensors: others may run code"),
    "no checkpoint": ({"checkpoint": None}, "missing key 'checkpoint': loader 'mace' makes no model without one"),
    "neither": ({"checkpoint": None, "sha256": None}, "missing key 'checkpoint': loader 'mace' makes no model with"),
    "a loader that runs code": ({"loader": "ase"}, "loader 'ase' runs code that the card names"),
    "a loader of compiled code": ({"loader": "metatomic"}, "loader 'metatomic' runs code that the card names"),
    "a direct twin of a classical potential": (
        {"loader": "stillinger_weber", "checkpoint": None, "sha256": None, "twin": "si-sw"},
        "scheme is 'direct'; loader 'stillinger_weber' has gradient forces alone",
    ),
    "another toy's twin": (
        {"loader": "toy", "checkpoint": None, "sha256": None, "twin": "harmonic", "options": {"curl": 9.9}},
        "twin 'harmonic' is another model: without a checkpoint, it is made of its options",
    ),
    "an author that is not seen": ({"authors": ["\u3164"]}, r"authors\[0\] has a character that is not seen.*U\+3164"),
    "a title of dots without dots": ({"title": "\u2800"}, r"title has a character that is not seen.*U\+2800"),
    "no checksum": ({"sha256": None}, "missing key 'sha256'"),
    "a short checksum": ({"sha256": SHA256[:-1]}, "expected 64 hexadecimal digits"),
    "a checksum in capitals": ({"sha256": "A" * 64}, "expected 64 hexadecimal digits in lower case"),
    "a fast model by a path": ({"fast": "../x.toml"}, "fast is '../x.toml'; expected the name of a model"),
    "a fast model that is none": ({"scheme": "mts", "stride": 4, "fast": "nobody"}, "fast: no model 'nobody'"),
    "a twin by a path": ({"twin": "/tmp/x.toml"}, "twin is '/tmp/x.toml'; expected the name of a model"),
    "a borrowed twin": ({"twin": "si-mace-gradient"}, "twin 'si-mace-gradient' is made of another network"),
    "a parent by a path": ({"parent": "x.toml", "tuning": {}}, "parent is 'x.toml'; expected the name of a model"),
    "a parent without tuning": ({"parent": "si-sw"}, "missing key 'tuning'"),
    "a parent that is none": (
        {"parent": "nobody", "tuning": {"target": "rdf", "steps": 1, "evaluations": 1.0, "seconds": 1.0}},
        "parent 'nobody' is no model of this suite: submit it first",
    ),
    "bidi in a title": ({"title": "safe \u202eevil"}, r"title has a character that is not seen.*U\+202E"),
    "a zero-width space": ({"authors": ["Ada\u200b One"]}, r"authors\[0\] has a character that is not seen"),
    "a control character": ({"title": "a\x1b[31m"}, r"title has a control character, U\+001B"),
    "lines in a title": ({"title": "a\n\n# b"}, "title has a control character"),
    "heaped marks": ({"title": "Z" + "\u0301" * 9}, "heaps more than 4 marks"),
    "a long title": ({"title": "x" * 301}, "each author have 300 characters or fewer"),
    "a long text": ({"notes": "x" * 20_001}, "notes has 20001 characters; expected 20000 or fewer"),
    "a hostile key": ({"options": {"\u202e": 1}}, "a key has a character that is not seen"),
    "a number that is none": ({"options": {"x": float("nan")}}, "a number is not finite"),
    "infinity": ({"options": {"x": float("inf")}}, "a number is not finite"),
    "a very large number": ({"options": {"x": 10**30}}, "a number is not finite, or too large"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), CARDS.values(), ids=CARDS)
def test_a_forged_card_is_refused(changes, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    card = {key: value for key, value in {**CARD, **changes}.items() if value is not None}
    problems = checked(card)
    assert any(problem.startswith("card: ") for problem in problems)
    assert [problem for problem in problems if problem.startswith("card") and re.search(said, problem)], problems
    harmless(problems)


def harmless(problems):
    """What is told can be printed anywhere: a line each, with nothing unseen, not long."""
    for problem in problems:
        assert problem.isprintable()
        assert len(problem) < 320


CARD_TEXTS = {
    "no TOML": ("name = ", "not TOML"),
    "a date": (tomli_w.dumps(CARD) + "\n[options]\nx = 2020-01-01\n", "is neither text nor a number"),
    "a key twice": (tomli_w.dumps(CARD) + "\nname = 'x'\n", "not TOML"),
    "a very long number": ("version = 1" + "0" * 5000, "not TOML"),
    "deep arrays": ("x = " + "[" * 30_000, "not TOML"),
    "deep tables": ("a." * 30_000 + "b = 1", "a key of 20 parts or more"),
    "deep tables in quotes": ('["a" . ' + "'a'\t." * 10_000 + "b]", "a key of 20 parts or more"),
    "deep tables in strange quotes": ('"!".' * 10_000 + "a = 1", "a key of 20 parts or more"),
    "deep tables in spaced quotes": ("'a b' . " * 8_000 + "a = 1", "a key of 20 parts or more"),
    "deep tables in escapes": (r'"\".".' * 8_000 + "a = 1", "a key of 20 parts or more"),
    "deep tables in a heading": ("[" + '"!".' * 10_000 + "a]", "a key of 20 parts or more"),
    "deep inline tables": ("x = " + "{a = " * 10_000, "not TOML"),
    "tables in tables": ("x = " + "{a = " * 30 + "1" + "}" * 30, "more than 20 tables"),
    "many tables": ("".join(f"[a{k}]\n" for k in range(7_000)), "missing key 'name'"),
    "too large": ("#" * (LARGEST + 1), f"{LARGEST + 1} bytes; expected {LARGEST} or fewer"),
    "half a character": ("name = '\ud800'", "half a character"),
    "nothing": ("", "missing key 'name'"),
}


@pytest.mark.parametrize(("text", "said"), CARD_TEXTS.values(), ids=CARD_TEXTS)
def test_a_text_that_is_no_card_is_refused_at_once(text, said):
    problems = validate(text, "{}")
    assert said in problems[0]
    harmless(problems)


def test_a_card_is_compared_with_the_one_of_this_suite():
    own = Path(__file__).parents[2] / "models" / "si-mace-direct.toml"
    text = own.read_text(encoding="utf-8")
    changed = text.replace('loader = "mace"', 'loader = "toy"')
    assert any("raise the version" in each for each in read_submitted(changed)[1])
    assert not any("raise" in each for each in read_submitted(changed.replace("version = 1", "version = 2"))[1])
    lower = text.replace("version = 1", "version = 0")
    assert any("is 0; that of this suite is 1 already" in each for each in read_submitted(lower)[1])


def forged(change):
    """The sound entry after a change of the document, its first NVE cell and the drift in it."""
    document = copy.deepcopy(SOUND)
    place = next(k for k, each in enumerate(document["cells"]) if each["protocol"] == "nve")
    one = document["cells"][place]
    drift = next(each for each in one["scores"] if each["metric"] == "drift")
    change(document, one, drift)
    return document


def of(cell, metric):
    return next(each for each in cell["scores"] if each["metric"] == metric)


def a_cell(document, protocol):
    return next(each for each in document["cells"] if each["protocol"] == protocol)


def emptied(cell, outcome="failed"):
    for each in cell["scores"]:
        each.update(value=None, low=None, high=None, n=0, reason="why", outcome=outcome)


NVE = "nve / si-64: "
ENTRIES = {
    "a better value than its interval": (lambda d, c, s: s.update(value=0.0), "does not hold the value 0"),
    "no samples": (lambda d, c, s: s.update(n=0), "a value of 0 samples"),
    "negative samples": (lambda d, c, s: s.update(n=-8), "a value of -8 samples"),
    "no width": (lambda d, c, s: s.update(low=0.5, high=0.5), NVE + "drift: an interval without width"),
    "no width of one sample": (lambda d, c, s: s.update(low=0.5, high=0.5, n=1), "drift: an interval without width"),
    "no drift at all": (lambda d, c, s: s.update(value=0, low=0, high=0), "drift: an interval without width"),
    "a width of one sample": (lambda d, c, s: s.update(n=1), "drift: a finite interval of one sample"),
    "nothing excluded": (lambda d, c, s: s.update(low=None, high=None), "drift: an interval with an open end of 8"),
    "no worse end": (lambda d, c, s: s.update(high=None), "drift: an interval with an open end of 8 samples, which b"),
    "too many samples": (lambda d, c, s: s.update(n=64), r"n is 64; the settings of the standard tier give 8 samples"),
    "a negative fluctuation": (
        lambda d, c, s: of(c, "fluctuation").update(value=-1.0, low=-2.0, high=0.0),
        r"fluctuation: -1 meV/atom is impossible; the card says 0 or more",
    ),
    "more than all": (
        lambda d, c, s: of(a_cell(d, "relax"), "same_minimum").update(value=101.0, low=99.0, high=102.0),
        "same_minimum: 101 % is impossible; the card says 0 to 100",
    ),
    "an unknown metric": (lambda d, c, s: s.update(metric="drifts"), "drifts: unknown metric; the protocol has drift,"),
    "a metric of no species": (lambda d, c, s: s.update(metric="drift_si"), "drift_si: unknown metric"),
    "another unit": (lambda d, c, s: s.update(unit="eV/atom/ps"), "drift is in 'eV/atom/ps'; its card says"),
    "a headline left out": (lambda d, c, s: c["scores"].remove(s), NVE + "drift is missing: a metric that tables"),
    "a gate left out": (lambda d, c, s: c["scores"].remove(of(c, "order")), NVE + "order is missing"),
    "a metric twice": (lambda d, c, s: c["scores"].append(dict(s)), "scores: drift is there twice"),
    "a gate of one's own": (lambda d, c, s: s.update(gate="pass"), "unknown key 'gate'"),
    "a hidden hole": (
        lambda d, c, s: s.update(value=None, low=None, high=None, n=0),
        "drift is completed, but has neither a value nor a reason",
    ),
    **{
        f"{outcome} without a reason": (
            lambda d, c, s, outcome=outcome: s.update(value=None, low=None, high=None, n=0, outcome=outcome),
            f"drift is {outcome}, but has neither a value nor a reason",
        )
        for outcome in ("failed", "out_of_memory", "not_converged", "unsupported", "exploded")
    },
    **{
        f"{outcome} in a completed cell": (
            lambda d, c, s, outcome=outcome: s.update(
                value=None, low=None, high=None, n=0, outcome=outcome, reason="x"
            ),
            f"drift has a gate and no value: it is {outcome}, but the cell ended as completed",
        )
        for outcome in ("failed", "out_of_memory", "not_converged", "completed")
    },
    "out of memory in an exploded cell": (
        lambda d, c, s: (
            c.update(outcome="exploded"),
            s.update(value=None, low=None, high=None, n=0, outcome="out_of_memory", reason="x"),
        ),
        "drift has a gate and no value: it is out_of_memory, but the cell ended as exploded",
    ),
    "a comparison that is completed without a value": (
        lambda d, c, s: of(a_cell(d, "relax"), "regret").update(outcome="completed", reason="x"),
        "regret has a gate and no value: it is completed",
    ),
    "a cell that cannot be asked": (
        lambda d, c, s: (c.update(outcome="unsupported", reason="x", plots=[]), emptied(c, "unsupported")),
        NVE + "it ended as unsupported, but audit was measured on si-64",
    ),
    "nothing measured": (
        lambda d, c, s: [
            (each.update(outcome="unsupported", reason="x"), emptied(each, "unsupported")) for each in d["cells"]
        ],
        "no score has a value: nothing was measured",
    ),
    "one side of one sample": (lambda d, c, s: s.update(low=None, n=1), "drift: an interval of one sample with an end"),
    "one side of two samples": (lambda d, c, s: s.update(low=None, n=2), "drift: an interval with one open end of 2 s"),
    "an element that is none": (
        lambda d, c, s: c["scores"].append({**s, "metric": "drift_Qq"}),
        "drift_Qq: unknown metric",
    ),
    "an element of other systems": (
        lambda d, c, s: c["scores"].append({**s, "metric": "drift_C"}),
        "drift_C: unknown metric",
    ),
    "an explosion kept quiet": (lambda d, c, s: s.update(outcome="exploded"), "drift exploded, but the cell is compl"),
    "a value of what failed": (lambda d, c, s: s.update(outcome="failed"), "drift has a value, but ended as failed"),
    "values of a failed cell": (lambda d, c, s: c.update(outcome="failed"), "has a value, but the cell ended as fail"),
    "a failure without reason": (
        lambda d, c, s: (c.update(outcome="failed"), emptied(c)),
        "it ended as failed without a reason",
    ),
    "an unknown outcome": (lambda d, c, s: s.update(outcome="great"), "outcome is 'great'"),
    "smoke": (lambda d, c, s: c.update(tier="smoke"), NVE + "it is of the smoke tier, which is never published"),
    "quick": (lambda d, c, s: c.update(tier="quick"), NVE + "it is of the quick tier; expected standard"),
    "a tier that is none": (lambda d, c, s: c.update(tier="gold"), "tier is 'gold'"),
    "an easier system": (lambda d, c, s: c.update(system="si-63"), "nve / si-63: unknown system; the cards ask for"),
    "a system of another protocol": (lambda d, c, s: c.update(system="si-vacancy-63"), "unknown system"),
    "a cell left out": (lambda d, c, s: d["cells"].remove(c), NVE + "missing: all that is asked of a model"),
    "a protocol left out": (
        lambda d, c, s: d.update(
            cells=[each for each in d["cells"] if each["protocol"] != "relax"],
            protocols={key: value for key, value in d["protocols"].items() if key != "relax"},
        ),
        "relax / si-vacancy-63: missing",
    ),
    "a protocol named only": (
        lambda d, c, s: d["protocols"].update(
            mts={"version": find_protocol("mts").version, "digest": find_protocol("mts").digest}
        ),
        "protocols: mts has no cell",
    ),
    "a protocol for other schemes": (
        lambda d, c, s: (
            d["protocols"].update(
                mts={"version": find_protocol("mts").version, "digest": find_protocol("mts").digest}
            ),
            c.update(protocol="mts", scores=[]),
        ),
        "mts / si-64: the protocol has no question for direct forces",
    ),
    "a cell twice": (lambda d, c, s: d["cells"].append(copy.deepcopy(c)), "is there twice"),
    "an unknown protocol": (lambda d, c, s: d["protocols"].update(nvt={"version": 1, "digest": "x"}), "no protocol 'n"),
    "an old version": (lambda d, c, s: d["protocols"]["nve"].update(version=1), "measured by version 1 of protocol n"),
    "an easier card": (lambda d, c, s: d["protocols"]["nve"].update(digest="0" * 64), "the digests differ"),
    "a protocol in a file": (lambda d, c, s: d["protocols"].update({"/tmp/x.toml": {"version": 1, "digest": ""}}),
                             "expected letters"),
    "another model's card": (
        lambda d, c, s: d["models"][CARD["name"]].update(digest="0" * 64),
        "measured with a card of digest 0000000000000000; the card submitted has",
    ),
    "another model's number": (
        lambda d, c, s: c["provenance"]["digests"].update(model="1" * 64),
        NVE + "provenance: measured with a model card of digest 1111111111111111",
    ),
    "another protocol's number": (
        lambda d, c, s: c["provenance"]["digests"].update(protocol="1" * 64),
        NVE + "provenance: measured with a protocol card of digest 1111111111111111",
    ),
    "other authors": (lambda d, c, s: d["models"][CARD["name"]].update(authors=["Mallory"]), "differs .* in authors"),
    "a role of its own": (lambda d, c, s: d["models"][CARD["name"]].update(role="control"), "differs .* in role"),
    "a rival's row": (
        lambda d, c, s: (
            d["models"].update({"rival": {**d["models"][CARD["name"]], "name": "rival"}}),
            d["cells"].append({**copy.deepcopy(c), "model": "rival"}),
        ),
        "it has model 'rival'; expected 'acme-direct' alone",
    ),
    "under a rival's name": (
        lambda d, c, s: (
            d.update(models={"rival": {**d["models"][CARD["name"]], "name": "rival"}}),
            [each.update(model="rival") for each in d["cells"]],
        ),
        "it has no model 'acme-direct'",
    ),
    "better than a twin it has not": (
        lambda d, c, s: of(a_cell(d, "relax"), "regret").update(
            value=0.1, low=0.0, high=0.2, n=6, outcome="completed", reason=""
        ),
        "regret: it compares with a twin of gradient forces; the card names none",
    ),
    "no provenance": (lambda d, c, s: c.update(provenance={}), "provenance: conservbench, git, python, packages"),
    "no seeds": (lambda d, c, s: c["provenance"].pop("seeds"), "provenance: seeds missing or not as a run writes it"),
    "a lucky seed": (lambda d, c, s: c["provenance"]["seeds"].update(seed=7), "other random numbers than the card's"),
    "another precision": (lambda d, c, s: c["provenance"].update(dtype="float16"), "measured in float16; the cards"),
    "changed code": (lambda d, c, s: c["provenance"]["git"].update(dirty=True), "measured with local changes"),
    "half a commit": (lambda d, c, s: c["provenance"]["git"].update(commit="abcdef0"), "expected a whole commit"),
    "no time": (lambda d, c, s: c["provenance"].update(seconds=0), "no threads, or no time"),
    "no packages": (lambda d, c, s: c["provenance"].update(packages={}), "packages without versions"),
    "many packages": (
        lambda d, c, s: c["provenance"].update(packages={f"p{k}": "1" for k in range(101)}), "or more than 100"
    ),
    "an advertisement": (
        lambda d, c, s: c["provenance"].update(conservbench="0.1 see example.org"), "conservbench is '0.1 see example.o"
    ),
    "a link for a version": (
        lambda d, c, s: c["provenance"]["packages"].update(torch="2.8 https://example.org"), "torch is '2.8 https://"
    ),
    "a sentence for a package": (
        lambda d, c, s: c["provenance"]["packages"].update({"see example.org": "1"}), "is no name of a package"
    ),
    "a long processor": (
        lambda d, c, s: c["provenance"].update(processor="x" * 201), "processor has more than 200 characters"
    ),
    "a key of its own": (lambda d, c, s: c["provenance"].update(junk=[]), "provenance: unknown key 'junk'"),
    "a digest of its own": (
        lambda d, c, s: c["provenance"]["digests"].update(junk="x"), "digests of something else than the model"
    ),
    "another system's number": (
        lambda d, c, s: c["provenance"]["digests"].update(system="si-64 99"),
        "measured on system si-64 99; that of this suite is si-64 1",
    ),
    "a branch": (lambda d, c, s: c["provenance"]["git"].update(branch="x"), "git: expected a whole commit"),
    "a boot in words": (lambda d, c, s: c["provenance"].update(boot="mine"), "boot is 'mine'; expected 16 hexadec"),
    "a long reason": (lambda d, c, s: s.update(reason="x" * 2001), "a reason has more than 2000 characters"),
    "a link in a picture": (
        lambda d, c, s: c["plots"][0].update(title="<a href='https://example.org'>x</a>"),
        "picture picture: markup in its text",
    ),
    "markup in a legend": (lambda d, c, s: c["plots"][0]["lines"][0].update(name="<b>best"), "markup in its text"),
    "a hostile reason": (lambda d, c, s: c.update(reason="\u2066x"), "reason has a character that is not seen"),
    "a hostile processor": (lambda d, c, s: c["provenance"].update(processor="\x00"), "processor has a control char"),
    "a hostile package": (lambda d, c, s: c["provenance"]["packages"].update({"a\nb": "1"}), "a key has a control"),
    "an album": (lambda d, c, s: c.update(plots=[{**c["plots"][0], "key": f"{k}"} for k in range(13)]), "13 pictures"),
    "a dense picture": (
        lambda d, c, s: c["plots"][0]["lines"][0].update(x=[0.0] * 121, y=[0.0] * 121),
        "expected 24 lines of 120 points or fewer",
    ),
    "an unknown schema": (lambda d, c, s: d.update(schema=1), "schema is 1; expected 2"),
    "an unknown key": (lambda d, c, s: d.update(comment="x"), "unknown key 'comment'"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), ENTRIES.values(), ids=ENTRIES)
def test_a_forged_entry_is_refused(change, said):
    problems = checked(entry=forged(change))
    assert [problem for problem in problems if problem.startswith("entry: ") and re.search(said, problem)], problems
    harmless(problems)


ENTRY_TEXTS = {
    "no JSON": ("{", "not a JSON file"),
    "NaN": ('{"schema": NaN}', "NaN is no number"),
    "infinity": ('{"schema": Infinity}', "Infinity is no number"),
    "an overflow": ('{"schema": 1e999}', "a number is not finite"),
    "depth": ("[" * 100_000, "not a JSON file"),
    "a key twice": ('{"schema": 2, "schema": 2}', "key 'schema' is there twice"),
    "too large": ("[" + " " * submission.LARGEST_ENTRY + "]", "bytes; expected"),
    "half a character": (r'["\ud800"]', "half a character"),
    "nothing": ("", "not a JSON file"),
    "a list": ("[]", "expected dict"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), ENTRY_TEXTS.values(), ids=ENTRY_TEXTS)
def test_a_text_that_is_no_entry_is_refused(text, said):
    problems = validate(tomli_w.dumps(CARD), text)
    assert len(problems) == 1
    assert said in problems[0]
    harmless(problems)


def test_gates_are_those_of_the_card_whatever_the_numbers_claim():
    document = forged(lambda d, c, s: s.update(value=7.0, low=6.0, high=8.0))
    assert checked(entry=document) == []
    drifts = [score for each in cells_of(document, "here") for score in each.scores if score.metric == "drift"]
    assert drifts[0].gate == "fail"


def test_a_bound_has_an_open_end():
    document = forged(lambda d, c, s: of(c, "explosion_time").update(low=0.5, high=None))
    assert checked(entry=document) == []


def test_the_system_may_be_told():
    document = forged(lambda d, c, s: c["provenance"]["digests"].update(system="si-64 1"))
    assert checked(entry=document) == []


def test_a_metric_of_a_species_is_known():
    document = forged(
        lambda d, c, s: a_cell(d, "thermostat")["scores"].append(
            {**of(a_cell(d, "thermostat"), "temperature_error_svr_10"), "metric": "temperature_error_svr_10_Si"}
        )
    )
    assert checked(entry=document) == []


def test_an_honest_failure_is_accepted():
    document = forged(lambda d, c, s: (c.update(outcome="failed", reason="it raised"), emptied(c)))
    assert checked(entry=document) == []


def test_many_problems_are_counted():
    document = copy.deepcopy(SOUND)
    for each in document["cells"]:
        for score in each["scores"]:
            score["n"] = 1000 if score["value"] is not None else 0
    problems = checked(entry=document)
    assert len(problems) == submission.MOST_PROBLEMS + 1
    assert re.search(r"^and \d+ more$", problems[-1])


def test_the_quick_tier_can_be_tried():
    document = copy.deepcopy(SOUND)
    assert any("it is of the standard tier; expected quick" in each for each in checked(entry=document, tier="quick"))


def test_a_text_for_html_stays_text():
    card = {**CARD, "title": "<script>alert(1)</script>", "notes": "a\n<b>b</b>"}
    assert checked(card, entry_of(card)) == []


def remarked(card=CARD, entry=SOUND, *more):
    said = submission.remarks(tomli_w.dumps(card), json.dumps(entry), *more)
    harmless(said)
    return said


def test_what_has_no_value_is_remarked_first_and_whole():
    keys = [key for key, metric in find_protocol("audit").metrics.items() if metric.gated]
    reason = "not asked " * 100

    def change(document, cell, drift):
        drift.update(value=None, low=None, high=None, n=0, outcome="unsupported", reason="it has no energy")
        lost = a_cell(document, "thermostat")
        lost.update(outcome="failed", reason=reason)
        emptied(lost)
        for each in a_cell(document, "audit")["scores"]:
            if each["metric"] in keys:
                each.update(value=None, low=None, high=None, n=0, outcome="unsupported", reason=reason)

    entry = forged(change)
    card = {**CARD, "options": {f"key{k}": k for k in range(60)}}
    said = remarked(card, entry)
    assert "entry: nve / si-64: no value of drift: unsupported: it has no energy" in said
    (lost,) = [each for each in said if "nothing has a value" in each]
    assert lost.startswith("entry: thermostat / si-liquid-64: nothing has a value: it ended as failed: not asked")
    named = [each for each in said if each.startswith("entry: audit / si-64: no value of ")]
    assert not any(each.endswith("...") for each in named)
    told = {
        key
        for each in named
        for key in each.removeprefix("entry: audit / si-64: no value of ").split(": ")[0].split(", ")
    }
    assert told >= set(keys)
    first = next(place for place, each in enumerate(said) if each.startswith("card: "))
    assert all(said.index(each) < first for each in (*named, lost))
    # a card with many options hides none of it, and says how many there are
    assert re.fullmatch(r"and \d+ more", said[-1])
    # these holes are no reason to refuse it: a model may have no energy
    assert checked(entry=entry) == []


def test_a_value_that_nothing_bounds_is_remarked():
    entry = forged(lambda d, c, s: s.update(low=None, high=None, n=1))
    assert checked(entry=entry) == []
    assert "entry: nve / si-64: no value of drift: nothing bounds what 1 samples gave" in remarked(CARD, entry)


def test_every_option_is_remarked_by_itself():
    options = {"comment": "harmless " * 40, "inner": {"factory": "os:system"}, "device": "x\u202e"}
    said = remarked({**CARD, "options": options})
    assert 'card: the loader mace is told inner.factory = "os:system"' in said
    assert 'card: the loader mace is told device = "x<U+202E>"' in said
    assert any(re.search(r"told comment = .*the first of 362 characters", each) for each in said)


def test_what_may_hide_something_is_remarked(artifact):
    # its comparisons with a twin alone
    assert all(each.endswith("unsupported: nothing to be compared with") for each in remarked(CARD, SOUND, artifact))
    assert f"card: its checkpoint is not at hand: nothing here has sha256 {SHA256}" in remarked()
    assert any("made for si-64, in place of" in each for each in remarked({**CARD, "systems": ["si-64"]}))
    rival = {**CARD, "name": "si-mace-direct", "twin": "acme-gradient"}
    said = remarked(rival)
    for expected in (
        "card: it replaces version 1 of the model, by conservbench developers",
        "card: its title changed without a new version",
        "card: its authors changed without a new version",
        "card: its twin acme-gradient is no model of this suite",
    ):
        assert expected in said
    assert not any("without a new version" in each for each in remarked({**rival, "version": 2}))
    entry = forged(lambda d, c, s: c["provenance"].update(git=None))
    assert "entry: nve / si-64: it does not say by which commit it was measured" in remarked(CARD, entry)


def test_a_new_version_that_would_take_its_verdict_along_is_remarked():
    published = cells_of(SOUND, "here")
    some = {**SOUND, "cells": [each for each in SOUND["cells"] if each["protocol"] not in ("nve", "relax")]}
    # what is published of the same card is kept
    assert not any("would go" in each for each in remarked(CARD, some, None, published))
    older = [replace(each, model={**each.model, "digest": "older"}) for each in published]
    assert "entry: what is published of the model by nve, relax would go" in remarked(CARD, some, None, older)


def test_a_borrowed_boot_is_remarked():
    entry = forged(lambda d, c, s: c["provenance"].update(boot="0123456789abcdef"))
    mine = cells_of(entry, "here")
    theirs = [replace(each, model={**each.model, "name": "rival"}) for each in mine]
    said = "entry: boot 0123456789abcdef is that of rival: was it measured on one running machine with it?"
    assert said in remarked(CARD, entry, None, theirs)
    assert said not in remarked(CARD, SOUND, None, theirs)
    assert not any("boot" in each for each in remarked(CARD, entry, None, mine))


PARENT = {"parent": "si-mace-gradient", "tuning": {"target": "x", "steps": 1, "evaluations": 1.0, "seconds": 1.0}}


def test_a_parent_excuses_from_nothing():
    card = {**CARD, **PARENT}
    whole = entry_of(card)
    assert checked(card, whole) == []
    some = {**whole, "cells": [each for each in whole["cells"] if each["protocol"] != "nve"]}
    some["protocols"] = {key: value for key, value in some["protocols"].items() if key != "nve"}
    said = "entry: nve / si-64: missing: all that is asked of a model by default is published, or nothing"
    assert said in checked(card, some)
    assert "card: that it was tuned from si-mace-gradient, and what that took, is its word alone" in remarked(
        card, whole
    )


def test_a_tuned_model_of_the_suite_is_asked_about_its_tuning():
    text = (Path(__file__).parents[2] / "models" / "si-mace-direct-all.toml").read_text(encoding="utf-8")
    card, _ = read_submitted(text)
    protocols = {name: find_protocol(name) for name in list_protocols()}
    missing = list(submitted_cells._left_out([], card, protocols))
    assert [each.split(":")[0] for each in missing] == ["finetune / si-64"]


def test_a_rung_of_a_ladder_may_be_published_without_a_verdict():
    protocols = {name: find_protocol(name) for name in list_protocols()}
    card = find_model("si-sw")
    nve, relax = (
        next(each for each in cells_of(SOUND, "here") if each.protocol["name"] == name) for name in ("nve", "relax")
    )
    rung = replace(nve, protocol={**nve.protocol, "name": "complexity"})
    (missing,) = submitted_cells._left_out([rung], card, protocols)
    assert missing.startswith("complexity / si-melt-64: missing")
    melt = replace(rung, system="si-melt-64")
    assert list(submitted_cells._left_out([rung, melt], card, protocols)) == []
    # what is about tuning excuses from nothing
    tuning = replace(nve, protocol={**nve.protocol, "name": "finetune"})
    assert any(each.startswith("nve / si-64: missing") for each in submitted_cells._left_out([tuning], card, protocols))
    # but with one protocol that asks by default come all of them
    assert any(
        each.startswith("nve / si-64: missing") for each in submitted_cells._left_out([rung, relax], card, protocols)
    )


def test_a_stride_or_a_toy_may_be_beyond_a_protocol():
    (cell,) = [
        each for each in cells_of(SOUND, "here") if (each.protocol["name"], each.system) == ("fidelity", "si-64")
    ]
    empty = replace(cell, outcome=Outcome.UNSUPPORTED, reason="x", scores=())
    others = [each for each in cells_of(SOUND, "here") if each is not cell]
    protocol = find_protocol("fidelity")
    refused = [
        bool(list(submitted_cells._unasked(empty, find_model(name), protocol, [*others, empty])))
        for name in ("harmonic", "si-mace-mts8", "si-sw", "si-mace-direct")
    ]
    assert refused == [False, False, True, True]


def test_a_long_key_takes_no_time():
    document = {"k" * 1_000_000: ["\x01"] * 10_000, "fine": ["\x01"] * 10_000, "j" * 20_000: ["\x01"]}
    said = list(hostile_texts(document, "entry"))
    assert len(said) == 100
    assert said[0] == "entry: a key has 1000000 characters; expected 20000 or fewer"
    assert said[1].startswith("entry: fine[0] has a control character")
    assert max(map(len, hostile_texts({"j" * 20_000: ["\x01"]}, "entry"))) < 200


def test_nothing_is_remarked_of_what_cannot_be_read():
    assert submission.remarks("", json.dumps(SOUND)) == []
    assert submission.remarks(tomli_w.dumps(CARD), "{") == []


def test_another_artifact_is_refused(artifact):
    artifact.write_bytes(WEIGHTS + b"!")
    (problem,) = checked(artifact=artifact)
    assert problem.startswith("artifact: it has sha256 ")
    assert SHA256 in problem


def test_a_link_and_a_folder_are_no_artifact(artifact, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(artifact)
    assert checked(artifact=link) == ["artifact: link is no file"]
    assert checked(artifact=tmp_path) == [f"artifact: {tmp_path.name} is no file"]
    assert checked(artifact=tmp_path / "none") == ["artifact: none is no file"]


def test_an_artifact_needs_a_checksum(artifact):
    card = {key: value for key, value in CARD.items() if key not in ("checkpoint", "sha256")} | {"loader": "toy"}
    assert checked(card, entry_of(card), artifact) == ["artifact: the card has no sha256 to compare it with"]


@pytest.fixture
def files(tmp_path):
    """Files of the sound submission."""
    card, entry = tmp_path / "acme-direct.toml", tmp_path / "acme-direct.json"
    card.write_text(tomli_w.dumps(CARD), encoding="utf-8")
    entry.write_text(spelled_out(SOUND), encoding="utf-8")
    return card, entry


def run(*words):
    return CliRunner().invoke(validate_command, [str(word) for word in words])


def test_the_command_accepts(files, artifact):
    done = run("--card", files[0], "--entry", files[1], "--artifact", artifact)
    assert (done.exit_code, done.stdout.splitlines()[-1], done.stderr) == (0, "accepted", "")
    done = run("--card", files[0], "--entry", files[1], "--json")
    report = json.loads(done.stdout)
    assert (report["model"], report["accepted"], report["problems"]) == ("acme-direct", True, [])
    hole = "entry: relax / si-vacancy-63: no value of regret: unsupported: nothing to be compared with"
    assert hole in report["remarks"]


def test_the_command_compares_with_what_is_published(files, artifact, tmp_path):
    entry = forged(lambda d, c, s: c["provenance"].update(boot="0123456789abcdef"))
    files[1].write_text(spelled_out(entry), encoding="utf-8")
    board = tmp_path / "board" / "entries"
    board.mkdir(parents=True)
    rival = json.loads(json.dumps(entry).replace('"acme-direct"', '"rival"'))
    (board / "rival.json").write_text(spelled_out(rival), encoding="utf-8")
    # one that was measured by an older version does not stop it
    (board / "older.json").write_text(json.dumps({**rival, "schema": 1}), encoding="utf-8")
    done = run("--card", files[0], "--entry", files[1], "--artifact", artifact, "--published", board.parent)
    assert done.exit_code == 0
    assert "look at: entry: boot 0123456789abcdef is that of rival" in done.stdout


def test_the_command_refuses_with_every_reason_on_a_line(files, artifact):
    artifact.write_bytes(b"")
    files[1].write_text(spelled_out(forged(lambda d, c, s: s.update(n=64))), encoding="utf-8")
    done = run("--card", files[0], "--entry", files[1], "--artifact", artifact)
    assert (done.exit_code, done.stdout) == (1, "refused: 2 problems\n")
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["entry", "artifact"]
    done = run("--card", files[0], "--entry", files[1], "--artifact", artifact, "--json")
    assert done.exit_code == 1
    assert len(json.loads(done.stdout)["problems"]) == 2


def test_files_are_named_after_the_model(files, tmp_path):
    moved = [path.rename(tmp_path / f"other{path.suffix}") for path in files]
    said = [
        "card: its file is named other.toml; expected acme-direct.toml",
        "entry: its file is named other.json; expected acme-direct.json",
    ]
    assert validate_files(*moved) == said


def test_links_and_missing_files_are_wrong_usage(files, tmp_path):
    link = tmp_path / "link.toml"
    link.symlink_to("/etc/passwd")
    for card in (link, tmp_path / "none.toml", tmp_path):
        with pytest.raises(ValueError, match="no file"):
            validate_files(card, files[1])


def test_bytes_that_are_no_text_are_refused(files):
    files[0].write_bytes(b"\xff\xfe")
    assert validate_files(*files) == ["card: not text in UTF-8"]


def test_no_more_is_read_than_may_be_there(files, monkeypatch):
    files[0].write_bytes(b"#" * (LARGEST * 3))
    assert f"card: {LARGEST + 1} bytes; expected {LARGEST} or fewer" in validate_files(*files)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    """Paths of all values inside a document."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*path, key))


SMALL = {**SOUND, "cells": SOUND["cells"][:1]}
PLACES = [path for path in places(SMALL) if path and not (len(path) > 3 and path[2] == "scores" and path[3] > 1)]


@given(st.sampled_from(PLACES), VALUES)
@settings(max_examples=60, deadline=None)
def test_whatever_stands_at_any_place_of_an_entry_is_answered(path, value):
    document = copy.deepcopy(SMALL)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    problems = validate(tomli_w.dumps(CARD), json.dumps(document))
    # the other cells are missing
    assert problems
    harmless(problems)


@given(st.sampled_from([*CARD, "options", "fast", "parent", "tuning", "twin", "systems", "role", "stride"]), VALUES)
@settings(max_examples=100, deadline=None)
def test_whatever_stands_at_any_place_of_a_card_is_answered(key, value):
    try:
        text = tomli_w.dumps({**CARD, key: value})
    except (TypeError, ValueError, UnicodeEncodeError):
        return
    harmless(validate(text, "{}"))


@given(st.text(max_size=80), st.text(max_size=80))
@settings(max_examples=50, deadline=None)
def test_any_text_is_answered(card, entry):
    problems = validate(card, entry)
    assert problems
    harmless(problems)


@given(st.text(max_size=400))
def test_what_is_shown_is_one_short_line(text):
    line = shown(text, 50)
    assert line.isprintable()
    assert shown("<b>Å</b>") == "<b>Å</b>"
    assert shown("a\n::error::b\u202e") == "a ::error::b<U+202E>"
    assert shown("x" * 60, 50) == "x" * 50 + "..."


def test_text_of_many_scripts_is_not_hostile():
    names = ["Łukasz", "李雷", "Ольга", "Nguyễn Thị", "שרה", "محمد", "अनुराधा", "ไก่", "Zoë \N{GREEK SMALL LETTER OMEGA}"]
    assert list(hostile_texts({"authors": names, "notes": "a\n\tb"}, "card")) == []
