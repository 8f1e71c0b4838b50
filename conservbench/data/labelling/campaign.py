"""Walk along all trajectories of a card, in spawned processes, going on from what is there.

Trajectories are independent of each other and of who walks them, so that neither the number of processes nor an
interruption changes a bit of the result on one machine.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from conservbench import process
from conservbench.data.labelling.calculators import labeller, packages_of, sampler
from conservbench.data.labelling.card import Labelling, Trajectory
from conservbench.data.labelling.record import (
    DamagedRecordError,
    OtherWalkError,
    Record,
    read_record,
    record_path,
    write_record,
)
from conservbench.data.labelling.start import start_structure
from conservbench.data.labelling.walk import walk
from conservbench.workers import News, WorkersError, run_in_workers

Progress = Callable[[int, int, str], None]
"""Told after each frame: how many are kept, of how many, and of which trajectory the last is."""

DEATH: Final = "its worker died twice, killed by the system or by the calculator's own code"


def record_folder(card: Labelling, out: Path) -> Path:
    """Where the records of a card's trajectories lie until they are no longer needed."""
    return out / f"{card.name}.trajectories"


def label(
    card: Labelling, out: Path, *, jobs: int = 1, fresh: bool = False, progress: Progress | None = None
) -> list[Record]:
    """Walk along all trajectories of a card.

    Unfinished ones go on where they were. Those that ended without a frame begin anew, as what failed may have been
    mended; so do those whose record is damaged, which is set aside.

    Args:
        card: what is labelled and how.
        out: folder in which the folder of the records is made.
        jobs: processes; 1 walks in this one.
        fresh: begin anew; without it, what is unfinished goes on.
        progress: told of each frame.

    Returns:
        The records, in the order of the plan.

    Raises:
        ValueError: the card does not fit, the folder holds records of another version of it, or another process works
            on them.
    """
    folder = record_folder(card, out)
    # told before any process is started
    sampler(card, start_structure(card))
    labeller(card)()
    try:
        with process.alone_at_once(folder / ".lock"):
            if fresh:
                for path in folder.glob("*.json"):
                    path.unlink()
            return _walk_all(card, folder, jobs, progress)
    except process.BusyError as error:
        raise ValueError(f"{folder}: another process labels here; wait for it, or choose another --out") from error


def _walk_all(card: Labelling, folder: Path, jobs: int, progress: Progress | None) -> list[Record]:
    plan = card.plan()
    records = _taken_up(card, folder)
    kept = {each.index: len(record.frames) for each, record in zip(plan, records, strict=True)}

    def report(index: int, frames: int) -> None:
        kept[index] = frames
        if progress is not None:
            progress(sum(kept.values()), card.frames, f"trajectory {index}: {plan[index].group}")

    waiting = [each for each, record in zip(plan, records, strict=True) if not _done(each, record)]
    # the longest first, so that no process is left alone at the end
    waiting.sort(key=lambda each: kept[each.index] - each.frames)
    if waiting:
        _tell_other_versions(card, folder, records)
    if jobs == 1:
        for each in waiting:
            walk(card, each, folder, _reporter(report, each.index))
    else:
        _walk_in_workers(card, waiting, folder, jobs, report)
    return [read_record(record_path(folder, each.index), card.digest_of(each)) for each in plan]


def _taken_up(card: Labelling, folder: Path) -> list[Record]:
    """The records that a labelling begins with, in the order of the plan.

    Raises:
        ValueError: some are of another version of the card.
    """
    records: list[Record] = []
    others: list[str] = []
    for each in card.plan():
        path, digest = record_path(folder, each.index), card.digest_of(each)
        try:
            record = read_record(path, digest)
        except OtherWalkError:
            others.append(path.name)
            continue
        except DamagedRecordError as error:
            aside = path.with_name(f"{path.name}.damaged")
            os.replace(path, aside)
            warnings.warn(f"{error}: set aside as {aside.name}; this trajectory begins anew", stacklevel=4)
            record = Record(digest)
        if record.ended and not record.frames:
            path.unlink()
            record = Record(digest)
        records.append(record)
    if others:
        raise ValueError(
            f"{folder}: {len(others)} of {len(card.plan())} records belong to another version of this card:"
            f" {', '.join(others)}. Move them away, and these trajectories alone begin anew; --fresh starts all anew"
        )
    return records


def _tell_other_versions(card: Labelling, folder: Path, records: Sequence[Record]) -> None:
    """Warn of frames that another version of the calculator labelled, which those to come will lie beside."""
    here = packages_of(card.calculator.factory)
    kept = Counter(
        _in_words(frame.packages)
        for record in records
        for frame in record.frames
        if frame.packages is not None and dict(frame.packages) != here
    )
    if kept:
        said = "; ".join(f"{count} frames by {words}" for words, count in kept.items())
        warnings.warn(
            f"{folder}: labelled so far: {said}; the rest will be by {_in_words(here)}; --fresh labels all by one",
            stacklevel=4,
        )


def _in_words(packages: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items()) or "no package"


def _reporter(report: Callable[[int, int], None], index: int) -> Callable[[int], None]:
    return lambda frames: report(index, frames)


def _done(trajectory: Trajectory, record: Record) -> bool:
    return record.ended or len(record.frames) >= trajectory.frames


def _walk_in_workers(
    card: Labelling, waiting: Sequence[Trajectory], folder: Path, jobs: int, report: Callable[[int, int], None]
) -> None:
    """Walk in spawned processes; a process that dies costs only the trajectory that killed it."""

    def hear(trajectory: Trajectory, news: News, said: Any) -> None:
        if news is News.TOLD:
            report(trajectory.index, said)
        elif news is News.DIED:
            path = record_path(folder, trajectory.index)
            record = read_record(path, card.digest_of(trajectory))
            record.failures.append({"frame": len(record.frames), "reason": DEATH})
            record.ended = True
            write_record(record, path)

    try:
        run_in_workers(partial(_work, card, folder), waiting, jobs=jobs, hear=hear)
    except WorkersError as error:
        raise RuntimeError(f"{error}; --jobs 1 walks in this process") from error


def _work(card: Labelling, folder: Path, trajectory: Trajectory, tell: Callable[[int], None]) -> None:
    walk(card, trajectory, folder, tell)
