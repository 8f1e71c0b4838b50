"""Stillinger-Weber against published numbers and matscipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matscipy.calculators.manybody import Manybody, explicit_forms

from conservbench.cards import CardError, find_model
from conservbench.models import stillinger_weber
from conservbench.models.stillinger_weber import Parameters, StillingerWeber
from conservbench.state import from_atoms
from conservbench.systems import find_system


def energy_of(model, atoms):
    return model.evaluate(from_atoms(atoms)).energy.item()


def test_energy_of_the_crystal(diamond):
    # Gangan et al., arXiv 2409.13844: 64 atoms at a = 5.431
    assert energy_of(StillingerWeber(), diamond(5.431)) == pytest.approx(-277.53728, abs=1e-5)


def test_energy_and_forces_equal_matscipy(rattled):
    p = Parameters()
    form = {"el": "Si", "epsilon": p.epsilon, "sigma": p.sigma, "a": p.a, "lambda1": p.lam, "gamma": p.gamma}
    form |= {"A": p.A, "B": p.B, "p": p.p, "costheta0": 1 / 3}
    atoms = rattled * (2, 2, 2)
    atoms.rattle(0.05, seed=2)
    prediction = StillingerWeber().evaluate(from_atoms(atoms), forces=("gradient",))
    atoms.calc = Manybody(**explicit_forms.StillingerWeber(form))
    assert prediction.energy.item() == pytest.approx(atoms.get_potential_energy(), rel=1e-10)
    np.testing.assert_allclose(prediction.forces["gradient"], atoms.get_forces(), atol=1e-9)


def test_force_constants_of_the_crystal(diamond, hessian):
    # force constants by finite differences (Gangan et al., Si_SW_FC): on-site block and Frobenius norm, eV/Å^2
    matrix = hessian(StillingerWeber(), diamond(5.431))
    np.testing.assert_allclose(matrix[:3, :3], 17.705217 * np.eye(3), atol=1e-3)
    assert np.linalg.norm(matrix) == pytest.approx(298.3697, abs=0.01)


@pytest.mark.parametrize(("column", "expected"), [(0, 151.4131), (1, 76.4154)])
def test_elastic_constants(diamond, elastic_constant, column, expected):
    assert elastic_constant(StillingerWeber(), diamond(5.431, 1), column) == pytest.approx(expected, abs=1e-2)


def test_optimised_parameters_have_their_elastic_constants(diamond, elastic_constant):
    model = StillingerWeber({"epsilon": 1.935160955, "lam": 33.786738320})
    assert elastic_constant(model, diamond(5.431, 1), 0) == pytest.approx(162.3052, abs=1e-2)
    assert elastic_constant(model, diamond(5.431, 1), 1) == pytest.approx(54.6155, abs=1e-2)


def test_cutoff_is_kept_when_it_is_given(diamond):
    atoms = diamond(5.468582)
    loose = StillingerWeber({"sigma": 2.123822})
    kept = StillingerWeber({"sigma": 2.123822}, cutoff=3.77118)
    same = StillingerWeber({"sigma": 2.123822, "a": 3.77118 / 2.123822})
    assert energy_of(kept, atoms) == pytest.approx(energy_of(same, atoms), rel=1e-12)
    assert energy_of(kept, atoms) != pytest.approx(energy_of(loose, atoms), rel=1e-4)


def test_list_follows_a_growing_sigma(rattled):
    model = StillingerWeber()
    energy_of(model, rattled)
    model.parameters["sigma"] = torch.tensor(2.6, dtype=torch.float64)
    assert energy_of(model, rattled) == pytest.approx(energy_of(StillingerWeber({"sigma": 2.6}), rattled), rel=1e-12)


def test_load_reads_the_options_of_the_card(tmp_path, diamond):
    system = find_system("si-64")
    assert energy_of(stillinger_weber.load(find_model("si-sw"), system), diamond(5.431)) == pytest.approx(-277.53728)
    head = 'version = 1\ntitle = "t"\nloader = "stillinger_weber"\nscheme = "gradient"\n[options]\n'
    path = tmp_path / "fitted.toml"
    path.write_text(f'name = "fitted"\n{head}epsilon = 1.9\nlam = 33\nsigma = 2.12\ncutoff = 3.77118\n')
    model = stillinger_weber.load(find_model(str(path)), system)
    assert [model.parameters[name].item() for name in ("epsilon", "lam", "sigma")] == [1.9, 33.0, 2.12]
    assert model.end().item() == 3.77118
    path = tmp_path / "odd.toml"
    path.write_text(f'name = "odd"\n{head}sigme = 2.1\n')
    with pytest.raises(CardError, match="sigma"):
        stillinger_weber.load(find_model(str(path)), system)
