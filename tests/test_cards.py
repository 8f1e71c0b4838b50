"""Cards are read strictly, and every complaint names file, key and what was expected."""

import hashlib
import json
import pickle
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

from conservbench.cards import (
    CardError,
    build,
    card_in_force,
    checkpoint_of,
    digest_on,
    exact_keys,
    find_model,
    find_parent,
    find_protocol,
    list_models,
    list_protocols,
    metrics_of,
    model_of,
    read_model,
    read_protocol,
    row_name,
)
from conservbench.scheme import Scheme
from conservbench.systems import list_systems

PLUGIN = Path(__file__).parent / "plugin"

MODEL = """
name = "net"
version = 3
title = "A network"
loader = "toy"
scheme = "mts"
stride = 8
authors = ["A. One", "B. Two"]

[options]
field = "swirl"
"""

PROTOCOL = """
name = "heat"
version = 2
title = "Heating"
question = "Does it heat?"
method = "Watch it."
systems = ["si-64"]
dtype = "float64"

[settings]
steps = 100
every = 2.0

[tiers.smoke]
steps = 10

[metrics.drift]
label = "drift"
unit = "meV/atom/ps"
headline = true
digits = 2
below = 1
source = "a paper"
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(dedent(text), encoding="utf-8")
    return path


def complaint(path: Path, read=read_model) -> str:
    with pytest.raises(CardError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_model_card(tmp_path):
    card = read_model(write(tmp_path, "net", MODEL))
    assert (card.name, card.version, card.loader) == ("net", 3, "toy")
    assert card.scheme == Scheme("mts", 8)
    assert card.authors == ("A. One", "B. Two")
    assert card.options == {"field": "swirl"}
    assert (card.role, card.dtype, card.twin, card.checkpoint) == ("model", "float64", None, None)
    assert pickle.loads(pickle.dumps(card)) == card
    assert len({card, card}) == 1


def test_protocol_card(tmp_path):
    card = read_protocol(write(tmp_path, "heat", PROTOCOL))
    assert card.plugin == "heat"
    assert card.settings("quick") == {"steps": 100, "every": 2.0}
    assert card.settings("smoke") == {"steps": 10, "every": 2.0}
    drift = card.metrics["drift"]
    assert (drift.unit, drift.below, drift.above, drift.headline, drift.digits) == ("meV/atom/ps", 1.0, None, True, 2)
    assert isinstance(drift.below, float)
    with pytest.raises(CardError, match="unknown tier 'smok'; did you mean 'smoke'"):
        card.settings("smok")


ON = """
more_systems = ["hot"]

[on.hot]
every = 0.5

