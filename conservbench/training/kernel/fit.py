"""Train a kernel model: gather labels, solve once, check the order of atoms, keep what was solved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from conservbench.data.catalogue import find_data_set
from conservbench.data.frames import Split, load_frames
from conservbench.models.kernel.atom_order import AtomOrder
from conservbench.models.kernel.checkpoint import LEARNED, Settings, Trained, save_checkpoint
from conservbench.models.kernel.descriptors import find_descriptor
from conservbench.models.kernel.jets import jets_of
from conservbench.models.kernel.kernel import Kernel, Points, matrix
from conservbench.models.kernel.model import KernelModel, noise
from conservbench.models.kernel.radial import find_radial
from conservbench.state import State, from_atoms
from conservbench.training.kernel.hessian import derivatives_of, directions_of
from conservbench.training.kernel.iterative import solve_iteratively
from conservbench.training.kernel.outer import learn
from conservbench.training.kernel.permutations import find_permutations
from conservbench.training.kernel.recipe import Hessian, KernelRecipe
from conservbench.training.kernel.solve import preconditioner_frames, require_distinct, require_memory, solve


@dataclass(frozen=True)
class Labels:
    """What a kernel model is trained to.

    Attributes:
        energies: (n_structures,), eV.
        forces: (n_atoms, 3), eV/Å, without the net force of each structure.
        derivatives: (n_directions, n_atoms, 3), derivatives of the forces along the directions of the points, eV/Å^2
            where a direction is a displacement in Å: minus a Hessian-vector product.
    """

    energies: Tensor
    forces: Tensor
    derivatives: Tensor


def labels_of(frames: Sequence[Atoms]) -> Labels:
    """Energies and forces that the frames' calculators hold."""
    forces = [frame.get_forces() for frame in frames]
    return Labels(
        torch.tensor([frame.get_potential_energy() for frame in frames], dtype=torch.float64),
        torch.as_tensor(np.concatenate([each - each.mean(0) for each in forces])),
        torch.zeros(0, 0, 3, dtype=torch.float64),
    )


def with_hessian(points: Points, labels: Labels, frames: Sequence[Atoms], hessian: Hessian) -> tuple[Points, Labels]:
    """Points and labels with derivatives of the forces along directions of each frame.

    Raises:
        ValueError: the calculator is not that of the labels, or memory does not suffice.
    """
    along = directions_of(frames, hessian)
    directions = torch.as_tensor(np.concatenate(along, 1))
    wider = replace(points, directions=directions)
    require_memory(wider)
    derivatives = torch.as_tensor(np.concatenate(derivatives_of(frames, along, hessian), 1))
    return wider, replace(labels, derivatives=derivatives)


def check_order(frames: Sequence[Atoms]) -> None:
    """Check that all frames are one molecule, its atoms in one order.

    Raises:
        ValueError: one is not; the message names the frame.
    """
    from conservbench.models.base import UnsupportedError

    first = from_atoms(frames[0])
    order = AtomOrder(first.numbers, first.positions)
    for index, frame in enumerate(frames):
        try:
            order.check(from_atoms(frame))
        except UnsupportedError as error:
            raise ValueError(f"training frame {index}: {error}") from error


def kernel_of(recipe: KernelRecipe, frames: Sequence[Atoms]) -> Kernel:
    """The kernel a recipe asks for, with the permutations found in the frames."""
    descriptor = find_descriptor(recipe.descriptor["name"], recipe.parameters)
    permutations: tuple[tuple[int, ...], ...] = ()
    if recipe.permutations == "found":
        positions = np.array([frame.get_positions() for frame in frames])
        permutations = find_permutations(positions, frames[0].get_atomic_numbers())
    length = torch.tensor(recipe.length, dtype=torch.float64)
    kernel = Kernel(descriptor, descriptor.learnable, find_radial(recipe.radial), length, permutations)
    if len(permutations) > 1:
        check_symmetry(kernel, frames)
    return kernel


def check_symmetry(kernel: Kernel, frames: Sequence[Atoms]) -> None:
    """Check that the descriptor treats atoms alike that permutations exchange, on the first and the last frame.

    Only then is the average over permutations of one structure that over permutations of both: a symmetric kernel.

    Raises:
        ValueError: it does not.
    """
    one, other = (from_atoms(frames[index]) for index in (0, -1))

    def features(state: State, order: Sequence[int]) -> Tensor:
        return jets_of(kernel.descriptor, kernel.learned, state, order=order)[0].features.flatten()

    plain = range(one.n_atoms)
    for order in kernel.permutations:
        back = np.argsort(order).tolist()
        apart = (features(one, plain) - features(other, order)).norm()
        if abs(apart - (features(one, back) - features(other, plain)).norm()) > 1e-9 * (1.0 + apart):
            raise ValueError(
                f"descriptor {kernel.descriptor.name} tells atoms apart that the molecule itself exchanges "
                f'({" ".join(map(str, order))}): describe equal atoms alike, or set permutations = "none"'
            )


