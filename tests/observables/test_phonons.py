"""Phonons: published frequencies, phonopy at any wave vector, a chain on paper, gradients by parameters."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell

from conservbench.models.classical import ClassicalPotential
from conservbench.models.edip import EDIP
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.force_constants import force_constants
from conservbench.observables.normal_modes import normal_modes
from conservbench.observables.phonons import (
    band_path,
    crystal,
    dynamical_matrices,
    frequencies,
    phonopy_of,
    repeated,
)
from conservbench.state import from_atoms
from conservbench.units import PICOSECOND

G, X, L = (0.0, 0.0, 0.0), (0.5, 0.0, 0.5), (0.5, 0.5, 0.5)
ANYWHERE = np.array([G, X, L, (0.1, 0.2, 0.3), (0.37, -0.41, 0.05), (0.5, 0.25, 0.75)])
CUBIC = np.array([[-2, 2, 2], [2, -2, 2], [2, 2, -2]])
"""64 atoms of diamond in a cube."""

# Gangan et al., arXiv 2409.13844, THz: highest at Gamma, then X and L without their degeneracies
PUBLISHED = {
    "SW": (StillingerWeber(), 5.431, 17.832, (6.651, 12.993, 15.628), (4.703, 11.768, 13.397, 16.766)),
    "EDIP": (EDIP(), 5.430, 18.696, (7.951, 13.741, 15.626), (5.622, 13.103, 13.336, 17.229)),
}


def constants(model, cells):
    return force_constants(model, "gradient", from_atoms(cells.supercell), cells.atoms.tolist())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_frequencies(name):
    model, lattice_constant, at_gamma, at_x, at_l = PUBLISHED[name]
    cells = repeated(bulk("Si", "diamond", a=lattice_constant), CUBIC)
    found = frequencies(constants(model, cells), cells, [G, X, L]).numpy()
    np.testing.assert_allclose(found[0], [0, 0, 0, *[at_gamma] * 3], atol=0.02)
    np.testing.assert_allclose(found[1], np.repeat(at_x, 2), atol=0.02)
    np.testing.assert_allclose(found[2], np.repeat(at_l, [2, 1, 1, 2]), atol=0.02)


@pytest.mark.parametrize("repeats", [(2, 2, 2), (3, 3, 3), CUBIC])
def test_phonopy_has_the_same_frequencies_at_any_wave_vector(repeats):
    cells = repeated(bulk("Si", "diamond", a=5.431), repeats)
    rows = constants(StillingerWeber(), cells)
    theirs = phonopy_of(rows.numpy(), cells)
    theirs.run_qpoints(ANYWHERE)
    # their constants are of another year: 1e-7 of a frequency
    ours = frequencies(rows, cells, ANYWHERE).numpy()
    stable = ours > 0.1
    np.testing.assert_allclose(ours[stable], theirs.qpoints.frequencies[stable], rtol=5e-7)


def test_phonopy_agrees_on_two_species_in_a_low_lattice():
    """A made-up potential far from its minimum: every phase and every mass counts."""
    primitive = Atoms(
        "SiC", positions=[[0.1, 0, 0], [1.3, 0.9, 0.7]], cell=[[3, 0, 0], [0.4, 3.3, 0], [-0.7, 0.5, 3.9]]
    )
    primitive.pbc = True
    cells = repeated(primitive, (2, 3, 2))
    model = Pairs()
    rows = force_constants(model, "gradient", from_atoms(cells.supercell), cells.atoms.tolist())
    theirs = phonopy_of(rows.numpy(), cells)
    theirs.run_qpoints(ANYWHERE)
    ours = frequencies(rows, cells, ANYWHERE).numpy()
    clear = np.abs(ours) > 0.1
    np.testing.assert_allclose(ours[clear], theirs.qpoints.frequencies[clear], rtol=5e-7)
    assert clear.sum() > 25


class Pairs(ClassicalPotential):
    """E = sum over pairs of (end - r)^3: any element, any lattice."""

    name = "pairs"
    defaults: ClassVar = {"end": 4.1}
    elements = None

    def end(self):
        return self.parameters["end"]

    def energies(self, positions, cell, pairs, state):
        distance = pairs.vectors(positions, cell, state.system).norm(dim=-1)
        left = (self.end() - distance).clamp(min=0)
        return state.sum(left.new_zeros(state.n_atoms).index_add(0, pairs.first, left**3))


def test_order_of_the_supercell_does_not_matter():
    cells = repeated(bulk("Si", "diamond", a=5.431), CUBIC)
    shuffled = cells.supercell[np.random.default_rng(0).permutation(64)]
    shuffled.positions[3] += shuffled.cell.array[0]
    again = crystal(cells.primitive, shuffled)
    np.testing.assert_array_equal(np.bincount(again.kind), [32, 32])
    torch.testing.assert_close(
        frequencies(constants(StillingerWeber(), again), again, ANYWHERE[1:]),
        frequencies(constants(StillingerWeber(), cells), cells, ANYWHERE[1:]),
        rtol=1e-10,
        atol=0,
    )


def test_modes_of_the_supercell_are_those_of_the_wave_vectors_that_fit():
    primitive = bulk("Si", "diamond", a=5.431)
    cells = repeated(primitive, (2, 2, 2))
    fitting = np.array(list(np.ndindex(2, 2, 2))) / 2.0
    found = frequencies(constants(EDIP(), cells), cells, fitting).flatten().sort().values
    whole, _ = normal_modes(EDIP(), "gradient", from_atoms(cells.supercell))
    torch.testing.assert_close(found[3:], whole, rtol=1e-8, atol=1e-8)


def test_chain_has_its_dispersion_on_paper():
    """Springs k between neighbours on a line: omega = 2 sqrt(k/m) |sin(pi q)|."""
    atom = Atoms("Si", cell=[2.0, 20.0, 20.0], pbc=True)
    cells = repeated(atom, (4, 1, 1))
    rows = torch.zeros((1, 4, 3, 3), dtype=torch.float64)
    rows[0, :, 0, 0] = torch.tensor([2.0, -1.0, 0.0, -1.0]) * 5.0
    q = np.array([[0.1, 0, 0], [0.25, 0, 0], [0.37, 0, 0], [0.5, 0, 0]])
    omega = 2 * np.sqrt(5.0 / atom.get_masses()[0]) * np.sin(np.pi * q[:, 0])
    found = frequencies(rows, cells, q)[:, -1]
    np.testing.assert_allclose(found, omega / (2 * np.pi) * PICOSECOND, rtol=1e-12)


def test_imaginary_frequencies_are_negative():
    atom = Atoms("Si", cell=[2.0, 20.0, 20.0], pbc=True)
    cells = repeated(atom, (2, 1, 1))
    rows = torch.zeros((1, 2, 3, 3), dtype=torch.float64)
    rows[0, :, 0, 0] = torch.tensor([-2.0, 2.0])
    assert frequencies(rows, cells, [[0.5, 0, 0]])[0].tolist()[0] < -1.0


def test_gradients_by_parameters_are_those_of_finite_differences():
    cells = repeated(bulk("Si", "diamond", a=5.431), (2, 2, 2))
    model = StillingerWeber()

    def sums(parameters):
        values = frequencies(constants(model.at(parameters), cells), cells, [X, L, (0.1, 0.2, 0.3)])
        # whole sets of equal frequencies, and one that has no equal
        return torch.stack((values[0, :2].sum(), values[1, 4:].sum(), values[1, 2], values[2, 3]))

    leaf = {"lam": torch.tensor(21.0, dtype=torch.float64, requires_grad=True)}
    found = torch.stack([torch.autograd.grad(value, leaf["lam"], retain_graph=True)[0] for value in sums(leaf)])
    ends = [sums({"lam": torch.tensor(21.0 + shift, dtype=torch.float64)}) for shift in (1e-4, -1e-4)]
    torch.testing.assert_close(found, (ends[0] - ends[1]) / 2e-4, rtol=1e-6, atol=1e-9)


def test_acoustic_modes_at_gamma_are_at_rest():
    cells = repeated(bulk("Si", "diamond", a=5.431), CUBIC)
    squares = torch.linalg.eigvalsh(dynamical_matrices(constants(EDIP(), cells), cells, [G]))
    assert float(squares[0, :3].abs().max()) < 1e-12


def test_path_names_its_points():
    primitive = bulk("Si", "diamond", a=5.431)
    path = band_path(primitive, "GXU,KGL", n_points=40)
    named = [name for _, name in path.labels]
    assert named == ["G", "X", "U", "K", "G", "L"]
    places = dict(zip(named[1:3], (path.points[index] for index, _ in path.labels[1:3]), strict=True))
    np.testing.assert_allclose(places["X"], X)
    np.testing.assert_allclose(places["U"], [0.625, 0.25, 0.625])
    assert len(path.points) == len(path.distance) == 40
    # the length from Gamma to X is 2 pi / a
    assert path.distance[path.labels[1][0]] == pytest.approx(2 * np.pi / 5.431)
    assert (np.diff(path.distance) >= 0).all()


def test_cells_that_do_not_fit_are_refused():
    primitive = bulk("Si", "diamond", a=5.431)
    with pytest.raises(ValueError, match="whole multiples"):
        crystal(primitive, bulk("Si", "diamond", a=5.5, cubic=True))
    displaced = make_supercell(primitive, CUBIC)
    displaced.positions[7] += 0.1
    with pytest.raises(ValueError, match="not images"):
        crystal(primitive, displaced)
    cells = repeated(primitive, (2, 2, 2))
    with pytest.raises(ValueError, match="shape"):
        frequencies(torch.zeros((16, 16, 3, 3), dtype=torch.float64), cells, [G])
