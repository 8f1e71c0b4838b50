"""Published force constants against our own, and how references are made of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from conservbench.data.catalogue import find_data_set
from conservbench.data.locate import locate
from conservbench.data.readers.phonopy import read_force_constants
from conservbench.models.edip import EDIP
from conservbench.models.stillinger_weber import StillingerWeber
from conservbench.observables.force_constants import force_constants, matrix_distance
from conservbench.observables.phonons import crystal, frequencies
from conservbench.observables.rdf import smeared_rdf
from conservbench.references import find_reference
from conservbench.references.reference import from_table
from conservbench.state import from_atoms
from conservbench.training import reference as making

Q = [(0.0, 0.0, 0.0), (0.5, 0.0, 0.5), (0.5, 0.5, 0.5)]

# Gangan et al., arXiv 2409.13844: distance to the PBE force constants over 192 x 192 entries, eV/Å^2
DISTANCES = {
    "EDIP": (EDIP(), 106.454),
    "SW, scaled length": (StillingerWeber({"sigma": 2.123822}, cutoff=3.77118), 78.095),
    "SW, optimised": (
        StillingerWeber({"sigma": 2.123822, "epsilon": 1.576510856, "lam": 22.759370705}, cutoff=3.77118),
        14.194132,
    ),
}


@pytest.fixture(scope="module")
def silicon():
    return find_reference("si-pbe")


def atoms_of(sites):
    return Atoms(numbers=sites.numbers, positions=sites.positions, cell=sites.cell, pbc=True)


def published(name):
    """The public force constants, where they are at hand."""
    try:
        path = locate(find_data_set("si-force-constants"), name)
    except OSError as error:
        pytest.skip(str(error))
    return torch.as_tensor(read_force_constants(path))


def published_crystal(lattice_constant):
    primitive = bulk("Si", "diamond", a=lattice_constant)
    primitive.positions += [0, 0, lattice_constant / 2]
    return crystal(primitive, making.published_supercell(lattice_constant))


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_of_classical_potentials_to_pbe(silicon, name):
    model, expected = DISTANCES[name]
    given = silicon.force_constants
    rows = force_constants(model, "gradient", from_atoms(atoms_of(given.supercell)), given.primitive.tolist())
    found = float(matrix_distance(rows, torch.as_tensor(given.rows), given.remainder))
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_are_those_of_the_published_matrix(silicon, name):
    matrix = published("pbe")
    model, _ = DISTANCES[name]
    sites = making.published_supercell(silicon.lattice_constant)
    whole = float((force_constants(model, "gradient", from_atoms(sites)) - matrix).norm())
    given = silicon.force_constants
    rows = force_constants(model, "gradient", from_atoms(atoms_of(given.supercell)), given.primitive.tolist())
    assert float(matrix_distance(rows, torch.as_tensor(given.rows), given.remainder)) == pytest.approx(whole, abs=1e-6)


def test_frequencies_of_the_published_matrix_are_those_of_the_reference(silicon):
    cells = published_crystal(silicon.lattice_constant)
    found = frequencies(published("pbe")[cells.atoms], cells, silicon.phonons.points).numpy()
    optical = silicon.phonons.frequencies > 1.0
    np.testing.assert_allclose(found[optical], silicon.phonons.frequencies[optical], atol=1e-4)
    # the published ones leave a translation a little force
    np.testing.assert_allclose(found, silicon.phonons.frequencies, atol=0.01)


@pytest.mark.parametrize(
    ("name", "model", "lattice_constant", "optical", "worst"),
    [("stillinger-weber", StillingerWeber(), 5.431, 17.832, 4e-4), ("edip", EDIP(), 5.430, 18.696, 4e-3)],
)
def test_published_matrices_of_classical_potentials_are_ours(name, model, lattice_constant, optical, worst):
    """They were made by finite displacements, whose errors these are."""
    matrix = published(name)
    cells = published_crystal(lattice_constant)
    ours = force_constants(model, "gradient", from_atoms(cells.supercell))
    torch.testing.assert_close(ours, matrix, rtol=0, atol=worst)
    theirs = frequencies(matrix[cells.atoms], cells, Q)
    assert float(theirs[0, -1]) == pytest.approx(optical, abs=0.001)
    torch.testing.assert_close(theirs[1:], frequencies(ours[cells.atoms], cells, Q)[1:], rtol=0, atol=0.01)


def test_reference_is_what_the_public_data_give(tmp_path, monkeypatch):
    matrix = published("pbe")
    for name in ("_melt", "_hot_crystal"):
        monkeypatch.setattr(making, name, lambda: {"systems": []})
    monkeypatch.setattr(making, "_aimd", lambda kelvin, system: {"systems": []})
    monkeypatch.setattr("sys.argv", ["reference", "--out", str(tmp_path)])
    making.main()
    made = (tmp_path / "si-pbe.json").read_text().split('"rdf"')[0]
    shipped = (Path(making.__file__).parents[1] / "references" / "si-pbe.json").read_text().split('"rdf"')[0]
    assert made.splitlines()[:5] == shipped.splitlines()[:5]
    given = find_reference("si-pbe").force_constants
    sites = making.published_supercell(5.468582)
    order = making._order(atoms_of(given.supercell), sites)
    off = matrix.numpy()[np.ix_(order, order)] - given.matrix
    assert np.linalg.norm(off) == pytest.approx(given.remainder, rel=1e-6)


def test_g_of_lgps_is_that_of_whole_trajectories_at_rest_in_their_cell(monkeypatch):
    """Strained, sheared and other temperatures are left out; the blocks are trajectories of one length."""
    frames = []
    kinds = [("700 K", 1.0, 0.0)] * 3 + [("700 K", 1.02, 0.0), ("700 K", 1.0, 0.5)] + [("300 K", 1.0, 0.0)] * 2
    for trajectory, (group, stretch, shear) in enumerate(kinds):
        for seed in range(4 if trajectory else 3):
            atoms = bulk("LiF", "rocksalt", a=4.0 * stretch, cubic=True)
            atoms.set_cell(atoms.cell.array + np.array([[0, 0, 0], [0, 0, 0], [0, shear, 0]]), scale_atoms=True)
            atoms.rattle(0.05, seed=10 * trajectory + seed)
            atoms.info = {"group": group, "trajectory": trajectory}
            frames.append(atoms)
    known = type("Known", (), {"name": "lgps-xtb", "citation": "somebody"})
    monkeypatch.setattr(making, "find_data_set", lambda _: known)
    monkeypatch.setattr(making, "load_frames", lambda _, split: frames if split == "train" else [])
    table = making.lgps_gfn1()
    (profile,) = from_table(table).rdf.values()
    assert (profile.blocks.shape, profile.n_frames, profile.temperature) == ((3, 100), 9, 700)
    assert profile.volume == pytest.approx(8.0)
    expected = smeared_rdf(from_atoms(frames[:3]), profile.r, 0.1).mean(0)
    np.testing.assert_allclose(profile.blocks[0], expected, atol=1e-4)


def test_a_reference_that_is_not_known_suggests_the_near_one(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["reference", "lgps-gnf1"])
    with pytest.raises(SystemExit):
        making.main()
    assert "no reference 'lgps-gnf1'; did you mean 'lgps-gfn1'" in capsys.readouterr().err
