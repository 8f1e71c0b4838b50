"""``conservbench train``: one-line errors, and JSON alone on standard output."""

import json

import pytest

from conservbench.cli import main

RECIPE = """
name = "tiny"
data = "miniature"
validation = 1
batch = 4
ema = 0.9
clip = 10.0
seed = 1
stages = [{ epochs = 1, learning_rate = 0.01, energy = 1.0, gradient = 0.0, direct = 1.0 }]

[network]
cutoff = 4.0
channels = 2
max_ell = 1
correlation = 1
radial_mlp = [4]
n_bessel = 3
envelope = 5
direct_hidden = 2
"""


def train(folder, *words):
    with pytest.raises(SystemExit) as ending:
        main.main(["train", str(folder / "tiny.toml"), "--out", str(folder / "out"), *words])
    return ending.value.code


def test_bad_recipe_is_one_line(tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text(RECIPE.replace("batch = 4", "batch = 0"), encoding="utf-8")
    assert train(tmp_path) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "batch is 0; expected 1 or more" in told.err


@pytest.mark.usefixtures("miniature")
def test_json_is_alone_on_standard_output(tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    assert train(tmp_path, "--json") == 0
    told = capsys.readouterr()
    assert set(json.loads(told.out)["test"]) == {"all", "even", "odd"}
    assert "epoch 1/1" in told.err
    assert "TorchScript" not in told.err
