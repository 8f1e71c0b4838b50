"""Measure a crystal at rest, with the values of the reference beside those of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import xarray as xr
from ase import Atoms
from ase.build import make_supercell
from numpy.typing import NDArray

from conservbench.models.base import InvalidPredictionError, Model, UnsupportedError, check_support
from conservbench.observables.elastic import elastic_constants, mandel_of_cubic, mandel_of_hexagonal
from conservbench.observables.force_constants import force_constants
from conservbench.observables.lattice import crystal_at_rest
from conservbench.observables.phonons import frequencies, repeated
from conservbench.outcome import Outcome
from conservbench.references.symmetry import operations
from conservbench.scheme import Channel, Scheme
from conservbench.state import from_atoms
from conservbench.units import GIGAPASCAL

if TYPE_CHECKING:
    from conservbench.references import Reference

_T = TypeVar("_T")

PARTS = ("lattice", "elastic", "phonons")
"""What is measured; each has an attribute ``PART_outcome`` and ``PART_reason``."""

_STRAINED: Final = 0.1
"""Of a cell vector, by which the cell of a structure may miss that of the reference, both of one volume."""

_MOVED: Final = 0.3
"""Å, by which its sites may miss those of the reference, where symmetry leaves them free."""


def is_crystal_of(sites: Atoms, reference: Reference) -> bool:
    """Whether a structure is a supercell of the crystal of the reference, whatever is free by symmetry."""
    try:
        _repeats(sites, reference)
    except ValueError:
        return False
    return True


def measure_crystal(model: Model, scheme: Scheme, sites: Atoms, reference: Reference) -> xr.Dataset:
    """Lattice constants, elastic constants and phonons by the force that acts on average under the scheme.

    Elastic constants and phonons are those of the model's own crystal at rest, or of that of the reference where it
    has none. Direct forces have no stress: the lattice constants and the stress are those of the energy.

    Args:
        model: any; derivatives are by differences if it is not differentiable.
        scheme: its forces.
        sites: a supercell of the crystal of the reference, whatever is free by symmetry; force constants are those in a
            supercell of this shape.
        reference: what the values are compared with.

    Returns:
        ``lattice_constant`` and ``cell_constant``, at which the rest was measured, in Å; of a hexagonal crystal also
        ``lattice_constant_c`` in Å and, where an atom stands straight above one of another element,
        ``internal_parameter``, its height over c; ``elastic_constants`` (row, column), the Mandel matrix in GPa;
        ``frequency`` (q, branch) in THz, ascending, imaginary as negative; and what the reference has for each, named
        ``reference_...``. What a model cannot give is not there; how each part ended is in the attributes
        ``lattice_outcome``, ``lattice_reason``, and so on; ``family`` is that of the crystal.

    Raises:
        UnsupportedError: the model lacks a channel or an element, or tells atoms apart by their sites.
        ValueError: the sites are no supercell of the crystal of the reference.
    """
    if model.labelled:
        raise UnsupportedError("the model ties atoms to their sites: it has no crystal of another size")
    channel = scheme.mean_channel
    check_support(model, from_atoms(sites, device=model.device), scheme.channels)
    endings: dict[str, str] = {}

    def attempt(part: str, measured: Callable[[], _T], remark: str) -> _T | None:
        try:
            found = measured()
        except (UnsupportedError, InvalidPredictionError) as error:
            ending = Outcome.UNSUPPORTED if isinstance(error, UnsupportedError) else Outcome.FAILED
            endings.update({f"{part}_outcome": str(ending), f"{part}_reason": str(error)})
            return None
        endings.update({f"{part}_outcome": str(Outcome.COMPLETED), f"{part}_reason": remark})
        return found

    matrix, start = _repeats(sites, reference), _primitive(reference)
    direct = channel == "direct"
    own = attempt("lattice", lambda: crystal_at_rest(model, channel, start), "that of the energy" if direct else "")
    where = "at the lattice constant of the reference" if own is None else ""
    primitive = start if own is None else own

    def elastic() -> NDArray[np.float64]:
        found = elastic_constants(model, channel, from_atoms(primitive, device=model.device))
        return np.asarray((found / GIGAPASCAL).detach().cpu().numpy(), dtype=float)

    def phonons() -> NDArray[np.float64]:
        return _frequencies(model, channel, primitive, matrix, reference.phonons.points)

    followed = "stress of the energy, atoms follow the direct forces" if direct else ""
    constants = attempt("elastic", elastic, "; ".join(filter(None, (followed, where))))
    modes = attempt(
        "phonons", phonons, "; ".join(filter(None, ("force constants symmetrised" if direct else "", where)))
    )
    lengths = _lengths(primitive, reference)
    data = _of_reference(reference).assign(
        cell_constant=_variable((), lengths["lattice_constant"], "Å", "lattice constant of the cell")
    )
    if own is not None:
        data = data.assign({name: _variable((), value, *_LENGTHS[name]) for name, value in lengths.items()})
    if constants is not None:
        data["elastic_constants"] = _variable(_MANDEL, constants, "GPa", "elastic constants in Mandel's basis")
    if modes is not None:
        data["frequency"] = _variable(_MODES, modes, "THz", "phonon frequency")
    said = {"scheme": scheme.kind, "stride": scheme.stride, "channel": channel, "family": reference.family}
    data.attrs = {**said, **endings, **_ending(endings)}
    return data


_MANDEL = ("row", "column")
_MODES = ("q", "branch")
_LENGTHS: Final = {
    "lattice_constant": ("Å", "lattice constant"),
    "lattice_constant_c": ("Å", "lattice constant along the axis"),
    "internal_parameter": ("1", "height of an atom above one of another element, over the lattice constant"),
}
_STRAINS = ["xx", "yy", "zz", "yz", "xz", "xy"]


def _primitive(reference: Reference) -> Atoms:
    unit = reference.primitive
    return Atoms(numbers=unit.numbers, positions=unit.positions, cell=unit.cell, pbc=True)


def _repeats(sites: Atoms, reference: Reference) -> NDArray[np.int64]:
    """(3, 3) whole numbers: the vectors of the cell of the sites over the primitive ones.

    Raises:
        ValueError: the sites are no supercell of the crystal of the reference.
    """
    wrong = ValueError("the sites are no supercell of the crystal of the reference")
    primitive = _primitive(reference)
    copies, leftover = divmod(len(sites), len(primitive))
    if leftover or not sites.pbc.all():
        raise wrong
    # the volumes of an atom say by how much the sites are stretched
    stretched = float((sites.get_volume() / (primitive.get_volume() * copies)) ** (1.0 / 3.0))
    exact = sites.cell.array @ np.linalg.inv(primitive.cell.array * stretched)
    matrix = np.rint(exact).astype(np.int64)
    if np.abs(exact - matrix).max() > _STRAINED or round(abs(np.linalg.det(matrix))) != copies:
        raise wrong
    alike = sites.copy()
    alike.set_cell(matrix @ primitive.cell.array, scale_atoms=True)
    perfect = make_supercell(primitive, matrix)
    if not any(_near(alike, perfect, int(first)) for first in np.flatnonzero(perfect.numbers == alike.numbers[0])):
        raise wrong
    # moved sites are still its sites where no symmetry is lost
    orders = [len(operations(each.cell.array, each.positions, each.numbers).atoms) for each in (alike, perfect)]
    if orders[0] != orders[1]:
        raise wrong
    return matrix


def _near(atoms: Atoms, other: Atoms, first: int) -> bool:
    """Whether each atom is near one of another crystal of its own, once the first one lies on that atom."""
    shifts = atoms.positions[:, None] - atoms.positions[0] + other.positions[first] - other.positions
    fractions = shifts @ np.linalg.inv(other.cell.array)
    off = np.linalg.norm((fractions - np.rint(fractions)) @ other.cell.array, axis=-1)
    off[atoms.numbers[:, None] != other.numbers] = np.inf
    return bool(off.min(1).max() < _MOVED) and len(set(off.argmin(1).tolist())) == len(atoms)


def _lengths(primitive: Atoms, reference: Reference) -> dict[str, float]:
    """What is free of the crystal, by the names of :data:`_LENGTHS`."""
    if reference.family == "cubic":
        stretched = (primitive.get_volume() / _primitive(reference).get_volume()) ** (1.0 / 3.0)
        return {"lattice_constant": reference.lattice_constant * float(stretched)}
    a, _, c = primitive.cell.lengths()
    found = {"lattice_constant": float(a), "lattice_constant_c": float(c)}
    between = primitive.get_scaled_positions()[:, None] - primitive.get_scaled_positions()
    between -= np.rint(between)
    above = (np.abs(between[..., :2]).max(-1) < 1e-3) & (primitive.numbers[:, None] != primitive.numbers)
    if above.any():
        found["internal_parameter"] = float(np.abs(between[above][:, 2]).min())
    return found


def _frequencies(
    model: Model, channel: Channel, primitive: Atoms, matrix: NDArray[np.int64], q: NDArray[np.float64]
) -> NDArray[np.float64]:
    frame = repeated(primitive, matrix)
    rows = force_constants(model, channel, from_atoms(frame.supercell, device=model.device), frame.atoms.tolist())
    # torch wants arrays that it may write to
    return np.asarray(frequencies(rows.detach(), frame, q.copy()).cpu().numpy(), dtype=float)


def _of_reference(reference: Reference) -> xr.Dataset:
    """What the reference has, with the coordinates of both."""
    phonons, names = reference.phonons, dict(reference.phonons.labels)
    mandel = mandel_of_cubic if reference.family == "cubic" else mandel_of_hexagonal
    matrix = mandel(*reference.elastic).numpy()
    lengths = _lengths(_primitive(reference), reference)
    return xr.Dataset(
        {
            f"reference_{name}": _variable((), value, _LENGTHS[name][0], "that of the reference")
            for name, value in lengths.items()
        }
        | {
            "reference_elastic_constants": _variable(_MANDEL, matrix, "GPa", "those of the reference"),
            "reference_frequency": _variable(_MODES, phonons.frequencies, "THz", "that of the reference"),
        },
        coords={
            "row": _variable(("row",), _STRAINS, "1", "component of the stress"),
            "column": _variable(("column",), _STRAINS, "1", "component of the strain"),
            "wave_vector": _variable(
                ("q", "axis"), phonons.points, "1", "over the reciprocal vectors of the primitive cell"
            ),
            "distance": _variable(("q",), phonons.distance, "1/Å", "length along the path"),
            "point": _variable(
                ("q",), [names.get(k, "") for k in range(len(phonons.points))], "1", "name of the special point"
            ),
        },
    )


def _variable(dims: tuple[str, ...], values: Any, unit: str, label: str) -> tuple[tuple[str, ...], Any, dict[str, str]]:
    return dims, values, {"units": unit, "long_name": label}


def _ending(endings: dict[str, str]) -> dict[str, str]:
    """How the cell ended: failed where a part failed, unsupported where all parts are."""
    outcomes = [Outcome(endings[f"{part}_outcome"]) for part in PARTS]
    reasons = [
        f"{part}: {endings[f'{part}_reason']}"
        for part, outcome in zip(PARTS, outcomes, strict=True)
        if outcome is not Outcome.COMPLETED
    ]
    if Outcome.FAILED in outcomes:
        ending = Outcome.FAILED
    elif Outcome.COMPLETED in outcomes:
        ending = Outcome.COMPLETED
    else:
        ending = Outcome.UNSUPPORTED
    return {"outcome": str(ending), "outcome_reason": "; ".join(reasons)}
