"""A comparison as people and tools read it: a table, markdown, annotations of GitHub Actions, and JUnit's XML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element, SubElement, tostring

from conservbench.compare import FAMILY_RATE, OUTCOME, Comparison, Row, State, Verdict
from conservbench.leaderboard.markup import escaped
from conservbench.leaderboard.number import spelled

if TYPE_CHECKING:
    from rich.console import RenderableType

    from conservbench.scored import Score

_STYLES: Final[dict[State, str]] = {"regression": "bold red", "improved": "green", "missing": "yellow"}

_SAYINGS: Final[dict[Verdict, str]] = {
    "pass": "No regression",
    "regression": "Regression",
    "improved": "No regression, and something improved",
    "nothing comparable": "Nothing comparable",
}

_HEADINGS: Final = ("metric", "before", "now", "for the worse", "seen from", "")

_NOTE: Final = (
    f"The tests of an unchanged model call any of its metrics a regression in no more than {100 * FAMILY_RATE:g} % of"
    " cases; how cells end is not tested. A change is for the worse where it is positive; 'seen from' is the least one"
    " that this check would have called a regression."
)

# what XML 1.0 cannot hold, not even escaped
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def headline(comparison: Comparison) -> str:
    """The comparison in a line."""
    compared = len(comparison.compared)
    counts = [f"{compared} metric{'' if compared == 1 else 's'} compared"]
    for state, one, many in (
        ("regression", "regression", "regressions"),
        ("improved", "improved", "improved"),
        ("not comparable", "not comparable", "not comparable"),
        ("missing", "missing", "missing"),
        ("new", "new", "new"),
    ):
        n = sum(row.state == state for row in comparison.rows)
        counts += [f"{n} {one if n == 1 else many}"] if n else []
    return f"{_SAYINGS[comparison.verdict]}: {', '.join(counts)}."


def rich_report(comparison: Comparison) -> RenderableType:
    """What changed, what is missing, and the headline metrics, as a table for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    style = {"regression": "bold red", "nothing comparable": "bold yellow"}.get(comparison.verdict, "bold green")
    said: list[RenderableType] = [Text(headline(comparison), style=style)]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
    for place, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="right" if 1 <= place < 5 else "left", overflow="fold")
    for cell, rows in _by_cell(shown(comparison)).items():
        table.add_section()
        table.add_row(Text(cell, style="cyan"))
        for row in rows:
            table.add_row(*(Text(text, style=_STYLES.get(row.state, "")) for text in _columns(row)))
    if table.row_count:
        said.append(table)
    said += [Text(line, style="dim") for line in _explanations(comparison)]
    return Group(*said, Text(_NOTE, style="dim"))


def shown(comparison: Comparison) -> tuple[Row, ...]:
    """The rows of tables: what changed first, then what a headline says nothing new of."""
    changed = comparison.of("regression") + comparison.of("improved")
    alike = tuple(row for row in comparison.compared if row.state == "pass" and row.headline)
    return changed + alike


def summary(comparison: Comparison) -> str:
    """The comparison in markdown; all text of cards is escaped."""
    mark = {"regression": "❌", "nothing comparable": "⚠️"}.get(comparison.verdict, "✅")
    lines = [f"### {mark} {escaped(headline(comparison))}", ""]
    if rows := shown(comparison):
        lines += [*_markdown_table(rows), ""]
    lines += [f"- {escaped(line)}" for line in _explanations(comparison)]
    rest = [row for row in comparison.rows if row not in rows and row.metric != OUTCOME]
    if rest:
        lines += ["", f"<details><summary>{len(rest)} other metrics</summary>", "", *_markdown_table(rest), ""]
        lines += ["</details>"]
    return "\n".join([*lines, "", escaped(_NOTE), ""])


def workflow_commands(comparison: Comparison) -> list[str]:
    """Workflow commands of GitHub Actions: an error a regression, a warning for what is missing, then the headline."""
    lines = [_command("error", f"Regression: {row.name}", _sentence(row)) for row in comparison.of("regression")]
    lines += [_command("warning", f"Missing: {row.name}", _sentence(row)) for row in comparison.of("missing")]
    level = {"regression": "error", "nothing comparable": "warning"}.get(comparison.verdict, "notice")
    return [*lines, _command(level, "conservbench check", headline(comparison))]


