"""EDIP against published numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conservbench.cards import CardError, find_model
from conservbench.models import edip
from conservbench.models.edip import EDIP
from conservbench.state import from_atoms
from conservbench.systems import find_system


def energy_of(model, atoms):
    return model.evaluate(from_atoms(atoms)).energy.item()


def test_energy_of_the_crystal(diamond):
    # Gangan et al., arXiv 2409.13844: 64 atoms at a = 5.430
    assert energy_of(EDIP(), diamond(5.430)) == pytest.approx(-297.59701, abs=1e-5)


def test_force_constants_of_the_crystal(diamond, hessian):
    # force constants by finite differences (Gangan et al., Si_EDIP_FC): on-site block and Frobenius norm, eV/Å^2
    matrix = hessian(EDIP(), diamond(5.431))
    np.testing.assert_allclose(matrix[:3, :3], 19.276229 * np.eye(3), atol=2e-3)
    assert np.linalg.norm(matrix) == pytest.approx(318.371, abs=0.02)


@pytest.mark.parametrize(("column", "expected"), [(0, 172.0389), (1, 64.6745)])
def test_elastic_constants(diamond, elastic_constant, column, expected):
    assert elastic_constant(EDIP(), diamond(5.430, 1), column) == pytest.approx(expected, abs=1e-2)


def test_optimised_parameters_have_their_elastic_constants(diamond, elastic_constant):
    model = EDIP({"A": 7.191596393, "lam": 1.457774758})
    assert elastic_constant(model, diamond(5.430, 1), 0) == pytest.approx(162.3106, abs=1e-2)
    assert elastic_constant(model, diamond(5.430, 1), 1) == pytest.approx(54.6135, abs=1e-2)


def test_triplets_are_all_couples_of_one_atom():
    first = torch.tensor([0, 0, 0, 2, 3, 3])
    left, right = edip._triplets(first, 5)
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2), (4, 5)]


def test_isolated_atoms_have_no_energy(diamond):
    atoms = diamond(30.0, 1)
    prediction = EDIP().evaluate(from_atoms(atoms), forces=("gradient",))
    assert prediction.energy.item() == 0
    assert (prediction.forces["gradient"] == 0).all()


def test_coordination_falls_smoothly_from_one_to_zero():
    # derivatives of any order vanish at both ends of the range: a central difference sees no kink there
    def force(distance):
        from ase import Atoms

        atoms = Atoms("Si3", positions=[[0, 0, 0], [2.4, 0, 0], [0, distance, 0]], cell=[20, 20, 20], pbc=True)
        return EDIP().evaluate(from_atoms(atoms), forces=("gradient",)).forces["gradient"][2, 1].item()

    for knee in (EDIP.defaults["c"], EDIP.defaults["a"]):
        below, at, above = (force(knee + step) for step in (-1e-4, 0.0, 1e-4))
        assert abs(below - 2 * at + above) < 1e-6


def test_load_reads_the_options_of_the_card(tmp_path, diamond):
    system = find_system("si-64")
    assert energy_of(edip.load(find_model("si-edip"), system), diamond(5.430)) == pytest.approx(-297.59701)
    head = 'version = 1\ntitle = "t"\nloader = "edip"\nscheme = "gradient"\n[options]\n'
    path = tmp_path / "fitted.toml"
    path.write_text(f'name = "fitted"\n{head}A = 7\nlam = 1.5\n')
    model = edip.load(find_model(str(path)), system)
    assert [model.parameters[name].item() for name in ("A", "lam", "B")] == [7.0, 1.5, 1.5075463]
    path = tmp_path / "odd.toml"
    path.write_text(f'name = "odd"\n{head}A = "7"\n')
    with pytest.raises(CardError, match="A is '7'"):
        edip.load(find_model(str(path)), system)
