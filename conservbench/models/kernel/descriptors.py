"""Descriptors: plain, differentiable functions of a structure, by a short name or as ``module:function``.

A descriptor of a whole structure is ``phi(positions, numbers, cell, pbc, **parameters) -> (n_features,)`` and makes a
model of one molecule, whose atoms keep their order. A local one is ``phi(vectors, first, second, numbers,
**parameters) -> (n_atoms, n_features)`` of the vectors (n_pairs, 3) from each atom to its neighbours within a cutoff,
and makes a kernel that is summed over pairs of atoms of one element: for crystals and liquids of any size. Nothing but
torch operations that ``torch.func`` can differentiate; no derivative is ever written by hand. Parameters that are
numbers with a fraction can be learned.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor

from conservbench.hint import did_you_mean

Function = Callable[..., Tensor]


def inverse_distances(positions: Tensor, numbers: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
    """1 / r of all pairs of atoms, 1/Å (Chmiela et al., Sci. Adv. 3, e1603015, 2017)."""
    apart = _differences(len(numbers), positions.device) @ positions
    return (apart * apart).sum(-1).rsqrt()


@cache
def _differences(n_atoms: int, device: torch.device) -> Tensor:
    """(n_pairs, n_atoms) the matrix that takes positions to differences of all pairs: cheaper than to gather them."""
    first, second = torch.triu_indices(n_atoms, n_atoms, 1, device=device)
    unit = torch.eye(n_atoms, dtype=torch.float64, device=device)
    return unit[first] - unit[second]


def coulomb(
    positions: Tensor,
    numbers: Tensor,
    cell: Tensor,
    pbc: Tensor,
    *,
    charge_exponent: Tensor | float = 0.5,
    distance_exponent: Tensor | float = 1.0,
) -> Tensor:
    """(Z_i Z_j)^p / r^q of all pairs of atoms, after Rupp et al., Phys. Rev. Lett. 108, 058301 (2012).

    Args:
        positions: (n_atoms, 3), Å.
        numbers: (n_atoms,), atomic numbers.
        cell: not read.
        pbc: not read.
        charge_exponent: p.
        distance_exponent: q.
    """
    first, second = torch.triu_indices(len(numbers), len(numbers), 1, device=positions.device)
    apart = _differences(len(numbers), positions.device) @ positions
    square = (apart * apart).sum(-1)
    charges = (numbers[first] * numbers[second]).to(square.dtype)
    return charges**charge_exponent * square ** (-0.5 * distance_exponent)


def smooth_overlap(
    vectors: Tensor,
    first: Tensor,
    second: Tensor,
    numbers: Tensor,
    *,
    cutoff: float,
    n_radial: int = 5,
    max_ell: int = 4,
    power: Tensor | float = 1.0,
) -> Tensor:
    """Power spectrum of the neighbours' density, smooth at the cutoff (Bartók et al., Phys. Rev. B 87, 184115, 2013).

    The density of the neighbours of one atom is projected on Bessel functions sin(n pi r / c) / r under a smooth
    cutoff and on products of direction cosines; the invariants sum_m c_nlm c_n'lm are sums over pairs of neighbours of
    the Legendre polynomial of the angle between them. Neighbours of different elements are weighed by their numbers.

    Args:
        vectors: (n_pairs, 3), Å, from each atom to its neighbours.
        first: (n_pairs,), the atom.
        second: (n_pairs,), the neighbour.
        numbers: (n_atoms,), atomic numbers.
        cutoff: Å.
        n_radial: number of radial functions.
        max_ell: highest degree of the polynomials, 4 at most.
        power: of the cutoff function (1 - (r / c)^2)^(2 + power).

    Returns:
        (n_atoms, n_radial + (max_ell + 1) n_radial (n_radial + 1) / 2) features without a unit.
    """
    square = vectors.square().sum(-1)
    distance = square.sqrt()
    # a list of pairs with a skin holds some beyond the cutoff
    inside = (1.0 - square / cutoff**2).clamp_min(0.0)
    orders = torch.arange(1, n_radial + 1, device=vectors.device, dtype=vectors.dtype)
    waves = torch.sin(math.pi / cutoff * orders * distance[:, None]) / distance[:, None]
    weight = inside ** (2.0 + power) * (numbers[second] / numbers[first]).to(vectors.dtype)
    radial = waves * weight[:, None]
    exponents, multiplicities, degrees = _monomials(max_ell)
    unit = vectors / distance[:, None]
    powers = torch.stack([unit**degree for degree in range(max_ell + 1)], 1)
    x, y, z = (powers[:, exponents[:, axis], axis] for axis in range(3))
    moments = torch.zeros(len(numbers), n_radial, len(exponents), dtype=vectors.dtype, device=vectors.device)
    moments = moments.index_add(0, first, radial[:, :, None] * (x * y * z)[:, None, :])
    # column l of this matrix makes the sum over pairs of cos^l
    by_degree = torch.zeros(len(exponents), max_ell + 1, dtype=vectors.dtype)
    by_degree[torch.arange(len(exponents)), degrees] = multiplicities.to(vectors.dtype)
    by_degree = (by_degree @ _legendre(max_ell)).to(vectors.device)
    n, m = torch.triu_indices(n_radial, n_radial, device=vectors.device)
    spectrum = (moments[:, n] * moments[:, m]) @ by_degree
    return torch.cat((moments[:, :, 0], spectrum.flatten(1)), 1)


@cache
def _monomials(max_ell: int) -> tuple[Tensor, Tensor, Tensor]:
    """Exponents (n, 3) of x^a y^b z^c up to a degree, their multinomial coefficients and degrees."""
    found = [
        (a, b, degree - a - b)
        for degree in range(max_ell + 1)
        for a in range(degree, -1, -1)
        for b in range(degree - a, -1, -1)
    ]
    counts = [math.factorial(sum(e)) // math.prod(map(math.factorial, e)) for e in found]
    return torch.tensor(found), torch.tensor(counts), torch.tensor([sum(e) for e in found])


@cache
def _legendre(max_ell: int) -> Tensor:
    """(max_ell + 1, max_ell + 1): column l holds the coefficients of cos^k in the Legendre polynomial of degree l."""
    import numpy as np

    columns = []
    for degree in range(max_ell + 1):
        series = np.polynomial.legendre.leg2poly(np.eye(max_ell + 1)[degree])
        columns.append(np.pad(series, (0, max_ell + 1 - len(series))))
    return torch.tensor(np.array(columns).T)


DESCRIPTORS: Final[dict[str, Function]] = {
    "coulomb": coulomb,
    "inverse_distances": inverse_distances,
    "smooth_overlap": smooth_overlap,
}


@dataclass(frozen=True)
class Descriptor:
    """A descriptor with its parameters.

    Attributes:
        name: short name, or ``module:function``.
        function: the function.
        fixed: parameters that are no tensors: whole numbers, words, and the cutoff.
        learnable: those that are, float64 scalars.
        cutoff: Å, of a local descriptor; None for one of a whole structure.
    """

    name: str
    function: Function
    fixed: Mapping[str, Any]
    learnable: Mapping[str, Tensor]
    cutoff: float | None

    @property
    def is_local(self) -> bool:
        """Whether it describes each atom by its neighbours."""
        return self.cutoff is not None


def find_descriptor(name: str, parameters: Mapping[str, Any]) -> Descriptor:
    """A descriptor by name, with its parameters.

    Args:
        name: one of :data:`DESCRIPTORS`, or ``module:function`` of a function of one's own.
        parameters: keyword arguments; numbers with a fraction become tensors, but for ``cutoff``.

    Raises:
        ValueError: there is no such descriptor, or it does not take these parameters.
    """
    function = _imported(name) if ":" in name else DESCRIPTORS.get(name)
    if function is None:
        raise ValueError(
            f"no descriptor {name!r}{did_you_mean(name, DESCRIPTORS)}; one of your own is named module:function"
        )
    taken = inspect.signature(function).parameters
    options = [key for key, each in taken.items() if each.kind is inspect.Parameter.KEYWORD_ONLY]
    for key in parameters:
        if key not in options:
            raise ValueError(f"descriptor {name} has no parameter {key!r}{did_you_mean(key, options)}")
    for key in options:
        if key not in parameters and taken[key].default is inspect.Parameter.empty:
            raise ValueError(f"descriptor {name}: missing parameter {key!r}")
    local = next(iter(taken)) == "vectors"
    if local != ("cutoff" in options):
        raise ValueError(
            f"descriptor {name}: a local one, whose first argument is 'vectors', takes a cutoff; others do not"
        )
    defaults = {key: taken[key].default for key in options}
    values = {**defaults, **parameters}
    learnable = {
        key: torch.as_tensor(value, dtype=torch.float64)
        for key, value in values.items()
        if key != "cutoff" and isinstance(value, float | Tensor)
    }
    fixed = {key: value for key, value in values.items() if key not in learnable}
    if local and not 0 < fixed["cutoff"] < math.inf:
        raise ValueError(f"descriptor {name}: cutoff is {fixed['cutoff']}; expected a positive number, in Å")
    return Descriptor(name, function, fixed, learnable, float(fixed["cutoff"]) if local else None)


def _imported(name: str) -> Function:
    module, _, attribute = name.partition(":")
    try:
        function: Function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"no descriptor {name!r}: {error}") from error
    return function
