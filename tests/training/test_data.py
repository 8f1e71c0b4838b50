"""The catalogue of data sets: names, checksums, units."""

import numpy as np
import pytest

from conservbench.training import data


def test_catalogue_entries_are_complete():
    entry = data.find_data_set("mlearn-si")
    assert entry.license == "BSD-3-Clause"
    assert set(entry.files) == {"train", "test"}
    assert all(file.url.startswith("https://") and len(file.sha256) == 64 for file in entry.files.values())


def test_unknown_name_suggests_the_near_one():
    with pytest.raises(ValueError, match="did you mean 'mlearn-si'"):
        data.find_data_set("mlearn-sl")


def test_local_folder_comes_first(miniature, tmp_path):
    assert data.locate(miniature, "train") == tmp_path / "train.json"


def test_frames_carry_labels(miniature):
    frames = data.load_frames(miniature, "test")
    assert len(frames) == 4
    assert frames[0].info["group"] == "even"
    assert frames[0].pbc.all()
    # energy in eV and forces in eV/Å are consistent: a small step along x changes one by the other
    atoms = frames[0]
    from ase.calculators.lj import LennardJones

    moved = atoms.copy()
    moved.positions[1, 0] += 1e-4
    moved.calc = LennardJones(sigma=2.7, epsilon=0.3, rc=5.0, smooth=True)
    slope = (moved.get_potential_energy() - atoms.get_potential_energy()) / 1e-4
    assert -slope == pytest.approx(atoms.get_forces()[1, 0], abs=1e-2)
    assert np.abs(atoms.get_forces()).max() > 0.1


def test_wrong_checksum_is_refused(miniature, tmp_path):
    path = tmp_path / "train.json"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="wrong checksum"):
        data.locate(miniature, "train")


def test_missing_file_without_network_says_so(miniature, tmp_path, monkeypatch):
    (tmp_path / "test.json").unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(OSError, match=r"miniature.*CONSERVBENCH_DATA"):
        data.locate(miniature, "test")


def test_unknown_file_of_a_data_set_is_named(miniature):
    with pytest.raises(ValueError, match="miniature has no file 'tests'; did you mean 'test'"):
        data.locate(miniature, "tests")


def test_what_is_known_of_every_entry():
    for entry in data.catalogue().values():
        assert all((entry.title, entry.units, entry.license, entry.doi, entry.citation))
        assert entry.home.startswith("https://")
        assert all(len(file.sha256) == 64 and file.url.startswith("https://") for file in entry.files.values())
    assert data.find_data_set("fitsnap-si").license == "none stated"


def test_files_without_structures_have_no_frames():
    with pytest.raises(ValueError, match="no labelled structures"):
        data.load_frames(data.find_data_set("si-force-constants"), "pbe")


def test_fitsnap_header_is_read(tmp_path):
    path = tmp_path / "two.xyz"
    frame = (
        "2\n"
        'Lattice = "10.8618 0.0 0.0          0.0 10.8618 0.0          0.0 0.0 10.8618" '
        'Properties=species:S:1:pos:R:3:forces:R:3 energy=-2.5 stress = "1 0 0  0 2 0  0 0 3"\n'
        "Si 7.5 10.0 -12.25 1.0 -0.5 0.25\n"
        "Si 0.0 0.0 0.0 -1.0 0.5 -0.25\n"
    )
    path.write_text(2 * frame)
    frames = data.read_fitsnap(path)
    assert len(frames) == 2
    assert frames[0].get_potential_energy() == -2.5
    np.testing.assert_array_equal(frames[1].get_forces(), [[1.0, -0.5, 0.25], [-1.0, 0.5, -0.25]])
    np.testing.assert_array_equal(frames[0].positions[0], [7.5, 10.0, -12.25])
    np.testing.assert_allclose(frames[0].cell.array, 10.8618 * np.eye(3))
    assert frames[0].pbc.all()


def test_force_constants_are_read_as_phonopy_wrote_them(tmp_path):
    from phonopy.file_IO import write_FORCE_CONSTANTS

    expected = np.random.default_rng(0).normal(size=(3, 3, 3, 3))
    path = tmp_path / "FORCE_CONSTANTS"
    write_FORCE_CONSTANTS(expected, filename=path)
    np.testing.assert_allclose(data.read_force_constants(path), expected, atol=1e-14)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-4]))
    with pytest.raises(ValueError, match="all pairs of 3 atoms"):
        data.read_force_constants(path)
