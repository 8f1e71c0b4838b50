"""References: found by name, and what their numbers must obey."""

import numpy as np
import pytest

from conservbench.references import CONSTANTS, find_profiles, find_reference, list_references
from conservbench.references.reference import from_table


@pytest.fixture(scope="module")
def silicon():
    return find_reference("si-pbe")


def test_unknown_name_suggests_the_near_one():
    with pytest.raises(ValueError, match="no reference 'si-bpe'; did you mean 'si-pbe'"):
        find_reference("si-bpe")


def test_references_have_titles_and_sources():
    assert {"gan-gfn2", "si-pbe"} <= set(list_references())
    for name, title in list_references().items():
        assert title
        assert all(find_profiles(name).sources.values())


def test_a_reference_without_a_crystal_is_one_of_motion_alone(monkeypatch):
    moving = from_table({"name": "moving", "title": "t", "sources": {}, "rdf": {}})
    monkeypatch.setattr("conservbench.references.find_profiles", lambda _: moving)
    with pytest.raises(ValueError, match="reference 'moving' has no crystal at rest"):
        find_reference("moving")


def test_constants_of_another_family_are_refused():
    table = {"name": "x", "title": "t", "sources": {}, "rdf": {}, "family": "hexagonal", "elastic": [1.0, 2.0, 3.0]}
    table |= {"lattice_constant": 1.0, "force_constants": {}, "phonons": {}}
    with pytest.raises(ValueError, match="3 elastic constants are not those of a 'hexagonal' crystal"):
        from_table(table)


@pytest.fixture(scope="module")
def nitride():
    return find_reference("gan-gfn2")


def test_gallium_nitride_is_wurtzite_of_its_lattice(nitride):
    """GFN2-xTB has a near 3.18 Å; measured are 3.189, 5.185 and 0.377."""
    cell, positions = nitride.primitive.cell, nitride.primitive.positions
    assert nitride.family == "hexagonal"
    assert nitride.lattice_constant == pytest.approx(3.18, abs=0.01)
    np.testing.assert_allclose(np.linalg.norm(cell, axis=1)[:2], nitride.lattice_constant)
    assert cell[2, 2] / nitride.lattice_constant == pytest.approx(1.62, abs=0.02)
    assert (positions[3, 2] - positions[2, 2]) / cell[2, 2] % 0.5 == pytest.approx(0.124, abs=0.005)
    # Born's criteria of a hexagonal crystal, and that it is stiffer under pressure than under shear
    C11, C12, C13, C33, C44 = nitride.elastic
    assert len(nitride.elastic) == len(CONSTANTS["hexagonal"])
    assert min(C11 - C12, C44, (C11 + C12) * C33 - 2 * C13**2) > 0


def test_its_force_constants_and_phonons_are_those_of_wurtzite(nitride):
    matrix = nitride.force_constants.matrix
    np.testing.assert_allclose(matrix, matrix.transpose(1, 0, 3, 2), atol=1e-10)
    np.testing.assert_allclose(matrix.sum(1), 0, atol=1e-9)
    # a site on a threefold axis, and as many orbits of pairs as there are in the supercell
    np.testing.assert_allclose(matrix[0, 0], np.diag(matrix[0, 0].diagonal()), atol=1e-9)
    assert matrix[0, 0, 0, 0] == pytest.approx(matrix[0, 0, 1, 1], rel=1e-9)
    named = {name: nitride.phonons.frequencies[index] for index, name in nitride.phonons.labels}
    np.testing.assert_allclose(named["G"][:3], 0, atol=1e-3)
    # pairs of equal modes at the centre, and of bands that meet at A
    np.testing.assert_allclose(named["G"][3], named["G"][4], atol=1e-5)
    np.testing.assert_allclose(named["A"][::2], named["A"][1::2], atol=1e-5)
    assert (nitride.phonons.frequencies > -1e-3).all()


def test_elastic_constants_are_the_published_ones(silicon):
    assert silicon.elastic == (153.21414, 56.79690, 74.83264)
    assert silicon.lattice_constant == 5.468582


