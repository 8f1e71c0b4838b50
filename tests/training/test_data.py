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
