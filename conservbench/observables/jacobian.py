"""The force Jacobian and its antisymmetric part, by autograd or by finite differences.

J[ia, jb] = d f_ia / d r_jb of one force channel, eV/Å^2. It is symmetric if and only if the force is (locally) the
gradient of an energy; lambda = ||(J - J^T) / 2||_F / ||J||_F, in [0, 1], says how far it is from that (Bigi, Langer and
Ceriotti, arXiv 2412.11569). Every estimate here is a pair of sums (numerator, denominator) that add up over probes,
pairs and snapshots: lambda^2 = sum of numerators / (4 sum of denominators).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conservbench.models.base import InvalidPredictionError, Model
from conservbench.observables.symmetry import wrapped
from conservbench.scheme import Channel
from conservbench.state import State, select, to_atoms


@dataclass(frozen=True)
class Terms:
    """Numerators and denominators of lambda^2, (eV/Å^2)^2, one entry a probe or another group.

    Attributes:
        numerator: expectation ||J - J^T||_F^2 each.
        denominator: the same shape, expectation ||J||_F^2 each.
    """

    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]

    @property
    def asymmetry(self) -> float:
        """Lambda of the sums."""
        return float(np.sqrt(self.numerator.sum() / (4.0 * self.denominator.sum())))


@dataclass(frozen=True)
class PairTerms:
    """Terms of lambda_ij gathered by distance.

    The 3x3 blocks J_ij and J_ji of a pair of atoms give lambda_ij = ||J_ij - J_ji^T||_F / sqrt(2 (||J_ij||_F^2 +
    ||J_ji||_F^2)), in [0, 1] by the parallelogram law; lambda_ii is that of the block itself. The squared terms of all
    ordered pairs add up to those of the whole matrix.

    Attributes:
        edges: (n_bins + 1,) limits of the distances, Å; the first bin starts at 0 and holds the diagonal blocks.
        numerator: (n_bins,) sums of ||J_ij - J_ji^T||_F^2, (eV/Å^2)^2.
        denominator: (n_bins,) sums of ||J_ij||_F^2, (eV/Å^2)^2.
        count: (n_bins,) ordered pairs in each bin.
    """

    edges: NDArray[np.float64]
    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]
    count: NDArray[np.int64]


def rademacher(seeds: Sequence[np.random.SeedSequence], n_atoms: int) -> Tensor:
    """Probes of independent signs, one of each seed: (n_probes, n_atoms, 3), +1 or -1."""
    signs = [np.random.default_rng(seed).integers(0, 2, (n_atoms, 3)) for seed in seeds]
    return torch.as_tensor(np.stack(signs) * 2.0 - 1.0)


def products(
    model: Model, channel: Channel, state: State, vectors: Tensor, *, atoms_per_batch: int
) -> tuple[Tensor, Tensor]:
    """J v and J^T v by autograd.

    J^T v is one reverse pass. J v is a reverse pass through it: u -> J^T u is linear, and its transpose is J (the
    double-backward trick), so nothing but reverse mode is asked of the model. One graph serves all vectors.

    Args:
        model: a differentiable model.
        channel: the force differentiated.
        state: one system.
        vectors: (n_vectors, n_atoms, 3), dimensionless.
        atoms_per_batch: several vectors are taken at once, in copies of the system up to this number of atoms.

    Returns:
        J v and J^T v, (n_vectors, n_atoms, 3) each, eV/Å^2.

    Raises:
        InvalidPredictionError: the forces are detached from the positions, though the model says otherwise.
    """
    copies = _copies(state, len(vectors), atoms_per_batch)
    positions, forces = _attached_forces(model, channel, state, copies)
    cotangent = torch.zeros_like(forces, requires_grad=True)
    (pulled,) = torch.autograd.grad(forces, positions, cotangent, create_graph=True)
    forward, reverse = [], []
    for chunk in _chunks(vectors, copies):
        reverse.append(torch.autograd.grad(forces, positions, chunk, retain_graph=True)[0])
        forward.append(torch.autograd.grad(pulled, cotangent, chunk, retain_graph=True)[0])
    return _unchunk(forward, vectors), _unchunk(reverse, vectors)


def jacobian(model: Model, channel: Channel, state: State, *, atoms_per_batch: int) -> Tensor:
    """The whole Jacobian by autograd, one reverse pass a row.

    Args:
        model: a differentiable model.
        channel: the force differentiated.
        state: one system.
        atoms_per_batch: several rows are taken at once, in copies of the system up to this number of atoms.

    Returns:
        (n_atoms, 3, n_atoms, 3), eV/Å^2; the force's indices come first.

    Raises:
        InvalidPredictionError: the forces are detached from the positions, though the model says otherwise.
    """
    size = 3 * state.n_atoms
    units = torch.eye(size, dtype=torch.float64, device=state.positions.device).reshape(size, state.n_atoms, 3)
    copies = _copies(state, size, atoms_per_batch)
    positions, forces = _attached_forces(model, channel, state, copies)
    rows = [torch.autograd.grad(forces, positions, chunk, retain_graph=True)[0] for chunk in _chunks(units, copies)]
    return _unchunk(rows, units).reshape(state.n_atoms, 3, state.n_atoms, 3)


def difference_products(
    model: Model, channel: Channel, state: State, vectors: Tensor, step: float, *, atoms_per_batch: int
) -> Tensor:
    """J v by central differences, (f(r + h v) - f(r - h v)) / 2 h.

    Args:
        model: any model.
        channel: the force differentiated.
        state: one system.
        vectors: (n_vectors, n_atoms, 3), dimensionless, components of order one.
        step: h in Å.
        atoms_per_batch: atoms evaluated at once.

    Returns:
        (n_vectors, n_atoms, 3), eV/Å^2.
    """
    moves = torch.cat((vectors, -vectors)).to(state.positions) * step
    forces = []
    for chunk in moves.split(max(1, atoms_per_batch // state.n_atoms)):
        batch = select(state, [0] * len(chunk))
        moved = batch.replace(positions=batch.positions + chunk.reshape(-1, 3))
        forces.append(model.evaluate(moved, forces=(channel,)).forces[channel].reshape(chunk.shape))
    ahead, behind = torch.cat(forces).split(len(vectors))
    return (ahead - behind) / (2.0 * step)


def probe_terms(forward: Tensor, reverse: Tensor) -> Terms:
    """Terms of lambda^2 from J v and J^T v (n_probes, n_atoms, 3) of Rademacher probes.

    The numerator is ||(J - J^T) v||^2; the denominator is the mean of ||J v||^2 and ||J^T v||^2, which have the same
    expectation, so that no probe exceeds lambda = 1.
    """
    return Terms(_squares(forward - reverse), 0.5 * (_squares(forward) + _squares(reverse)))


def bilinear_terms(probes: Tensor, forward: Tensor) -> Terms:
    """Terms of lambda^2 from J v (n_probes, n_atoms, 3) alone, for a model without a transpose.

    For independent Rademacher u and v, E (u.J v - v.J u)^2 = ||J - J^T||_F^2. The numerator of a probe is the mean over
    all other probes, so that its sum is an unbiased U-statistic; the denominator is ||J v||^2. Two force calls a probe,
    whatever the number of atoms, against 6 n_atoms for the whole matrix.

    Raises:
        ValueError: fewer than two probes.
    """
    n = len(probes)
    if n < 2:
        raise ValueError("a bilinear estimate needs two probes or more")
    form = torch.einsum("pia,qia->pq", probes.to(forward), forward)
    squares = (form - form.T).square().sum(1) / (n - 1)
    return Terms(squares.cpu().numpy(), _squares(forward))


def matrix_terms(matrix: Tensor) -> Terms:
    """Exact terms of a whole Jacobian (n_atoms, 3, n_atoms, 3), as one entry."""
    flat = matrix.flatten(2).flatten(0, 1)
    return Terms(_squares((flat - flat.T)[None]), _squares(flat[None]))


def pair_terms(matrix: Tensor, distances: NDArray[np.float64], width: float) -> PairTerms:
    """Terms of lambda_ij of a whole Jacobian, summed over pairs of like distance.

    Args:
        matrix: (n_atoms, 3, n_atoms, 3), eV/Å^2.
        distances: (n_atoms, n_atoms), Å.
        width: of a bin, Å.
    """
    numerator = (matrix - matrix.permute(2, 3, 0, 1)).square().sum((1, 3)).cpu().numpy()
    denominator = matrix.square().sum((1, 3)).cpu().numpy()
    # both orders of a pair share a bin, so that its ratio is bounded
    which = np.floor(np.minimum(distances, distances.T) / width).astype(int)
    n_bins = int(which.max()) + 1

    sums = [np.bincount(which.ravel(), terms.ravel(), n_bins).astype(float) for terms in (numerator, denominator)]
    count = np.bincount(which.ravel(), minlength=n_bins)
    return PairTerms(np.arange(n_bins + 1.0) * width, sums[0], sums[1], count)


def minimum_image_distances(state: State) -> NDArray[np.float64]:
    """(n_atoms, n_atoms) distances to the nearest image in Å, of one system."""
    (atoms,) = to_atoms(state)
    return atoms.get_all_distances(mic=bool(atoms.pbc.any()))


def reordered(state: State, rng: np.random.Generator) -> tuple[State, Tensor]:
    """The same system to a model that does not label atoms, another one to its arithmetic.

    Atoms come in another order and each is moved by whole cell vectors: all sums are done in another order over numbers
    rounded otherwise.

    Returns:
        The system, and order (n_atoms,): its atom k is atom ``order[k]`` of ``state``.
    """
    order = torch.as_tensor(rng.permutation(state.n_atoms), device=state.positions.device)
    moved = wrapped(state, rng)
    atoms = {name: getattr(moved, name)[order] for name in ("positions", "momenta", "masses", "numbers")}
    return moved.replace(**atoms), order


def _squares(vectors: Tensor) -> NDArray[np.float64]:
    return vectors.double().square().flatten(1).sum(1).cpu().numpy()


def _copies(state: State, n_vectors: int, atoms_per_batch: int) -> int:
    return max(1, min(n_vectors, atoms_per_batch // state.n_atoms))


def _attached_forces(model: Model, channel: Channel, state: State, copies: int) -> tuple[Tensor, Tensor]:
    batch = select(state, [0] * copies)
    positions = batch.positions.detach().requires_grad_(True)
    forces = model.evaluate(batch.replace(positions=positions), forces=(channel,), graph=True).forces[channel]
    if not forces.requires_grad:
        raise InvalidPredictionError(f"the {channel} forces are detached from the positions under graph=True")
    return positions, forces


def _chunks(vectors: Tensor, copies: int) -> list[Tensor]:
    """Groups of ``copies`` vectors as (copies * n_atoms, 3), the last one filled up with zeros."""
    missing = -len(vectors) % copies
    padded = torch.cat((vectors, vectors.new_zeros((missing, *vectors.shape[1:]))))
    return [chunk.reshape(-1, 3) for chunk in padded.split(copies)]


def _unchunk(parts: list[Tensor], vectors: Tensor) -> Tensor:
    return torch.cat([part.reshape(-1, *vectors.shape[1:]) for part in parts])[: len(vectors)]
