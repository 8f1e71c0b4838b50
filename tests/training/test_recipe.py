"""Recipes: the shipped ones read, bad ones say what is wrong."""

from pathlib import Path

import pytest

from conservbench.cards import parse
from conservbench.references import find_reference
from conservbench.training.descriptor import recipe as descriptor_recipe
from conservbench.training.kernel import recipe as kernel_recipe
from conservbench.training.recipe import read_recipe
from conservbench.training.tuning_recipe import read_tuning_recipe

FOLDER = Path(__file__).parents[2] / "models" / "recipes"
TUNING = sorted(FOLDER.glob("*-tuning.toml"))
# those of other kinds say so by a key `model`
SHIPPED = [path for path in sorted(set(FOLDER.glob("*.toml")) - set(TUNING)) if "model" not in parse(path)]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_read(path):
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert recipe.epochs == sum(stage.epochs for stage in recipe.stages)


@pytest.mark.parametrize("path", TUNING, ids=lambda path: path.stem)
def test_shipped_tuning_recipes_read(path):
    recipe = read_tuning_recipe(path)
    assert recipe.rdf.system in find_reference(recipe.reference).rdf


def test_direct_only_recipe_never_trains_gradients():
    path = next(path for path in SHIPPED if path.stem == "si-mace-directonly")
    assert all(stage.gradient == 0 for stage in read_recipe(path).stages)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("channels = ", "chanels = ", r"network: unknown key 'chanels'; did you mean 'channels'"),
        ("batch = 4\n", "", "missing key 'batch'"),
        ("[[stages]]", "[[stage]]", "unknown key 'stage'; did you mean 'stages'"),
        ("ema = ", "ema == ", "not TOML"),
        ("batch = 4", 'batch = "four"', "batch is 'four'; expected a whole number"),
        ("learning_rate = 0.01", "learning_rate = true", "learning_rate is True; expected a number"),
        ("batch = 4", "batch = 0", "batch is 0; expected 1 or more"),
        ("validation = 10", "validation = 0", "validation is 0; expected 1 or more"),
        ("ema = 0.995", "ema = 1.0", "ema is 1.0; expected a number from 0 to below 1"),
        ("cutoff = 4.5", "cutoff = -1", "cutoff is -1.0; expected a positive number"),
        ("max_ell = 2", "max_ell = 0", "max_ell is 0; expected 1 or more"),
        ("epochs = 80", "epochs = 0", "epochs is 0; expected 1 or more"),
        ("direct = 1.0", "direct = -1.0", "must not be negative"),
        ("radial_mlp = [64, 64]", 'radial_mlp = ["a"]', "radial_mlp is 'a'; expected a whole number"),
    ],
)
def test_bad_recipe_names_file_and_key(tmp_path, old, new, message):
    text = next(path for path in SHIPPED if path.stem == "si-mace").read_text().replace(old, new)
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)


def test_stage_of_counts_through_the_stages(recipe):
    assert recipe.stage_of(2) == (recipe.stages[0], 2)
    assert recipe.stage_of(3) == (recipe.stages[1], 0)
    with pytest.raises(IndexError):
        recipe.stage_of(5)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("si-mace-directonly", read_recipe),
        ("si-ace-2", descriptor_recipe.read_recipe),
        ("si-kernel", kernel_recipe.read_recipe),
    ],
)
def test_data_of_ones_own_lies_beside_the_recipe(tmp_path, name, read):
    text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace('data = "mlearn-si"', 'data = "frames/mine.extxyz.xz"'), encoding="utf-8")
    assert read(path).data == str(tmp_path / "frames" / "mine.extxyz.xz")
