"""Workers that die, and the set that is left."""

import json
import lzma

import ase.io
import numpy as np
import pytest
from click.testing import CliRunner

from conservbench.cli import main
from conservbench.data.catalogue import labelled_entry
from conservbench.data.frames import load_frames
from conservbench.data.labelling.campaign import label
from conservbench.data.labelling.product import write_product


def test_a_worker_that_dies_once_costs_nothing(springs, tmp_path):
    poison = tmp_path / "poison"
    poison.touch()
    # the strained cell alone is deadly, while the file is there
    arguments = f"poison = '{poison}', once = true"
    card = springs("Deadly", arguments, frames=2, isotropic="[0.0, 0.03]")
    records = label(card, tmp_path / "out", jobs=2)
    assert not poison.exists()
    assert [len(record.frames) for record in records] == [2, 2]
    assert label(card, tmp_path / "again") == records


def test_a_deadly_trajectory_is_recorded_and_the_others_go_on(springs, tmp_path):
    poison = tmp_path / "poison"
    poison.touch()
    card = springs("Deadly", f"poison = '{poison}', once = false", frames=2, isotropic="[0.0, 0.03, 0.0]")
    records = label(card, tmp_path / "out", jobs=2)
    assert [len(record.frames) for record in records] == [2, 0, 2]
    assert "worker died twice" in records[1].failures[0]["reason"]
    with pytest.raises(ValueError, match="no frame of a test trajectory"):
        write_product(card, records, tmp_path / "out")


def test_the_set_is_read_back_split_by_trajectory(springs, tmp_path):
    card = springs(frames=3)
    records = label(card, tmp_path)
    path, origin = write_product(card, records, tmp_path)
    frames = ase.io.read(path, index=":", format="extxyz")
    assert [atoms.info["split"] for atoms in frames] == ["train"] * 3 + ["test"] * 3
    assert {atoms.info["group"] for atoms in frames} == {"300 K"}
    for atoms, kept in zip(frames, [frame for record in records for frame in record.frames], strict=True):
        np.testing.assert_allclose(atoms.positions, kept.positions, atol=5.1e-7)
        np.testing.assert_allclose(atoms.get_forces(), kept.forces, atol=5.1e-6)
        assert atoms.get_potential_energy() == pytest.approx(kept.energy, abs=5.1e-7)
        np.testing.assert_allclose(atoms.get_stress(), 0.0)
    said = json.loads(origin.read_text())
    assert said["frames"] == {"all": 6, "train": 3, "test": 3}
    assert [each["split"] for each in said["trajectories"]] == ["train", "test"]
    assert said["trajectories"][0]["force_correlation"]["largest"] <= 0.4
    assert said["card"]["digest"] == card.digest


def test_the_provenance_is_an_entry_of_the_catalogue(springs, tmp_path, monkeypatch):
    card = springs(frames=2)
    path, origin = write_product(card, label(card, tmp_path), tmp_path)
    monkeypatch.setenv("CONSERVBENCH_DATA", str(tmp_path))
    entry = labelled_entry(origin)
    assert (entry.name, entry.license, entry.split) == ("springs", "CC0-1.0", "marked")
    assert len(load_frames(entry, "train")) == len(load_frames(entry, "test")) == 2
    # cut off, it is refused by its checksum, and by its reader
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="wrong checksum"):
        load_frames(entry, "train")
    with pytest.raises(lzma.LZMAError):
        lzma.decompress(path.read_bytes())
    origin.write_text("{}")
    with pytest.raises(ValueError, match="not the provenance"):
        labelled_entry(origin)


def test_the_verb_goes_on_and_tells_what_is_missing(springs, tmp_path):
    card = springs(frames=2)
    words = ["data", "label", str(card.path), "--out", str(tmp_path / "out"), "--jobs", "1"]
    first = CliRunner().invoke(main, words)
    assert first.exit_code == 0, first.output
    assert "springs.extxyz.xz" in first.output
    content = (tmp_path / "out" / "springs.extxyz.xz").read_bytes()
    again = CliRunner().invoke(main, [*words, "--json"])
    assert again.exit_code == 0
    assert json.loads(again.stdout)["frames"]["all"] == 4
    assert (tmp_path / "out" / "springs.extxyz.xz").read_bytes() == content
    anew = CliRunner().invoke(main, [*words, "--fresh"])
    assert anew.exit_code == 0
    assert (tmp_path / "out" / "springs.extxyz.xz").read_bytes() == content


def test_what_could_not_be_labelled_is_an_exit_code(springs, tmp_path):
    counter = tmp_path / "count"
    card = springs(frames=3, spacing=4.0, correlation=0.9, isotropic="[0.0, 0.0]")
    # as if the second trajectory had ended early
    records = label(card, tmp_path / "out")
    from dataclasses import replace

    from conservbench.data.labelling.record import record_path, write_record

    short = replace(records[1], frames=records[1].frames[:1], ended=True)
    write_record(short, record_path(tmp_path / "out" / "springs.trajectories", 1))
    result = CliRunner().invoke(main, ["data", "label", str(card.path), "--out", str(tmp_path / "out"), "--jobs", "1"])
    assert result.exit_code == 3
    assert "2 of 6 frames could not be labelled" in result.stderr
    assert not counter.exists()
