"""The stress of the mlearn collection: its unit, sign and order, and its energies, which know all three."""

import json

import numpy as np
import pytest

from conservbench.data import readers
from conservbench.units import GIGAPASCAL


def entry(stress):
    sites = [{"species": [{"element": "Si", "occu": 1}], "xyz": [x, 0.0, 0.0]} for x in (0.0, 2.4)]
    return {
        "structure": {"lattice": {"matrix": (6 * np.eye(3)).tolist()}, "sites": sites},
        "group": "Elastic",
        "outputs": {"energy": -9.0, "forces": [[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]], "virial_stress": stress},
    }


def test_stress_is_positive_under_tension_in_the_order_of_ase(tmp_path):
    path = tmp_path / "set.json"
    path.write_text(json.dumps([entry([10.0, 20.0, 30.0, 1.0, 2.0, 3.0])]), encoding="utf-8")
    (atoms,) = readers.read("mlearn", path)
    # kbar to GPa, compression to tension; xy, yz, zx to yz, xz, xy
    np.testing.assert_allclose(atoms.get_stress() / GIGAPASCAL, [-1.0, -2.0, -3.0, -0.2, -0.3, -0.1], rtol=1e-12)
    path.write_text(json.dumps([entry([1.0, 2.0])]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"frame 0: .*expected 6 numbers"):
        readers.read("mlearn", path)


def test_stress_is_the_slope_of_the_energy(reference_data):
    """Strains of 2 % along each axis, and shears: energies and stresses give one curvature, to 2 %."""
    frames = readers.read("mlearn", reference_data / "mlearn-si-training.json")
    by_name = {atoms.info["description"]: atoms for atoms in frames if atoms.info["group"] == "Elastic"}
    ground = by_name["Ground state crystal"]
    for mode in range(6):
        apart = [by_name[f"Si 2x2x2 cell, mode {mode}, strain {sign}0.02"] for sign in ("", "-")]
        ratios = [
            work(atoms, ground) / (atoms.get_potential_energy() - ground.get_potential_energy()) for atoms in apart
        ]
        # a straight line between two stresses misses the third order, which has another sign on the other side
        assert ratios == pytest.approx([1.0, 1.0], abs=0.06), mode
        assert np.mean(ratios) == pytest.approx(1.0, abs=0.02), mode


def work(atoms, ground):
    """eV that the mean stress of two cells does along the strain between them."""
    strain = np.linalg.solve(ground.cell.array, atoms.cell.array) - np.eye(3)
    volume = 0.5 * (atoms.get_volume() + ground.get_volume())
    stress = 0.5 * (atoms.get_stress(voigt=False) + ground.get_stress(voigt=False))
    return volume * np.sum(stress * 0.5 * (strain + strain.T))
