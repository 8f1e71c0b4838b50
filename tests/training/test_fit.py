"""Training: the loss and its gradient, resuming, and what is written."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from safetensors.torch import load_file

from conservbench.data.frames import load_frames
from conservbench.models.mace import MACEModel, TwoHeadedMACE, read_checkpoint
from conservbench.scheme import CHANNELS
from conservbench.state import from_atoms
from conservbench.training import fit as fitting
from conservbench.training.recipe import read_recipe


@pytest.fixture
def samples(miniature, recipe):
    return fitting.make_samples(load_frames(miniature, "train"), recipe.network.cutoff, "cpu")


@pytest.fixture
def network(recipe, samples):
    torch.manual_seed(0)
    return TwoHeadedMACE(fitting.network_settings(recipe, samples)).double()


def test_labels_carry_no_net_force(samples):
    assert all(sample.forces.sum(0).abs().max() < 1e-12 for sample in samples)


def test_batch_predicts_as_its_samples_do(network, samples):
    batch = fitting.join_samples(samples[:3])
    whole = network.predict(batch.state, batch.pairs, forces=CHANNELS)
    single = [network.predict(sample.state, sample.pairs, forces=CHANNELS) for sample in samples[:3]]
    torch.testing.assert_close(whole.energy, torch.cat([part.energy for part in single]), rtol=1e-10, atol=1e-12)
    for channel in CHANNELS:
        parts = torch.cat([part.forces[channel] for part in single])
        torch.testing.assert_close(whole.forces[channel], parts, rtol=1e-10, atol=1e-12)


def test_loss_equals_its_definition(network, samples, recipe):
    batch, stage = fitting.join_samples(samples[:2]), recipe.stages[1]
    prediction = network.predict(batch.state, batch.pairs, forces=CHANNELS)
    expected = ((prediction.energy - batch.energy) / 4).abs().mean()
    for forces in prediction.forces.values():
        expected = expected + (forces - batch.forces).norm(dim=-1).mean()
    assert fitting.loss_of(network, batch, stage).item() == pytest.approx(expected.item(), rel=1e-9)


def test_gradient_of_the_loss_equals_finite_differences(network, samples, recipe):
    batch, stage = fitting.join_samples(samples[:2]), recipe.stages[1]
    fitting.loss_of(network, batch, stage).backward()
    weight = network.trunk.interactions[0].linear_up.weight
    slope, step = weight.grad[0].item(), 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[0] += sign * step
        values.append(fitting.loss_of(network, batch, stage).item())
        with torch.no_grad():
            weight[0] -= sign * step
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)
    assert abs(slope) > 1e-6


def test_direct_only_stage_leaves_the_gradient_out(network, samples, recipe, monkeypatch):
    seen = []
    original = network.predict
    monkeypatch.setattr(
        network, "predict", lambda *a, forces, **k: seen.append(forces) or original(*a, forces=forces, **k)
    )
    fitting.loss_of(network, samples[0], recipe.stages[0])
    assert seen == [["direct"]]


def test_atomic_energies_fit_the_mean(network, samples):
    mean = sum(sample.energy.item() for sample in samples) / sum(sample.state.n_atoms for sample in samples)
    assert network.settings.atomic_energies == (pytest.approx(mean, rel=1e-6),)


def test_training_lowers_the_errors_and_writes_metrics(recipe, miniature, tmp_path):
    longer = dataclasses.replace(
        recipe,
        batch=2,
        stages=(
            dataclasses.replace(recipe.stages[0], epochs=16, learning_rate=0.05),
            dataclasses.replace(recipe.stages[1], epochs=4),
        ),
    )
    told = []
    checkpoint = fitting.fit(longer, tmp_path / "out", progress=lambda done, total, line: told.append((done, total)))
    assert told == [(k, 20) for k in range(1, 21)]
    metrics = xr.load_dataset(tmp_path / "out" / "mini.metrics.nc", engine="h5netcdf")
    assert metrics.sizes["epoch"] == 20
    assert metrics["direct"].attrs["units"] == "meV/Å"
    assert metrics["energy"].attrs["units"] == "meV/atom"
    assert float(metrics["loss"][15]) < 0.7 * float(metrics["loss"][0])
    errors = fitting.split_errors(read_checkpoint(checkpoint), "miniature", "test")
    assert set(errors) == {"all", "even", "odd"}
    assert errors["all"].direct == pytest.approx((errors["even"].direct + errors["odd"].direct) / 2)


def test_errors_are_told_by_element(recipe, miniature, monkeypatch):
    random = np.random.default_rng(5)

    def frame():
        atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
        atoms.rattle(0.1, rng=random)
        atoms.info["group"] = "one"
        forces = random.normal(size=(8, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=random.normal(), forces=forces - forces.mean(0))
        return atoms

    frames = [frame() for _ in range(3)]
    monkeypatch.setattr(fitting, "load_frames", lambda *_: frames)
    samples = fitting.make_samples(frames, recipe.network.cutoff, "cpu")
    torch.manual_seed(0)
    network = TwoHeadedMACE(fitting.network_settings(recipe, samples))
    errors = fitting.split_errors(network, "miniature", "test")
    assert list(errors) == ["all", "one", "atoms of C", "atoms of Si"]
    assert errors["atoms of C"].energy is None
    model = MACEModel(network)
    for channel in ("gradient", "direct"):
        apart = [model.evaluate(from_atoms(atoms), forces=[channel]).forces[channel].numpy() for atoms in frames]
        off = np.abs(np.stack(apart) - np.stack([atoms.get_forces() for atoms in frames]))
        for symbol, number in (("C", 6), ("Si", 14)):
            expected = 1e3 * off[:, frames[0].numbers == number].mean()
            assert getattr(errors[f"atoms of {symbol}"], channel) == pytest.approx(expected, rel=1e-5)
        assert getattr(errors["all"], channel) == pytest.approx(1e3 * off.mean(), rel=1e-5)


def test_interrupted_training_equals_an_uninterrupted_one(recipe, miniature, tmp_path):
    whole = load_file(fitting.fit(recipe, tmp_path / "whole"))

    class StopError(Exception):
        pass

    def stop(done: int, total: int, line: str) -> None:
        if done == 3:
            raise StopError

    with pytest.raises(StopError):
        fitting.fit(recipe, tmp_path / "parts", progress=stop)
    epochs = []
    resumed = load_file(fitting.fit(recipe, tmp_path / "parts", progress=lambda done, *_: epochs.append(done)))
    assert epochs == [4, 5]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_state_of_another_recipe_is_refused(recipe, miniature, tmp_path):
    fitting.fit(recipe, tmp_path)
    with pytest.raises(ValueError, match="another version of this recipe"):
        fitting.fit(dataclasses.replace(recipe, seed=4), tmp_path)


def test_finished_training_is_not_done_again(recipe, miniature, tmp_path):
    first = fitting.fit(recipe, tmp_path).read_bytes()
    epochs = []
    again = fitting.fit(recipe, tmp_path, progress=lambda done, *_: epochs.append(done))
    assert (epochs, again.read_bytes()) == ([], first)


def test_broken_state_says_what_to_do(recipe, miniature, tmp_path):
    fitting.state_path(recipe, tmp_path).write_bytes(b"half a file")
    with pytest.raises(ValueError, match="not the state of a training; remove it to start anew"):
        fitting.fit(recipe, tmp_path)


def test_too_many_held_out_frames_are_refused(recipe, miniature, tmp_path):
    with pytest.raises(ValueError, match="validation is 10; miniature has 10 training frames"):
        fitting.fit(dataclasses.replace(recipe, validation=10), tmp_path)


def test_trained_checkpoint_runs_as_a_model(recipe, miniature, samples, tmp_path):
    model = MACEModel(read_checkpoint(fitting.fit(recipe, tmp_path)))
    prediction = model.evaluate(samples[0].state, forces=("gradient", "direct"), stress=True)
    assert prediction.energy.shape == (1,)
    assert prediction.forces["direct"].sum(0).abs().max() < 1e-5


# direct and energy errors on the held-out frames after each of the first epochs of what became ethanol-mace.safetensors
FIRST_EPOCHS = {
    "loss": (1.779402, 1.019517, 0.593061),
    "direct": (748.151, 732.388, 699.260),
    "energy": (353.57, 255.36, 182.25),
}


@pytest.mark.slow
def test_a_shipped_network_is_trained_again(tmp_path):
    recipe = read_recipe(Path(__file__).parents[2] / "models" / "recipes" / "ethanol-mace.toml")

    class StopError(Exception):
        pass

    def stop(done, total, line):
        if done == 3:
            raise StopError

    with pytest.raises(StopError):
        fitting.fit(recipe, tmp_path, progress=stop)
    with xr.open_dataset(tmp_path / "ethanol-mace.metrics.nc", engine="h5netcdf") as metrics:
        for name, values in FIRST_EPOCHS.items():
            # single precision and other processors: 300 steps of Adam carry rounding on
            np.testing.assert_allclose(metrics[name], values, rtol=0.01, err_msg=name)
