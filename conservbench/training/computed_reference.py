"""Compute the reference of a crystal: ``python -m conservbench.training.computed_reference gan-gfn2``.

It is of wurtzite gallium nitride by GFN2-xTB, which the extra ``xtb`` brings, in some 120 calls, five minutes. All
is taken in one supercell at the centre of its zone, as the method knows no other wave vectors: it is the supercell that
models are asked about. Run once; the file is kept. What has been computed is kept as well, in a folder, from which an
interrupted run goes on.

In a cell as small as this the energy of GFN2-xTB is not smooth: the perfect crystal lies in a dip, 3 meV deep and
narrower than a strain of 0.5 %, and the stress jumps by up to 1 GPa elsewhere. Derivatives are therefore taken over
strains of 1 to 3 % and over displacements as they occur at temperature; how far the strains disagree is in the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from conservbench.models.ase import ASEModel
from conservbench.observables.elastic import constants_of_strains, hexagonal_constants
from conservbench.observables.jacobian import difference_products
from conservbench.observables.lattice import crystal_at_rest
from conservbench.references import operations
from conservbench.result import write_bytes
from conservbench.state import from_atoms
from conservbench.training.reference import crystal_table, without_translations, write_table
from conservbench.units import GIGAPASCAL

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from conservbench.models.ase import Calculator

STRAINS: Final = (0.01, 0.015, 0.02, 0.025, 0.03)
"""Of the elastic constants: differences by each are weighted by its square, as in a regression through zero."""

MOVES: Final = (0.03, 0.05)
"""Å, of the force constants, likewise."""

GFN2: Final = (
    "Bannwarth, Ehlert, Grimme, GFN2-xTB: an accurate and broadly parametrized self-consistent tight-binding quantum "
    "chemical method, J. Chem. Theory Comput. 15, 1652 (2019)"
)


@dataclass(frozen=True)
class Task:
    """A crystal and how it is computed.

    Attributes:
        name: of the reference.
        title: one line for people.
        citation: of the method.
        start: the primitive cell that is relaxed; the axis of a hexagonal one along z.
        repeats: of the primitive cell in the supercell.
        path: special points of the phonons.
        calculator: makes the method.
    """

    name: str
    title: str
    citation: str
    start: Callable[[], Atoms]
    repeats: int
    path: str
    calculator: Callable[[], Calculator]


def xtb() -> Calculator:
    """GFN2-xTB, with charges converged ten times closer than by default: derivatives are by differences."""
    from tblite.ase import TBLite

    made: Calculator = TBLite(method="GFN2-xTB", accuracy=0.1, verbosity=0)
    return made


TASKS: Final = {
    "gan-gfn2": Task(
        name="gan-gfn2",
        title="Gallium nitride, wurtzite, GFN2-xTB in 32 atoms: lattice, elastic constants and phonons",
        citation=GFN2,
        start=lambda: bulk("GaN", "wurtzite", a=3.176, c=5.106, u=0.3756),
        repeats=2,
        path="GMKGALHA",
        calculator=xtb,
    )
}


class Remembered:
    """A calculator that keeps what it has computed in a folder, a file a structure.

    Args:
        calculator: what computes.
        folder: of the files.
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, calculator: Calculator, folder: Path) -> None:
        self.calculator, self.folder = calculator, folder

    def get_forces(self, atoms: Atoms) -> ArrayLike:
        """(n_atoms, 3), eV/Å."""
        return np.array(self._known(atoms)["forces"])

    def get_stress(self, atoms: Atoms) -> ArrayLike:
        """(6,) in Voigt order, eV/Å^3."""
        return np.array(self._known(atoms)["stress"])

    def get_potential_energy(self, atoms: Atoms, force_consistent: bool = False) -> float:
        """In eV."""
        del force_consistent
        return float(self._known(atoms)["energy"])

    def _known(self, atoms: Atoms) -> dict[str, Any]:
        # the same structure to 1e-10 Å, whatever the rounding of the step that led to it
        parts = (atoms.numbers, atoms.positions.round(10) + 0.0, atoms.cell.array.round(10) + 0.0)
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()
        path = self.folder / f"{digest}.json"
        if path.exists():
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return found
        asked = atoms.copy()
        said = {
            "forces": np.asarray(self.calculator.get_forces(asked)).tolist(),
            "stress": np.asarray(self.calculator.get_stress(asked)).tolist(),
            "energy": float(self.calculator.get_potential_energy(asked)),
        }
        write_bytes(json.dumps(said).encode(), path)
        return said


