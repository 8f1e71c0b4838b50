"""``pytest --conservbench CARD``: gates and conformance checks of a model as tests.

For each card: a test for each conformance check (:mod:`conservbench.testing`); for each cell, a protocol on a system,
one for how its measurement ended and one for each metric with a limit; with ``--conservbench-baseline``, one for each
metric that is compared, and a skipped one for each cell of these models that one side alone has. A gate that fails
fails its test. One that is unclear, because the interval straddles the limit, or that has no value, skips it with the
reason: it has shown nothing. Models are measured anew in every session, as their code may have changed under the same
version; a cell is measured when the first of its tests runs.

Nothing is imported or collected without the option.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conservbench.cards import Metric, ModelCard
    from conservbench.compare import Comparison, Row
    from conservbench.runner import Cell
    from conservbench.scored import Score, ScoredCell
    from conservbench.testing import Candidate, Check

MARKER = "conservbench"
FOLDER_KEY = "conservbench_folder"
UNCLEAR = ": unclear: "
TIERS = ("smoke", "quick", "standard")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the command line."""
    group = parser.getgroup("conservbench", "forces of machine-learned potentials")
    group.addoption(
        "--conservbench",
        action="append",
        default=[],
        metavar="CARD",
        help="test a model: name, path of a card, or ase:package.module:factory (may be repeated)",
    )
    group.addoption(
        "--conservbench-protocol",
        action="append",
        default=[],
        metavar="NAME",
        help="measure by this protocol only: name, or path of a card (may be repeated)",
    )
    group.addoption(
        "--conservbench-system",
        action="append",
        default=[],
        metavar="NAME",
        help="measure on this system only (may be repeated)",
    )
    group.addoption(
        "--conservbench-tier", choices=TIERS, default="quick", help="how long to measure (default: %(default)s)"
    )
    group.addoption(
        "--conservbench-baseline",
        metavar="FILE",
        help="compare with this baseline, made by `conservbench baseline` in the same tier",
    )
    group.addoption("--conservbench-out", metavar="DIR", help="keep the results in this folder")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker; give all processes of the session one folder."""
    config.addinivalue_line("markers", f"{MARKER}: tests of a model that --conservbench asks for")
    if not config.getoption("--conservbench"):
        return
    shared = getattr(config, "workerinput", {}).get(FOLDER_KEY)
    folder = Path(shared or tempfile.mkdtemp(prefix="conservbench-"))
    config.pluginmanager.register(_Session(config, folder, owner=shared is None), "conservbench-session")


class _Session:
    """What is measured in a session, once for all processes of it.

    Args:
        config: of pytest.
        folder: where results go.
        owner: whether this process made the folder, and takes it away.
    """

    def __init__(self, config: pytest.Config, folder: Path, *, owner: bool) -> None:
        self.folder, self.owner = folder, owner
        self.names: tuple[str, ...] = tuple(dict.fromkeys(config.getoption("--conservbench")))
        self.protocols: tuple[str, ...] = tuple(config.getoption("--conservbench-protocol"))
        self.systems: tuple[str, ...] = tuple(config.getoption("--conservbench-system"))
        self.tier: str = config.getoption("--conservbench-tier")
        baseline, out = config.getoption("--conservbench-baseline"), config.getoption("--conservbench-out")
        self.baseline = None if baseline is None else config.invocation_params.dir / baseline
        self.out = None if out is None else config.invocation_params.dir / out
        self._candidates: dict[str, Candidate] = {}
        self._not_loaded: set[str] = set()
        self._scores: dict[str, ScoredCell] = {}
        self.report_problem = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add the tests of the models, before other plugins select by ``-k`` and ``-m``."""
        try:
            items += _collected(session, self)
        except ValueError as error:
            # wrong names, cards and files, as on the command line
            raise pytest.UsageError(f"--conservbench: {error}") from error

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of pytest-xdist where results are."""
        node.workerinput[FOLDER_KEY] = str(self.folder)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say where results were kept, and what remains to be shown."""
        skipped = terminalreporter.stats.get("skipped", [])
        unclear = sum(UNCLEAR in str(report.longrepr) for report in skipped if MARKER in report.keywords)
        if unclear:
            longer = TIERS[TIERS.index(self.tier) + 1 :]
            advice = f"; --conservbench-tier {longer[0]} knows more" if longer else ""
            terminalreporter.write_line(f"conservbench: {unclear} gates unclear, which -rs shows{advice}")
        if self.out is not None:
            terminalreporter.write_line(f"conservbench: results are in {self.out}")
        if self.report_problem:
            terminalreporter.write_line(f"conservbench: no report: {self.report_problem}")

    def pytest_sessionfinish(self) -> None:
        """Keep results, with a report, where that was asked for."""
        if self.owner and self.out is not None and any(self.folder.glob("*/*/*.nc")):
            shutil.copytree(self.folder, self.out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.lock"))
            self.report_problem = _reported(self.out)

    def pytest_unconfigure(self) -> None:
        """Take the folder away."""
        if self.owner:
            shutil.rmtree(self.folder, ignore_errors=True)

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells to measure.

        Raises:
            ValueError: a name, a card or a checkpoint is not there or not as it must be.
        """
        from conservbench.runner import plan

        return plan(self.names, self.protocols, self.systems, self.tier)

    @cached_property
    def before(self) -> tuple[ScoredCell, ...]:
        """The cells of the baseline; one model there and one here are compared whatever their names.

        Raises:
            ValueError: it is not there or not as it must be, has no cell that is measured now, or has one in another
                tier.
        """
        import json

        from conservbench.compare import known_as
        from conservbench.leaderboard.entry import read_entries

        if self.baseline is None:
            return ()
        cells = read_entries(self.baseline, [json.loads(cell.protocol.to_json()) for cell in self.cells])
        there, here = {cell.model["name"] for cell in cells}, {cell.model.name for cell in self.cells}
        cells = known_as(cells, *here) if len(there) == len(here) == 1 else cells
        _refuse_strange(cells, self.cells, self.baseline)
        return cells

    def candidate(self, card: ModelCard) -> Candidate:
        """The model of a card, loaded once; what went wrong is told once."""
        from conservbench.testing import candidate

        if card.name in self._not_loaded:
            pytest.skip(f"{card.name}: could not be loaded")
        if card.name not in self._candidates:
            self._not_loaded.add(card.name)
            place = next(cell.system for cell in self.cells if cell.model.name == card.name)
            with _measuring():
                self._candidates[card.name] = candidate(card, place)
            self._not_loaded.discard(card.name)
        return self._candidates[card.name]

    def scored(self, cell: Cell) -> ScoredCell:
        """The scores of a cell, with those of the rows it is compared with; what is not measured yet is."""
        if cell.label not in self._scores:
            table = self._scored(_with_relatives(cell, self.cells))
            self._scores[cell.label] = next(each for each in table if each.model["name"] == cell.model.name)
        return self._scores[cell.label]

    @cached_property
    def comparison(self) -> Comparison:
        """Everything measured against the baseline."""
        from conservbench.compare import compare

        return compare(self.before, self._scored(self.cells))

    def _scored(self, cells: Sequence[Cell]) -> tuple[ScoredCell, ...]:
        from conservbench.result import open_cells
        from conservbench.scoring import score

        for cell in cells:
            self._measure(cell)
        return score(open_cells(cell.path(self.folder) for cell in cells)).cells

    def _measure(self, cell: Cell) -> None:
        from conservbench import process

        path = cell.path(self.folder)
        # other processes of the session wait
        with process.alone(path.with_suffix(".lock")), _measuring():
            if not path.exists():
                from conservbench.runner import measure_cell

                measure_cell(cell, self.folder, "cpu", lambda _: None)


def _reported(folder: Path) -> str:
    """Write the report of a session; why there is none, as what was measured is worth more than its report."""
    from conservbench.scoring import read_cells
    from conservbench.site import write_report

    try:
        with _measuring():
            write_report(read_cells(folder), folder / "report.html")
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


class _Subject(pytest.Collector):
    """The tests of a model, or of one of its cells."""

    def collect(self) -> Iterator[pytest.Item]:
        """Nothing: they are made in :func:`_collected`."""
        yield from ()


class _Test(pytest.Item):
    """A test that shows what it says and no traceback."""

    def __init__(self, *, ask: Callable[[], None], **where: Any) -> None:
        super().__init__(**where)
        self.ask = ask
        self.add_marker(MARKER)

    def runtest(self) -> None:
        """Run it."""
        self.ask()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any, **kwargs: Any) -> Any:
        """What is wrong with the model, without the lines of this suite."""
        if isinstance(excinfo.value, AssertionError | ValueError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, *args, **kwargs)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Heading of a failure."""
        return self.path, None, self.nodeid


def _collected(session: pytest.Session, here: _Session) -> Iterator[pytest.Item]:
    """The tests of all models: checks, then cells, then comparisons."""
    cells, before = here.cells, here.before
    # after what may be wrong was told: it imports torch
    from conservbench.testing import conformance_checks

    models = {cell.model.name: cell.model for cell in cells}
    for model in models.values():
        place = _subject(session, f"{model.name}/conformance")
        for check in conformance_checks():
            yield _Test.from_parent(place, name=check.name, ask=_conformance(here, model, check))
    for cell in cells:
        place = _subject(session, _place_of(cell))
        yield _Test.from_parent(place, name="outcome", ask=_outcome(here, cell))
        for metric in _metrics_of(cell).values():
            if metric.gated:
                yield _Test.from_parent(place, name=metric.key, ask=_gate(here, cell, metric))
    if here.baseline is None:
        return
    known = {_place_before(each): each for each in before}
    for cell in cells:
        place = _subject(session, f"{_place_of(cell)}/baseline")
        if _place_of(cell) not in known:
            yield _Test.from_parent(place, name="outcome", ask=_skipped(f"{cell.label}: new: not in the baseline"))
            continue
        compared = [metric.key for metric in _metrics_of(cell).values() if metric.better is not None]
        for key in ("outcome", *compared):
            yield _Test.from_parent(place, name=key, ask=_regression(here, cell, key))
    measured = {_place_of(cell) for cell in cells}
    for where, each in known.items():
        if where not in measured and each.model["name"] in models:
            place = _subject(session, f"{where}/baseline")
            yield _Test.from_parent(place, name="outcome", ask=_skipped(f"{where}: missing: not measured now"))


def _refuse_strange(before: Sequence[ScoredCell], cells: Sequence[Cell], baseline: Path) -> None:
    """Refuse a baseline that has nothing to compare, or what was measured in another tier, before anything is measured.

    Raises:
        ValueError: with which cells it has.
    """
    tiers = {_place_before(each): each.tier for each in before}
    shared = [cell for cell in cells if _place_of(cell) in tiers]
    if not shared:
        there, here = _first(sorted(tiers)), _first([_place_of(cell) for cell in cells])
        raise ValueError(f"{baseline} has nothing of what is measured: it has {there}; measured is {here}")
    for cell in shared:
        if tiers[_place_of(cell)] != cell.tier:
            there = tiers[_place_of(cell)]
            raise ValueError(
                f"{baseline} has {_place_of(cell)} in tier {there}, measured is tier {cell.tier}:"
                f" add --conservbench-tier {there}, or make a new baseline"
            )


def _first(names: Sequence[str], most: int = 8) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "nothing") + rest


