"""Kernel models: contracted against dense Jacobians, and against the PyPI package sgdml where it is installed.

    pytest -n 0 tests/speed/test_kernel.py --benchmark-only --benchmark-group-by group \\
        --benchmark-timer time.process_time

Forces of one structure of a model with as many training points as named. ``dense`` makes the matrix of second
derivatives of the kernel between the structure and every training point by jacfwd of jacrev, in chunks, and multiplies
it with the coefficients; ``contracted`` is what the suite's models do. The ratio does not depend on what the
coefficients are.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from ase import Atoms
from torch.func import jacfwd, jacrev, vmap

from conservbench.data.catalogue import find_data_set
from conservbench.data.frames import load_frames
from conservbench.models.kernel.checkpoint import Settings, Trained
from conservbench.models.kernel.contracted import OFTEN
from conservbench.models.kernel.descriptors import find_descriptor
from conservbench.models.kernel.kernel import Kernel, Points, matrix
from conservbench.models.kernel.model import KernelModel
from conservbench.models.kernel.radial import find_radial
from conservbench.state import from_atoms, select
from conservbench.training.kernel.permutations import find_permutations

SIZES = (250, 1000)
KERNELS = {
    "matern-inverse-distances": ("matern52", "inverse_distances"),
    "rbf-inverse-distances": ("rbf", "inverse_distances"),
    "rbf-coulomb": ("rbf", "coulomb"),
    "rbf-smooth-overlap": ("rbf", "smooth_overlap"),
}
# of the descriptors that have any: all atoms are neighbours
FIXED = {"smooth_overlap": {"cutoff": 8.0, "n_radial": 3, "max_ell": 2}}
# as many atoms as ethanol and aspirin have
MOLECULES = {"9-atoms": 9, "21-atoms": 21}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def cluster(n_atoms: int, n_frames: int) -> list[Atoms]:
    """Frames of something with atoms as far apart as in a molecule."""
    rng = np.random.default_rng(0)
    grid = 1.5 * np.array([(i, j, k) for i in range(3) for j in range(3) for k in range(3)])[:n_atoms]
    return [Atoms(f"C{n_atoms}", grid + rng.normal(0, 0.1, grid.shape)) for _ in range(n_frames)]


def model_of(name: str, n_atoms: int, n_points: int) -> KernelModel:
    radial, descriptor = KERNELS[name]
    state = from_atoms(cluster(n_atoms, n_points))
    noise = torch.randn(state.positions.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    settings = Settings(descriptor, FIXED.get(descriptor, {}), radial, (), 1e-10, 1e-8, 1.0, has_energies=False)
    parameters = {"forces": noise, "length": torch.tensor(3.0).double(), "offset": torch.tensor(0.0).double()}
    return KernelModel(Trained(settings, state, torch.zeros(0, 0, 3).double(), parameters))


def dense_forces(model: KernelModel, positions: torch.Tensor, chunk: int) -> torch.Tensor:
    trained = model.trained
    kernel = trained.kernel
    n = len(positions)
    numbers = trained.state.numbers[:n]

    first, second = torch.nonzero(~torch.eye(n, dtype=torch.bool)).T

    def features(x):
        if not kernel.descriptor.is_local:
            return kernel.descriptor.function(x, numbers, None, None)[None]
        fixed = kernel.descriptor.fixed
        return kernel.descriptor.function(x[second] - x[first], first, second, numbers, **fixed)

    def k(x, y):
        apart = features(x)[:, None] - features(y)
        return kernel.radial.value(apart.square().sum(-1) / kernel.length**2).sum()

    block = vmap(jacfwd(jacrev(k, 0), 1), in_dims=(None, 0))
    points = trained.state.positions.view(-1, n, 3).split(chunk)
    coefficients = trained.parameters["forces"].view(-1, n, 3).split(chunk)
    return sum(
        torch.einsum("jabcd,jcd->ab", block(positions, some), those)
        for some, those in zip(points, coefficients, strict=True)
    )


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("n_atoms", MOLECULES.values(), ids=MOLECULES)
@pytest.mark.parametrize("n_points", SIZES)
@pytest.mark.parametrize("way", ["contracted", "dense"])
def test_forces(benchmark, name, n_atoms, n_points, way):
    benchmark.group = f"{name}, {n_atoms} atoms, {n_points} points"
    model = model_of(name, n_atoms, n_points)
    state = from_atoms(cluster(n_atoms, 3)[2])

    def contracted():
        return model.evaluate(state, forces=("gradient",)).forces["gradient"]

    # bounds the memory of second derivatives by pairs of atoms
    chunk = 5 if model.trained.kernel.descriptor.is_local else 50
    assert torch.allclose(contracted(), dense_forces(model, state.positions, chunk), rtol=1e-8, atol=1e-8)
    calls = {"contracted": contracted, "dense": lambda: dense_forces(model, state.positions, chunk)}
    benchmark.pedantic(calls[way], rounds=3 if way == "dense" else 30, warmup_rounds=1)


@pytest.mark.parametrize("n_points", [20, 40, 80])
def test_assembly(benchmark, n_points):
    benchmark.group = "matrix of forces, 9 atoms"
    model = model_of("matern-inverse-distances", 9, n_points)
    points = Points(model.trained.state)
    benchmark.pedantic(matrix, args=(model.trained.kernel, points), rounds=3, warmup_rounds=1)


LENGTH = 3.0
N_TRAIN, N_TEST = 160, 120


@pytest.fixture(scope="module")
def ethanol():
    """Training and test frames of ethanol-xtb, spread evenly."""
    parts = []
    for split, count in (("train", N_TRAIN), ("test", N_TEST)):
        frames = load_frames(find_data_set("ethanol-xtb"), split)
        parts.append([frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)])
    return parts


@pytest.fixture(scope="module")
def forces_of(ethanol):
    """What each program gives for the forces of positions (batch, 9, 3), trained on the same frames."""
    sgdml_predict = pytest.importorskip("sgdml.predict")
    from sgdml.train import GDMLTrain

    from conservbench.training.kernel.fit import labels_of, train

    frames, tested = ethanol
    positions = np.array([atoms.positions for atoms in frames])
    kernel = Kernel(
        find_descriptor("inverse_distances", {}),
        {},
        find_radial("matern52"),
        torch.tensor(LENGTH).double(),
        find_permutations(positions, frames[0].numbers),
    )
    model = KernelModel(train(kernel, Points(from_atoms(frames)), labels_of(frames), 1e-10, 1e-10, "matern52"))
    state = from_atoms(tested)
    alike = cache(lambda batch: select(state, range(batch)))

    def ours(places):
        some = alike(len(places)).replace(positions=torch.from_numpy(places.reshape(-1, 3)))
        return model.evaluate(some, forces=("gradient",)).forces["gradient"].numpy().reshape(places.shape)

    def table(name, some):
        words = {"type": "d", "code_version": "1", "name": name, "theory": "GFN2-xTB", "md5": name, "r_unit": "Ang"}
        words = {key: np.array(word) for key, word in {**words, "e_unit": "eV"}.items()}
        arrays = {"R": [atoms.positions for atoms in some], "F": [atoms.get_forces() for atoms in some]}
        energies = np.array([atoms.get_potential_energy() for atoms in some])
        return {**words, **{key: np.array(value) for key, value in arrays.items()}, "E": energies, "z": some[0].numbers}

    # one trainer a process is all that it allows
    trainer = GDMLTrain(max_processes=1)
    task = trainer.create_task(
        table("train", frames), N_TRAIN, table("valid", tested), N_TEST, sig=int(LENGTH), lam=1e-10, use_sym=True
    )
    predictor = sgdml_predict.GDMLPredict(trainer.train(task), max_processes=1)
    return {"conservbench": ours, "sgdml": lambda x: predictor.predict(x.reshape(len(x), -1))[1].reshape(x.shape)}


@pytest.mark.parametrize("batch", [1, 16, N_TEST])
@pytest.mark.parametrize("program", ["conservbench", "sgdml"])
def test_ethanol_beside_sgdml(benchmark, ethanol, forces_of, batch, program):
    """Both under the same kernel, length, regularisation and permutations, each found by itself."""
    tested = ethanol[1]
    places = np.array([atoms.positions for atoms in tested])
    expected = np.array([atoms.get_forces() for atoms in tested])
    errors = {name: 1e3 * np.abs(forces(places) - expected).mean() for name, forces in forces_of.items()}
    assert errors["conservbench"] < 1.02 * errors["sgdml"]
    if program == "conservbench":
        # what a simulation calls is recorded by then
        for _ in range(OFTEN):
            forces_of[program](places[:batch])
    benchmark.group = f"ethanol, {N_TRAIN} points, batch of {batch}"
    benchmark.extra_info["force_MAE_meV_per_A"] = round(errors[program], 2)
    benchmark.pedantic(forces_of[program], args=(places[:batch],), rounds=50, warmup_rounds=3)
