"""Measure a cubic crystal at rest, with the values of the reference beside those of the model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import xarray as xr
from ase import Atoms
from numpy.typing import NDArray

from conservbench.models.base import InvalidPredictionError, Model, UnsupportedError, check_support
from conservbench.observables.elastic import elastic_constants, mandel_of_cubic
from conservbench.observables.force_constants import force_constants
from conservbench.observables.lattice import lattice_constant
from conservbench.observables.phonons import crystal, frequencies
from conservbench.outcome import Outcome
from conservbench.scheme import Channel, Scheme
from conservbench.state import from_atoms
from conservbench.units import GIGAPASCAL

if TYPE_CHECKING:
    from conservbench.references import Reference

_T = TypeVar("_T")

PARTS = ("lattice", "elastic", "phonons")
"""What is measured; each has an attribute ``PART_outcome`` and ``PART_reason``."""


def is_crystal_of(sites: Atoms, reference: Reference) -> bool:
    """Whether a structure is a supercell of the crystal of the reference, at any lattice constant."""
    try:
        _cells(sites, reference, reference.lattice_constant)
    except ValueError:
        return False
    return True


def measure_crystal(model: Model, scheme: Scheme, sites: Atoms, reference: Reference) -> xr.Dataset:
    """Lattice constant, elastic constants and phonons by the force that acts on average under the scheme.

    Elastic constants and phonons are those at the model's own lattice constant, or at that of the reference where it
    has none. Direct forces have no stress: the lattice constant and the stress are those of the energy.

    Args:
        model: any; derivatives are by differences if it is not differentiable.
        scheme: its forces.
        sites: a supercell of the crystal of the reference, at any lattice constant; force constants are those in it.
        reference: what the values are compared with.

    Returns:
        ``lattice_constant`` and ``cell_constant``, at which the rest was measured, in Å; ``elastic_constants`` (row,
        column), the Mandel matrix in GPa; ``frequency`` (q, branch) in THz, ascending, imaginary as negative; and what
        the reference has for each, named ``reference_...``. What a model cannot give is not there; how each part ended
        is in the attributes ``lattice_outcome``, ``lattice_reason``, and so on.

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

    def unit_cell() -> float:
        return lattice_constant(model, _cells(sites, reference, reference.lattice_constant)[0])

    direct = channel == "direct"
    own = attempt("lattice", unit_cell, "that of the energy" if direct else "")
    constant = reference.lattice_constant if own is None else own
    where = "at the lattice constant of the reference" if own is None else ""
    primitive, supercell = _cells(sites, reference, constant)

    def elastic() -> NDArray[np.float64]:
        matrix = elastic_constants(model, channel, from_atoms(primitive, device=model.device))
        return np.asarray((matrix / GIGAPASCAL).detach().cpu().numpy(), dtype=float)

    def phonons() -> NDArray[np.float64]:
        return _frequencies(model, channel, primitive, supercell, reference.phonons.points)

    followed = "stress of the energy, atoms follow the direct forces" if direct else ""
    matrix = attempt("elastic", elastic, "; ".join(filter(None, (followed, where))))
    modes = attempt(
        "phonons", phonons, "; ".join(filter(None, ("force constants symmetrised" if direct else "", where)))
    )
    data = _of_reference(reference).assign(cell_constant=_variable((), constant, "Å", "lattice constant of the cell"))
    if own is not None:
        data["lattice_constant"] = _variable((), own, "Å", "lattice constant")
    if matrix is not None:
        data["elastic_constants"] = _variable(_MANDEL, matrix, "GPa", "elastic constants in Mandel's basis")
    if modes is not None:
        data["frequency"] = _variable(_MODES, modes, "THz", "phonon frequency")
    data.attrs = {"scheme": scheme.kind, "stride": scheme.stride, "channel": channel, **endings, **_ending(endings)}
    return data


_MANDEL = ("row", "column")
_MODES = ("q", "branch")
_STRAINS = ["xx", "yy", "zz", "yz", "xz", "xy"]


def _cells(sites: Atoms, reference: Reference, constant: float) -> tuple[Atoms, Atoms]:
    """The primitive cell of the reference and the supercell of the sites, at a lattice constant in Å.

    Raises:
        ValueError: the sites are no supercell of the crystal of the reference.
    """
    unit = reference.primitive
    primitive = Atoms(numbers=unit.numbers, positions=unit.positions, cell=unit.cell, pbc=True)
    copies, leftover = divmod(len(sites), len(primitive))
    if leftover or not sites.pbc.all():
        raise ValueError("the sites are no supercell of the crystal of the reference")
    # the volumes of an atom say by how much the sites are stretched
    volume = primitive.get_volume() * copies
    supercell = _scaled(sites, float((volume / sites.get_volume()) ** (1.0 / 3.0)))
    ratio = constant / reference.lattice_constant
    return _scaled(_placed(primitive, supercell), ratio), _scaled(supercell, ratio)


def _placed(primitive: Atoms, supercell: Atoms) -> Atoms:
    """The primitive cell where the first atom of the supercell is an image of one of its atoms, whichever it is."""
    for origin in primitive.positions:
        moved = primitive.copy()
        moved.translate(supercell.positions[0] - origin)
        with suppress(ValueError):
            crystal(moved, supercell)
            return moved
    raise ValueError("the sites are no supercell of the crystal of the reference")


def _scaled(atoms: Atoms, ratio: float) -> Atoms:
    larger = atoms.copy()
    larger.set_cell(atoms.cell.array * ratio, scale_atoms=True)
    return larger


def _frequencies(
    model: Model, channel: Channel, primitive: Atoms, supercell: Atoms, q: NDArray[np.float64]
) -> NDArray[np.float64]:
    frame = crystal(primitive, supercell)
    rows = force_constants(model, channel, from_atoms(supercell, device=model.device), frame.atoms.tolist())
    # torch wants arrays that it may write to
    return np.asarray(frequencies(rows.detach(), frame, q.copy()).cpu().numpy(), dtype=float)


def _of_reference(reference: Reference) -> xr.Dataset:
    """What the reference has, with the coordinates of both."""
    phonons, names = reference.phonons, dict(reference.phonons.labels)
    matrix = mandel_of_cubic(*reference.elastic).numpy()
    return xr.Dataset(
        {
            "reference_lattice_constant": _variable((), reference.lattice_constant, "Å", "that of the reference"),
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
