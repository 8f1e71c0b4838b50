"""``conservbench finetune``: what it leaves, how it goes on, and what it says when something is wrong."""

import json
from pathlib import Path

import pytest
import tomli_w
import torch
import xarray as xr

from conservbench.cards import find_model, parse
from conservbench.cli import main
from conservbench.models.load import load_model
from conservbench.models.mace import NetworkSettings, TwoHeadedMACE, save_checkpoint
from conservbench.systems import find_system
from conservbench.training.tuning_recipe import TARGETS, check_targets, in_words, name_of

SHIPPED = Path(__file__).parents[2] / "models" / "recipes" / "silicon-tuning.toml"


@pytest.fixture
def recipe(tmp_path, miniature):
    """Writes the shipped recipe with changes, for the miniature data set and two parameters of Stillinger-Weber."""

    def write(**changes) -> str:
        table = parse(SHIPPED)
        errors = {**table["errors"], "batch": 2, "energy": changes.pop("energy", 0.0)}
        table |= {"data": "miniature", "steps": 3, "learning_rate": 0.01, "parameters": ["epsilon", "lam"]}
        path = tmp_path / "tuning.toml"
        path.write_text(tomli_w.dumps({**table, "errors": errors, **changes}), encoding="utf-8")
        return str(path)

    return write


def finetune(folder, *words):
    with pytest.raises(SystemExit) as ending:
        main.main(["finetune", *words, "--out", str(folder / "out")])
    return ending.value.code


def test_it_leaves_a_card_that_names_its_parent_and_is_the_tuned_model(tmp_path, recipe, capsys):
    assert finetune(tmp_path, "si-sw", "-t", "elastic", "--recipe", recipe()) == 0
    told = capsys.readouterr()
    assert "3 of 3 steps" in told.out
    card = find_model(str(tmp_path / "out" / "si-sw-elastic.toml"))
    assert card.parent == "si-sw"
    assert card.title == "Stillinger-Weber silicon, tuned to elastic constants"
    assert card.training_data.endswith("; miniature; elastic constants of si-pbe")
    assert card.tuning.target == "elastic"
    assert card.tuning.control == "si-sw-control"
    assert card.tuning.steps == 3
    assert card.tuning.rejected == 0
    assert card.tuning.evaluations > 0
    assert card.tuning.gradient_before != card.tuning.gradient_after
    history = xr.load_dataset(tmp_path / "out" / "si-sw-elastic.history.nc")
    assert history.elastic_loss.values[2] < history.elastic_loss.values[0]
    model = load_model(card, find_system("si-64"))
    state = torch.load(tmp_path / "out" / "si-sw-elastic.state.pt", weights_only=True)["state"]
    assert float(model.parameters["lam"]) == float(state["average"]["lam"])
    assert float(model.parameters["sigma"]) == 2.0951
    assert (tmp_path / "out" / "si-sw-elastic.png").read_bytes().startswith(b"\x89PNG")


