"""References: found by name, and what their numbers must obey."""

import numpy as np
import pytest

from conservbench.references import find_reference, list_references


@pytest.fixture(scope="module")
def silicon():
    return find_reference("si-pbe")


def test_unknown_name_suggests_the_near_one():
    with pytest.raises(ValueError, match="no reference 'si-bpe'; did you mean 'si-pbe'"):
        find_reference("si-bpe")


def test_references_have_titles_and_sources():
    assert list(list_references()) == ["si-pbe"]
    for name, title in list_references().items():
        assert title
        assert all(find_reference(name).sources.values())


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