def test_structures_fit_one_another(silicon):
    supercell, a = silicon.force_constants.supercell, silicon.lattice_constant
    np.testing.assert_allclose(supercell.cell, 2 * a * np.eye(3))
    assert supercell.positions.shape == (64, 3)
    np.testing.assert_allclose(np.linalg.det(silicon.primitive.cell), a**3 / 4)
    np.testing.assert_allclose(supercell.positions[silicon.force_constants.primitive], silicon.primitive.positions)
    # every atom has four neighbours at sqrt(3) a / 4
    between = supercell.positions[:, None] - supercell.positions
    between -= 2 * a * np.rint(between / (2 * a))
    distances = np.sort(np.linalg.norm(between, axis=-1), axis=1)
    np.testing.assert_allclose(distances[:, 1:5], np.sqrt(3) * a / 4)


def test_force_constants_obey_what_a_crystal_must(silicon):
    matrix = silicon.force_constants.matrix
    assert matrix.shape == (64, 64, 3, 3)
    np.testing.assert_allclose(matrix, matrix.transpose(1, 0, 3, 2), atol=1e-12)
    np.testing.assert_allclose(matrix.sum(1), 0, atol=1e-9)
    # cubic symmetry of a site
    np.testing.assert_allclose(matrix[7, 7], matrix[0, 0, 0, 0] * np.eye(3), atol=1e-12)
    np.testing.assert_array_equal(silicon.force_constants.rows, matrix[:2])
    assert silicon.force_constants.remainder < 1e-3
    assert len(silicon.force_constants.pairs) == 10


# Gangan et al., arXiv 2409.13844, THz
@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ("G", (0, 0, 0, 15.059, 15.059, 15.059)),
        ("X", (4.401, 4.401, 12.016, 12.016, 13.371, 13.371)),
        ("L", (3.339, 3.339, 11.107, 11.969, 14.283, 14.283)),
    ],
)
def test_phonons_are_the_published_ones(silicon, point, expected):
    where = [index for index, name in silicon.phonons.labels if name == point]
    assert where
    for index in where:
        np.testing.assert_allclose(silicon.phonons.frequencies[index], expected, atol=0.02)


def test_path_is_sound(silicon):
    phonons = silicon.phonons
    assert phonons.frequencies.shape == (len(phonons.points), 6) == (len(phonons.distance), 6)
    assert (np.diff(phonons.frequencies, axis=1) >= 0).all()
    assert (np.diff(phonons.distance) >= 0).all()
    assert [name for _, name in phonons.labels] == ["G", "X", "U", "K", "G", "L"]


@pytest.mark.parametrize(
    ("name", "temperature", "volume", "n_frames"),
    [
        ("si-melt-64", 2000, 20.02, 528),
        ("si-melt-216", 2000, 20.02, 528),
        ("si-warm-64", 1500, 20.02, 540),
        ("si-hot-64", 2530, 20.44, 20),
        ("si-hotter-64", 3374, 20.44, 20),
        ("si-cool-64", 843, 20.44, 20),
    ],
)
def test_profiles_are_those_of_their_states(silicon, name, temperature, volume, n_frames):
    profile = silicon.rdf[name]
    assert (profile.temperature, profile.n_frames, profile.width) == (temperature, n_frames, 0.2)
    assert profile.volume == pytest.approx(volume, abs=0.005)
    np.testing.assert_allclose(profile.r, np.linspace(0.5, 5.5, 100))
    assert profile.g.shape == profile.standard_error.shape == (100,)
    assert (profile.g >= 0).all()
    assert profile.g[profile.r < 1.3].max() < 0.02
    assert 0.002 < profile.standard_error.mean() < 0.02
    np.testing.assert_allclose(np.sqrt(profile.covariance.diagonal()), profile.standard_error)
    assert str(profile.n_frames // len(profile.blocks)) in profile.source


def test_liquid_has_its_published_peak(silicon):
    """First peak 2.43-2.475 Å, 5.3 neighbours within 3 Å; smearing moves the one by 0.05 and the other by 0.3."""
    profile = silicon.rdf["si-melt-64"]
    assert 2.40 < profile.r[profile.g.argmax()] < 2.52
    inside = profile.r <= 3.0
    neighbors = np.trapezoid((4 * np.pi * profile.r**2 * profile.g)[inside], profile.r[inside]) / profile.volume
    assert neighbors == pytest.approx(5.3, abs=0.4)


def test_crystals_have_a_gap_where_liquids_have_a_valley(silicon):
    def valley(name):
        profile = silicon.rdf[name]
        return profile.g[(profile.r > 2.8) & (profile.r < 3.4)].min()

    assert max(map(valley, ("si-warm-64", "si-cool-64"))) < 0.2
    assert min(map(valley, ("si-melt-64", "si-hot-64", "si-hotter-64"))) > 0.8
