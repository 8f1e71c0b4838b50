"""A miniature data set in the mlearn format with a recipe for it, and trajectories to differentiate."""

import hashlib
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.lj import LennardJones

from conservbench.cards import find_model
from conservbench.data import catalogue as data_catalogue
from conservbench.data.catalogue import DataFile, DataSet
from conservbench.data.locate import DATA_VARIABLE
from conservbench.dynamics.integrator import integrator
from conservbench.dynamics.maxwell_boltzmann import draw_momenta
from conservbench.dynamics.noise import Noise
from conservbench.models import mace
from conservbench.models.base import Prediction
from conservbench.models.edip import EDIP
from conservbench.models.mace import Architecture, MACEModel
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.rdf import smeared_rdf
from conservbench.state import State, from_atoms
from conservbench.systems import find_system
from conservbench.training.recipe import Recipe, Stage
from conservbench.training.route import Objective, of_average
from conservbench.training.trajectory import TrajectoryRoute


def labelled_entry(seed: int) -> dict:
    atoms = bulk("Si", "fcc", a=4.4, cubic=True)
    atoms.rattle(0.1, seed=seed)
    atoms.calc = LennardJones(sigma=2.7, epsilon=0.3, rc=5.0, smooth=True)
    sites = [
        {"species": [{"element": "Si", "occu": 1}], "xyz": position.tolist()} for position in atoms.get_positions()
    ]
    return {
        "structure": {"lattice": {"matrix": atoms.cell.array.tolist()}, "sites": sites},
        "group": "even" if seed % 2 == 0 else "odd",
        "outputs": {"energy": float(atoms.get_potential_energy()), "forces": atoms.get_forces().tolist()},
    }


@pytest.fixture
def miniature(tmp_path, monkeypatch) -> DataSet:
    files = {}
    for split, seeds in {"train": range(10), "test": range(10, 14)}.items():
        text = json.dumps([labelled_entry(seed) for seed in seeds]).encode()
        (tmp_path / f"{split}.json").write_bytes(text)
        files[split] = DataFile(f"{split}.json", "http://127.0.0.1:9/none.json", hashlib.sha256(text).hexdigest())
    entry = DataSet("miniature", "", "mlearn", "", "", "", "", "", files)
    monkeypatch.setattr(data_catalogue, "catalogue", lambda: {"miniature": entry})
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    return entry