def test_a_network_leaves_its_weights_beside_the_card(tmp_path, recipe):
    shape = {"cutoff": 4.0, "channels": 2, "max_ell": 1, "correlation": 1, "n_bessel": 3, "envelope": 5}
    scale = {"mean_neighbors": 12.0, "energy_scale": 1.0, "energy_shift": 0.0, "force_scale": 1.0}
    settings = NetworkSettings(
        **shape, **scale, radial_mlp=(4,), direct_hidden=2, elements=(14,), atomic_energies=(0.0,)
    )
    torch.manual_seed(0)
    save_checkpoint(TwoHeadedMACE(settings), tmp_path / "tiny.safetensors")
    card = {"name": "tiny", "version": 1, "title": "Tiny", "loader": "mace", "scheme": "direct", "dtype": "float32"}
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps({**card, "checkpoint": "tiny.safetensors"}), encoding="utf-8")
    words = (str(tmp_path / "tiny.toml"), "--recipe", recipe(parameters=[]), "--steps", "2")
    assert finetune(tmp_path, *words) == 0
    tuned = find_model(str(tmp_path / "out" / "tiny-control.toml"))
    assert tuned.parent == "../tiny.toml"
    assert tuned.tuning.control is None
    assert tuned.tuning.target == "energies and forces"
    assert tuned.checkpoint == tmp_path / "out" / "tiny-control.safetensors"
    before, after = (load_model(each, find_system("si-64")).parameters for each in (find_model(words[0]), tuned))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_an_interrupted_tuning_goes_on_and_ends_the_same(tmp_path, recipe, monkeypatch):
    words = ("si-sw", "-t", "elastic", "--recipe", recipe())
    assert finetune(tmp_path / "whole", *words) == 0
    from conservbench.training import descent

    write = descent._write

    def stop_after_the_second(path, identity, state, *rest):
        write(path, identity, state, *rest)
        if len(state.history) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(descent, "_write", stop_after_the_second)
        assert finetune(tmp_path / "halves", *words) == 130
    assert not (tmp_path / "halves" / "out" / "si-sw-elastic.toml").exists()
    assert finetune(tmp_path / "halves", *words) == 0
    whole, halves = (parse(tmp_path / part / "out" / "si-sw-elastic.toml") for part in ("whole", "halves"))
    assert whole["options"] == halves["options"]


def test_json_is_alone_on_standard_output(tmp_path, recipe, capsys):
    assert finetune(tmp_path, "si-sw", "--recipe", recipe(), "--json", "--name", "mine") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["outcome"] == "completed"
    assert Path(said["card"]).name == "mine.toml"
    assert said["before"].keys() == said["after"].keys() == {"gradient"}


