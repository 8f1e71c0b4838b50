"""The verb data: what is there, what it holds, and what is wrong with it."""

import json
import re

import pytest
from click.testing import CliRunner

from conservbench.cli import main
from conservbench.data.catalogue import catalogue

FRAME = (
    "2\n"
    'Lattice="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3:forces:R:3 energy={energy:.2f} pbc="T T T"\n'
    "Si 0.0 0.0 0.0 -{force} 0.0 0.0\n"
    "Si {x:.2f} 0.0 0.0 {force} 0.0 0.0\n"
)


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.xyz"
    path.write_text("".join(FRAME.format(energy=-1.0 - 0.01 * i, force=0.5, x=2.3 + 0.02 * i) for i in range(20)))
    return path


def invoke(*words):
    return CliRunner().invoke(main, ["data", *words])


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No local folder, and an empty cache."""
    monkeypatch.delenv("CONSERVBENCH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_list_says_what_is_here(nowhere):
    rows = json.loads(invoke("list", "--json").stdout)
    assert [row["name"] for row in rows] == list(catalogue())
    found = {row["name"]: row for row in rows}
    assert found["mlearn-si"]["here"] == "no"
    assert found["water"]["split"] == "last 40"
    assert found["si-gap-18"]["here"] == "by load-atoms"
    shown = invoke("list").stdout
    assert f"{len(rows)} data sets" in shown


def test_show_of_what_is_not_here_tells_its_source(nowhere):
    table = json.loads(invoke("show", "water", "--json").stdout)
    assert table["license"] == "LGPL-3.0"
    assert len(table["files"]) == 28
    assert "holds" not in table
    shown = invoke("show", "water")
    assert shown.exit_code == 0
    assert "and 24 more" in shown.stdout


def test_show_of_a_file_of_ones_own(mine):
    table = json.loads(invoke("show", str(mine), "--json").stdout)
    assert table["frames"] == {"train": 18, "test": 2}
    held = table["holds"]
    assert held["frames"] == 20
    assert held["elements"]["Si"]["atoms"] == 40
    assert held["forces"]["largest"] == 0.5
    assert held["forces"]["rms"] == pytest.approx(0.5 / 3**0.5, rel=1e-4)
    assert (held["energy_per_atom"]["least"], held["energy_per_atom"]["most"]) == (-0.595, -0.5)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("energy=-1.05", "energy=nan", "frame 5: the energy is not finite"),
        ("Si 2.40", "Sx 2.40", "frame 5: unknown element 'Sx'"),
        ("Si 2.40", "Si 0.01", "frame 5: atoms 0 (Si) and 1 (Si) are at the same place"),
        (":forces:R:3", ":velo:R:3", "frame 0: no forces"),
    ],
)
def test_show_tells_file_frame_and_reason(mine, old, new, reason):
    mine.write_text(mine.read_text().replace(old, new))
    result = invoke("show", str(mine))
    assert result.exit_code == 2
    assert f"{mine}: {reason}" in " ".join(result.stderr.split())
    # JSON stays JSON, with the error in it
    assert reason in json.loads(invoke("show", str(mine), "--json").stdout)["error"]


def test_show_of_a_file_that_cannot_be_split_tells_what_it_holds(mine):
    mine.write_text("".join(mine.read_text().splitlines(keepends=True)[:8]))
    result = invoke("show", str(mine), "--json")
    assert result.exit_code == 0
    table = json.loads(result.stdout)
    assert "leaves none of 2 frames for testing" in table["note"]
    assert table["holds"]["frames"] == 2
    shown = invoke("show", str(mine)).stdout
    assert "leaves none of 2 frames" in " ".join(shown.split())
    assert "holds.frames" in shown


def test_wrong_words_are_told_with_the_nearest():
    for words, hint in ((("shwo", "water"), "did you mean 'show'"), (("show", "watr"), "did you mean 'water'")):
        result = invoke(*words)
        assert result.exit_code == 2
        assert hint in result.stderr
    result = invoke("label", "nowhere.toml")
    assert result.exit_code == 2
    assert "no card nowhere.toml" in result.stderr


def test_fetch_copies_what_is_here(mine, tmp_path):
    result = invoke("fetch", str(mine), "--to", str(tmp_path / "copy"), "--json")
    assert result.exit_code == 0
    (path,) = json.loads(result.stdout)
    assert path == str(tmp_path / "copy" / "mine.xyz")
    assert (tmp_path / "copy" / "mine.xyz").read_bytes() == mine.read_bytes()


def test_cards_are_read_strictly(tmp_path):
    card = tmp_path / "mine.toml"
    text = (
        'name = "mine"\nversion = 1\ntitle = "t"\nlicense = "l"\ncitation = "c"\n'
        '[start]\nfactory = "ase.build:bulk"\narguments = { name = "Cu" }\n[calculator]\n'
        'factory = "ase.calculators.emt:EMT"\n[walk]\ntime_step = 1.0\nfriction = 1.0\nequilibration = 1.0\n'
        "spacing = 1.0\ncorrelation = 0.5\nseed = 1\n"
        "[[schedule]]\ntemperature = 300.0\nframes = 1\nisotropic = [0.0, 0.01]\ntest = [1]\n"
    )
    wrong = {
        "frames = 1": ("frame = 1", "unknown key 'frame'; did you mean 'frames'"),
        "test = [1]": ("", "leaves no trajectory for testing"),
        "temperature = 300.0": ("temperature = -3.0", "temperature is -3.0; expected a positive number"),
        "0.01]": ("0.6]", "between -0.5 and 0.5"),
        "correlation = 0.5": ("correlation = 2.0", "expected a number from above 0 to 1"),
        'name = "mine"': ('name = "other"', "expected the name of the file"),
        "emt:EMT": ("emt:EMP", "did you mean 'EMT'"),
        '"Cu"': ('"Qq"', "ase.build:bulk cannot build it"),
        'arguments = { name = "Cu" }': ('file = "x.xyz"', "expected one of factory and file"),
    }
    for old, (new, reason) in wrong.items():
        card.write_text(text.replace(old, new, 1))
        result = invoke("label", str(card), "--out", str(tmp_path / "out"), "--jobs", "1")
        assert result.exit_code == 2, (old, result.output)
        assert reason in " ".join(result.stderr.split()), (old, result.stderr)


def test_every_act_has_an_example():
    for act in ("list", "show", "fetch", "label"):
        said = invoke(act, "--help").stdout
        assert re.search(rf"Example: conservbench data {act}\b", said)
        assert "--json" in said
