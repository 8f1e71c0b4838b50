"""Workers that die, records that are damaged, and the set that is left."""

import json
import lzma
import sys
from dataclasses import asdict, replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from click.testing import CliRunner

from conservbench.cli import main
from conservbench.data.catalogue import labelled_entry
from conservbench.data.frames import load_frames
from conservbench.data.labelling import campaign, walk
from conservbench.data.labelling.campaign import label, record_folder
from conservbench.data.labelling.card import read_labelling
from conservbench.data.labelling.product import write_product
from conservbench.data.labelling.record import record_path
from conservbench.process import alone


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


def test_labels_in_other_units_are_no_set(springs, tmp_path):
    card = springs("Hartrees", frames=12)
    records = label(card, tmp_path)
    with pytest.raises(ValueError, match=r"springs: what the calculator says: frame 0: .* they are not in eV and eV/Å"):
        write_product(card, records, tmp_path)
    assert not list(tmp_path.glob("*.xz"))


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
    from conservbench.data.labelling.record import write_record

    short = replace(records[1], frames=records[1].frames[:1], ended=True)
    write_record(short, record_path(tmp_path / "out" / "springs.trajectories", 1))
    result = CliRunner().invoke(main, ["data", "label", str(card.path), "--out", str(tmp_path / "out"), "--jobs", "1"])
    assert result.exit_code == 3
    assert "2 of 6 frames could not be labelled" in result.stderr
    assert not counter.exists()


def test_a_labelling_that_fails_altogether_says_why_and_recovers(springs, tmp_path):
    poison = tmp_path / "poison"
    poison.touch()
    card = springs("Mended", f"poison = '{poison}'", frames=2)
    words = ["data", "label", str(card.path), "--out", str(tmp_path / "out"), "--jobs", "1"]
    for _ in range(2):
        failed = CliRunner().invoke(main, words)
        assert failed.exit_code == 3
        said = " ".join(failed.stderr.split())
        assert "no frame of a train trajectory" in said
        # six of each trajectory, counted anew
        assert "CalculationFailed: no executable 'dft' (12 times)" in said
    told = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)
    assert told["failures"] == {"CalculationFailed: no executable 'dft'": 12}
    poison.unlink()
    mended = CliRunner().invoke(main, words)
    assert mended.exit_code == 0, mended.output
    # as if nothing had ever failed
    unfailing = label(springs("Mended", f"poison = '{poison}'", frames=2), tmp_path / "other")
    assert label(card, tmp_path / "out") == unfailing


def test_a_damaged_record_costs_its_own_trajectory_alone(springs, tmp_path):
    card = springs(frames=2)
    records = label(card, tmp_path)
    folder = record_folder(card, tmp_path)
    damaged, sound = record_path(folder, 1), record_path(folder, 0).stat()
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.warns(UserWarning, match=r"0001\.json: not the record .* set aside as 0001\.json\.damaged"):
        assert label(card, tmp_path) == records
    assert (folder / "0001.json.damaged").stat().st_size == 300
    assert record_path(folder, 0).stat().st_mtime_ns == sound.st_mtime_ns


def test_records_of_another_card_are_named_and_the_others_kept(springs, tmp_path):
    label(springs(frames=1, isotropic="[0.0, 0.01]"), tmp_path)
    card = springs(frames=1, isotropic="[0.0, 0.02]")
    with pytest.raises(ValueError, match=r"1 of 2 records belong to another version of this card: 0001\.json\. Move"):
        label(card, tmp_path)
    folder = record_folder(card, tmp_path)
    sound = record_path(folder, 0).stat()
    record_path(folder, 1).unlink()
    assert [len(record.frames) for record in label(card, tmp_path)] == [1, 1]
    assert record_path(folder, 0).stat().st_mtime_ns == sound.st_mtime_ns