[on.hot.quick]
steps = 30
"""


def with_settings_on(text, on=ON):
    """The card with settings for a system of its own: keys of the card go before its tables."""
    head, _, tables = dedent(text).partition("\n[")
    keys, _, more = on.partition("\n[")
    return f"{head}\n{keys}\n[{tables}\n[{more}"


def test_a_system_may_have_settings_of_its_own(tmp_path):
    plain = read_protocol(write(tmp_path, "heat", PROTOCOL))
    card = read_protocol(write(tmp_path, "heat", with_settings_on(PROTOCOL)))
    assert card.settings("quick", "hot") == {"steps": 30, "every": 0.5}
    assert card.settings("smoke", "hot") == {"steps": 10, "every": 0.5}
    for system in (*card.systems, "another", ""):
        assert card.settings("quick", system) == plain.settings("quick")
        assert card.digest_on(system) == plain.digest
    # the results of other systems stay what they are
    assert card.digest == plain.digest
    assert card.digest_on("hot") != plain.digest
    assert digest_on(json.loads(card.to_json()), "hot") == card.digest_on("hot")
    other = read_protocol(write(tmp_path, "heat", with_settings_on(PROTOCOL, ON.replace("30", "31"))))
    assert other.digest_on("hot") != card.digest_on("hot")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[on.hot", "[on.hott", ["[on.hott]: no system of this card", "did you mean 'hot'"]),
        ('["hot"]', '["hot", "hot"]', ["system 'hot' is listed twice"]),
        ("[on.hot.quick]\nsteps = 30", "[on.hot]\nquick = 3", ["quick"]),
    ],
)
def test_settings_of_a_system_are_read_strictly(tmp_path, old, new, words):
    on = ON.replace(old, new) if "quick = 3" not in new else ON.split("[on")[0] + "[on.hot]\nquick = 3\n"
    said = complaint(write(tmp_path, "heat", with_settings_on(PROTOCOL, on)), read_protocol)
    assert all(word in said for word in words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("title =", "titel =", ["unknown key 'titel'", "did you mean 'title'", "training_data"]),
        ("version = 3", 'version = "3"', ["version is '3'", "expected a whole number"]),
        ("version = 3", "version = true", ["version is True", "expected a whole number"]),
        ("version = 3\n", "", ["missing key 'version'", "expected a whole number"]),
        ('scheme = "mts"', 'scheme = "gradint"', ["scheme is 'gradint'", "did you mean 'gradient'"]),
        ('scheme = "mts"', 'scheme = "direct"', ["stride 8 does not go with scheme 'direct'"]),
        ("stride = 8\n", "", ["missing key 'stride'", "scheme 'mts' needs one"]),
        ('scheme = "mts"\n', "", ["missing key 'scheme'"]),
        ('authors = ["A. One", "B. Two"]', 'authors = "A. One"', ["authors is 'A. One'", "an array of a string"]),
        ('authors = ["A. One", "B. Two"]', "authors = [1]", ["authors is 1", "expected a string"]),
        ('loader = "toy"', 'loader = "toy"\ndigest = "x"', ["unknown key 'digest'"]),
        ('loader = "toy"', 'loader = "toy"\ncheckpoint = 3', ["checkpoint is 3", "expected a string"]),
        ('loader = "toy"', 'loader = "toy"\nrole = "boss"', ["role is 'boss'", "control, model"]),
        ('name = "net"', 'name = "nett"', ["name is 'nett'", "the name of the file"]),
        ("version = 3", "version 3", ["not TOML", "line 3"]),
    ],
)
def test_model_card_complaints(tmp_path, old, new, words):
    assert old in MODEL
    said = complaint(write(tmp_path, "net", MODEL.replace(old, new)))
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("question =", "quesiton =", ["unknown key 'quesiton'", "did you mean 'question'"]),
        ("[tiers.smoke]", "[tiers.smok]", ["[tiers]: unknown key 'smok'", "did you mean 'smoke'"]),
        ("below = 1", 'below = "1"', ["[metrics.drift]: below is '1'", "expected a number"]),
        ("below = 1", "blow = 1", ["[metrics.drift]: unknown key 'blow'", "did you mean 'below'"]),
        ('unit = "meV/atom/ps"\n', "", ["[metrics.drift]: missing key 'unit'"]),
        ('systems = ["si-64"]', "systems = [64]", ["systems is 64", "expected a string"]),
        ('dtype = "float64"', 'dtype = "float32"', ["dtype is 'float32'", "expected one of: float64, model"]),
        ('name = "heat"\n', "", ["missing key 'name'"]),
    ],
)
def test_protocol_card_complaints(tmp_path, old, new, words):
    assert old in PROTOCOL
    said = complaint(write(tmp_path, "heat", PROTOCOL.replace(old, new)), read_protocol)
    for word in words:
        assert word in said


def test_digest_follows_what_determines_the_numbers(tmp_path):
    card = read_model(write(tmp_path, "net", MODEL))
    prose = read_model(write(tmp_path, "net", MODEL.replace("A network", "The network")))
    assert prose.digest == card.digest
    for old, new in [
        ("swirl", "harmonic"),
        ("stride = 8", "stride = 4"),
        ("[options]", 'dtype = "float32"\n[options]'),
    ]:
        assert read_model(write(tmp_path, "net", MODEL.replace(old, new))).digest != card.digest

    protocol = read_protocol(write(tmp_path, "heat", PROTOCOL))
    gate = read_protocol(write(tmp_path, "heat", PROTOCOL.replace("below = 1", "below = 2")))
    steps = read_protocol(write(tmp_path, "heat", PROTOCOL.replace("steps = 100", "steps = 101")))
    assert gate.digest == protocol.digest
    assert steps.digest != protocol.digest


def test_checkpoint(tmp_path):
    good = hashlib.sha256(b"weights").hexdigest()
    options = 'checkpoint = "weights.bin"\nsha256 = "{}"\n[options]'
    (tmp_path / "weights.bin").write_bytes(b"weights")
    card = read_model(write(tmp_path, "net", MODEL.replace("[options]", options.format(good))))
    assert checkpoint_of(card) == tmp_path / "weights.bin"

    wrong = read_model(write(tmp_path, "net", MODEL.replace("[options]", options.format("0" * 64))))
    with pytest.raises(CardError, match=f"net.toml: .*weights.bin has sha256 {good}; expected 0000"):
        checkpoint_of(wrong)
    assert wrong.digest != card.digest

    (tmp_path / "weights.bin").unlink()
    with pytest.raises(CardError, match=r"net.toml: checkpoint: no file .*weights.bin"):
        checkpoint_of(card)
    with pytest.raises(CardError, match="missing key 'checkpoint'"):
        checkpoint_of(read_model(write(tmp_path, "net", MODEL)))


def test_checkpoint_without_a_checksum_still_makes_the_digest(tmp_path):
    path = write(tmp_path, "net", MODEL.replace("[options]", 'checkpoint = "weights.bin"\n[options]'))
    (tmp_path / "weights.bin").write_bytes(b"one")
    first = read_model(path)
    (tmp_path / "weights.bin").write_bytes(b"two")
    assert read_model(path).digest != first.digest


def test_find_by_path_and_near_name(tmp_path, monkeypatch):
    path = write(tmp_path, "net", MODEL)
    assert find_model(str(path)).name == "net"
    monkeypatch.chdir(tmp_path)
    assert find_model("net.toml").path == path
    with pytest.raises(CardError, match=r"no card missing\.toml"):
        find_model("missing.toml")
    monkeypatch.syspath_prepend(PLUGIN)
    with pytest.raises(CardError, match="no model 'ticks-fin'; did you mean 'ticks-fine'"):
        find_model("ticks-fin")
    with pytest.raises(CardError, match="no protocol 'tick'; did you mean 'ticks'"):
        find_protocol("tick")


def test_cards_of_plugins(monkeypatch, tmp_path):
    assert "ticks-fine" not in list_models()
    monkeypatch.syspath_prepend(PLUGIN)
    assert "ticks-fine" in list_models()
    assert "ticks" in list_protocols()
    assert find_protocol("ticks").settings("smoke")["steps"] == 5


FAST = """
name = "quick"
version = 2
title = "A fast force"
loader = "toy"
scheme = "direct"

