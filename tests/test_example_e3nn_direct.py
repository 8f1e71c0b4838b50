"""The worked example of a third party's plugin: it installs, keeps to the interface, and is what its card says."""

import importlib
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from conservbench.cards import CardError, checkpoint_of, find_model, list_models, model_of
from conservbench.data.catalogue import find_data_set
from conservbench.data.locate import present
from conservbench.models.base import UnsupportedError
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.neighbors import find_pairs
from conservbench.observables.jacobian import difference_products, jacobian, matrix_terms
from conservbench.plugins import loader
from conservbench.state import from_atoms
from conservbench.systems import find_system
from conservbench.testing import check_model

EXAMPLE = Path(__file__).parent.parent / "examples" / "e3nn-direct"


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    """The example as pip installs it, on the Python path of this module's tests alone."""
    if find_spec("hatchling") is None:
        pytest.skip("needs hatchling: pip install conservbench[test]")
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation", "--target", str(target), str(EXAMPLE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(target))
    importlib.invalidate_caches()
    yield target
    sys.path.remove(str(target))
    for name in [name for name in sys.modules if name.partition(".")[0] == "e3nn_direct"]:
        del sys.modules[name]


@pytest.fixture
def net():
    """The module of the network."""
    return importlib.import_module("e3nn_direct.network")


@pytest.fixture
def training():
    """The module of the training."""
    return importlib.import_module("e3nn_direct.training")


@pytest.fixture
def network(net):
    """A small network for two elements with random weights, in double precision."""
    torch.manual_seed(7)
    settings = net.Settings(
        elements=(8, 14),
        cutoff=4.0,
        hidden="4x0e + 4x1o + 2x2e",
        lmax=2,
        n_radial=4,
        width=8,
        n_blocks=2,
        mean_neighbors=6.0,
        force_scale=0.5,
    )
    return net.Network(settings).requires_grad_(False)


@pytest.fixture
def cluster():
    """Ten atoms of two elements without a symmetry."""
    places = np.random.default_rng(3).uniform(0, 5, (10, 3))
    return from_atoms(Atoms("Si6O4", positions=places))


def forces_of(network, state):
    return network(state, find_pairs(state, network.settings.cutoff))


def test_loader_and_card_are_found_where_pip_put_them(installed):
    assert loader("e3nn-direct").__module__ == "e3nn_direct.model"
    assert "si-e3nn-direct" in list_models()
    card = find_model("si-e3nn-direct")
    assert checkpoint_of(card) == installed / "e3nn_direct" / "models" / "si-e3nn-direct.safetensors"
    assert card.checkpoint.stat().st_size < 300_000
    assert card.scheme.kind == "direct"


def test_its_card_is_found_and_read_without_importing_it(installed):
    code = (
        "import sys; from conservbench.cards import find_model; print(find_model('si-e3nn-direct').loader);"
        "print({'torch', 'e3nn', 'e3nn_direct'} & set(sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": str(installed)}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
    assert said.split() == ["e3nn-direct", "set()"]


def test_it_keeps_to_the_interface():
    said = check_model("si-e3nn-direct")
    # without an energy these have nothing to ask; all others passed
    assert {name for name, reason in said.items() if reason} == {"energy", "gradient", "stress"}


def test_what_it_is_not_asked(network, cluster):
    from e3nn_direct.model import DirectModel

    model = DirectModel(network)
    assert model.evaluate(cluster, forces=("direct",)).energy is None
    with pytest.raises(UnsupportedError, match="no gradient forces"):
        model.evaluate(cluster, forces=("gradient",))
    with pytest.raises(UnsupportedError, match="no energy, and so no stress"):
        model.evaluate(cluster, forces=("direct",), stress=True)
    with pytest.raises(UnsupportedError, match="does not know Ge"):
        model.evaluate(cluster.replace(numbers=torch.full_like(cluster.numbers, 32)), forces=("direct",))


def test_an_unknown_option_is_refused():
    card = find_model("si-e3nn-direct")
    odd = model_of({**card.document, "options": {"heads": ["direct"]}}, card.path)
    with pytest.raises(CardError, match=r"\[options\]: unknown key 'heads'"):
        loader("e3nn-direct")(odd, find_system("si-64"))


@pytest.mark.parametrize("handedness", [1, -1], ids=["rotation", "rotation with inversion"])
def test_forces_turn_with_the_atoms(network, cluster, handedness):
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64))
    turn = turn * torch.sign(torch.linalg.det(turn)) * handedness
    before = forces_of(network, cluster)
    after = forces_of(network, cluster.replace(positions=cluster.positions @ turn))
    assert before.abs().max() > 1e-3
    assert (after - before @ turn).abs().max() < 1e-12 * before.abs().max()


def test_net_force_is_removed_of_each_system(network, cluster):
    from conservbench.state import concatenate

    both = concatenate([cluster, cluster.replace(positions=1.1 * cluster.positions)])
    assert both.sum(forces_of(network, both)).abs().max() < 1e-14


def test_forces_end_smoothly_at_the_cutoff(network):
    """The message of a neighbour that leaves ends as (1 - x)^3: at half the gap to the cutoff an eighth is left."""
    cutoff = network.settings.cutoff

    def forces(gap):
        places = [[0.0, 0.0, 0.0], [-2.1, 0.3, 0.0], [cutoff - gap, 0.0, 0.0]]
        return forces_of(network, from_atoms(Atoms("Si2O", positions=places)))

    beyond = forces(-0.01)
    changes = [(forces(gap) - beyond).abs().max().item() for gap in (0.02, 0.01)]
    assert changes[1] > 1e-10
    assert changes[0] / changes[1] == pytest.approx(8.0, rel=0.1)