def _subject(session: pytest.Session, name: str) -> _Subject:
    return _Subject.from_parent(session, name=name, nodeid=f"{MARKER}/{name}")


def _place_of(cell: Cell) -> str:
    return f"{cell.model.name}/{cell.protocol.name}/{cell.system}"


def _place_before(cell: ScoredCell) -> str:
    return f"{cell.model['name']}/{cell.protocol['name']}/{cell.system}"


def _metrics_of(cell: Cell) -> dict[str, Metric]:
    return dict(cell.protocol.metrics)


def _with_relatives(cell: Cell, cells: Sequence[Cell]) -> list[Cell]:
    """A cell, and those among some that its metrics are compared with."""
    from conservbench.cards import row_name

    card = cell.model
    control = None if card.tuning is None else card.tuning.control
    names = {row_name(name) for name in (card.twin, card.parent, control) if name is not None}
    place = cell.protocol.name, cell.system
    kin = [each for each in cells if (each.protocol.name, each.system) == place and each.model.name in names]
    return [cell, *(each for each in kin if each is not cell)]


def _conformance(here: _Session, card: ModelCard, check: Check) -> Callable[[], None]:
    def ask() -> None:
        from conservbench.models.base import UnsupportedError
        from conservbench.testing import NotApplicableError

        try:
            subject = here.candidate(card)
            with _measuring():
                check.ask(subject)
        except (NotApplicableError, UnsupportedError) as reason:
            pytest.skip(f"{card.name}: {check.name}: {reason}")
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n  asked: {check.asks}") from None

    return ask