def compute(task: Task, calculator: Calculator) -> dict[str, Any]:
    """The table of the reference of a hexagonal crystal.

    Cell and sites at which stress and forces vanish; force constants of one atom of each element by :data:`MOVES`,
    those of the others by symmetry; elastic constants with relaxed atoms by :data:`STRAINS`.

    Args:
        task: what to compute.
        calculator: energies, forces and stresses of the supercell.
    """
    model = ASEModel(calculator, name=task.name)
    repeats = (task.repeats,) * 3
    supercell = crystal_at_rest(model, "gradient", task.start() * repeats)
    n_primitive = len(supercell) // task.repeats**3
    primitive = supercell[:n_primitive]
    primitive.set_cell(supercell.cell.array / task.repeats)
    state = from_atoms(supercell)
    unlike = [int(np.flatnonzero(supercell.numbers == number)[0]) for number in sorted(set(supercell.numbers))]
    units = torch.zeros((len(unlike), 3, len(supercell), 3), dtype=torch.float64)
    for index, atom in enumerate(unlike):
        units[index, :, atom] = torch.eye(3)
    slopes = [
        difference_products(model, "gradient", state, units.flatten(0, 1), move, atoms_per_batch=len(supercell))
        for move in MOVES
    ]
    # of each displaced atom and direction, to those of each pair
    rows = -np.average(slopes, axis=0, weights=np.square(MOVES)).reshape(len(unlike), 3, len(supercell), 3)
    group = operations(supercell.cell.array, supercell.positions, supercell.numbers)
    computed = group.from_rows(unlike, rows.transpose(0, 2, 1, 3))
    held = torch.as_tensor(without_translations(group.average(computed)))
    matrices = [constants_of_strains(model, state, held, strain) / GIGAPASCAL for strain in STRAINS]
    each = np.array([[float(constant) for constant in hexagonal_constants(matrix)] for matrix in matrices])
    weights = np.square(STRAINS)
    constants = np.average(each, axis=0, weights=weights)
    # of a weighted mean of so many
    scatter = np.average((each - constants) ** 2, axis=0, weights=weights) / (len(STRAINS) - 1)
    errors = ", ".join(f"{error:.0f}" for error in np.sqrt(scatter))
    length = float(primitive.cell.lengths()[0])
    where = f"in {len(supercell)} atoms, at the centre of the zone: {task.citation}"
    return {
        "name": task.name,
        "title": task.title,
        "sources": {
            "lattice_constant": f"least energy {where}",
            "elastic": f"strains of 1 to 3 %, whose scatter leaves errors of {errors} GPa, with relaxed atoms {where}",
            "force_constants": f"displacements of 0.03 and 0.05 Å {where}",
            "phonons": "of the force constants, without the splitting of modes by long-ranged fields",
        },
        "family": "hexagonal",
        "lattice_constant": round(length, 12),
        "elastic": [round(float(constant), 4) for constant in constants],
        **crystal_table(primitive, supercell, computed, task.path, length),
        "rdf": {},
    }


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Compute the reference of a crystal.", epilog="example: gan-gfn2")
    home = Path(str(files("conservbench.references")))
    parser.add_argument("name", choices=sorted(TASKS), nargs="?", default="gan-gfn2")
    parser.add_argument("--out", type=Path, default=home, help="folder of the file")
    parser.add_argument("--keep", type=Path, default=Path("computed-reference"), help="folder of what was computed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = TASKS[arguments.name]
    write_table(compute(task, Remembered(task.calculator(), arguments.keep / task.name)), arguments.out)


if __name__ == "__main__":
    main()