@pytest.fixture
def recipe() -> Recipe:
    network = Architecture(
        cutoff=4.0, channels=4, max_ell=1, correlation=2, radial_mlp=(8,), n_bessel=4, envelope=5, direct_hidden=4
    )
    stages = (
        Stage(epochs=3, learning_rate=0.02, energy=1.0, gradient=0.0, direct=1.0),
        Stage(epochs=2, learning_rate=0.01, energy=1.0, gradient=1.0, direct=1.0),
    )
    return Recipe(
        name="mini", data="miniature", validation=2, batch=4, ema=0.9, clip=10.0, seed=3, network=network, stages=stages
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class BentSilicon:
    """A classical potential, whose direct forces f (1 + bend |f|^2) are no gradient and have a net force."""

    channels = ("gradient", "direct")
    elements = frozenset({14})
    differentiable = True
    labelled = False
    device = torch.device("cpu")

    def __init__(self, parameters=None, potential=None):
        self.potential = potential or StillingerWeber()
        bend = torch.tensor(0.02, dtype=torch.float64)
        self.parameters = parameters or {"bend": bend, **self.potential.parameters}
        self.calls = 0

    def at(self, parameters):
        merged = {**self.parameters, **parameters}
        classical = {name: value for name, value in merged.items() if name != "bend"}
        return BentSilicon(merged, self.potential.at(classical))

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        still = self.potential.evaluate(state, forces=("gradient",), graph=graph)
        pull = still.forces["gradient"]
        bent = pull * (1.0 + self.parameters["bend"] * pull.square().sum(1, keepdim=True))
        said = {"gradient": pull, "direct": bent}
        return Prediction(still.energy, {channel: said[channel] for channel in forces})


class Detached:
    """Says that it can be differentiated, but its forces lose their graph."""

    channels = ("gradient",)
    elements = None
    differentiable = True
    labelled = False
    device = torch.device("cpu")

    def __init__(self):
        self.potential = StillingerWeber()
        self.parameters = self.potential.parameters

    def at(self, parameters):
        return self

    def evaluate(self, state, *, forces=(), stress=False, graph=False):
        return self.potential.evaluate(state, forces=forces)


@pytest.fixture
def detached() -> Detached:
    """A model that breaks its word."""
    return Detached()


@pytest.fixture
def bent() -> BentSilicon:
    """A cheap model with two channels, to be differentiated by ``epsilon``, ``lam`` and ``bend``."""
    return BentSilicon()


@pytest.fixture
def bent_edip() -> BentSilicon:
    """The same of another potential, to be differentiated by ``lam``, ``B`` and ``bend``."""
    return BentSilicon(potential=EDIP())


@pytest.fixture(scope="session")
def silicon_network() -> MACEModel:
    """The shipped network in float64, both channels."""
    return mace.load(find_model("si-mace-mts8"), find_system("si-64"), dtype="float64")


@pytest.fixture
def hot() -> State:
    """Two replicas of eight atoms, off their sites and at 1500 K."""
    frames = []
    for seed in (1, 2):
        atoms = bulk("Si", cubic=True, a=5.431)
        atoms.rattle(0.1, seed=seed)
        frames.append(atoms)
    start = from_atoms(frames)
    return start.replace(momenta=draw_momenta(start, 1500.0, Noise(3)))


CENTERS = np.linspace(1.5, 4.5, 16)


def _velocities(model, state):
    return state.velocities.reshape(state.n_systems, -1)


def _correlate(values, weights):
    """Square of the velocity autocorrelation over one interval: of pairs of frames, and no average over them."""
    return (values[1:] * values[:-1]).mean((0, 1)).sum().square()


OBJECTIVES = {
    # positions
    "rdf": Objective(
        lambda model, state: smeared_rdf(state, CENTERS, 0.2), of_average(lambda g: (g - 1).square().sum())
    ),
    # momenta
    "vacf": Objective(_velocities, _correlate),
    # parameters, and positions through them
    "energy": Objective(lambda model, state: model.evaluate(state, graph=True).energy + 30.0, of_average(torch.square)),
}


@pytest.fixture(params=OBJECTIVES)
def objective(request) -> Objective:
    return OBJECTIVES[request.param]


@pytest.fixture
def mixed() -> Objective:
    """Of positions, momenta and parameters at once."""

    def observe(model, state):
        energy = model.evaluate(state, graph=True).energy + 30.0
        return torch.stack((energy, state.momenta.pow(3).mean() + state.sum(state.positions.sin().sum(1))), 1)

    return Objective(observe, of_average(lambda values: values.square().sum()))


@pytest.fixture
def loss_along() -> Callable[..., float]:
    """The loss by the integrator alone, with nothing differentiated."""

    def loss(route: TrajectoryRoute, model, scheme, objective, start, parameters) -> float:
        there = model.at(parameters)
        engine = integrator(there, scheme)
        md = engine.init(start)
        values = []
        for step in range(engine.stride, route.n_steps + 1, engine.stride):
            md = engine.step(md, route.dt)
            if step % route.interval == 0:
                values.append(objective.observe(there, md).detach())
        observed = torch.stack(values)
        weights = torch.full(observed.shape[:2], 1.0 / (len(observed) * observed.shape[1]), dtype=torch.float64)
        return float(objective.loss(observed, weights))

    return loss


@pytest.fixture
def slopes(loss_along) -> Callable[..., tuple[float, float]]:
    """Central difference of the loss in one direction of the parameters, and what a gradient says it is."""

    def both(gradient, seed, step, route, model, scheme, objective, start, parameters) -> tuple[float, float]:
        noise = torch.Generator().manual_seed(seed)
        direction = {
            name: torch.randn(value.shape, generator=noise, dtype=value.dtype) * value.abs().mean()
            for name, value in parameters.items()
        }
        losses = []
        for side in (step, -step):
            moved = {name: value + side * direction[name] for name, value in parameters.items()}
            losses.append(loss_along(route, model, scheme, objective, start, moved))
        told = sum(float((gradient[name] * direction[name]).sum()) for name in parameters)
        return (losses[0] - losses[1]) / (2 * step), told

    return both
