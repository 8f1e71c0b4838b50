"""Toy force fields with answers on paper: a harmonic crystal and the same crystal with a curl.

The displacement of atom i from its lattice site, without the mean over the crystal, is

    u_i = (x_i - R_i) - mean_j (x_j - R_j),    R_i = fractional site @ cell,

the nearest image of it. The fields are

    harmonic   E = k/2 sum_i |u_i|^2,            f_i = -k u_i                 (conservative)
    swirl      f_i = -k u_i + s n x u_i          n: unit vector along the third cell vector

so the swirl is the harmonic force with a curl about n. Every force sums to zero, and both fields turn with the crystal
when its positions and its cell are turned together. Sites are fractions of the cell: straining cell and positions
together strains u, so that the harmonic stress is k sum_i u_i u_i^T / V.

The swirl may act on one species only, s_i = s or 0. Its forces then have the sum n x sum_i s_i u_i, which simulations
take out of direct forces (:mod:`conservbench.dynamics.forces`). With P, which takes the mean over the atoms out, they
move by the linear equations

    M x'' = P (-k + diag(s_i) [n]_x) P x,

which fall apart into independent oscillators (:func:`oscillators`): those within a species, and one between two.

The closed forms below are exact for small displacements (below half the cell). In them ``stiffness`` is k and ``curl``
is s, both in eV/Å^2, and times are internal (see :mod:`conservbench.units`). Those that take a mass or a curl are for
equal masses and a swirl on all atoms; those that take numbers and masses are for one or two species.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from ase.data import atomic_numbers
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from conservbench.models.base import Prediction, UnsupportedError, check_support, gradient_of_energy
from conservbench.scheme import CHANNELS, Channel
from conservbench.state import from_atoms
from conservbench.units import BOLTZMANN

if TYPE_CHECKING:
    from ase import Atoms

    from conservbench.cards import ModelCard
    from conservbench.state import State
    from conservbench.systems import System

FIELDS: Final[dict[str, tuple[Channel, ...]]] = {
    "harmonic": ("gradient",),
    "swirl": ("direct",),
    "two-headed": CHANNELS,
}
"""Force channels of each field. ``two-headed`` has the harmonic force as gradient and the swirl as direct channel."""


@dataclass(frozen=True)
class Field:
    """A toy field.

    Attributes:
        field: a key of :data:`FIELDS`.
        stiffness: k, eV/Å^2.
        curl: s, eV/Å^2.
        curl_on: chemical symbol of the species that the curl acts on; all atoms if not told.

    Raises:
        ValueError: the stiffness is not positive, or not finite, or the curl is not, or there is no such element.
    """

    field: Literal["harmonic", "swirl", "two-headed"]
    stiffness: float
    curl: float = 0.0
    curl_on: str | None = None

    def __post_init__(self) -> None:
        if not (self.stiffness > 0 and math.isfinite(self.stiffness) and math.isfinite(self.curl)):
            raise ValueError(f"stiffness is {self.stiffness!r}, expected > 0; curl is {self.curl!r}, expected finite")
        if self.curl_on is not None and self.curl_on not in atomic_numbers:
            raise ValueError(f"curl_on is {self.curl_on!r}, expected a chemical symbol")

    def curl_of(self, number: int) -> float:
        """s_i of an atom by its atomic number, eV/Å^2."""
        return self.curl if self.curl_on is None or atomic_numbers[self.curl_on] == number else 0.0


class ToyModel:
    """A toy field about the sites of one crystal; a batch holds replicas of that crystal.

    Args:
        field: which field.
        sites: the crystal; its positions are the lattice sites.
        device: where it computes.
        dtype: in which displacements are cast before energies and forces are made of them.
    """

    differentiable = True
    labelled = True

    def __init__(
        self, field: Field, sites: Atoms, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64
    ) -> None:
        if sites.cell.rank < 3:
            raise UnsupportedError("toy models need a system with three cell vectors")
        if field.curl_on is not None and field.curl_on not in sites.symbols:
            raise UnsupportedError(f"the curl acts on {field.curl_on}, of which the crystal has none")
        self.field = field
        self.channels = FIELDS[field.field]
        self.elements: frozenset[int] | None = frozenset(int(number) for number in sites.numbers)
        self.dtype = dtype
        self._numbers = torch.as_tensor(sites.numbers, device=device).long()
        curls = [field.curl_of(int(number)) for number in sites.numbers]
        self._curls = torch.tensor(curls, dtype=dtype, device=device)[:, None]
        self._fractions = torch.as_tensor(sites.cell.scaled_positions(sites.positions), device=device)

    @property
    def device(self) -> torch.device:
        """See :meth:`conservbench.models.base.Model.device`."""
        return self._numbers.device

    def displacements(self, state: State, positions: Tensor, cell: Tensor) -> Tensor:
        """(n_atoms, 3) displacements u in Å, differentiable in positions and cell.

        Raises:
            UnsupportedError: the batch is not made of replicas of the crystal.
        """
        n_sites = len(self._numbers)
        if state.n_atoms != state.n_systems * n_sites or not torch.equal(
            state.numbers.view(-1, n_sites), self._numbers.expand(state.n_systems, n_sites)
        ):
            raise UnsupportedError(f"toy models take replicas of their own crystal of {n_sites} atoms only")
        offsets = positions.view(-1, n_sites, 3) - self._fractions @ cell
        # relative to the first atom, so that neither a translation nor a wrapped atom changes the image chosen
        offsets = offsets - offsets[:, :1]
        with torch.no_grad():
            images = torch.round(torch.linalg.solve(cell, offsets, left=False)) * state.pbc[:, None]
        offsets = offsets - images @ cell
        return (offsets - offsets.mean(1, keepdim=True)).reshape(-1, 3)

    def evaluate(
        self, state: State, *, forces: Collection[Channel] = (), stress: bool = False, graph: bool = False
    ) -> Prediction:
        """See :meth:`conservbench.models.base.Model.evaluate`."""
        check_support(self, state, forces)
        if stress and "gradient" not in self.channels:
            raise UnsupportedError("the swirl has no gradient channel, so it has no stress")

        def energy_of(positions: Tensor, cell: Tensor) -> Tensor:
            moved = self.displacements(state, positions, cell).to(self.dtype)
            return 0.5 * self.field.stiffness * state.sum(moved.square().sum(-1)).double()

        energy, gradient, stresses = gradient_of_energy(
            energy_of, state, forces="gradient" in forces, stress=stress, graph=graph
        )
        pulls: dict[Channel, Tensor] = {}
        if gradient is not None:
            pulls["gradient"] = gradient
        if "direct" in forces:
            with torch.set_grad_enabled(graph):
                moved = self.displacements(state, state.positions, state.cell).to(self.dtype)
                axis = torch.nn.functional.normalize(state.cell[:, 2], dim=-1).to(self.dtype)[state.system]
                swirl = self._curls.repeat(state.n_systems, 1) * torch.linalg.cross(axis, moved)
                pulls["direct"] = (-self.field.stiffness * moved + swirl).double()
        return Prediction(energy, pulls, stresses)


def asymmetry(stiffness: float, curl: float) -> float:
    """Jacobian asymmetry lambda = ||J_anti||_F / ||J||_F of the swirl on all atoms.

    J = (1 - 1/N) x (-k + s [n]_x), the projector that removes the mean times one 3x3 block. The norm of the projector
    cancels; the block has the squared norm 3 k^2 + 2 s^2, of which its antisymmetric part s [n]_x has 2 s^2:
    lambda = sqrt(2 s^2 / (3 k^2 + 2 s^2)).
    """
    return math.sqrt(2 * curl**2 / (3 * stiffness**2 + 2 * curl**2))


def loop_work(curl: float, displacements: ArrayLike, axis: ArrayLike) -> float:
    """Work of the swirl on all atoms along a closed loop in configuration space, eV.

    -k u is a gradient and does no work. The forces sum to zero, so only du_i of dx_i counts, and
    sum_i s (n x u_i) . du_i = s n . sum_i u_i x du_i: W = 2 s n . sum_i A_i, where A_i, half the loop integral of
    u_i x du_i, is the vector area that u_i goes round. Exact for the polygon through the points given.

    Args:
        curl: s, eV/Å^2.
        displacements: (n_points, n_atoms, 3), Å, u or x - R (the mean is removed here); closed from the last point to
            the first.
        axis: (3,) direction n; need not be of unit length.
    """
    path = np.asarray(displacements, dtype=float)
    path = path - path.mean(1, keepdims=True)
    direction = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    doubled_area = np.cross(path, np.roll(path, -1, axis=0)).sum((0, 1))
    return float(curl * direction @ doubled_area)


def circle_work(curl: float, radius: float, n_atoms: int) -> float:
    """Work of the swirl, in eV, when one atom goes once about n on a circle normal to n, the others at rest.

    Removing the mean shrinks the atom's own circle by 1 - 1/N and sends the other N - 1 round circles of a/N:
    W = 2 s pi a^2 [(1 - 1/N)^2 + (N - 1)/N^2] = 2 s pi a^2 (1 - 1/N).

    Args:
        curl: s, eV/Å^2.
        radius: a, Å.
        n_atoms: N.
    """
    return 2 * math.pi * curl * radius**2 * (1 - 1 / n_atoms)


def frequency(stiffness: float, curl: float, mass: float) -> complex:
    """Complex angular frequency of the motion across n, in 1/internal time: w - i g, w > 0, with growth rate g.

    With z = u_1 + i u_2 across n, n x u is i z, so that z'' = -(k/m - i s/m) z and z = z_0 cos(W t) + z'_0 sin(W t) / W
    with W^2 = (k - i s)/m: W = w - i g, 2 w g = s/m. Amplitudes grow like exp(g t).
    """
    return cmath.sqrt((stiffness - 1j * curl) / mass)


def exact_energy(
    field: Field, times: ArrayLike, displacements: ArrayLike, momenta: ArrayLike, mass: float, axis: ArrayLike
) -> NDArray[np.float64]:
    """(n_times,) energy K + k/2 sum |u|^2 in eV of one crystal that moves under the swirl from a given start.

    Exact at all times: the motion across n is that of :func:`frequency`, the motion along n is harmonic and keeps its
    energy, and the centre of mass keeps its own.

    Args:
        field: k and s.
        times: (n_times,), internal time.
        displacements: (n_atoms, 3) initial u or x - R, Å (the mean is removed here).
        momenta: (n_atoms, 3), internal units.
        mass: of every atom, amu.
        axis: (3,) direction n; need not be of unit length.
    """
    t = np.asarray(times, dtype=float)[:, None]
    start = np.asarray(displacements, dtype=float)
    start = start - start.mean(0)
    speed = np.asarray(momenta, dtype=float) / mass
    drift = speed.mean(0)
    speed = speed - drift
    n, first, second = _frame(axis)
    omega = frequency(field.stiffness, field.curl, mass)
    z0 = start @ first + 1j * (start @ second)
    v0 = speed @ first + 1j * (speed @ second)
    cosine, sine = np.cos(omega * t), np.sin(omega * t)
    z = z0 * cosine + v0 / omega * sine
    v = v0 * cosine - omega * z0 * sine
    across = 0.5 * (mass * np.abs(v) ** 2 + field.stiffness * np.abs(z) ** 2).sum(1)
    along = 0.5 * (mass * (speed @ n) ** 2 + field.stiffness * (start @ n) ** 2).sum()
    centre = 0.5 * mass * len(start) * float(drift @ drift)
    return np.asarray(across + along + centre, dtype=np.float64)


def mean_energy(field: Field, times: ArrayLike, temperature: float, mass: float, n_atoms: int) -> NDArray[np.float64]:
    """(n_times,) thermal mean of :func:`exact_energy` in eV/atom over starts with equipartition.

    Each of the 3 (N - 1) displacements starts with <u^2> = k_B T / k and each of the 3 (N - 1) momenta with
    <p^2> = m k_B T, uncorrelated. With W = w - i g, C = cosh 2 g t and c = cos 2 w t, |cos W t|^2 = (C + c)/2 and
    |sin W t|^2 = (C - c)/2, so that the two degrees of freedom across n hold, with R = m |W|^2 / k,

        <E>(t) = k_B T [(C + c) + (C - c)(R + 1/R)/2],

    which is 2 k_B T at t = 0; the one along n holds k_B T for ever.

    Args:
        field: k and s.
        times: (n_times,), internal time.
        temperature: K, of displacements and momenta at time 0.
        mass: of every atom, amu.
        n_atoms: N.
    """
    t = np.asarray(times, dtype=float)
    grow, swing, ratio = _beat(field.stiffness, field.curl, mass, t)
    across = (grow + swing) + 0.5 * (grow - swing) * (ratio + 1 / ratio)
    return BOLTZMANN * temperature * (1 + across) * (n_atoms - 1) / n_atoms


def heating_rate(field: Field, times: ArrayLike, temperature: float, mass: float, n_atoms: int) -> float:
    """Least-squares slope of :func:`mean_energy` over the given times, eV/atom per internal time.

    The energy grows like cosh(2 g t), so the slope depends on the window: it is zero for an instant and about
    4 k_B T g^2 t_max for short windows that start at 0.
    """
    t = np.asarray(times, dtype=float)
    centred = t - t.mean()
    return float(centred @ mean_energy(field, t, temperature, mass, n_atoms) / (centred @ centred))


@dataclass(frozen=True)
class Oscillators:
    """Like and independent parts of a crystal at rest: m z'' = -(k - i s) z across n, m y'' = -k y along it.

    Attributes:
        count: how many; each has one y and one complex z, three degrees of freedom.
        mass: m, amu.
        curl: s, eV/Å^2.
        shares: atomic number to the part of the kinetic energy that is in this species; they add up to 1.
    """

    count: int
    mass: float
    curl: float
    shares: Mapping[int, float]


def oscillators(field: Field, numbers: ArrayLike, masses: ArrayLike) -> tuple[Oscillators, ...]:
    """What the motion with the centre of mass at rest falls apart into; 3 N - 3 degrees of freedom in all.

    Displacements of n_a atoms of a species that sum to zero feel P as the identity: n_a - 1 oscillators with the mass
    and the curl of the species. What is left of two species, with parts c = n_1 / N and 1 - c of the atoms, is the
    distance D between their means: u is (1 - c) D on one and -c D on the other, and with the net force taken out,

        D'' = -(k - i s) D / m,    1/m = (1 - c)/m_1 + c/m_2,    s = (1 - c) s_1 + c s_2,

    an oscillator of which the lighter species has the larger part of the kinetic energy, as momenta are opposite.

    Args:
        field: k, s and what the curl acts on.
        numbers: (n_atoms,) atomic numbers of one species or two.
        masses: (n_atoms,), amu, equal within a species.

    Raises:
        ValueError: there are more species, or one has several masses.
    """
    species, counts = np.unique(np.asarray(numbers), return_counts=True)
    mass = {int(z): np.unique(np.asarray(masses, dtype=float)[np.asarray(numbers) == z]) for z in species}
    if len(species) > 2 or any(len(values) > 1 for values in mass.values()):
        raise ValueError(f"closed forms are for one or two species of one mass each, got {mass}")
    parts = [
        Oscillators(int(n) - 1, float(mass[z][0]), field.curl_of(z), {z: 1.0})
        for z, n in zip(mass, counts, strict=True)
    ]
    if len(parts) == 2:
        first, second = parts
        c = float(counts[0] / counts.sum())
        inverse = (1 - c) / first.mass + c / second.mass
        curl = (1 - c) * first.curl + c * second.curl
        share = (1 - c) * second.mass / (c * first.mass + (1 - c) * second.mass)
        one, other = mass
        parts.append(Oscillators(1, 1 / inverse, curl, {one: share, other: 1 - share}))
    return tuple(parts)


def species_asymmetry(field: Field, numbers: ArrayLike) -> float:
    """Jacobian asymmetry lambda of the swirl as the model gives it, with its net force, whatever it acts on.

    With S = diag(s_i), J = -k P + S P x [n]_x has the squared norm 3 k^2 (N - 1) + 2 (1 - 1/N) sum s_i^2, of which its
    antisymmetric part (S P + P S)/2 x [n]_x has (2 - 3/N) sum s_i^2 + (sum s_i)^2 / N^2. Equal s_i give
    :func:`asymmetry`.

    Args:
        field: k, s and what the curl acts on.
        numbers: (n_atoms,) atomic numbers.
    """
    curls = np.array([field.curl_of(int(number)) for number in np.asarray(numbers)])
    n, squares = len(curls), float((curls**2).sum())
    norm = 3 * field.stiffness**2 * (n - 1) + 2 * squares * (1 - 1 / n)
    return math.sqrt((squares * (2 - 3 / n) + (curls.sum() / n) ** 2) / norm)


def langevin_temperatures(
    field: Field, numbers: ArrayLike, masses: ArrayLike, temperature: float, tau: float
) -> dict[int, float]:
    """Stationary kinetic temperature in K of each species, by atomic number, under a Langevin bath.

    With z'' = -(k - i s) z / m - z'/tau + noise, the stationary moments A = <|z|^2>, B = <|z'|^2>, C = <z* z'> obey
    Re C = 0, Im C = s tau A / m, B = k A / m and B - 2 k_B T / m = s Im C tau / m, so that the two degrees of freedom
    across n are at T / (1 - s^2 tau^2 / (m k)), and the one along n is at T. A species has the mean over the degrees of
    freedom that its kinetic energy belongs to.

    Args:
        field: k, s and what the curl acts on.
        numbers: (n_atoms,) atomic numbers of one species or two.
        masses: (n_atoms,), amu.
        temperature: T of the bath, K.
        tau: relaxation time of momenta, internal time.

    Raises:
        ValueError: s tau >= sqrt(m k) in one of the oscillators: the bath is too weak, and energies grow for ever.
    """
    parts = oscillators(field, numbers, masses)
    across = [_stationary(field.stiffness, each, temperature, tau) for each in parts]
    return {
        number: _mean_of_species(number, parts, [(temperature + 2 * hot) / 3 for hot in across])
        for number in parts[-1].shares
    }


def langevin_power(field: Field, numbers: ArrayLike, masses: ArrayLike, temperature: float, tau: float) -> float:
    """Mean power of the curl in the stationary state, which a Langevin bath takes out, eV per internal time.

    Friction takes 2 K / tau and noise gives 2 K_T / tau, so the degrees of freedom at T_across lose
    k_B (T_across - T) / tau each. Arguments and errors are those of :func:`langevin_temperatures`.
    """
    return sum(
        2 * each.count * BOLTZMANN * (_stationary(field.stiffness, each, temperature, tau) - temperature) / tau
        for each in oscillators(field, numbers, masses)
    )


def free_temperatures(
    field: Field, times: ArrayLike, temperature: float, numbers: ArrayLike, masses: ArrayLike
) -> dict[int, NDArray[np.float64]]:
    """(n_times,) thermal mean of the kinetic temperature in K of each species without a bath, by atomic number.

    From the start of :func:`mean_energy` the two degrees of freedom across n hold [(C + c) + R (C - c)] / 2 times their
    first kinetic energy. A thermostat that rescales all momenta alike brings the whole to its temperature, but acts on
    all oscillators alike: their ratio stays that of the free motion, up to the part of order 1 / (w tau) by which
    factors that change within a period meet oscillators in different phases.

    Args:
        field: k, s and what the curl acts on.
        times: (n_times,), internal time.
        temperature: K, at time 0.
        numbers: (n_atoms,) atomic numbers of one species or two.
        masses: (n_atoms,), amu.
    """
    t = np.asarray(times, dtype=float)
    parts = oscillators(field, numbers, masses)
    kelvin = []
    for each in parts:
        grow, swing, ratio = _beat(field.stiffness, each.curl, each.mass, t)
        kelvin.append(temperature * (1 + (grow + swing) + ratio * (grow - swing)) / 3)
    return {number: _mean_of_species(number, parts, kelvin) for number in parts[-1].shares}


def _stationary(stiffness: float, part: Oscillators, temperature: float, tau: float) -> float:
    """Temperature across n under a Langevin bath, K; see :func:`langevin_temperatures`."""
    excess = (part.curl * tau) ** 2 / (part.mass * stiffness)
    if part.count and excess >= 1:
        raise ValueError(f"no stationary state: s tau = {abs(part.curl) * tau:.3g} is not below sqrt(m k)")
    return temperature / (1 - excess)


def _mean_of_species(number: int, parts: tuple[Oscillators, ...], kelvin: list[Any]) -> Any:
    """Mean of a temperature of each part over the kinetic energy that a species has in it."""
    weights = [each.count * each.shares.get(number, 0.0) for each in parts]
    return sum(weight * value for weight, value in zip(weights, kelvin, strict=True)) / sum(weights)


def _beat(
    stiffness: float, curl: float, mass: float, t: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """C = cosh 2 g t, c = cos 2 w t and R = m |W|^2 / k of :func:`mean_energy`."""
    omega = frequency(stiffness, curl, mass)
    return np.cosh(2 * omega.imag * t), np.cos(2 * omega.real * t), mass * abs(omega) ** 2 / stiffness


def _frame(axis: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Right-handed unit vectors (n, e1, e2) with e1 x e2 = n."""
    n = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    first = np.cross(n, np.eye(3)[np.argmin(np.abs(n))])
    first /= np.linalg.norm(first)
    return n, first, np.cross(n, first)


def load(card: ModelCard, system: System, *, device: str = "cpu", dtype: str | None = None) -> ToyModel:
    """Build the field a model card names about the sites of a system (see :mod:`conservbench.plugins`).

    Its options are the attributes of :class:`Field`.

    Raises:
        CardError: an option is missing, unknown or wrong.
        UnsupportedError: the system has no cell, or its snapshots are not those of a crystal.
    """
    from conservbench.cards import build

    field = build(Field, card.options, f"{card.path}: [options]")
    model = ToyModel(field, system.sites, device=device, dtype=getattr(torch, dtype or card.dtype))
    snapshots = from_atoms([system.sites, *system.snapshots], device=device)
    strayed = model.displacements(snapshots, snapshots.positions, snapshots.cell).abs().max()
    if strayed > 0.25 * system.sites.cell.lengths().min():
        raise UnsupportedError(f"toy models need a crystal; {system.name} has atoms {strayed:.1f} Å off their sites")
    return model
