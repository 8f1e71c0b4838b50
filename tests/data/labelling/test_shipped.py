"""The cards that are shipped, and the frames that they are said to make."""

import json
from dataclasses import replace

import numpy as np
import pytest

from conservbench.data.catalogue import PROVENANCE, find_data_set, labelled_entry, shipped_folder
from conservbench.data.check import energy_force_ratio
from conservbench.data.frames import load_all, load_frames
from conservbench.data.labelling.card import read_labelling
from conservbench.data.labelling.product import LARGEST
from conservbench.data.labelling.start import start_structure, strained
from conservbench.data.labelling.walk import walk

CARDS = sorted(path.stem for path in shipped_folder().glob("*.toml"))
MADE = sorted(path.name.removesuffix(PROVENANCE) for path in shipped_folder().glob(f"*{PROVENANCE}"))

PLANNED = {"ethanol-xtb": ("C2H6O", 600), "gan-xtb": ("Ga16N16", 400), "lgps-xtb": ("Ge2Li20P4S24", 300)}
"""Formula, and the least number of frames."""


def card_of(name):
    return read_labelling(shipped_folder() / f"{name}.toml")


def test_all_are_there():
    assert set(CARDS) == set(PLANNED)
    assert set(MADE) == set(CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_plans(name):
    card = card_of(name)
    formula, least = PLANNED[name]
    start = start_structure(card)
    assert start.get_chemical_formula() == formula
    assert card.frames >= least
    plan = card.plan()
    share = sum(each.frames for each in plan if each.test) / card.frames
    assert 0.1 <= share <= 0.25
    # every temperature is trained on and, where there are several trajectories, tested
    trained = {each.temperature for each in plan if not each.test}
    assert {each.temperature for each in plan if each.test} <= trained
    volumes = {round(strained(start, each).get_volume() / start.get_volume(), 3) for each in plan if start.pbc.all()}
    assert not start.pbc.all() or (min(volumes) < 0.98 and max(volumes) > 1.02)


def test_the_start_of_gan_is_a_minimum_by_symmetry():
    start = start_structure(card_of("gan-xtb"))
    distances = np.sort(start.get_all_distances(mic=True), axis=1)
    # four bonds of one length within 1 %
    np.testing.assert_allclose(distances[:, 1:5], distances[:, 1:5].mean(), rtol=0.01)


@pytest.mark.parametrize("name", MADE)
def test_sets(name):
    entry = find_data_set(name)
    path = shipped_folder() / f"{name}.extxyz.xz"
    said = json.loads((shipped_folder() / f"{name}{PROVENANCE}").read_text())
    assert path.stat().st_size < LARGEST
    assert said["card"]["digest"] == card_of(name).digest
    frames = load_all(entry)
    assert len(frames) == said["frames"]["all"] >= PLANNED[name][1]
    assert len(load_frames(entry, "test")) == said["frames"]["test"]
    # no trajectory on both sides
    sides = {(atoms.info["trajectory"], atoms.info["split"]) for atoms in frames}
    assert len(sides) == len({trajectory for trajectory, _ in sides})
    ratio = energy_force_ratio(frames)
    assert ratio is None or 0.8 < ratio < 1.2
    for each in said["trajectories"]:
        assert each["force_correlation"]["largest"] <= card_of(name).walk.correlation


def test_tblite_labels_are_its_own(tmp_path):
    tblite = pytest.importorskip("tblite.ase", reason="tblite is not installed (extra: xtb)")
    from ase.build import molecule

    path = tmp_path / "hydrogen.toml"
    path.write_text(
        'name = "hydrogen"\nversion = 1\ntitle = "t"\nlicense = "l"\ncitation = "c"\n'
        '[start]\nfactory = "ase.build:molecule"\narguments = { name = "H2" }\n'
        '[calculator]\nfactory = "tblite.ase:TBLite"\narguments = { method = "GFN2-xTB", verbosity = 0 }\n'
        "[walk]\ntime_step = 0.5\nfriction = 10.0\nequilibration = 5.0\nspacing = 2.0\ncorrelation = 1.0\nseed = 1\n"
        "[[schedule]]\ntemperature = 300.0\nframes = 2\nisotropic = [0.0, 0.0]\ntest = [1]\n"
    )
    card = read_labelling(path)
    record = walk(card, card.plan()[0], tmp_path)
    assert len(record.frames) == 2
    for frame in record.frames:
        atoms = molecule("H2")
        atoms.set_positions(frame.positions)
        atoms.calc = tblite.TBLite(method="GFN2-xTB", verbosity=0)
        assert atoms.get_potential_energy() == pytest.approx(frame.energy, abs=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), frame.forces, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MADE if name == "ethanol-xtb"])
def test_label_makes_the_shipped_frames_again(name, tmp_path):
    pytest.importorskip("tblite", reason="tblite is not installed (extra: xtb)")
    card = card_of(name)
    trajectory = card.plan()[0]
    record = walk(card, replace(trajectory, frames=2), tmp_path)
    entry = labelled_entry(shipped_folder() / f"{name}{PROVENANCE}")
    shipped = [atoms for atoms in load_all(entry) if atoms.info["trajectory"] == 0][:2]
    for atoms, frame in zip(shipped, record.frames, strict=True):
        # another processor rounds otherwise, which half a picosecond of dynamics lets grow
        np.testing.assert_allclose(atoms.positions, frame.positions, atol=0.02)
        assert atoms.get_potential_energy() == pytest.approx(frame.energy, abs=0.05)
    # the labels themselves do not drift
    from conservbench.data.labelling.calculators import labeller

    again = shipped[0].copy()
    again.calc = labeller(card)()
    assert again.get_potential_energy() == pytest.approx(shipped[0].get_potential_energy(), abs=2e-5)
    np.testing.assert_allclose(again.get_forces(), shipped[0].get_forces(), atol=2e-4)