def test_a_calculator_of_ones_own_that_was_edited_is_another_one(springs, tmp_path, monkeypatch):
    for name, spring in (("one", 4.0), ("two", 5.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(
            f"from springs import Springs\n\n\ndef make():\n    return Springs({spring})\n"
        )
    path = springs(frames=1).path
    path.write_text(path.read_text().replace("springs:Springs", "mine:make"))
    monkeypatch.syspath_prepend(str(tmp_path / "one"))
    sys.modules.pop("mine", None)
    card = read_labelling(path)
    before = card.digest
    label(card, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "two"))
    sys.modules.pop("mine", None)
    assert card.digest != before
    with pytest.raises(ValueError, match="2 of 2 records belong to another version"):
        label(card, tmp_path)
    sys.modules.pop("mine", None)


def test_versions_of_a_calculator_are_told_apart(springs, tmp_path, monkeypatch):
    said = {"version": "1.0"}
    for module in (walk, campaign):
        monkeypatch.setattr(module, "packages_of", lambda factory: {"dft": said["version"]})
    records = label(springs(frames=1), tmp_path)
    assert records[0].frames[0].packages == {"dft": "1.0"}
    said["version"] = "1.1"
    # nothing is left to be done, and nothing is mixed
    label(springs(frames=1), tmp_path)
    card = springs(frames=3)
    with pytest.warns(UserWarning, match=r"2 frames by dft 1\.0; the rest will be by dft 1\.1; --fresh"):
        records = label(card, tmp_path)
    _, origin = write_product(card, records, tmp_path)
    assert json.loads(origin.read_text())["calculator"]["labelled_by"] == [
        {"packages": {"dft": "1.0"}, "frames": 2},
        {"packages": {"dft": "1.1"}, "frames": 4},
    ]


def test_records_without_versions_are_read(springs, tmp_path):
    card = springs(frames=2)
    records = label(card, tmp_path)
    path = record_path(record_folder(card, tmp_path), 0)
    table = json.loads(path.read_text())
    for frame in table["frames"]:
        del frame["packages"], frame["tally"]
    path.write_text(json.dumps(table))
    again = label(card, tmp_path)
    assert [frame.positions for frame in again[0].frames] == [frame.positions for frame in records[0].frames]
    _, origin = write_product(card, again, tmp_path)
    said = json.loads(origin.read_text())
    assert said["calculator"]["labelled_by"] == [{"packages": None, "frames": 2}, {"packages": {}, "frames": 2}]
    assert said["trajectories"][0]["steps"] == records[0].steps
    # of a shorter set nobody knows how far its walk went
    write_product(springs(frames=1), again, tmp_path)
    assert [each["steps"] is None for each in json.loads(origin.read_text())["trajectories"]] == [True, False]


def test_the_story_of_a_shorter_set_is_that_of_a_shorter_walk(springs, tmp_path):
    # the mean energy is 0.31 eV: some calculations fail
    longer, shorter = (springs("Failing", "limit = 0.45", frames=frames, spacing=20.0) for frames in (6, 3))
    records = label(longer, tmp_path / "long")
    assert all(record.failures and record.passed_over for record in records)
    stories = []
    for out, found in ((tmp_path / "long", records), (tmp_path / "short", label(shorter, tmp_path / "short"))):
        stories.append(json.loads(write_product(shorter, found, out)[1].read_text())["trajectories"])
    assert stories[0] == stories[1]


def test_two_labellings_do_not_walk_the_same_trajectories(springs, tmp_path):
    card = springs(frames=1)
    with alone(record_folder(card, tmp_path) / ".lock"):
        with pytest.raises(ValueError, match="another process labels here"):
            label(card, tmp_path)
        with pytest.raises(ValueError, match="another process labels here"):
            label(card, tmp_path, fresh=True)
    first = label(card, tmp_path)
    assert label(card, tmp_path, fresh=True) == first


@pytest.mark.parametrize("name", ["ethanol-xtb", "gan-xtb", "lgps-xtb"])
def test_installed_calculators_are_no_part_of_a_digest(name):
    card = read_labelling(Path(__file__).parents[3] / "data" / f"{name}.toml")
    # so that records and sets that exist stay what they are
    assert card._calculator() == asdict(card.calculator)
