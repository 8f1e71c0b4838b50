"""Walks of a harmonic crystal: what statistical mechanics says of it, and that interruptions leave no trace."""

from itertools import pairwise

import numpy as np
import pytest
from ase.build import bulk

from conservbench.cards import CardError
from conservbench.data.labelling.campaign import label
from conservbench.data.labelling.card import read_labelling
from conservbench.data.labelling.record import read_record, record_path, write_record
from conservbench.data.labelling.start import start_structure
from conservbench.data.labelling.walk import walk
from conservbench.units import BOLTZMANN


def test_kept_frames_are_canonical(springs, tmp_path):
    # the potential energy of a harmonic crystal is kT/2 times a chi-square of 3N degrees of freedom
    card = springs(frames=80, temperature=500.0)
    record = walk(card, card.plan()[0], tmp_path)
    energies = np.array([frame.energy for frame in record.frames])
    freedom = 3 * 8
    expected = 0.5 * freedom * BOLTZMANN * 500.0
    spread = expected * np.sqrt(2.0 / freedom)
    # frames are nearly independent: 4 standard errors, with half as many frames as there are, 1 in 16000
    assert abs(energies.mean() - expected) < 4 * spread / np.sqrt(len(energies) / 2)
    # the scatter is that of the ensemble, not of a walk that sits still: within 40 %, over 4 standard errors
    assert energies.std() == pytest.approx(spread, rel=0.4)
    # 24 momenta over 80 frames of 60 fs, which forget themselves within 100 fs: 15 % is over 4 standard errors
    assert record.tally.mean_temperature == pytest.approx(500.0, rel=0.15)


def test_frames_are_decorrelated_by_their_forces(springs, tmp_path):
    # with a frame after every step the walk must go on where forces still are like those of the last frame
    card = springs(frames=20, spacing=4.0, correlation=0.3)
    record = walk(card, card.plan()[0], tmp_path)
    kept = record.frames
    assert kept[0].correlation is None
    for one, other in pairwise(kept):
        first, second = np.array(one.forces), np.array(other.forces)
        overlap = (first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second)
        assert other.correlation == pytest.approx(overlap)
        assert abs(overlap) <= 0.3
    assert record.passed_over > 20
    free = springs(frames=20, spacing=4.0, correlation=1.0)
    loose = walk(free, free.plan()[0], tmp_path / "loose")
    assert loose.passed_over == 0
    # one step of 4 fs of a period of 80 fs: forces are nearly those of before
    assert np.mean([frame.correlation for frame in loose.frames[1:]]) > 0.8


@pytest.mark.parametrize("calculator", ["Springs", "Remembering"])
def test_a_resumed_walk_is_the_uninterrupted_one(springs, tmp_path, calculator):
    card = springs(calculator, frames=6)
    trajectory = card.plan()[0]
    whole = walk(card, trajectory, tmp_path / "whole")
    folder = tmp_path / "parts"
    path = record_path(folder, 0)

    class Stop(BaseException):
        pass

    def stop(frames):
        raise Stop

    for _ in range(5):
        with pytest.raises(Stop):
            walk(card, trajectory, folder, stop)
    assert len(read_record(path, card.digest_of(trajectory)).frames) == 5
    assert walk(card, trajectory, folder) == whole


def test_a_failed_calculation_starts_the_walk_again(springs, tmp_path):
    # the mean energy is 0.31 eV
    card = springs("Failing", "limit = 0.45", frames=4)
    record = walk(card, card.plan()[0], tmp_path)
    assert len(record.frames) == 4
    assert record.failures
    assert all("SCF not converged" in failure["reason"] for failure in record.failures)
    assert record.attempt == len(record.failures)
    assert all(frame.energy <= 0.45 for frame in record.frames)


def test_interruption_after_a_failure_leaves_no_trace(springs, tmp_path):
    card = springs("Failing", "limit = 0.45", frames=4)
    whole = walk(card, card.plan()[0], tmp_path / "whole")
    assert whole.failures

    class Stop(BaseException):
        pass

    def stop(frames):
        raise Stop

    for _ in range(len(whole.frames) + len(whole.failures)):
        with pytest.raises(Stop):
            walk(card, card.plan()[0], tmp_path / "parts", stop)
    assert walk(card, card.plan()[0], tmp_path / "parts", stop) == whole


def test_a_trajectory_that_cannot_go_on_ends_and_says_why(springs, tmp_path):
    card = springs("Blind", frames=3)
    record = walk(card, card.plan()[0], tmp_path)
    assert record.ended
    assert record.frames == []
    assert len(record.failures) == card.walk.failures + 1
    assert "not finite" in record.failures[0]["reason"] or "exploded" in record.failures[0]["reason"]


def test_the_energy_is_the_one_that_forces_derive_from(springs, tmp_path):
    card = springs("Smeared")
    frame = walk(card, card.plan()[0], tmp_path).frames[0]
    # of springs of 4 eV/Å^2
    assert frame.energy == pytest.approx(np.square(frame.forces).sum() / (2 * 4.0))


def test_a_set_may_do_without_stress(springs, tmp_path):
    card = springs("Stressless")
    record = walk(card, card.plan()[0], tmp_path)
    assert len(record.frames) == 4
    assert all(frame.stress is None for frame in record.frames)


