"""Rows of the design matrix: what every coefficient adds to energies, forces and stresses, exactly.

A feature depends on positions through the moments A of its atom, and those through one pair vector a term, so that its
slope is (d feature / d A) (d A / d r_ij): both are taken by forward differentiation, moment by moment and axis by axis,
and multiplied atom by atom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from torch import Tensor

from conservbench.models.base import gradient_of_energy
from conservbench.models.descriptor.potential import DescriptorPotential
from conservbench.models.descriptor.readout import gated_vectors, quadratic_features
from conservbench.neighbors import Pairs, find_pairs
from conservbench.training.descriptor.least_squares import Rows
from conservbench.training.descriptor.recipe import Weights
from conservbench.training.labelled import Labelled, label

_CHUNK = 32
"""Moments that are differentiated by at once."""


@dataclass(frozen=True)
class Frame(Labelled):
    """A labelled structure.

    Attributes:
        pairs: its neighbours, sorted by the central atom.
        stress: (3, 3), eV/Å^3; None where it is not labelled.
    """

    pairs: Pairs
    stress: Tensor | None


def make_frames(frames: Sequence[Atoms], cutoff: float) -> list[Frame]:
    """Labelled frames with their neighbours."""
    made = []
    for atoms in frames:
        plain = label(atoms, "cpu")
        stress = atoms.calc.results.get("stress")
        full = None if stress is None else torch.as_tensor(voigt_6_to_full_3x3_stress(stress))
        made.append(Frame(**vars(plain), pairs=find_pairs(plain.state, cutoff), stress=full))
    return made


@dataclass(frozen=True)
class Slopes:
    """Features of the atoms of a frame, and their slopes by the pair vectors.

    Attributes:
        features: (n_atoms, k), what one coefficient each is for.
        by_pair: (n_pairs, 3, k) derivative of the features of the central atom by the vector to the neighbour, per Å.
    """

    features: Tensor
    by_pair: Tensor


def slopes_of(potential: DescriptorPotential, frame: Frame, features: Callable[[Tensor], Tensor]) -> Slopes:
    """Features and slopes of a frame.

    Args:
        potential: its descriptor.
        frame: one structure.
        features: (n_atoms, k) of moments (n_atoms, n_elements * width), each of its own atom's.
    """
    descriptor, state, pairs = potential.descriptor, frame.state, frame.pairs
    species = potential.species_of(state)
    vectors = pairs.vectors(state.positions, state.cell, state.system)
    values = descriptor.one_particle(vectors)
    axes = [axis.expand_as(vectors).contiguous() for axis in torch.eye(3, dtype=vectors.dtype)]
    step = torch.stack([torch.func.jvp(descriptor.one_particle, (vectors,), (axis,))[1] for axis in axes], dim=1)
    moments = descriptor.moments(values, pairs, species)

    def along(direction: Tensor) -> Tensor:
        return torch.func.jvp(features, (moments,), (direction.expand_as(moments),))[1]

    by_moment = torch.func.vmap(along, chunk_size=_CHUNK)(torch.eye(moments.shape[1], dtype=moments.dtype))
    slope = by_moment.transpose(0, 1).reshape(state.n_atoms, descriptor.n_elements, descriptor.width, -1)
    by_pair = step.new_zeros((*step.shape[:2], slope.shape[-1]))
    neighbor = species[pairs.second]
    for element in range(descriptor.n_elements):
        chosen = torch.nonzero(neighbor == element)[:, 0]
        counts = torch.bincount(pairs.first[chosen], minlength=state.n_atoms).tolist()
        for atom, own in enumerate(torch.split(chosen, counts)):
            if len(own):
                by_pair[own] = step[own] @ slope[atom, element]
    return Slopes(features(moments), by_pair)


def energy_features(potential: DescriptorPotential) -> Callable[[Tensor], Tensor]:
    """What the energy coefficients of a potential are for, as a function of moments."""
    if potential.settings.head.energy == "quadratic":
        return lambda moments: quadratic_features(potential.standardised(moments))
    return potential.standardised


def energy_rows(potential: DescriptorPotential, frame: Frame, weights: Weights) -> Rows:
    """Weighted rows of the energy, the forces and, where there is a label, the stress of one frame.

    Columns are those of ``energy.weight``, element by element of the central atom.
    """
    return rows_of_slopes(potential, frame, weights, slopes_of(potential, frame, energy_features(potential)))


def rows_of_slopes(potential: DescriptorPotential, frame: Frame, weights: Weights, slopes: Slopes) -> Rows:
    """:func:`energy_rows` of slopes that are known."""
    state, pairs = frame.state, frame.pairs
    n, k = state.n_atoms, slopes.features.shape[1]
    species = potential.species_of(state)
    n_elements = len(potential.settings.elements)
    energy, forces, stress = fixed_part(potential, frame)
    energies = slopes.features.new_zeros((n_elements, k)).index_add(0, species, slopes.features)
    pulls = slopes.features.new_zeros((n, 3, n_elements * k))
    virials = slopes.features.new_zeros((3, 3, n_elements * k))
    vectors = pairs.vectors(state.positions, state.cell, state.system)
    for element in range(n_elements):
        own = torch.nonzero(species[pairs.first] == element)[:, 0]
        columns = slice(element * k, (element + 1) * k)
        pulls[:, :, columns].index_add_(0, pairs.first[own], slopes.by_pair[own])
        pulls[:, :, columns].index_add_(0, pairs.second[own], slopes.by_pair[own], alpha=-1.0)
        virials[:, :, columns] = torch.einsum("px,pyk->xyk", vectors[own], slopes.by_pair[own])
    by_force = weights.forces / (3 * n) ** 0.5
    rows = [weights.energy / n * energies.reshape(1, -1), by_force * pulls.flatten(0, 1)]
    targets = [weights.energy / n * (frame.energy - energy), by_force * (frame.forces - forces).flatten()]
    if weights.stress and frame.stress is not None:
        upper = torch.triu_indices(3, 3)
        # an off-diagonal element stands for two
        by_stress = weights.stress / n * torch.where(upper[0] == upper[1], 1.0, 2.0**0.5)
        symmetric = 0.5 * (virials + virials.transpose(0, 1))
        rows.append(by_stress[:, None] * symmetric[upper[0], upper[1]])
        targets.append(by_stress * (state.volume * (frame.stress - stress))[upper[0], upper[1]])
    return torch.cat(rows).numpy(), torch.cat(targets).numpy()


def direct_rows(potential: DescriptorPotential, frame: Frame, weights: Weights) -> Rows:
    """Weighted rows of the direct forces of one frame, their net force removed.

    Columns are those of ``direct.weight``, element by element of the central atom.
    """
    state = frame.state
    moments = potential.moments_of(state, frame.pairs, state.positions, state.cell)
    vectors = potential.standardised_vectors(moments)
    if potential.settings.head.direct == "quadratic":
        vectors = gated_vectors(potential.standardised(moments), vectors)
    n_elements = len(potential.settings.elements)
    chosen = torch.nn.functional.one_hot(potential.species_of(state), n_elements).to(vectors)
    pulls = torch.einsum("ne,nvx->nxev", chosen, vectors).flatten(2)
    pulls = pulls - pulls.mean(0)
    by_force = weights.forces / (3 * state.n_atoms) ** 0.5
    return (by_force * pulls.flatten(0, 1)).numpy(), (by_force * frame.forces.flatten()).numpy()


def fixed_part(potential: DescriptorPotential, frame: Frame) -> tuple[Tensor, Tensor, Tensor]:
    """Energy (1,), forces (n_atoms, 3) and stress (3, 3) that no coefficient changes."""
    state = frame.state
    # a sum of nothing has no gradient
    energy, forces, stress = gradient_of_energy(
        lambda positions, cell: (
            state.sum(potential.fixed_energies(state, frame.pairs, positions, cell))
            + 0.0 * (positions.sum() + cell.sum())
        ),
        state,
        forces=True,
        stress=True,
        graph=False,
    )
    if forces is None or stress is None:
        raise AssertionError("both were asked for")
    return energy, forces, stress[0]


def rows_of(
    one: Callable[[DescriptorPotential, Frame, Weights], Rows],
    potential: DescriptorPotential,
    frames: Sequence[Frame],
    weights: Weights,
) -> Iterator[Rows]:
    """Rows of frames, one after the other."""
    for frame in frames:
        yield one(potential, frame, weights)


def export(
    one: Callable[[DescriptorPotential, Frame, Weights], Rows],
    potential: DescriptorPotential,
    frames: Sequence[Frame],
    weights: Weights,
) -> Rows:
    """The whole weighted design matrix (n_rows, k) and target (n_rows,): to be solved by anything else."""
    pieces = list(rows_of(one, potential, frames, weights))
    return np.concatenate([matrix for matrix, _ in pieces]), np.concatenate([target for _, target in pieces])
