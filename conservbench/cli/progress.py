"""How a run is shown while it goes on: bars on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from conservbench.outcome import Outcome

if TYPE_CHECKING:
    from rich.console import Console

    from conservbench.runner import Cell, Event


@contextmanager
def shown(total: int) -> Iterator[Callable[[Event], None]]:
    """A listener for :func:`conservbench.runner.run_cells` that shows a run of ``total`` cells."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if console.is_terminal or console.is_jupyter:
        with _bars(console, total) as on_event:
            yield on_event
    else:
        yield _lines(console, total)


@contextmanager
def counted(name: str, total: int, word: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar over ``total`` epochs or steps: told of each with those done, those in all, and a line about the last one.

    Args:
        name: of what is made.
        total: how many there are.
        word: what one is called.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)

        def report(done: int, total: int, line: str) -> None:
            bar.update(task, completed=done, description=line)
            if not console.is_terminal:
                console.print(f"{word} {done}/{total}  {line}", highlight=False, soft_wrap=True)

        yield report


@contextmanager
def _bars(console: Console, total: int) -> Iterator[Callable[[Event], None]]:
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from conservbench.runner import Phase

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        overall = progress.add_task(f"0/{total} cells", total=total)
        tasks: dict[Cell, TaskID] = {}
        done = 0

        def on_event(event: Event) -> None:
            nonlocal done
            if event.phase is Phase.STARTED and event.cell in tasks:
                progress.remove_task(tasks.pop(event.cell))
            if event.phase is Phase.STARTED:
                tasks[event.cell] = progress.add_task(f"  {event.cell.label}", total=1.0)
            elif event.phase is Phase.PROGRESS:
                progress.update(tasks[event.cell], completed=event.fraction)
            else:
                done += 1
                progress.update(overall, completed=done, description=f"{done}/{total} cells")
                if event.cell in tasks:
                    progress.remove_task(tasks.pop(event.cell))
                if event.outcome is not Outcome.COMPLETED:
                    progress.console.print(_ending(event), markup=False)

        yield on_event


def _lines(console: Console, total: int) -> Callable[[Event], None]:
    from conservbench.runner import Phase

    done = 0

    def on_event(event: Event) -> None:
        nonlocal done
        if event.phase in (Phase.KEPT, Phase.ENDED):
            done += 1
            console.print(f"{done}/{total} {_ending(event)}", markup=False)

    return on_event


def _ending(event: Event) -> str:
    words = [f"{event.cell.label}: {event.outcome}", event.reason]
    return ": ".join(filter(None, words)) + (" (kept)" if event.phase == "kept" else "")