[options]
field = "swirl"
"""


def paired(tmp_path, fast="quick.toml", **changes):
    text = MODEL.replace("stride = 8", f'stride = 8\nfast = "{fast}"')
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return write(tmp_path, "net", text)


def test_fast_card_is_read_and_makes_the_digest(tmp_path):
    path = write(tmp_path, "quick", FAST)
    alone, card = read_model(write(tmp_path, "net", MODEL)), read_model(paired(tmp_path))
    assert card.fast == read_model(path)
    assert json.loads(card.to_json())["fast_card"] == json.loads(card.fast.to_json())
    assert alone.fast is None
    assert "fast_card" not in json.loads(alone.to_json())
    assert pickle.loads(pickle.dumps(card)) == card
    digests = {alone.digest, card.digest}
    for old, new in [("swirl", "harmonic"), ("version = 2", "version = 3"), ('"direct"', '"gradient"')]:
        write(tmp_path, "quick", FAST.replace(old, new))
        digests.add(read_model(paired(tmp_path)).digest)
    assert len(digests) == 5
    write(tmp_path, "quick", FAST.replace("A fast force", "The fast force"))
    assert read_model(paired(tmp_path)).digest == card.digest


@pytest.mark.parametrize(
    ("fast", "scheme", "said"),
    [
        ("si-sv", '"mts"', "fast: no model 'si-sv'; did you mean 'si-sw'"),
        ("gone.toml", '"mts"', "fast: no card "),
        (
            "net.toml",
            '"mts"',
            "fast: 'net.toml' is of scheme 'mts' itself; expected a card of scheme gradient or direct",
        ),
        ("si-mace-mts8", '"mts"', "fast: 'si-mace-mts8' is of scheme 'mts' itself"),
        ("si-sw", '"direct"', "fast goes with scheme 'mts', not with 'direct'"),
    ],
)
def test_fast_card_complaints(tmp_path, fast, scheme, said):
    strided = ("stride = 8\n", "") if scheme != '"mts"' else ("stride = 8", "stride = 8")
    assert said in complaint(paired(tmp_path, fast, scheme=('"mts"', scheme), stride=strided))


def test_fast_cards_that_name_each_other_are_refused(tmp_path):
    write(tmp_path, "quick", MODEL.replace('"net"', '"quick"').replace("stride = 8", 'stride = 8\nfast = "net.toml"'))
    assert "of scheme 'mts' itself" in complaint(paired(tmp_path))


def test_systems_and_schemes_do_not_change_the_numbers(tmp_path):
    model, protocol = read_model(write(tmp_path, "net", MODEL)), read_protocol(write(tmp_path, "heat", PROTOCOL))
    assert model.systems == ()
    assert protocol.schemes == ("gradient", "direct", "mts")
    some = read_model(write(tmp_path, "net", MODEL.replace("stride = 8", 'stride = 8\nsystems = ["si-64"]')))
    assert (some.systems, some.digest) == (("si-64",), model.digest)
    text = PROTOCOL.replace("version = 2", 'version = 2\nschemes = ["mts", "direct"]')
    few = read_protocol(write(tmp_path, "heat", text))
    assert (few.schemes, few.digest) == (("mts", "direct"), protocol.digest)
    for schemes, said in [
        ("[]", "schemes is empty; expected some of gradient, direct, mts"),
        ('["mst"]', "schemes is 'mst'; did you mean 'mts'"),
    ]:
        path = write(tmp_path, "heat", text.replace('["mts", "direct"]', schemes))
        assert said in complaint(path, read_protocol)


def test_published_cards_are_valid():
    for name in list_models():
        card = find_model(name)
        assert card.twin is None or card.twin in list_models()
        assert card.parent is None or find_parent(card).scheme == card.scheme
        assert card.tuning is None or card.tuning.control is None or card.tuning.control in list_models()
        assert set(card.systems) <= set(list_systems())
        if card.checkpoint is not None:
            checkpoint_of(card)
    for name in list_protocols():
        assert find_protocol(name).metrics


def test_ase_factory(monkeypatch, tmp_path):
    (tmp_path / "lone_springs.py").write_text("def make(): ...\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    card = find_model("ase:lone_springs:make")
    assert (card.name, card.version, card.loader) == ("ase:lone_springs:make", 0, "ase")
    assert card.scheme == Scheme("gradient")
    assert card.options == {"factory": "lone_springs:make"}
    # no one bumps its version: an edited source must make another model
    (tmp_path / "lone_springs.py").write_text("def make(): return 1\n", encoding="utf-8")
    assert find_model("ase:lone_springs:make").digest != card.digest
    for folder, text in [("loud", "raise RuntimeError('not\\ntoday')"), ("lacking", "import no_such_thing")]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(text, encoding="utf-8")
    for name, said in [
        ("ase:loud.springs:make", "'loud.springs' cannot be looked up: RuntimeError: not today"),
        ("ase:lacking.springs:make", "cannot be looked up: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("ase:sprongs.deep:make", "no module 'sprongs.deep'"),
        ("ase:.springs:make", "cannot be looked up"),
        ("ase:lone_springs", "expected ase:package.module:factory"),
        ("ase:sprongs:make", "no module 'sprongs'"),
    ]:
        with pytest.raises(CardError, match=said):
            find_model(name)


@dataclass(frozen=True)
class Options:
    size: int
    widths: tuple[int, ...]
    scale: float | None = None

    def __post_init__(self):
        if self.size < 0:
            raise ValueError("size is negative")


def test_build():
    assert build(Options, {"size": 1, "widths": [2, 3], "scale": 1}, "here") == Options(1, (2, 3), 1.0)
    for table, said in [
        ({"size": 1.5, "widths": []}, "here: size is 1.5; expected a whole number"),
        ({"size": 1, "widths": [1.0]}, "here: widths is 1.0; expected a whole number"),
        ({"size": 1, "widths": [], "scale": "x"}, "here: scale is 'x'; expected a number"),
        ({"size": -1, "widths": []}, "here: size is negative"),
        ({"size": 1}, "here: missing key 'widths'"),
    ]:
        with pytest.raises(CardError, match=f"^{said}"):
            build(Options, table, "here")
    with pytest.raises(CardError, match="here: unknown key 'sise'; did you mean 'size'"):
        exact_keys({"sise": 1}, ["size", "width"], "here")


def test_import_is_light():
    heavy = {"torch", "numpy", "xarray", "ase", "rich"}
    code = f"import sys, conservbench, conservbench.runner; print(*{heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == ""


TUNED = """
name = "tuned"
version = 1
title = "A tuned network"
loader = "toy"
scheme = "gradient"
parent = "si-sw"