def test_a_tuning_that_keeps_breaking_ends_with_3_and_a_card_of_what_was_sound(tmp_path, recipe, capsys):
    rdf = parse(SHIPPED)["rdf"]
    rdf["ensemble"] |= {"replicas": 1, "frames": 1, "time_step": 60.0, "interval": 1200.0, "equilibration": 0.0}
    words = ("si-sw", "-t", "rdf", "--recipe", recipe(rdf=rdf, patience=2, steps=9))
    assert finetune(tmp_path, *words) == 3
    said = capsys.readouterr()
    assert "stopped after 2 rejected steps in a row: rdf:" in said.err
    assert "the last sound parameters were kept" in said.err
    card = find_model(str(tmp_path / "out" / "si-sw-rdf.toml"))
    assert (card.tuning.steps, card.tuning.rejected) == (2, 2)
    assert card.options["epsilon"] == 2.16826


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("si-sw", "-t", "elastics"), 2, "no target 'elastics'; did you mean 'elastic'?"),
        (("si-swx",), 2, "no model 'si-swx'; did you mean 'si-sw'?"),
        (("si-sw", "--name", "si-sw"), 2, "that is the model itself"),
        (("si-sw", "--name", "bad name!"), 2, "--name is 'bad name!'; expected letters, digits"),
        (("si-sw", "--name", "a/b"), 2, "--name is 'a/b'; expected letters, digits"),
        (("harmonic",), 3, "toy models need a crystal"),
        (("si-mace-mts-sw",), 3, "si-mace-mts-sw cannot be tuned: it is two models"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(tmp_path, recipe, capsys, words, code, said):
    assert finetune(tmp_path, *words, "--recipe", recipe()) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err


def test_a_wrong_parameter_or_key_of_the_recipe_is_one_line(tmp_path, recipe, capsys):
    assert finetune(tmp_path, "si-sw", "--recipe", recipe(parameters=["epsilom"])) == 2
    assert "no parameter 'epsilom'; did you mean 'epsilon'?" in capsys.readouterr().err
    assert finetune(tmp_path, "si-sw", "--recipe", recipe(stepps=3)) == 2
    assert "unknown key 'stepps'; did you mean 'steps'?" in capsys.readouterr().err
    assert finetune(tmp_path, "si-sw", "--recipe", recipe(learning_rate=-1.0)) == 2
    assert "learning_rate is -1.0; expected a positive number" in capsys.readouterr().err


def test_energies_from_another_zero_are_refused(tmp_path, recipe, capsys):
    # the labels are those of a Lennard-Jones crystal
    assert finetune(tmp_path, "si-sw", "--recipe", recipe(energy=1.0)) == 3
    assert "eV/atom off the labels on average, from another zero; set energy = 0" in capsys.readouterr().err


def test_a_reference_without_the_g_of_the_system_is_one_line(tmp_path, recipe, capsys):
    rdf = {**parse(SHIPPED)["rdf"], "system": "si-64"}
    assert finetune(tmp_path, "si-sw", "-t", "rdf", "--recipe", recipe(rdf=rdf)) == 2
    assert "reference si-pbe has no g(r) of system 'si-64' (it has: si-melt-64" in capsys.readouterr().err


def test_another_models_card_is_not_overwritten(tmp_path, recipe, capsys):
    other = tmp_path / "out" / "si-edip.toml"
    other.parent.mkdir()
    other.write_text((SHIPPED.parents[1] / "si-edip.toml").read_text(encoding="utf-8"), encoding="utf-8")
    before = other.read_bytes()
    assert finetune(tmp_path, "si-sw", "--recipe", recipe(), "--name", "si-edip") == 2
    assert "is there, and another model's; expected another --name or --out" in capsys.readouterr().err
    assert other.read_bytes() == before


def test_a_parent_of_the_users_own_is_named_by_its_path(tmp_path, recipe):
    own = tmp_path / "own" / "si-sw.toml"
    own.parent.mkdir()
    own.write_text((SHIPPED.parents[1] / "si-sw.toml").read_text(encoding="utf-8"), encoding="utf-8")
    assert finetune(tmp_path, str(own), "-t", "elastic", "--recipe", recipe(), "--steps", "1") == 0
    child = tmp_path / "out" / "si-sw-elastic.toml"
    assert find_model(str(child)).parent == "../own/si-sw.toml"
    # and a grandchild, of a child that is one
    assert finetune(tmp_path, str(child), "--recipe", recipe(), "--steps", "1", "--name", "grandchild") == 0
    assert find_model(str(tmp_path / "out" / "grandchild.toml")).parent == "si-sw-elastic.toml"


def test_fresh_keeps_what_was_finished_until_something_else_is(tmp_path, recipe):
    assert finetune(tmp_path, "si-sw", "--recipe", recipe(), "--steps", "1") == 0
    state = tmp_path / "out" / "si-sw-control.state.pt"
    before = state.read_bytes()
    assert finetune(tmp_path, "si-sw", "--recipe", recipe(reference="si-pbx"), "--fresh") == 2
    assert state.read_bytes() == before


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("elastic", "weight", -0.5),
        ("elastic", "weight", float("nan")),
        ("errors", "gradient", float("inf")),
        ("trajectory", "settling", -50.0),
        ("trajectory", "interval", 16.4),
        ("trajectory", "duration", 130.0),
        ("ensemble", "min_effective", 1.5),
    ],
)
def test_a_value_out_of_range_names_file_and_key(tmp_path, recipe, capsys, table, key, value):
    document = parse(SHIPPED)
    inner = document["rdf"][table] if table in ("trajectory", "ensemble") else document[table]
    inner[key] = value
    path = tmp_path / "wrong.toml"
    path.write_text(tomli_w.dumps(document), encoding="utf-8")
    assert finetune(tmp_path, "si-sw", "--recipe", str(path)) == 2
    said = capsys.readouterr().err
    assert "wrong.toml" in said
    assert f"{key} is" in said


def test_names_and_titles_say_what_was_tuned_to():
    assert check_targets(("elastic", "rdf", "elastic")) == ("rdf", "elastic")
    assert name_of("m", ()) == "m-control"
    assert name_of("m", ("rdf", "elastic")) == "m-rdf-elastic"
    assert name_of("m", TARGETS) == "m-all"
    assert in_words(("rdf", "elastic")) == "g(r), elastic constants"
    assert in_words(()) == ""
