"""The catalogue of data sets: names, checksums, units, splits."""

import hashlib
import json

import pytest

from conservbench.data import catalogue as catalogue_module
from conservbench.data.catalogue import DataFolder, catalogue, find_data_set, labelled_entry
from conservbench.data.frames import load_frames
from conservbench.data.split import RULES


def test_entries_are_complete():
    for entry in catalogue().values():
        assert all((entry.title, entry.units, entry.license, entry.citation))
        assert entry.home.startswith("https://")
        assert entry.files or entry.options
        for file in entry.members():
            assert len(file.sha256) == 64
            # what has no address travels with the package
            assert file.url.startswith("https://") or (catalogue_module.shipped_folder() / file.local).is_file()


def test_what_is_known_of_some():
    assert find_data_set("mlearn-si").license == "BSD-3-Clause"
    assert set(find_data_set("mlearn-si").files) == {"train", "test"}
    for name in ("fitsnap-si", "gan-volume"):
        assert find_data_set(name).license == "none stated"
    water = find_data_set("water")
    assert isinstance(water.files["frames"], DataFolder)
    assert len(water.members()) == 28
    assert RULES


def test_unknown_name_suggests_the_near_one():
    with pytest.raises(ValueError, match="did you mean 'mlearn-si'"):
        find_data_set("mlearn-sl")


def test_files_without_structures_have_no_frames():
    for name in ("si-force-constants", "water-32"):
        with pytest.raises(ValueError, match="no labelled structures"):
            load_frames(find_data_set(name), "train")


def test_a_path_is_a_data_set_of_its_own(tmp_path):
    with pytest.raises(ValueError, match=r"no data file .*mine\.xyz"):
        find_data_set(str(tmp_path / "mine.xyz"))
    (tmp_path / "mine.xyz").touch()
    entry = find_data_set(str(tmp_path / "mine.xyz"))
    assert (entry.name, entry.reader, entry.split) == ("mine", "extxyz", "marked, or every 10th")


def test_sets_that_label_made_are_listed(tmp_path, monkeypatch):
    said = {"file": "made.extxyz.xz", "sha256": hashlib.sha256(b"x").hexdigest()}
    said |= dict.fromkeys(("title", "units", "license", "home", "doi", "citation"), "-")
    (tmp_path / "made.provenance.json").write_text(json.dumps({"data": said}))
    monkeypatch.setattr(catalogue_module, "shipped_folder", lambda: tmp_path)
    listed = catalogue.__wrapped__()
    assert listed["made"] == labelled_entry(tmp_path / "made.provenance.json")
    assert {"mlearn-si", "water", "ethanol"} <= set(listed)


def test_splits_of_public_sets(reference_data):
    counts = {"water": (360, 40), "ethanol": (80, 20), "mlearn-si": (214, 25)}
    for name, expected in counts.items():
        entry = find_data_set(name)
        assert tuple(len(load_frames(entry, split)) for split in ("train", "test")) == expected