def junit(comparison: Comparison) -> bytes:
    """JUnit's XML: a suite a cell, a test a metric; a regression is a failure, what cannot be compared is skipped."""
    root = Element("testsuites", name="conservbench check")
    suites: dict[str, Element] = {}
    for row in comparison.rows:
        cell = _xml(_cell(row))
        if cell not in suites:
            suites[cell] = SubElement(root, "testsuite", name=cell)
        case = SubElement(suites[cell], "testcase", classname=cell, name=_xml(row.metric))
        if row.state == "regression":
            SubElement(case, "failure", message=_xml(_sentence(row)))
        elif row.state in ("not comparable", "missing", "new"):
            SubElement(case, "skipped", message=_xml(f"{row.state}: {row.reason}"))
    for suite in (root, *suites.values()):
        for key, path in (("tests", "testcase"), ("failures", "failure"), ("skipped", "skipped")):
            suite.set(key, str(sum(1 for _ in suite.iter(path))))
        suite.set("errors", "0")
    return tostring(root, encoding="utf-8", xml_declaration=True)


def _cell(row: Row) -> str:
    return f"{row.model} / {row.protocol} / {row.system}"


def _by_cell(rows: Iterable[Row]) -> dict[str, list[Row]]:
    cells: dict[str, list[Row]] = {}
    for row in rows:
        cells.setdefault(_cell(row), []).append(row)
    return cells


def _sentence(row: Row) -> str:
    """What became of a metric, in words."""
    if row.change is None:
        return row.reason
    unit = "" if row.unit == "1" else f" {row.unit}"
    how = "worse" if row.change >= 0.0 else "better"
    amount = spelled(abs(row.change), abs(row.change), abs(row.change), row.digits)
    said = (
        f"{row.label}: {_value(row.base, row)}{unit} before, {_value(row.head, row)}{unit} now, {how} by {amount}{unit}"
    )
    said += f" (tolerated: {row.tolerance:.3g}{unit}"
    return said + (")" if row.p_value is None else f"; p = {row.p_value:.1g} over all metrics)")


def _columns(row: Row) -> tuple[str, ...]:
    label = row.label if row.unit in ("", "1") else f"{row.label}, {row.unit}"
    if row.change is None or row.low is None or row.high is None:
        numbers = (_value(row.base, row), _value(row.head, row), "", "")
    else:
        change = spelled(row.change, row.low, row.high, row.digits)
        numbers = (
            _value(row.base, row),
            _value(row.head, row),
            change,
            "" if row.detectable is None else f"{row.detectable:.2g}",
        )
    return (label, *numbers, row.state)


def _value(score: Score | None, row: Row) -> str:
    if score is None:
        return "–"
    if score.value is None or score.low is None or score.high is None:
        return str(score.outcome).replace("_", " ") if row.metric == OUTCOME else "–"
    return spelled(score.value, score.low, score.high, row.digits)


def _explanations(comparison: Comparison) -> list[str]:
    """Why rows are what they are, where numbers do not say so: a line for all metrics of a cell with one reason."""
    why: dict[tuple[str, str], list[str]] = {}
    for row in comparison.of("regression", "improved", "missing", "new"):
        # a metric that is new is counted; a cell that is new may be a mistake
        if row.reason and (row.state != "new" or row.metric == OUTCOME):
            why.setdefault((_cell(row), row.reason), []).append(row.metric)
    return [f"{cell} / {_some(metrics)}: {reason}" for (cell, reason), metrics in why.items()]


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _markdown_table(rows: Sequence[Row]) -> list[str]:
    lines = [f"| cell | {' | '.join(_HEADINGS)} |", f"| --- | --- |{' ---: |' * 4} --- |"]
    return lines + [f"| {' | '.join(escaped(text) for text in (_cell(row), *_columns(row)))} |" for row in rows]


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _command(level: str, title: str, message: str) -> str:
    # the escapes of the actions toolkit: a title ends at a comma or a colon
    def data(text: str) -> str:
        return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    return f"::{level} title={data(title).replace(':', '%3A').replace(',', '%2C')}::{data(message)}"
