"""Recipes of PET: the frames that metatrain is given, resuming, and whether it turns them."""

import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from conservbench.training import metatrain

RECIPES = Path(__file__).parents[2] / "models" / "recipes"


def labelled(seed: int) -> Atoms:
    atoms = bulk("Si", "diamond", a=5.43, cubic=True)
    atoms.rattle(0.1, seed=seed)
    forces = np.random.default_rng(seed).normal(size=(len(atoms), 3)) + 0.3
    atoms.calc = SinglePointCalculator(atoms, energy=-40.0 - seed, forces=forces)
    atoms.info["group"] = "made"
    return atoms


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe of frames that are made here: twelve to train on, three to test on."""
    given = {"train": [labelled(seed) for seed in range(12)], "test": [labelled(seed) for seed in range(20, 23)]}
    monkeypatch.setattr(metatrain, "find_data_set", lambda name: name)
    monkeypatch.setattr(metatrain, "load_frames", lambda data, split: given[split])
    folder = tmp_path / "pet-made"
    folder.mkdir()
    (folder / "frames.toml").write_text(
        'data = "made"\nvalidation = 4\nseed = 3\naugmentation = true\n', encoding="utf-8"
    )
    (folder / "options.yaml").write_text("seed: 1\n", encoding="utf-8")
    return folder


def test_every_frame_is_in_one_file_with_its_labels(recipe, tmp_path):
    metatrain.prepare(recipe, tmp_path / "run")
    parts = {name: read(tmp_path / "run" / f"{name}.xyz", ":") for name in ("train", "validation", "test")}
    assert {name: len(frames) for name, frames in parts.items()} == {"train": 8, "validation": 4, "test": 3}
    energies = [atoms.get_potential_energy() for name in ("train", "validation") for atoms in parts[name]]
    assert sorted(energies) == sorted(-40.0 - seed for seed in range(12))
    for expected, found in zip((labelled(seed) for seed in range(20, 23)), parts["test"], strict=True):
        forces = expected.get_forces()
        np.testing.assert_allclose(found.get_forces(), forces - forces.mean(0), atol=1e-7)
        np.testing.assert_allclose(found.positions, expected.positions, atol=1e-7)
        assert found.pbc.all()
    assert (tmp_path / "run" / "options.yaml").read_text(encoding="utf-8") == "seed: 1\n"


def test_the_frames_held_out_are_the_same_again(recipe, tmp_path):
    for name in ("one", "two"):
        metatrain.prepare(recipe, tmp_path / name)
    assert (tmp_path / "one" / "train.xyz").read_bytes() == (tmp_path / "two" / "train.xyz").read_bytes()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('data = "made"\nvalidation = 0\nseed = 1\naugmentation = true\n', "validation is 0; expected 1 or more"),
        ('data = "made"\nvalidation = 12\nseed = 1\naugmentation = true\n', "12 of 12 frames; none is left"),
        ('data = "made"\nvalidaton = 1\nseed = 1\naugmentation = true\n', "did you mean 'validation'"),
    ],
)
def test_a_wrong_recipe_is_refused(recipe, tmp_path, text, says):
    (recipe / "frames.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        metatrain.prepare(recipe, tmp_path / "run")


def test_a_folder_that_is_no_recipe_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"frames\.toml"):
        metatrain.read_frames(tmp_path)


def test_training_goes_on_from_the_highest_epoch(tmp_path):
    assert metatrain.last_checkpoint(tmp_path) is None
    for day, name in (("2026-01-02", "model_90"), ("2026-01-03", "model_100"), ("2026-01-04", "scaler")):
        path = tmp_path / "outputs" / day / "10-00-00" / f"{name}.ckpt"
        path.parent.mkdir(parents=True)
        path.touch()
    (tmp_path / "outputs" / "2026-01-04" / "10-00-00" / "model_best.ckpt").touch()
    assert metatrain.last_checkpoint(tmp_path).stem == "model_100"


@pytest.fixture
def begun(recipe, tmp_path):
    """A folder in which training has left a checkpoint."""
    metatrain.prepare(recipe, tmp_path / "run")
    path = tmp_path / "run" / "outputs" / "2026-01-02" / "10-00-00" / "model_9.ckpt"
    path.parent.mkdir(parents=True)
    path.touch()
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("options.yaml", "seed: 1", "seed: 2", "(options.yaml differ)"),
        ("frames.toml", "augmentation = true", "augmentation = false", "(frames.toml differ)"),
        ("frames.toml", "seed = 3", "seed = 4", "(frames.toml, train.xyz, validation.xyz differ)"),
        ("frames.toml", "validation = 4", "validation = 5", "(frames.toml, train.xyz, validation.xyz differ)"),
    ],
)
def test_a_folder_is_not_trained_on_by_another_recipe(recipe, begun, file, old, new, named):
    before = {path.name: path.read_bytes() for path in begun.iterdir() if path.is_file()}
    (recipe / file).write_text((recipe / file).read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"another version of this recipe {named}")):
        metatrain.prepare(recipe, begun)
    assert {path.name: path.read_bytes() for path in begun.iterdir() if path.is_file()} == before


def test_a_folder_is_not_trained_on_with_other_frames_of_the_same_name(recipe, begun, monkeypatch):
    monkeypatch.setattr(metatrain, "load_frames", lambda data, split: [labelled(seed) for seed in range(1, 13)])
    with pytest.raises(ValueError, match=r"\(train\.xyz, validation\.xyz differ\)"):
        metatrain.prepare(recipe, begun)


def test_a_folder_is_trained_on_by_the_same_recipe(recipe, begun):
    with (recipe / "options.yaml").open("a", encoding="utf-8") as file:
        file.write("# a remark\n\n")
    metatrain.prepare(recipe, begun)
    # one that an older release filled
    (begun / "frames.toml").unlink()
    metatrain.prepare(recipe, begun)
    assert (begun / "frames.toml").is_file()
    # without a checkpoint nothing is lost
    for path in begun.glob("outputs/*/*/*.ckpt"):
        path.unlink()
    (recipe / "options.yaml").write_text("seed: 5\n", encoding="utf-8")
    metatrain.prepare(recipe, begun)
    assert (begun / "options.yaml").read_text(encoding="utf-8") == "seed: 5\n"


@pytest.mark.parametrize("name", ["pet-si", "pet-ethanol", "pet-ethanol-still"])
def test_recipes_that_are_shipped_are_read(name):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (extra: test)")
    frames = metatrain.read_frames(RECIPES / name)
    options = yaml.safe_load((RECIPES / name / "options.yaml").read_text(encoding="utf-8"))
    assert frames.augmentation != name.endswith("still")
    assert options["training_set"]["targets"] == options["validation_set"]["targets"]
    assert set(options["architecture"]["training"]["loss"]) == set(options["training_set"]["targets"])


def test_frames_are_turned_unless_the_recipe_says_otherwise():
    augmentation = pytest.importorskip("metatrain.utils.augmentation", reason="no metatrain (extra: metatrain)")
    augment = augmentation.O3Augmenter.apply_random_augmentations
    with metatrain._turned(at_random=True):
        assert augmentation.O3Augmenter.apply_random_augmentations is augment
    with metatrain._turned(at_random=False):
        still = augmentation.O3Augmenter({})
        assert still.apply_random_augmentations(["systems"], {"energy": 1}) == (["systems"], {"energy": 1}, {})
    assert augmentation.O3Augmenter.apply_random_augmentations is augment


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_network_is_trained_resumed_and_run(recipe, tmp_path, monkeypatch):
    pytest.importorskip("metatrain", reason="metatrain is not installed (extra: metatrain)")
    from conservbench.models.metatomic import MetatomicModel, read_exported
    from conservbench.state import from_atoms

    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (extra: test)")
    options = yaml.safe_load((RECIPES / "pet-si" / "options.yaml").read_text(encoding="utf-8"))
    # small enough to be trained in seconds, whatever the size of the recipe shipped
    assert {"d_pet", "d_node", "d_head"} <= set(options["architecture"]["model"])
    options["architecture"]["model"].update(d_pet=8, d_node=8, d_head=8)
    options["architecture"]["training"].update(num_epochs=2, checkpoint_interval=1)
    (recipe / "options.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")
    path = metatrain.train(recipe, tmp_path / "run")
    last = metatrain.last_checkpoint(tmp_path / "run")
    assert last.stem == "model_1"
    # as if it had stopped after the first epoch
    last.unlink()
    path.unlink()
    assert metatrain.train(recipe, tmp_path / "run") == path
    assert metatrain.last_checkpoint(tmp_path / "run").stem == "model_1"
    assert path.name == "pet-made.pt"
    assert len(list((tmp_path / "run" / "outputs").glob("*/*/model_0.ckpt"))) == 1
    model = MetatomicModel(read_exported(path))
    said = model.evaluate(from_atoms(labelled(1)), forces=("gradient", "direct"))
    assert set(said.forces) == {"gradient", "direct"}
    # the mean of the labels, -45.5 eV, is fitted before the first step: two epochs leave 6 eV of a random network
    assert abs(said.energy.item() + 45.5) < 15.0
