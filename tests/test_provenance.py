"""Provenance is complete, and names no user, host or path."""

import getpass
import json
import platform
from importlib.metadata import version
from pathlib import Path

from conservbench import provenance as module
from conservbench.provenance import boot, git_state, on_one_machine, provenance, version_of


def record():
    return provenance(device="cpu", dtype="float64", threads=1, seeds={"seed": 7}, digests={"model": "ab"})


def test_says_what_ran():
    found = json.loads(json.dumps(record()))
    assert found["packages"]["torch"] == version("torch")
    assert found["python"] == platform.python_version()
    assert (found["device"], found["dtype"], found["threads"]) == ("cpu", "float64", 1)
    assert (found["seeds"], found["digests"]) == ({"seed": 7}, {"model": "ab"})
    assert found["processor"]


def test_names_nobody():
    text = json.dumps(record())
    assert str(Path.home()) not in text
    assert str(Path(module.__file__).parent) not in text
    assert platform.node() not in text
    assert f'"{getpass.getuser()}"' not in text


def test_unknown_distribution():
    assert version_of("no-such-distribution-anywhere") is None


def test_git_state(monkeypatch):
    git_state.cache_clear()
    words = {"rev-parse": "0123abc", "status": " M conservbench/cards.py"}
    monkeypatch.setattr(module, "_git", lambda root, word, *rest: words[word])
    monkeypatch.setattr(Path, "exists", lambda self: True)
    assert git_state() == {"commit": "0123abc", "dirty": True}
    git_state.cache_clear()
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert git_state() is None
    git_state.cache_clear()


def test_boot_tells_starts_of_machines_apart(monkeypatch, tmp_path):
    source = tmp_path / "boot_id"
    found = []
    with monkeypatch.context() as patch:
        patch.setattr(module, "BOOT_ID", source)
        for text in (None, "one\n", "one", "two"):
            boot.cache_clear()
            if text is not None:
                source.write_text(text)
            found.append(boot())
    # later tests are to find this machine
    boot.cache_clear()
    nowhere, first, again, other = found
    assert nowhere is None
    # of SHA-256("one")
    assert first == again == "7692c3ad3540bb80"
    assert other != first
    assert record()["boot"] == boot()


def test_one_machine_is_one_running_machine_with_as_many_threads():
    one = {"boot": "a", "processor": "p", "device": "cpu", "threads": 1}
    assert on_one_machine([one, dict(one)])
    for changed in ({"boot": "b"}, {"boot": None}, {"processor": "q"}, {"device": "cuda"}, {"threads": 8}):
        assert not on_one_machine([one, {**one, **changed}])
    # two machines that are not known are not one
    assert not on_one_machine([{**one, "boot": None}, {**one, "boot": None}])