[options]
field = "swirl"

[tuning]
target = "rdf"
steps = 20
evaluations = 1000
seconds = 60
rejected = 1
control = "tuned-forces"
energy_before = 2.7
energy_after = 2.9
gradient_before = 59
gradient_after = 60.5
"""


def test_a_tuned_model_names_its_parent_and_what_tuning_did(tmp_path):
    card = read_model(write(tmp_path, "tuned", TUNED))
    assert card.parent == "si-sw"
    assert find_parent(card) == find_model("si-sw")
    assert (card.tuning.target, card.tuning.steps, card.tuning.rejected) == ("rdf", 20, 1)
    assert (card.tuning.evaluations, card.tuning.gradient_after, card.tuning.direct_before) == (1000.0, 60.5, None)
    assert isinstance(card.tuning.seconds, float)
    assert card.tuning.control == "tuned-forces"
    assert pickle.loads(pickle.dumps(card)) == card
    assert len({card, card}) == 1
    assert json.loads(card.to_json())["tuning"]["steps"] == 20
    plain = read_model(write(tmp_path, "net", MODEL))
    assert (plain.parent, plain.tuning, find_parent(plain)) == (None, None, None)


def test_parent_and_tuning_do_not_change_the_numbers(tmp_path):
    card = read_model(write(tmp_path, "tuned", TUNED))
    for old, new in [("si-sw", "si-edip"), ("steps = 20", "steps = 21"), ('"rdf"', '"elastic"')]:
        assert read_model(write(tmp_path, "tuned", TUNED.replace(old, new))).digest == card.digest


def test_a_parent_may_lie_beside_the_card(tmp_path):
    write(tmp_path, "net", MODEL)
    card = read_model(write(tmp_path, "tuned", TUNED.replace("si-sw", "net.toml")))
    assert find_parent(card).name == row_name(card.parent) == "net"
    assert row_name("folder/net.toml") == "net"
    # a name is looked up when it is needed; a card is read without its relations
    lost = read_model(write(tmp_path, "tuned", TUNED.replace("si-sw", "si-sv")))
    with pytest.raises(CardError, match=r"tuned\.toml: parent: no model 'si-sv'; did you mean 'si-sw'"):
        find_parent(lost)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('parent = "si-sw"\n', "", "missing key 'parent': tuning and parent go together"),
        (TUNED[TUNED.index("[tuning]") :], "", "missing key 'tuning': parent and tuning go together"),
        ('"si-sw"', '"tuned"', "parent is 'tuned', the model itself"),
        ('"si-sw"', '"tuned.toml"', "parent is 'tuned.toml', the model itself"),
        ('"si-sw"', '"gone.toml"', "parent: no card gone.toml"),
        ('"si-sw"', "3", "parent is 3; expected a string"),
        ('"tuned-forces"', '"tuned"', "[tuning]: control is 'tuned', the model itself"),
        ("steps =", "stesp =", "[tuning]: unknown key 'stesp'; did you mean 'steps'"),
        ("steps = 20\n", "", "[tuning]: missing key 'steps' (expected a whole number)"),
        ("steps = 20", "steps = 2.5", "[tuning]: steps is 2.5; expected a whole number"),
        ("seconds = 60", "seconds = nan", "[tuning]: seconds is nan; expected 0 or more"),
        ("rejected = 1", "rejected = -1", "[tuning]: rejected is -1; expected 0 or more"),
        ("energy_after = 2.9\n", "", "[tuning]: energy_before and energy_after go together"),
    ],
)
def test_tuning_complaints(tmp_path, old, new, said):
    assert old in TUNED
    assert said in complaint(write(tmp_path, "tuned", TUNED.replace(old, new)))


def test_a_protocol_about_tuning(tmp_path):
    plain = read_protocol(write(tmp_path, "heat", PROTOCOL))
    assert (plain.tuned, plain.by_default) == (False, True)
    text = PROTOCOL.replace("version = 2", "version = 2\ntuned = true\nby_default = false")
    card = read_protocol(write(tmp_path, "heat", text.replace("digits = 2", "parent = true")))
    assert (card.tuned, card.by_default, card.digest) == (True, False, plain.digest)
    assert (card.metrics["drift"].parent, card.metrics["drift"].control) == (True, False)
    both = text.replace("digits = 2", "parent = true\ncontrol = true")
    said = complaint(write(tmp_path, "heat", both), read_protocol)
    assert "[metrics.drift]: a metric compares with one of twin, parent, control and top" in said


def test_metrics_of_a_document():
    declared = {"metrics": {"b": {"label": "B", "unit": "K", "least": 0}, "a": {"label": "A", "unit": "1"}}}
    metrics = metrics_of(declared, "here")
    assert list(metrics) == ["b", "a"]
    assert (metrics["b"].key, metrics["b"].least, metrics["a"].least, metrics["a"].better) == ("b", 0.0, None, None)
    assert metrics_of({}, "here") == {}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"label": "A"}, r"here: \[metrics.a\]: missing key 'unit'"),
        ({"label": "A", "unit": "1", "bellow": 1.0}, "unknown key 'bellow'; did you mean 'below'"),
        ({"label": "A", "unit": "1", "better": "more"}, "better is 'more'"),
        ({"label": "A", "unit": "1", "tolerance": -1.0}, "tolerance is -1.0; expected 0 or more"),
        ({"label": "A", "unit": "1", "relative_tolerance": float("nan")}, "relative_tolerance is nan; expected 0"),
        (
            {"label": "A", "unit": "1", "twin": True, "parent": True},
            "compares with one of twin, parent, control and top",
        ),
    ],
)
def test_metrics_are_read_strictly(table, said):
    with pytest.raises(CardError, match=said):
        metrics_of({"metrics": {"a": table}}, "here")


def test_the_card_in_force_judges_what_it_measured():
    installed = json.loads(find_protocol("nve").to_json())
    # titles and gates may be mended without a new version
    older = {**installed, "title": "Once", "metrics": {}}
    assert card_in_force(older) == installed
    assert (older["title"], older["metrics"]) == ("Once", {})


@pytest.mark.parametrize("changes", [{"version": 1}, {"digest": "0"}, {"digest": None}, {"name": "elsewhere"}])
def test_what_another_card_measured_keeps_its_own(changes):
    given = {**json.loads(find_protocol("nve").to_json()), "title": "Once", **changes}
    assert card_in_force(given) == given


def test_a_path_is_no_name_of_a_card_in_force(tmp_path):
    path = write(tmp_path, "heat", PROTOCOL)
    mine = json.loads(read_protocol(path).to_json())
    given = {**mine, "name": str(path), "title": "Once"}
    assert card_in_force(given) == given


def test_a_model_card_of_a_document(tmp_path):
    path = write(tmp_path, "net", MODEL)
    text = dedent(MODEL)
    assert model_of(tomllib.loads(text), path) == read_model(path)
    # the file need not be there
    assert model_of(tomllib.loads(text), Path("net.toml")).digest == read_model(path).digest
    with pytest.raises(CardError, match="name is 'net'; expected the name of the file"):
        model_of(tomllib.loads(text), Path("nut.toml"))
