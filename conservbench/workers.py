"""Work in spawned processes, which end with this one; one that dies costs only the task that killed it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from enum import StrEnum
from multiprocessing.connection import Connection
from multiprocessing.queues import SimpleQueue
from typing import Any, Generic, TypeVar

from conservbench.process import configure

Task = TypeVar("Task")
Tell = Callable[[Any], None]
"""How work tells of itself while it goes on."""


class WorkersError(RuntimeError):
    """Worker processes cannot start."""


class News(StrEnum):
    """What is heard of a task."""

    STARTED = "started"
    TOLD = "told"
    ENDED = "ended"
    DIED = "died"


def run_in_workers(
    work: Callable[[Task, Tell], Any],
    tasks: Sequence[Task],
    *,
    jobs: int,
    hear: Callable[[Task, News, Any], None],
) -> None:
    """Run tasks in spawned processes.

    A dead worker takes the whole pool with it, and which of the running tasks it had is not known: each of them is
    tried again alone, so that none is blamed for its neighbour.

    Args:
        work: does a task; of the top level of a module, as it is pickled. What it tells and returns is best short:
            messages below the atomic size of a pipe cannot be torn by a death.
        tasks: to be done, the first ones first.
        jobs: processes at once.
        hear: told in this thread that a task has started, what its work tells, what it has returned, and that its
            worker died twice.

    Raises:
        WorkersError: no worker could start.
        Exception: what the work of a task raised; the other workers are stopped.
        KeyboardInterrupt: passed on after workers were stopped.
    """
    left, suspects = list(enumerate(tasks)), []
    while left:
        pool = _Pool(work, dict(left), hear)
        pool.run(jobs)
        suspects += [each for each in left if each[0] in pool.running]
        left = [each for each in left if each[0] not in pool.ended and each[0] not in pool.running]
    for index, task in suspects:
        pool = _Pool(work, {index: task}, hear)
        pool.run(1)
        if not pool.ended:
            hear(task, News.DIED, None)


@dataclass
class _Pool(Generic[Task]):
    """One pool of processes, from its start until all tasks have ended or a worker has died."""

    work: Callable[[Task, Tell], Any]
    tasks: dict[int, Task]
    hear: Callable[[Task, News, Any], None]
    running: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)

    def run(self, jobs: int) -> None:
        context = multiprocessing.get_context("spawn")
        messages = context.SimpleQueue()
        leash_end, leash = context.Pipe(duplex=False)
        pool = ProcessPoolExecutor(min(jobs, len(self.tasks)), context, _start, (messages, leash_end))
        try:
            pending = {pool.submit(_work, self.work, index, task) for index, task in self.tasks.items()}
            while pending:
                done, pending = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
                self._empty(messages)
                for future in done:
                    future.result()
        except BrokenProcessPool as error:
            self._empty(messages)
            if not self.running and not self.ended:
                raise WorkersError("worker processes cannot start") from error
        except BaseException:
            leash.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            leash.close()

    def _empty(self, messages: SimpleQueue[tuple[int, News, Any]]) -> None:
        while not messages.empty():
            index, news, said = messages.get()
            if news is News.STARTED:
                self.running.add(index)
            elif news is News.ENDED:
                self.running.remove(index)
                self.ended.add(index)
            self.hear(self.tasks[index], news, said)


_messages: SimpleQueue[tuple[int, News, Any]]


def _start(messages: SimpleQueue[tuple[int, News, Any]], leash_end: Connection) -> None:
    global _messages  # noqa: PLW0603 - how a pool's initializer hands things to its tasks
    from tqdm import tqdm

    _messages = messages
    # Ctrl-C reaches the whole process group: the parent alone answers it, and pulls the leash
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(leash_end,), daemon=True).start()
    # by default tqdm, by way of mace, shares a lock between processes, which this one's sudden end would leave behind
    tqdm.set_lock(threading.RLock())
    configure()


def _end_with_parent(leash_end: Connection) -> None:
    """End this process when the parent closes its end of the pipe or dies, in the middle of its work if need be."""
    try:
        leash_end.recv()
    except EOFError:
        os._exit(1)


def _work(work: Callable[[Task, Tell], Any], index: int, task: Task) -> None:
    # put() returns when the message is in the pipe: what was running is known even if this process dies next
    _messages.put((index, News.STARTED, None))
    returned = work(task, lambda said: _messages.put((index, News.TOLD, said)))
    _messages.put((index, News.ENDED, returned))
