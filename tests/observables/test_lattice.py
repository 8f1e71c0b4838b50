"""Crystals at rest: known ones of classical potentials, minima of energies, another optimiser."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from conservbench.cards import find_model
from conservbench.models.ase import ASEModel
from conservbench.models.base import InvalidPredictionError, UnsupportedError
from conservbench.models.edip import EDIP
from conservbench.models.load import load_model
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.lattice import crystal_at_rest, lattice_constant
from conservbench.state import from_atoms
from conservbench.systems import find_system


# Stillinger and Weber 1985 chose the energy and length units so; Justo et al. 1998 fitted theirs to 5.430
@pytest.mark.parametrize(("model", "expected"), [(StillingerWeber(), 5.43095), (EDIP(), 5.4305)])
@pytest.mark.parametrize("start", [5.0, 5.43, 5.9])
def test_classical_potentials_have_their_known_constants(model, expected, start):
    assert lattice_constant(model, bulk("Si", "diamond", a=start)) == pytest.approx(expected, abs=5e-4)


def test_cell_does_not_matter():
    primitive = lattice_constant(EDIP(), bulk("Si", "diamond", a=5.4))
    assert lattice_constant(EDIP(), bulk("Si", "diamond", a=5.4, cubic=True)) == pytest.approx(primitive, rel=1e-10)


def test_scaled_lengths_scale_it():
    one = lattice_constant(StillingerWeber(), bulk("Si", "diamond", a=5.4))
    sigma = 1.01 * StillingerWeber.defaults["sigma"]
    scaled = lattice_constant(StillingerWeber({"sigma": sigma}), bulk("Si", "diamond", a=5.4))
    assert scaled == pytest.approx(1.01 * one, rel=1e-10)


def test_energy_of_a_network_is_least_there():
    model = load_model(find_model("si-mace-gradient"), find_system("si-64"), dtype="float64")
    found = lattice_constant(model, bulk("Si", "diamond", a=5.43))
    assert 5.40 < found < 5.52
    states = from_atoms([bulk("Si", "diamond", a=a) for a in np.array([-0.01, 0.0, 0.01]) + found])
    below, least, above = model.evaluate(states).energy.tolist()
    assert least < min(below, above)
    # the parabola through the three has its vertex at the middle, up to its cubic term
    assert abs(below - above) < 0.1 * (below + above - 2 * least)


def test_what_has_none_is_refused():
    with pytest.raises(ValueError, match="cubic"):
        lattice_constant(StillingerWeber(), Atoms("Si", cell=[3, 3, 4], pbc=True))
    with pytest.raises(InvalidPredictionError, match="does not vanish within 20 %"):
        lattice_constant(StillingerWeber(), bulk("Si", "diamond", a=3.5))
    with pytest.raises(UnsupportedError, match="stress"):
        lattice_constant(ASEModel(LennardJones(), channel="direct"), bulk("Si", "diamond", a=5.4))


def lonsdaleite(a=3.9, c=6.2, u=0.37):
    """Wurtzite of silicon alone."""
    return bulk("SiSi", "wurtzite", a=a, c=c, u=u)


def test_a_cubic_crystal_rests_at_its_lattice_constant():
    found = crystal_at_rest(EDIP(), "gradient", bulk("Si", "diamond", a=5.4))
    assert found.cell.get_bravais_lattice().a == pytest.approx(lattice_constant(EDIP(), bulk("Si", "diamond", a=5.4)))


def test_stillinger_weber_makes_lonsdaleite_of_perfect_tetrahedra():
    """Its energy is least for bonds of one length at angles of -1/3: a is that of diamond over sqrt 2, and so on."""
    found = crystal_at_rest(StillingerWeber(), "gradient", lonsdaleite())
    a, _, c = found.cell.lengths()
    diamond = lattice_constant(StillingerWeber(), bulk("Si", "diamond", a=5.43))
    assert a == pytest.approx(diamond / np.sqrt(2), rel=1e-6)
    assert c / a == pytest.approx(np.sqrt(8 / 3), rel=1e-6)
    heights = np.sort(found.get_scaled_positions()[:, 2])
    np.testing.assert_allclose(np.diff(heights), [1 / 8, 3 / 8, 1 / 8], atol=1e-6)
    same = crystal_at_rest(StillingerWeber(), "gradient", lonsdaleite() * (2, 1, 1))
    np.testing.assert_allclose(same.cell.lengths(), [2 * a, a, c], rtol=1e-6)


def test_a_hexagonal_metal_rests_where_another_optimiser_finds_it():
    start = bulk("Mg", "hcp", a=3.2, c=5.1)
    other = start.copy()
    other.calc = MorsePotential(epsilon=0.4, rho0=5.0, r0=3.2, rcut1=3.6, rcut2=4.4)
    assert BFGS(FrechetCellFilter(other), logfile=None).run(fmax=1e-5, steps=100)
    found = crystal_at_rest(ASEModel(other.calc), "gradient", start)
    np.testing.assert_allclose(found.cell.array, other.cell.array, atol=1e-4)


def test_a_crystal_that_finds_no_rest_is_refused():
    with pytest.raises(InvalidPredictionError, match="do not vanish within 20 %"):
        crystal_at_rest(StillingerWeber(), "gradient", lonsdaleite(a=2.6, c=4.0))
    with pytest.raises(UnsupportedError, match="stress"):
        crystal_at_rest(ASEModel(LennardJones(), channel="direct"), "direct", lonsdaleite())