def _outcome(here: _Session, cell: Cell) -> Callable[[], None]:
    def ask() -> None:
        from conservbench.outcome import Outcome

        found = here.scored(cell)
        said = _sentence(str(found.outcome), found.reason)
        if found.outcome is Outcome.UNSUPPORTED:
            pytest.skip(f"{cell.label}: {said}")
        if found.outcome is not Outcome.COMPLETED:
            raise AssertionError(f"{cell.label}: {said}\n  again: {_command(cell)}")

    return ask


def _gate(here: _Session, cell: Cell, metric: Metric) -> Callable[[], None]:
    where = f"{cell.label} / {metric.key}"

    def ask() -> None:
        found = {score.metric: score for score in here.scored(cell).scores}.get(metric.key)
        if found is None:
            pytest.skip(f"{where}: no such score with these settings")
        if found.gate is None:
            pytest.skip(f"{where}: no value: {_sentence(str(found.outcome), found.reason)}")
        if found.gate == "pass":
            return
        said = f"{metric.label} is {_spelled(found, metric)}; its limit: {_limits(metric)}"
        if found.gate == "unclear":
            pytest.skip(f"{cell.label}{UNCLEAR}{said}")
        lines = [f"{cell.label}: {said}", f"  limit: {metric.source}", f"  again: {_command(cell)}"]
        raise AssertionError("\n".join(lines))

    return ask