def targets_of(points: Points, labels: Labels, per_center: Tensor, offset: float) -> Tensor:
    """(sum of widths,) labels in the order of the rows of the matrix.

    Args:
        points: the structures.
        labels: of them.
        per_center: (n_structures,) how many times a structure has the offset: once, or once an atom.
        offset: eV.
    """
    pieces = []
    start = 0
    for index, count in enumerate(points.state.counts.tolist()):
        mine = slice(start, start + count)
        if points.has_energies:
            pieces.append((labels.energies[index] - offset * per_center[index])[None])
        pieces.append(labels.forces[mine].flatten())
        pieces.append(labels.derivatives[:, mine].flatten())
        start += count
    return torch.cat(pieces)


def train(
    kernel: Kernel, points: Points, labels: Labels, regularization: float, energy_regularization: float, name: str
) -> Trained:
    """Solve for the coefficients of a kernel directly.

    Args:
        kernel: of structures.
        points: training structures.
        labels: of them.
        regularization: added to the diagonal for forces and their derivatives.
        energy_regularization: likewise for energies.
        name: of the scalar kernel.

    Raises:
        ValueError: the kernel is singular, structures coincide, or memory does not suffice.
    """
    added = noise(points, regularization, energy_regularization)
    require_memory(points)
    require_distinct(kernel, points, added)
    targets, offset = centered(kernel, points, labels)
    with torch.no_grad():
        coefficients = solve(matrix(kernel, points), added, targets)
    return assemble(
        kernel, points, labels, coefficients, (regularization, energy_regularization), name, offset, targets
    )


def train_iteratively(
    kernel: Kernel, points: Points, labels: Labels, recipe: KernelRecipe, regularization: float
) -> Trained:
    """Solve for the coefficients of a kernel by conjugate gradients, with a recipe's tolerance.

    Raises:
        ValueError: structures coincide, memory does not suffice, or the residual does not come down.
    """
    added = noise(points, regularization, recipe.energy_regularization)
    if not float(added.min()) > 0:
        raise ValueError('regularization is 0; solver = "iterative" needs a positive one')
    require_distinct(kernel, points, added)
    targets, offset = centered(kernel, points, labels)
    few = preconditioner_frames(points)
    coefficients = solve_iteratively(kernel, points, added, targets, frames=few, tolerance=recipe.tolerance)
    levels = (regularization, recipe.energy_regularization)
    return assemble(kernel, points, labels, coefficients, levels, recipe.radial, offset, targets)


def learned(recipe: KernelRecipe, kernel: Kernel, frames: Sequence[Atoms]) -> tuple[Kernel, float]:
    """The kernel and the regularisation that a recipe's outer level makes of those it starts from.

    Raises:
        ValueError: there are fewer frames than the outer level asks for, or it learns what is no hyperparameter.
    """
    outer = recipe.outer
    if outer is None:
        return kernel, recipe.regularization
    if outer.frames + outer.validation > len(frames):
        raise ValueError(
            f"[outer]: frames and validation are {outer.frames} and {outer.validation}; there are {len(frames)} in all"
        )
    order = np.random.default_rng(0).permutation(len(frames))
    sets = []
    for chosen in (order[: outer.frames], order[-outer.validation :]):
        some = [frames[i] for i in chosen]
        sets.append((Points(from_atoms(some)), labels_of(some).forces.flatten()))
    kernel, regularization, _ = learn(kernel, recipe.regularization, sets[0], sets[1], outer)
    return kernel, regularization


def centered(kernel: Kernel, points: Points, labels: Labels) -> tuple[Tensor, float]:
    """Targets, with the mean energy taken off."""
    per_center = _per_center(kernel, points)
    offset = float((labels.energies / per_center).mean())
    return targets_of(points, labels, per_center, offset), offset


def assemble(
    kernel: Kernel,
    points: Points,
    labels: Labels,
    coefficients: Tensor,
    added: tuple[float, float],
    name: str,
    offset: float,
    targets: Tensor,
) -> Trained:
    """A trained model of the coefficients (sum of widths,) in the order of the rows of the matrix."""
    energies, forces, derivatives = [], [], []
    for width, piece in zip(points.widths, coefficients.split(points.widths), strict=True):
        lead = int(points.has_energies)
        energies.append(piece[:lead])
        blocks = piece[lead:].view(1 + len(points.directions), -1, 3)
        forces.append(blocks[0])
        derivatives.append(blocks[1:])
        assert width == len(piece)  # noqa: S101
    parameters = {
        "forces": torch.cat(forces),
        "length": kernel.length,
        "offset": torch.tensor(offset, dtype=torch.float64),
        **{LEARNED + key: value for key, value in kernel.learned.items()},
    }
    if points.has_energies:
        parameters["energies"] = torch.cat(energies)
    if len(points.directions):
        parameters["derivatives"] = torch.cat(derivatives, 1)
    settings = Settings(
        descriptor=kernel.descriptor.name,
        fixed=dict(kernel.descriptor.fixed),
        radial=name,
        permutations=kernel.permutations,
        regularization=added[0],
        energy_regularization=added[1],
        signal=_signal(points, targets, coefficients, noise(points, *added), local=kernel.descriptor.is_local),
        has_energies=points.has_energies,
    )
    trained = Trained(settings, points.state, points.directions, parameters)
    # forces leave the zero of the energy open
    said = KernelModel(trained).evaluate(points.state).energy
    assert said is not None  # noqa: S101
    shift = ((labels.energies - said) / _per_center(kernel, points)).mean()
    return trained if points.has_energies else trained.with_parameters({"offset": parameters["offset"] + shift})


