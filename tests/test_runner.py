"""Cells are planned, measured, resumed, and every ending is recorded. The plugin in tests/plugin plays the models."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import xarray as xr

from conservbench import plugins, runner
from conservbench.cards import TIERS, CardError, find_model, find_protocol, list_protocols
from conservbench.outcome import Outcome
from conservbench.plugins import PluginError
from conservbench.result import open_results, read_attributes, read_result
from conservbench.runner import Phase, RunError, plan, run_cells

PLUGIN = Path(__file__).parent / "plugin"
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def ticks(monkeypatch):
    monkeypatch.syspath_prepend(PLUGIN)


def cells_of(*models, tier="smoke"):
    return plan([f"ticks-{name}" for name in models], ["ticks"], [], tier)


def same_but_for_time(one: xr.Dataset, two: xr.Dataset) -> bool:
    def timeless(data: xr.Dataset) -> xr.Dataset:
        origin = json.loads(data.attrs["provenance"])
        origin.pop("seconds")
        return data.assign_attrs(provenance=json.dumps(origin))

    return timeless(one).identical(timeless(two))


def command(*words, out):
    head = [sys.executable, "-m", "conservbench", "run", "-p", "ticks", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PLUGIN), str(ROOT)])}
    return {"args": [*head, *words], "env": environment, "cwd": out.parent}


# planning


def test_plan_is_the_product():
    cells = plan(["ticks-fine", "ticks-slow", "ticks-fine"], ["ticks"], ["si-64", "si-liquid-64"], "quick")
    assert [(cell.system, cell.model.name) for cell in cells] == [
        ("si-64", "ticks-fine"),
        ("si-64", "ticks-slow"),
        ("si-liquid-64", "ticks-fine"),
        ("si-liquid-64", "ticks-slow"),
    ]
    assert cells[0].settings.steps == 50
    assert [cell.system for cell in cells_of("fine")] == ["si-64"]
    assert cells_of("fine")[0].settings.steps == 5


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", list_protocols())
def test_shipped_settings_fit_every_system_that_a_card_lists(name, tier):
    card = find_protocol(name)
    for system in (*card.systems, *card.more_systems):
        assert runner.Cell(find_model("si-sw"), card, system, 1, tier).settings is not None


@pytest.mark.parametrize("tier", TIERS)
def test_published_cards_can_be_planned(tier):
    assert all(cell.settings is not None for cell in plan(tier=tier))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((["ticks-fin"], ["ticks"]), "no model 'ticks-fin'; did you mean 'ticks-fine'"),
        ((["ticks-fine"], ["tick"]), "no protocol 'tick'; did you mean 'ticks'"),
        ((["ticks-fine"], ["ticks"], ["si-63"]), "si-63.*did you mean 'si-64'"),
        ((["ticks-fine"], ["ticks"], [], "quik"), "unknown tier 'quik'; did you mean 'quick'"),
    ],
)
def test_wrong_names_are_told_before_anything_runs(arguments, said):
    with pytest.raises(ValueError, match=said):
        plan(*arguments)


def test_wrong_cards_are_told_before_anything_runs(tmp_path):
    model = (PLUGIN / "ticks/models/ticks-fine.toml").read_text().replace("ticks-fine", "mine")
    path = tmp_path / "mine.toml"
    path.write_text('checkpoint = "gone.bin"\n' + model)
    with pytest.raises(CardError, match=r"mine.toml: checkpoint: no file .*gone\.bin"):
        plan([str(path)], ["ticks"])
    path.write_text(model.replace('"acting"', '"actin"'))
    with pytest.raises(PluginError, match=r"no plugin 'actin'.*did you mean 'acting'"):
        plan([str(path)], ["ticks"])

    protocol = (
        (PLUGIN / "ticks/protocols/ticks.toml").read_text().replace('name = "ticks"', 'name = "mine"\nplugin = "ticks"')
    )
    for old, new, said in [
        ("steps = 50", "stesp = 50", "unknown key 'stesp'; did you mean 'steps'"),
        ("seed = 7", 'seed = "7"', "seed is '7'; expected a whole number"),
    ]:
        path.write_text(protocol.replace(old, new))
        with pytest.raises(CardError, match=f"mine.toml: settings of tier 'quick': {said}"):
            plan(["ticks-fine"], [str(path)])


def test_a_model_is_asked_about_the_elements_it_knows(cards):
    silicon = cards("silicon", elements=["Si"])
    carbide = cards("carbide", elements=["Si", "C"])
    gone = cards("gone", elements=["Xe"])
    question = cards("question", "protocols", systems=["si-64", "sic-64"], more_systems=["si-melt-64"])
    assert pairs(plan([silicon, carbide], [question])) == {
        ("silicon", "question", "si-64"),
        ("carbide", "question", "si-64"),
        ("carbide", "question", "sic-64"),
    }
    assert pairs(plan([silicon, carbide], [question], ["sic-64", "si-melt-64"])) == {
        ("silicon", "question", "si-melt-64"),
        ("carbide", "question", "si-melt-64"),
        ("carbide", "question", "sic-64"),
    }
    with pytest.raises(CardError, match="gone is of scheme gradient and knows Xe alone"):
        plan([gone], [question])
    with pytest.raises(CardError, match="silicon is of scheme gradient and knows Si alone"):
        plan([silicon], [question], ["sic-64"])
    # one that knows none of the systems of a protocol goes to the others that it has
    question = cards("question", "protocols", systems=["si-64"], more_systems=["sic-64", "si-melt-64"])
    other = cards("other", elements=["C", "Si"], systems=[])
    assert pairs(plan([other], [question])) == {("other", "question", "si-64")}
    question = cards("question", "protocols", systems=["sic-64"], more_systems=["si-melt-64", "si-64"])
    assert pairs(plan([silicon], [question])) == {
        ("silicon", "question", "si-melt-64"),
        ("silicon", "question", "si-64"),
    }


def test_protocols_that_list_nothing_of_its_elements_leave_a_system_out_unless_named(cards, monkeypatch):
    silicon = cards("silicon-question", "protocols", systems=["si-64"])
    both = cards("question", "protocols", systems=["si-64"], more_systems=["sic-64"])
    monkeypatch.setattr(runner, "list_protocols", lambda: [silicon, both])
    model = cards("carbide", elements=["Si", "C"])
    assert {cell.protocol.name for cell in plan([model], [], ["sic-64"])} == {"question"}
    assert {cell.protocol.name for cell in plan([model], [], ["si-64"])} == {"silicon-question", "question"}
    assert pairs(plan([model], [silicon], ["sic-64"])) == {("carbide", "silicon-question", "sic-64")}


def test_models_may_be_run_by_name_alone(cards, monkeypatch):
    shy = cards("shy", by_default=False)
    monkeypatch.setattr(runner, "list_models", lambda: ["ticks-fine", shy])
    assert {cell.model.name for cell in plan([], ["ticks"])} == {"ticks-fine"}
    assert {cell.model.name for cell in plan([shy], ["ticks"])} == {"shy"}
    # or by the name of what it is made for
    shy = cards("shy", by_default=False, systems=["sic-64"])
    assert ("shy", "ticks", "sic-64") in pairs(plan([], ["ticks"], ["sic-64"]))
    assert {cell.model.name for cell in plan([], ["ticks"], ["si-64"])} == {"ticks-fine"}


def test_unknown_elements_and_systems_are_told_before_anything_runs(cards):
    with pytest.raises(CardError, match=r"mine.toml: elements: no element 'Sii'; did you mean 'Si'"):
        plan([cards("mine", elements=["Sii"])], ["ticks"])
    with pytest.raises(CardError, match=r"q.toml: systems: no system 'si-63'; did you mean 'si-64'"):
        plan(["ticks-fine"], [cards("q", "protocols", more_systems=["si-63"])])


def test_settings_of_a_system_are_those_of_its_cells(tmp_path):
    source = (
        (PLUGIN / "ticks/protocols/ticks.toml").read_text().replace('name = "ticks"', 'name = "q"\nplugin = "ticks"')
    )
    path = tmp_path / "q.toml"
    path.write_text(f'more_systems = ["sic-64"]\n{source}\n[on.sic-64]\nsteps = 3\n')
    usual, own = plan(["ticks-fine"], [str(path)], ["si-64", "sic-64"], "smoke")
    assert (usual.settings.steps, own.settings.steps) == (5, 3)
    before = usual.identity, own.identity
    path.write_text(path.read_text().replace("steps = 3", "steps = 4"))
    usual, own = plan(["ticks-fine"], [str(path)], ["si-64", "sic-64"], "smoke")
    assert usual.identity == before[0]
    assert own.identity != before[1]
    path.write_text(path.read_text().replace("steps = 4", "stesp = 4"))
    with pytest.raises(CardError, match=r"q.toml: settings of tier 'smoke' on sic-64: unknown key 'stesp'"):
        plan(["ticks-fine"], [str(path)], ["si-64", "sic-64"], "smoke")


@pytest.fixture
def cards(tmp_path):
    """Write variants of the cards of the plugin; returns the path."""

    def write(name, kind="models", **keys):
        source = {"models": "ticks-fine", "protocols": "ticks"}[kind]
        text = (PLUGIN / "ticks" / kind / f"{source}.toml").read_text().replace(f'"{source}"', f'"{name}"')
        for key, value in {**({"plugin": "ticks"} if kind == "protocols" else {}), **keys}.items():
            line = f"{key} = {json.dumps(value)}"
            text, found = re.subn(rf"^{key} = .*$", line, text, flags=re.MULTILINE)
            text = text if found else f"{line}\n{text}"
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return str(path)

    return write


def pairs(cells):
    return {(cell.model.name, cell.protocol.name, cell.system) for cell in cells}


def test_schemes_of_a_protocol_leave_models_out(cards):
    two = cards("two", scheme="mts", stride=4)
    picky = cards("picky", "protocols", schemes=["mts"])
    assert pairs(plan(["ticks-fine", two], ["ticks", picky])) == {
        ("ticks-fine", "ticks", "si-64"),
        ("two", "ticks", "si-64"),
        ("two", "picky", "si-64"),
    }


def test_systems_of_a_model_stand_in_for_those_of_the_protocol(cards):
    bound = cards("bound", systems=["si-64"])
    apart = cards("apart", systems=["sic-64"])
    both = cards("both", "protocols", systems=["si-64", "si-liquid-64"])
    assert pairs(plan([bound, "ticks-fine"], [both])) == {
        ("bound", "both", "si-64"),
        ("ticks-fine", "both", "si-64"),
        ("ticks-fine", "both", "si-liquid-64"),
    }
    assert pairs(plan([apart, "ticks-fine"], [both])) == {
        ("apart", "both", "sic-64"),
        ("ticks-fine", "both", "si-64"),
        ("ticks-fine", "both", "si-liquid-64"),
    }
    # what is asked for does not widen it
    assert pairs(plan([bound], [both], ["si-liquid-64", "si-64"])) == {("bound", "both", "si-64")}


def test_what_is_asked_for_by_name_and_has_no_cell_is_told(cards, monkeypatch):
    picky = cards("picky", "protocols", schemes=["mts"])
    crystal = cards("crystal", systems=["si-64"])
    takes = "protocol 'picky' takes models of scheme mts on si-64; "
    for arguments, said in [
        ((["ticks-fine"], [picky]), takes + "ticks-fine is of scheme gradient"),
        ((["ticks-fine", "ticks-direct"], ["ticks", picky]), "ticks-fine is of scheme gradient; ticks-direct is of"),
        (([crystal], ["ticks"], ["si-liquid-64"]), "on si-liquid-64; crystal is of scheme gradient for si-64"),
        (
            ([crystal, "ticks-fine"], ["ticks"], ["si-liquid-64"]),
            "nothing to run: crystal is of scheme gradient for si-64",
        ),
        (
            ([crystal], [], ["si-liquid-64"]),
            "crystal is of scheme gradient for si-64; no protocol takes it on si-liquid-64",
        ),
        (
            ([cards("lost", systems=["si-63"])], ["ticks"]),
            "lost.toml: systems: no system 'si-63'; did you mean 'si-64'",
        ),
    ]:
        with pytest.raises(CardError) as caught:
            plan(*arguments)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(runner, "list_models", lambda: ["ticks-fine"])
    with pytest.raises(CardError, match="takes models of scheme mts on si-64; there is none"):
        plan([], [picky])


TUNED = """
[tuning]
target = "rdf"
steps = 2
evaluations = 8
seconds = 1
"""


@pytest.fixture
def family(cards, monkeypatch):
    """What is published: a model, one tuned from it, one tuned from a card beside it, and protocols about tuning."""

    def tuned(name, parent):
        path = cards(name, parent=parent)
        Path(path).write_text(Path(path).read_text() + TUNED)
        return path

    beside = cards("beside")
    models = ["ticks-fine", "ticks-slow", tuned("child", "ticks-fine"), tuned("niece", "beside.toml")]
    protocols = ["ticks", cards("gain", "protocols", tuned=True, by_default=False)]
    monkeypatch.setattr(runner, "list_models", lambda: models)
    monkeypatch.setattr(runner, "list_protocols", lambda: protocols)
    return {Path(path).stem: path for path in [beside, *models, *protocols]}


def test_tuned_models_go_to_protocols_about_tuning(family):
    untuned = {("ticks-fine", "ticks", "si-64"), ("ticks-slow", "ticks", "si-64")}
    kin = {(name, "gain", "si-64") for name in ("ticks-fine", "child", "beside", "niece")}
    assert pairs(plan()) == untuned
    assert pairs(plan([], [family["gain"]])) == kin
    assert pairs(plan([], ["ticks", family["gain"]])) == untuned | kin


def test_what_is_asked_for_by_name_is_run(family):
    assert pairs(plan([family["child"]])) == {("child", "ticks", "si-64")}
    assert pairs(plan([family["child"], "ticks-slow"], ["ticks", family["gain"]])) == {
        (model, protocol, "si-64") for model in ("child", "ticks-slow") for protocol in ("ticks", "gain")
    }


def test_a_parent_that_is_not_there_is_told_where_it_is_needed(family):
    path = Path(family["child"])
    path.write_text(path.read_text().replace('"ticks-fine"', '"ticks-fin"'))
    assert plan()
    assert plan([str(path)], [family["gain"]])
    with pytest.raises(CardError, match=r"child\.toml: parent: no model 'ticks-fin'; did you mean 'ticks-fine'"):
        plan([], [family["gain"]])


def test_no_tuned_model_is_told_with_what_to_do(family, monkeypatch):
    monkeypatch.setattr(runner, "list_models", lambda: ["ticks-fine"])
    said = "'gain' takes models of scheme .* on si-64; there is no tuned one: name models with -m"
    with pytest.raises(CardError, match=said):
        plan([], [family["gain"]])
    assert pairs(plan(["ticks-fine"], [family["gain"]])) == {("ticks-fine", "gain", "si-64")}


def test_a_fast_model_is_checked_loaded_and_resumed_by(cards, tmp_path, monkeypatch):
    fast = cards("fast")
    slow = cards("slow", scheme="mts", stride=4, fast="fast.toml")
    seen = []
    measure = plugins.protocol_module("ticks", "measure")
    monkeypatch.setattr(measure, "measure", lambda model, *rest: seen.append(model) or xr.Dataset())
    (cell,) = cells = plan([slow], ["ticks"], [], "smoke")
    assert run_cells(cells, tmp_path / "out") == {cell: Outcome.COMPLETED}
    assert [(type(model).__name__, model.channels) for model in seen] == [("TwoModels", ("gradient", "direct"))]
    assert runner.kept_outcome(cell, tmp_path / "out", "cpu") is Outcome.COMPLETED
    cards("fast", version=2)
    (again,) = plan([slow], ["ticks"], [], "smoke")
    assert runner.kept_outcome(again, tmp_path / "out", "cpu") is None
    Path(fast).write_text('checkpoint = "gone.bin"\n' + Path(fast).read_text())
    with pytest.raises(CardError, match=r"fast.toml: checkpoint: no file .*gone\.bin"):
        plan([slow], ["ticks"])


def test_two_cards_of_one_name(tmp_path):
    path = tmp_path / "ticks-fine.toml"
    path.write_text((PLUGIN / "ticks/models/ticks-fine.toml").read_text())
    with pytest.raises(CardError, match=r"two cards give the same cell ticks / si-64 / ticks-fine"):
        plan(["ticks-fine", str(path)], ["ticks"])


def test_one_card_by_its_name_and_by_its_path(tmp_path):
    model, protocol = PLUGIN / "ticks/models/ticks-fine.toml", PLUGIN / "ticks/protocols/ticks.toml"
    (tmp_path / "ticks-fine.toml").symlink_to(model)
    names = ["ticks-fine", str(model), str(tmp_path / "ticks-fine.toml")]
    assert plan(names, ["ticks", str(protocol)]) == plan(["ticks-fine"], ["ticks"])


# endings


def test_every_ending_is_recorded(tmp_path):
    expected = {
        "fine": ("completed", ""),
        "explode": ("exploded", ""),
        "refuse": ("unsupported", "not with me"),
        "direct": ("unsupported", "the model has no direct forces (it has: gradient)"),
        "water": ("unsupported", "the model does not know Si (it knows: H, O)"),
        "raise": ("failed", "RuntimeError: the network is confused"),
        "invalid": ("failed", "InvalidPredictionError: energy is NaN"),
        "exit": ("failed", "SystemExit: bye"),
        "memory": ("out_of_memory", "MemoryError: "),
        "torch-memory": ("out_of_memory", "OutOfMemoryError: CUDA out of memory"),
        "cpu-memory": ("out_of_memory", "RuntimeError: "),
    }
    cells = cells_of(*expected)
    endings = run_cells(cells, tmp_path)
    assert list(endings) == cells
    for cell, (outcome, reason) in zip(cells, expected.values(), strict=True):
        attributes = read_attributes(cell.path(tmp_path))
        assert (attributes["outcome"], endings[cell]) == (outcome, Outcome(outcome))
        assert attributes["outcome_reason"].startswith(reason)
        assert "\n" not in attributes["outcome_reason"]
        assert ("traceback" in attributes) == (outcome == "failed")
    trace = read_attributes(cells_of("raise")[0].path(tmp_path))["traceback"]
    assert "acting.py" in trace
    assert str(ROOT) not in trace
    assert len(open_results(tmp_path)["ticks/si-64"].children) == len(expected)


def test_file_says_what_was_measured(tmp_path, capsys):
    (cell,) = cells_of("fine")
    run_cells([cell], tmp_path)
    data = read_result(tmp_path / "ticks" / "si-64" / "ticks-fine.nc")
    assert data["walk"].attrs["units"] == "eV"
    assert [data.attrs[key] for key in ("model", "protocol", "system", "tier")] == [
        "ticks-fine",
        "ticks",
        "si-64",
        "smoke",
    ]
    assert json.loads(data.attrs["model_card"])["options"] == {"act": "fine"}
    assert json.loads(data.attrs["protocol_card"])["metrics"]["end"]["unit"] == "eV"
    origin = json.loads(data.attrs["provenance"])
    assert (origin["seeds"], origin["dtype"], origin["threads"]) == ({"seed": 7}, "float64", 1)
    assert origin["digests"] == {
        "model": cell.model.digest,
        "protocol": cell.protocol.digest,
        "system": f"si-64 {cell.system_version}",
    }
    assert capsys.readouterr().out == ""


def test_events(tmp_path):
    heard = []
    (cell,) = cells_of("fine")
    run_cells([cell], tmp_path, on_event=heard.append)
    run_cells([cell], tmp_path, on_event=heard.append)
    phases = [event.phase for event in heard]
    assert phases[:2] == [Phase.STARTED, Phase.PROGRESS]
    assert phases[-2:] == [Phase.ENDED, Phase.KEPT]
    assert heard[1].fraction == 0.2
    assert all(event.outcome is Outcome.COMPLETED for event in heard[-2:])


def test_measurement_that_returns_nonsense_is_a_failure(tmp_path, monkeypatch):
    (cell,) = cells_of("fine")
    measure = plugins.protocol_module("ticks", "measure")
    for nonsense in [None, xr.Dataset(attrs={"outcome": "superb"}), xr.Dataset({"x": ("y", [object()])})]:
        monkeypatch.setattr(measure, "measure", lambda *arguments, result=nonsense: result)
        assert run_cells([cell], tmp_path) == {cell: Outcome.FAILED}
        assert read_attributes(cell.path(tmp_path))["outcome_reason"]


# resume


def test_final_files_are_kept_and_others_measured_again(tmp_path):
    cells = cells_of("fine", "refuse", "explode", "raise", "memory")
    run_cells(cells, tmp_path)
    before = {cell: cell.path(tmp_path).stat().st_ino for cell in cells}
    run_cells(cells, tmp_path)
    touched = {cell.model.name for cell in cells if cell.path(tmp_path).stat().st_ino != before[cell]}
    assert touched == {"ticks-raise", "ticks-memory"}
    run_cells(cells, tmp_path, fresh=True)
    assert all(cell.path(tmp_path).stat().st_ino != before[cell] for cell in cells)


def test_stale_files_are_measured_again(tmp_path):
    card = tmp_path / "mine.toml"
    text = (PLUGIN / "ticks/models/ticks-fine.toml").read_text().replace("ticks-fine", "mine")

    def phases(text, tier="smoke"):
        card.write_text(text)
        heard = []
        run_cells(plan([str(card)], ["ticks"], [], tier), tmp_path / "out", on_event=heard.append)
        return {event.phase for event in heard}

    assert Phase.STARTED in phases(text)
    assert phases(text) == {Phase.KEPT}
    assert phases(text.replace("A model that will", "The model that will")) == {Phase.KEPT}
    assert Phase.STARTED in phases(text.replace("version = 1", "version = 2"))
    assert Phase.STARTED in phases(text.replace('"fine"', '"slow"'))
    assert Phase.STARTED in phases(text.replace('"fine"', '"slow"'), tier="quick")


def test_a_file_is_kept_for_its_own_type_of_device(tmp_path):
    (cell,) = cells_of("fine")

    def phases(device):
        heard = []
        # the model of the plugin takes any device and stays on the CPU
        run_cells([cell], tmp_path, device=device, on_event=heard.append)
        return {event.phase for event in heard}

    assert Phase.STARTED in phases("cpu")
    assert phases("cpu:0") == {Phase.KEPT}
    assert Phase.STARTED in phases("cuda:1")
    assert phases("cuda") == {Phase.KEPT}
    assert json.loads(read_result(cell.path(tmp_path)).attrs["provenance"])["device"] == "cuda:1"
    assert Phase.STARTED in phases("cpu")


def test_broken_file_is_measured_again(tmp_path):
    (cell,) = cells_of("fine")
    run_cells([cell], tmp_path)
    path = cell.path(tmp_path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.warns(UserWarning, match=r"ticks-fine\.nc: not a readable result file.*measuring it again"):
        assert run_cells([cell], tmp_path) == {cell: Outcome.COMPLETED}
    read_result(path)


def test_results_do_not_depend_on_what_ran_before(tmp_path):
    forth, back = cells_of("fine", "slow"), cells_of("slow", "fine")
    run_cells(forth, tmp_path / "forth")
    run_cells(back, tmp_path / "back")
    for cell in forth:
        assert same_but_for_time(read_result(cell.path(tmp_path / "forth")), read_result(cell.path(tmp_path / "back")))


# workers


@pytest.mark.slow
def test_dead_worker_costs_only_its_own_cell(tmp_path):
    cells = cells_of("slow", "die", "fine", "slow-b", "raise", tier="quick")
    heard = []
    endings = run_cells(cells, tmp_path, jobs=2, on_event=heard.append)
    assert Counter(endings.values()) == {Outcome.COMPLETED: 3, Outcome.FAILED: 2}
    dead = next(cell for cell in cells if cell.model.name == "ticks-die")
    assert "worker died twice" in read_attributes(dead.path(tmp_path))["outcome_reason"]
    assert sum(event.cell is dead and event.phase is Phase.STARTED for event in heard) == 2
    assert Counter(event.cell for event in heard if event.phase is Phase.ENDED) == Counter(cells)
    # workers measure what this process measures
    fine = next(cell for cell in cells if cell.model.name == "ticks-fine")
    run_cells([fine], tmp_path / "here")
    assert same_but_for_time(read_result(fine.path(tmp_path)), read_result(fine.path(tmp_path / "here")))


@pytest.mark.slow
def test_killed_run_goes_on_where_it_was(tmp_path):
    names = ["ticks-fine", "ticks-slow", "ticks-slow-b", "ticks-slow-c", "ticks-slow-d"]
    words = [word for name in names for word in ("-m", name)] + ["--jobs", "2"]
    out = tmp_path / "out"
    # a session of its own: the workers can be looked for after their parent was killed
    killed = subprocess.Popen(**command(*words, out=out), start_new_session=True, stderr=subprocess.DEVNULL)
    folder, deadline = out / "ticks" / "si-64", time.monotonic() + 90
    while not list(folder.glob("*.nc")) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert all_end(killed.pid), "workers outlive their parent"

    finished = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.nc")}
    assert 0 < len(finished) < len(names)
    subprocess.run(**command(*words, out=out), capture_output=True, timeout=120)
    assert {path.stem for path in folder.glob("*.nc")} == set(names)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in finished} == finished

    cells = plan(names, ["ticks"])
    run_cells(cells, tmp_path / "whole")
    for cell in cells:
        assert same_but_for_time(read_result(cell.path(out)), read_result(cell.path(tmp_path / "whole")))


@pytest.mark.slow
def test_interrupt_stops_workers_and_keeps_what_is_finished(tmp_path):
    out = tmp_path / "out"
    words = ["-m", "ticks-fine", "-m", "ticks-slow", "-m", "ticks-slow-b", "-m", "ticks-slow-c", "--jobs", "2"]
    run = subprocess.Popen(
        **command(*words, out=out),
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that starts jobs in the background has them ignore it, and their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )
    deadline = time.monotonic() + 90
    while not list(out.glob("*/*/*.nc")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=30)[1]
    assert run.returncode == 130
    assert said.splitlines()[-1].startswith("conservbench: stopped; what is finished is kept")
    assert "Traceback" not in said
    assert "leaked" not in said
    assert all_end(run.pid)
    assert len(open_results(out)["ticks/si-64"].children) in (1, 2, 3)


def test_full_disk_is_one_line_and_costs_nothing_finished(tmp_path):
    out = tmp_path / "out"
    words = ["-m", "ticks-fine", "-m", "ticks-direct", "--jobs", "1"]
    assert subprocess.run(**command("-m", "ticks-fine", out=out)).returncode == 0
    call = command(*words, out=out)
    # no file may grow beyond the limit, as on a full disk; Python would cut its own bytecode, and trip over it
    call["env"]["PYTHONDONTWRITEBYTECODE"] = "1"
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))}
    run = subprocess.run(**call, **limit, capture_output=True, text=True)
    assert run.returncode == 3, run.stderr
    (said,) = [line for line in run.stderr.splitlines() if line.startswith("conservbench: cannot write ")]
    assert said.endswith("the same command goes on")
    assert "Traceback" not in run.stderr
    assert [path.name for path in out.glob("*/*/*")] == ["ticks-fine.nc"]
    assert subprocess.run(**command(*words, out=out)).returncode == 0


@pytest.mark.slow
def test_script_without_guard_gets_told(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from conservbench import runner\n"
        "cells = runner.plan(['ticks-fine', 'ticks-slow'], ['ticks'], [], 'smoke')\n"
        "runner.run_cells(cells, runner.Path('out'), jobs=2)\n"
    )
    run = subprocess.run(
        **{**command(out=tmp_path / "out"), "args": [sys.executable, str(script)]}, capture_output=True, text=True
    )
    assert run.stderr.splitlines()[-1].startswith("conservbench.runner.RunError: worker processes cannot start")
    assert issubclass(RunError, RuntimeError)


def test_throttle(monkeypatch):
    now, heard = [0.0], []
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])
    report = runner._throttled(heard.append, interval=0.25)
    for step in range(101):
        now[0] = step / 100
        report(step / 100)
    assert heard == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_another_seed_is_another_cell_with_other_numbers(tmp_path):
    (usual,) = cells_of("fine")
    (other,) = plan(["ticks-fine"], ["ticks"], [], "smoke", seed=12)
    assert (usual.settings.seed, other.settings.seed) == (7, 12)
    assert "seed" not in json.loads(usual.identity)
    assert json.loads(other.identity)["seed"] == 12
    run_cells([other], tmp_path)
    assert json.loads(read_attributes(other.path(tmp_path))["provenance"])["seeds"] == {"seed": 12}
    assert runner.kept_outcome(other, tmp_path, "cpu") is Outcome.COMPLETED
    assert runner.kept_outcome(usual, tmp_path, "cpu") is None


def test_a_protocol_without_random_numbers_takes_no_seed(monkeypatch):
    @dataclass(frozen=True)
    class Settings:
        steps: int

    (cell,) = plan(["ticks-fine"], ["ticks"], [], "smoke", seed=3)
    monkeypatch.setattr(plugins, "protocol_module", lambda plugin, name: SimpleNamespace(Settings=Settings))
    card = replace(cell.protocol, tiers={"smoke": {"steps": 5}})
    assert replace(cell, protocol=card).settings == Settings(5)


def all_end(session: int, patience: float = 20.0) -> bool:
    """Whether all processes of a session end within the patience (s)."""
    deadline = time.monotonic() + patience
    while alive(session) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(session)


def alive(session: int) -> bool:
    """Whether a process of a session still runs (zombies do not)."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, found = status.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(found) == session and state != "Z":
            return True
    return False