def test_envelope_ends_with_two_derivatives(net):
    x = torch.tensor([0.0, 1.0, 1.2], dtype=torch.float64, requires_grad=True)
    value = net.envelope(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    assert value.tolist() == [1.0, 0.0, 0.0]
    assert slope.tolist() == [0.0, 0.0, 0.0]
    assert bend.tolist() == [0.0, 0.0, 0.0]


def test_forces_can_be_differentiated_and_are_no_gradient(network, cluster):
    from e3nn_direct.model import DirectModel

    model = DirectModel(network)
    matrix = jacobian(model, "direct", cluster, atoms_per_batch=100)
    probe = torch.randn(1, cluster.n_atoms, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    differences = difference_products(model, "direct", cluster, probe, 1e-4, atoms_per_batch=100)
    exact = torch.einsum("iajb,pjb->pia", matrix, probe)
    assert (exact - differences).abs().max() < 1e-6 * exact.abs().max()
    assert matrix_terms(matrix).asymmetry > 0.1


def test_a_checkpoint_comes_back_as_it_was(net, network, cluster, tmp_path):
    net.save_network(network, tmp_path / "a.safetensors")
    again = net.read_network(tmp_path / "a.safetensors")
    assert again.settings == network.settings
    assert torch.equal(forces_of(again, cluster), forces_of(network, cluster))
    net.save_network(again, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_other_files_are_refused(net, tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "text.safetensors").write_text("no tensors here")
    with pytest.raises(ValueError, match="not a safetensors file"):
        net.read_network(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="not a checkpoint of e3nn-direct"):
        net.read_network(tmp_path / "foreign.safetensors")


def test_forces_are_those_under_another_version_of_e3nn(net):
    """The reference was computed with e3nn 0.6.0; mace-torch brings 0.4.4."""
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.15, seed=1)
    forces = forces_of(net.read_network(checkpoint_of(find_model("si-e3nn-direct"))), from_atoms(atoms)).detach()
    expected = [[-3.7071961029, 0.2637772935, -0.4341943564], [2.369801524, 0.7782628316, 2.2101676896]]
    assert forces[:2].numpy() == pytest.approx(np.array(expected), abs=1e-9)


def frames_of_silicon(training):
    """Eight distorted cells with the forces of the Stillinger-Weber potential."""
    model, frames = StillingerWeber({}), []
    for seed in range(8):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(0.15, seed=seed)
        state = from_atoms(atoms)
        frames.append(training.Frame(state, model.evaluate(state, forces=("gradient",)).forces["gradient"]))
    return frames


def test_training_lowers_the_error_and_is_repeatable(training):
    frames = frames_of_silicon(training)
    nothing = 1e3 * float(torch.cat([frame.forces for frame in frames]).abs().mean())
    recipe = training.Recipe(epochs=12, average=0.8)
    *_, network = training.train(frames, training.settings_of(frames), recipe)
    assert training.mean_error(network, frames) < 0.5 * nothing
    first, *_ = training.train(frames, training.settings_of(frames), training.Recipe(epochs=1))
    again, *_ = training.train(frames, training.settings_of(frames), training.Recipe(epochs=1))
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_labels_lose_their_net_force(training, monkeypatch):
    atoms = Atoms("Si2", positions=[[0, 0, 0], [2.4, 0, 0]])
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=[[1.0, 0.0, 0.5], [0.0, 0.0, 0.1]])
    monkeypatch.setattr(training, "load_frames", lambda *_: [atoms])
    (frame,) = training.load_split("mlearn-si", "test")
    assert frame.forces.tolist() == pytest.approx(np.array([[0.5, 0.0, 0.2], [-0.5, 0.0, -0.2]]))


def test_shipped_checkpoint_has_the_error_that_its_card_states(net, training):
    if present(find_data_set("mlearn-si").files["test"]) is None:
        pytest.skip("needs the data set mlearn-si: conservbench data fetch mlearn-si")
    card = find_model("si-e3nn-direct")
    (stated,) = re.findall(r"([\d.]+) meV/Å", card.notes)
    network = net.read_network(checkpoint_of(card))
    assert training.mean_error(network, training.load_split("mlearn-si", "test")) == pytest.approx(
        float(stated), abs=0.06
    )


@pytest.mark.slow
def test_it_is_run_scored_and_drawn_as_any_other_model(installed, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(installed)}

    def conservbench(*words):
        command = [sys.executable, "-m", "conservbench", *words]
        return subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)

    done = conservbench("run", "-m", "si-e3nn-direct", "--tier", "smoke", "--out", "results")
    assert done.returncode == 0, done.stderr
    rows = json.loads(conservbench("score", "results", "--json").stdout)
    assert {row["model"] for row in rows} == {"si-e3nn-direct"}
    measured = {(row["protocol"], row["metric"]) for row in rows if row["value"] is not None}
    assert {"audit", "nve", "relax", "thermostat"} <= {protocol for protocol, _ in measured}
    assert (tmp_path / "results" / "report.html").is_file()