def _signal(points: Points, targets: Tensor, coefficients: Tensor, added: Tensor, *, local: bool) -> float:
    """The scale of the prior at which the data are most likely, eV.

    Net forces and torques, of which no energy makes any, are left out: what labels have of them is an error, and would
    be divided by the regularisation.
    """
    reached = targets - added * coefficients
    # a pair has but two axes to turn about
    never = [3 if local else {1: 3, 2: 5}.get(n, 6) for n in points.state.counts.tolist()]
    count = len(targets) - sum(never) * (1 + len(points.directions))
    return math.sqrt(max(0.0, float(reached @ coefficients)) / max(1, count))


def _per_center(kernel: Kernel, points: Points) -> Tensor:
    counts = points.state.counts.double()
    return counts if kernel.descriptor.is_local else torch.ones_like(counts)


def training_frames(recipe: KernelRecipe) -> list[Atoms]:
    """The frames that a recipe trains on.

    Raises:
        ValueError: the data set, or one of the groups, is not there, or holds fewer frames than asked for.
    """
    frames = load_frames(find_data_set(recipe.data), "train")
    if recipe.groups:
        known = {str(frame.info.get("group", "all")) for frame in frames}
        for group in recipe.groups:
            if group not in known:
                raise ValueError(f"groups: {recipe.data} has no group {group!r} (it has: {', '.join(sorted(known))})")
        frames = [frame for frame in frames if frame.info.get("group", "all") in recipe.groups]
    if recipe.frames > len(frames):
        raise ValueError(f"frames is {recipe.frames}; {recipe.data} has {len(frames)} training frames of these groups")
    if not recipe.frames:
        return frames
    return [frames[i] for i in np.linspace(0, len(frames) - 1, recipe.frames).round().astype(int)]


def fit(recipe: KernelRecipe, folder: Path) -> Path:
    """Train as a recipe says.

    Args:
        recipe: what to train.
        folder: where ``NAME.safetensors`` is written.

    Returns:
        Path of the checkpoint.

    Raises:
        ValueError: the data set is not there, its frames are not one molecule in one order, or the kernel cannot be
            solved.
    """
    frames = training_frames(recipe)
    if not find_descriptor(recipe.descriptor["name"], recipe.parameters).is_local:
        check_order(frames)
    kernel = kernel_of(recipe, frames)
    kernel, regularization = learned(recipe, kernel, frames)
    points, labels = Points(from_atoms(frames), has_energies=recipe.energies), labels_of(frames)
    if recipe.hessian is not None:
        points, labels = with_hessian(points, labels, frames, recipe.hessian)
    if recipe.solver == "iterative":
        trained = train_iteratively(kernel, points, labels, recipe, regularization)
    else:
        trained = train(kernel, points, labels, regularization, recipe.energy_regularization, recipe.radial)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"{recipe.name}.safetensors"
    save_checkpoint(trained, checkpoint)
    return checkpoint


@dataclass(frozen=True)
class Errors:
    """Mean absolute errors over frames: energy meV/atom, forces meV/Å."""

    energy: float
    gradient: float


def errors_of(model: KernelModel, frames: Sequence[Atoms]) -> Errors:
    """Mean absolute errors: energy over frames, forces over all components."""
    energy, forces = [], []
    for frame in frames:
        labels = labels_of([frame])
        said = model.evaluate(from_atoms(frame), forces=model.channels)
        assert said.energy is not None  # noqa: S101
        energy.append((said.energy - labels.energies).abs() / len(frame))
        forces.append((said.forces["gradient"] - labels.forces).abs().flatten())
    return Errors(*(1e3 * float(torch.cat(parts).mean()) for parts in (energy, forces)))


def split_errors(model: KernelModel, recipe: KernelRecipe, split: Split) -> dict[str, Errors]:
    """Errors on one split of a recipe's data set: all together under ``"all"``, and by group."""
    frames = load_frames(find_data_set(recipe.data), split)
    groups: dict[str, list[Atoms]] = {}
    for frame in frames:
        groups.setdefault(str(frame.info.get("group", "all")), []).append(frame)
    groups["all"] = frames
    return {name: errors_of(model, groups[name]) for name in sorted(groups, key=lambda name: name != "all")}
