"""The lattice constant: known ones of classical potentials, a minimum of the energy for a network."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones

from conservbench.cards import find_model
from conservbench.models.ase import ASEModel
from conservbench.models.base import InvalidPredictionError, UnsupportedError
from conservbench.models.edip import EDIP
from conservbench.models.load import load_model
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.lattice import lattice_constant
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