@pytest.mark.parametrize(
    ("calculator", "reason"),
    [("Silent", "makes a calculator without forces"), ("Broken", "failed: RuntimeError: no licence")],
)
def test_a_factory_that_makes_no_use_is_told(springs, tmp_path, calculator, reason):
    card = springs(calculator)
    with pytest.raises(CardError, match=f"springs:{calculator}' {reason}"):
        walk(card, card.plan()[0], tmp_path)


def test_forces_that_stay_alike_are_a_failure(springs, tmp_path):
    card = springs(frames=3, spacing=4.0, correlation=1e-9)
    record = walk(card, card.plan()[0], tmp_path)
    assert len(record.frames) == 1
    assert "stay like" in record.failures[0]["reason"]


def test_records_of_another_card_are_refused(springs, tmp_path):
    card = springs(frames=1)
    walk(card, card.plan()[0], tmp_path / "out")
    hotter = springs(frames=1, temperature=310.0)
    with pytest.raises(ValueError, match="another version of this card"):
        walk(hotter, hotter.plan()[0], tmp_path / "out")
    # more frames are the same walk, further
    longer = springs(frames=2)
    first = read_record(record_path(tmp_path / "out", 0), card.digest_of(card.plan()[0]))
    record = walk(longer, longer.plan()[0], tmp_path / "out")
    assert record.frames[0] == first.frames[0]
    assert len(record.frames) == 2


def test_records_that_began_from_another_file_are_refused(springs, tmp_path):
    path = springs(frames=1).path
    path.write_text(path.read_text().replace('factory = "springs:crystal"', 'file = "start.xyz"'))
    from springs import crystal

    start = crystal()
    start.write(tmp_path / "start.xyz")
    card = read_labelling(path)
    walk(card, card.plan()[0], tmp_path / "out")
    start.rattle(0.01)
    start.write(tmp_path / "start.xyz")
    with pytest.raises(ValueError, match="another version of this card"):
        walk(card, card.plan()[0], tmp_path / "out")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: text.replace("5.431", "nan", 1), "the cell is not finite"),
        (lambda text: text.replace("Si ", "X ", 1), "unknown element of atom 0"),
        (lambda text: text.replace("Si ", "Qq ", 1), "unknown element 'Qq'"),
    ],
)
def test_a_start_that_cannot_be_is_refused(springs, tmp_path, spoil, reason):
    path = springs(frames=1).path
    path.write_text(path.read_text().replace('factory = "springs:crystal"', 'file = "start.xyz"'))
    bulk("Si", a=5.431, cubic=True).write(tmp_path / "start.xyz")
    (tmp_path / "start.xyz").write_text(spoil((tmp_path / "start.xyz").read_text()))
    with pytest.raises(CardError, match=rf"\[start\].*start\.xyz.*{reason}"):
        start_structure(read_labelling(path))


def test_a_broken_record_is_told(springs, tmp_path):
    card = springs(frames=1)
    path = record_path(tmp_path, 0)
    record = walk(card, card.plan()[0], tmp_path)
    write_record(record, path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"0000\.json: not the record of a trajectory"):
        walk(card, card.plan()[0], tmp_path)


def test_another_model_can_move_the_atoms(springs, tmp_path):
    card = springs(frames=3, temperature=100.0, extra='sampler = "toy.toml"\n')
    (tmp_path / "toy.toml").write_text(
        'name = "toy"\nversion = 1\ntitle = "EMT"\nloader = "ase"\nscheme = "gradient"\n'
        '[options]\nfactory = "ase.calculators.emt:EMT"\n'
    )
    record = walk(card, card.plan()[0], tmp_path / "out")
    # labels are of the springs though EMT moved the atoms
    from springs import SPRING, crystal

    for frame in record.frames:
        away = np.array(frame.positions) - crystal().positions
        np.testing.assert_allclose(frame.forces, -SPRING * away)
    assert len({frame.energy for frame in record.frames}) == 3


def test_another_model_of_the_same_name_is_another_walk(springs, tmp_path):
    card = springs(frames=1, temperature=100.0, extra='sampler = "toy.toml"\n')
    toy = tmp_path / "toy.toml"
    toy.write_text(
        'name = "toy"\nversion = 1\ntitle = "EMT"\nloader = "ase"\nscheme = "gradient"\n'
        '[options]\nfactory = "ase.calculators.emt:EMT"\n'
    )
    before = card.digest, card.digest_of(card.plan()[0])
    walk(card, card.plan()[0], tmp_path / "out")
    toy.write_text(toy.read_text().replace("emt:EMT", "lj:LennardJones"))
    after = card.digest, card.digest_of(card.plan()[0])
    assert before[0] != after[0]
    assert before[1] != after[1]
    with pytest.raises(ValueError, match="another version of this card"):
        walk(card, card.plan()[0], tmp_path / "out")


def test_jobs_and_order_change_nothing(springs, tmp_path):
    card = springs(frames=3)
    alone = label(card, tmp_path / "alone")
    assert [len(record.frames) for record in alone] == [3, 3]
    assert alone[0].frames[0].positions != alone[1].frames[0].positions
    assert label(card, tmp_path / "pool", jobs=2) == alone