def _skipped(reason: str) -> Callable[[], None]:
    def ask() -> None:
        pytest.skip(reason)

    return ask


def _regression(here: _Session, cell: Cell, key: str) -> Callable[[], None]:
    def ask() -> None:
        place = cell.model.name, cell.protocol.name, cell.system, key
        rows = {(row.model, row.protocol, row.system, row.metric): row for row in here.comparison.rows}
        row = rows.get(place)
        if row is None:
            pytest.skip(f"{cell.label} / {key}: neither in the baseline nor measured now")
        if row.state == "regression":
            raise AssertionError(f"{row.name}: regression{_change(row)}\n  again: {_command(cell)}")
        if row.state not in ("pass", "improved"):
            pytest.skip(f"{row.name}: {_sentence(row.state, row.reason)}")

    return ask


def _change(row: Row) -> str:
    if row.base is None or row.head is None or row.change is None:
        return f": {row.reason}" if row.reason else ""
    width = "" if row.low is None or row.high is None else f" [{row.low:.4g}, {row.high:.4g}]"
    chance = "" if row.p_value is None else f", p = {row.p_value:.2g}"
    return (
        f": {row.label} was {row.base.value:.4g}, is {row.head.value:.4g} {_unit(row.unit)}:"
        f" worse by {row.change:.4g}{width}, where {row.tolerance:.4g} is tolerated{chance}"
    )


def _spelled(score: Score, metric: Metric) -> str:
    if score.value is None or score.low is None or score.high is None:
        return _sentence(str(score.outcome), score.reason)
    return f"{score.value:.4g} [{score.low:.4g}, {score.high:.4g}] {_unit(metric.unit)}".rstrip()


def _limits(metric: Metric) -> str:
    ends = (("above", metric.above), ("below", metric.below))
    return " and ".join(f"{word} {limit:g}" for word, limit in ends if limit is not None)


def _unit(unit: str) -> str:
    return "" if unit == "1" else unit


def _sentence(word: str, reason: str) -> str:
    return ": ".join(filter(None, (word.replace("_", " "), reason)))


def _command(cell: Cell) -> str:
    from shlex import quote

    from conservbench.cards import list_models, list_protocols

    model, protocol = cell.model.name, cell.protocol.name
    if not model.startswith("ase:") and model not in list_models():
        model = str(cell.model.path)
    if protocol not in list_protocols():
        protocol = str(cell.protocol.path)
    return f"conservbench run -m {quote(model)} -p {quote(protocol)} -s {cell.system} --tier {cell.tier} --fresh"


@contextmanager
def _measuring() -> Iterator[None]:
    """Warnings of third parties are shown, and are errors of nobody's tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield
