"""Scores: what the judges say of measured cells, with the gates of the protocol cards. No torch.

A score is computed from the file each time and never stored in it. Which metrics there are and where their limits lie
is said by the protocol card in force, where it is of the version and digest that the file was measured by, else by the
card that the file carries: an old result keeps the gates it was measured for.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

from conservbench import plugins
from conservbench.cards import Metric, card_in_force, digest_on, metrics_of, row_name
from conservbench.leaderboard.entry import read_entries
from conservbench.outcome import Outcome
from conservbench.protocols.base import Finding
from conservbench.result import open_results
from conservbench.scheme import KINDS
from conservbench.scored import Score, ScoredCell, gate_of, headlines_of

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import RenderableType

    from conservbench.plot import Plot

COMPARISONS: Final = {"twin": "compare", "parent": "after", "control": "against", "top": "below"}
"""The function of a judge that compares with a related row, by the key that marks its metrics in the card."""


class ScoreError(ValueError):
    """A tree of results cannot be scored: it is not one that this suite wrote."""


@dataclass(frozen=True)
class ScoreTable(Sequence[Score]):
    """Scores of many cells: a sequence of :class:`Score` that shows itself as tables, text, HTML or JSON."""

    cells: tuple[ScoredCell, ...]

    @overload
    def __getitem__(self, index: int) -> Score: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Score, ...]: ...

    def __getitem__(self, index: int | slice) -> Score | tuple[Score, ...]:
        """One score, or some."""
        return self._scores[index]

    def __len__(self) -> int:
        """Number of scores."""
        return len(self._scores)

    def __iter__(self) -> Iterator[Score]:
        """All scores, cell by cell."""
        return iter(self._scores)

    @property
    def _scores(self) -> tuple[Score, ...]:
        return tuple(score for cell in self.cells for score in cell.scores)

    def failed_gates(self) -> list[Score]:
        """Scores of models, not of controls, whose gate is ``fail``."""
        return [score for cell in self.cells if not cell.is_control for score in cell.scores if score.gate == "fail"]

    def to_rows(self) -> list[dict[str, str | float | int | None]]:
        """One dictionary a score, in JSON types, with the keys :data:`KEYS`."""
        return [score.to_row() for score in self]

    def to_json(self) -> str:
        """A JSON list of :meth:`to_rows`."""
        return json.dumps(self.to_rows(), indent=1, ensure_ascii=False, allow_nan=False)

    def __rich__(self) -> RenderableType:
        """Tables for a terminal, one a protocol."""
        from conservbench.leaderboard.table import rich_tables

        return rich_tables(self.cells)

    def __str__(self) -> str:
        """The tables as plain text, 100 columns wide."""
        from rich.console import Console

        console = Console(width=100, color_system=None, force_terminal=False, force_jupyter=False)
        with console.capture() as capture:
            console.print(self)
        return capture.get()

    def _repr_html_(self) -> str:
        from conservbench.leaderboard.table import html_tables

        return html_tables(self.cells)


def score(tree: xr.DataTree) -> ScoreTable:
    """Judge every cell of a tree of results.

    Args:
        tree: groups ``/<protocol>/<system>/<model>``, as :func:`conservbench.result.open_results` gives it.

    Returns:
        Scores by protocol, system, models before controls, model and metric; under a protocol about tuning, models by
        force scheme, what they were tuned from, and what they were tuned to. A cell that could not be measured, or
        not be judged, has a row without a value for each headline metric: never a gap; nor is a gate that settings do
        not ask about.

    Raises:
        ScoreError: a group lacks an attribute that every result file has.
    """
    leaves = {node.path: node.to_dataset(inherit=False) for node in tree.leaves if node.attrs}
    cells = [_scored(data, path, leaves) for path, data in leaves.items()]
    order = sorted(
        cells, key=lambda c: (c.protocol["name"], c.tier, c.system, _kinship(c), c.is_control, c.model["name"])
    )
    return ScoreTable(tuple(order))


def _kinship(cell: ScoredCell) -> tuple[Any, ...]:
    """Place among the rows of a protocol about tuning: by scheme and parent; before it, the control, the others."""
    if not cell.protocol.get("tuned"):
        return ()
    model = cell.model
    tuning = model.get("tuning", {})
    generation = 0 if "parent" not in model else 1 if tuning.get("control") is None else 2
    scheme = KINDS.index(model["scheme"]), model.get("stride", 1)
    return *scheme, row_name(model.get("parent", model["name"])), generation, tuning.get("target", "")


def _scored(data: xr.Dataset, where: str, leaves: Mapping[str, xr.Dataset]) -> ScoredCell:
    """Scores of one cell; whatever its judge raises is an outcome of this cell alone."""
    missing = [key for key in ("model_card", "protocol_card", "system", "tier", "outcome") if key not in data.attrs]
    if missing:
        raise ScoreError(f"{where}: attribute {missing[0]!r} is missing: not a result of this suite")
    model, protocol = json.loads(data.attrs["model_card"]), card_in_force(json.loads(data.attrs["protocol_card"]))
    metrics = metrics_of(protocol, where)
    outcome, reason = Outcome(data.attrs["outcome"]), str(data.attrs.get("outcome_reason", ""))
    findings: list[Finding] = []
    if data.data_vars:
        try:
            findings = _judged(data, metrics, _relations(data, where, leaves))
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            outcome, reason = Outcome.FAILED, f"cannot be judged: {what}"
    names = {"model": model["name"], "protocol": protocol["name"], "system": data.attrs["system"]}
    found = {finding.metric: _from_finding(finding, metrics.get(finding.metric), names) for finding in findings}
    shown = {metric.key for metric in headlines_of(metrics)}
    if findings:
        ending = Outcome.UNSUPPORTED, "its judge gives no such metric with these settings"
        # a gate that settings for this system do not ask about is told, not left out
        shown |= {key for key, metric in metrics.items() if metric.gated}
    else:
        ending = outcome, reason
    for key, metric in metrics.items():
        if key in shown and key not in found:
            found[metric.key] = _from_finding(Finding(metric.key, metric.unit, None, *ending), metric, names)
    return ScoredCell(
        model=model,
        protocol=protocol,
        system=data.attrs["system"],
        tier=data.attrs["tier"],
        outcome=outcome,
        reason=reason,
        provenance=json.loads(data.attrs.get("provenance", "{}")),
        metrics=metrics,
        scores=tuple(found.values()),
    )


def read_cells(path: Path) -> tuple[ScoredCell, ...]:
    """The scored cells, with plots, of results or of entries: whatever a user points at.

    Args:
        path: a folder of results, an entry, a folder of entries, or a folder with a folder ``entries``.

    Raises:
        ValueError: there is nothing of the kind.
    """
    if any(path.glob("*/*/*.nc")) or not path.exists():
        tree = open_results(path)
        return with_plots(score(tree), tree).cells
    return read_entries(path / "entries" if (path / "entries").is_dir() else path)


def with_plots(table: ScoreTable, tree: xr.DataTree) -> ScoreTable:
    """The same scores, each cell with its pictures.

    Args:
        table: what :func:`score` made of the tree.
        tree: the results.
    """
    leaves = {
        (node.attrs["protocol"], node.attrs["system"], node.attrs["model"]): node.to_dataset(inherit=False)
        for node in tree.leaves
        if node.attrs
    }
    return ScoreTable(
        tuple(
            replace(cell, plots=_plots(leaves[cell.protocol["name"], cell.system, cell.model["name"]]))
            for cell in table.cells
        )
    )


def _plots(data: xr.Dataset) -> tuple[Plot, ...]:
    """The pictures of one cell; one that cannot be drawn has none, which its scores say the reason of."""
    if not data.data_vars:
        return ()
    try:
        module = plugins.protocol_module(_plugin_of(data), "plots")
    except ModuleNotFoundError:
        return ()
    try:
        return tuple(module.plots(data))
    except Exception as error:
        warnings.warn(
            f"no plots of {data.attrs['protocol']} / {data.attrs['system']} / {data.attrs['model']}: {error}",
            stacklevel=2,
        )
        return ()


def _plugin_of(data: xr.Dataset) -> str:
    card = json.loads(data.attrs["protocol_card"])
    return card.get("plugin", card["name"])


def _judged(
    data: xr.Dataset, metrics: Mapping[str, Metric], relations: Mapping[str, xr.Dataset | str]
) -> list[Finding]:
    """Findings of a cell, and of its comparison with each row it is related to, or why there is none."""
    judge = plugins.protocol_module(_plugin_of(data), "judge")
    findings = list(judge.judge(data))
    for relation, other in relations.items():
        if isinstance(other, str):
            compared = [metric for metric in metrics.values() if getattr(metric, relation)]
            findings += [Finding(metric.key, metric.unit, None, Outcome.UNSUPPORTED, other) for metric in compared]
        elif hasattr(judge, COMPARISONS[relation]):
            findings += getattr(judge, COMPARISONS[relation])(data, other)
    for finding in findings:
        metric = metrics.get(finding.metric)
        if metric is not None and metric.unit != finding.unit:
            raise ValueError(f"metric {finding.metric} is judged in {finding.unit!r}, its card says {metric.unit!r}")
    return findings


def _relations(data: xr.Dataset, where: str, leaves: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset | str]:
    """The result of each row that a cell is compared with, or why there is none."""
    model = json.loads(data.attrs["model_card"])
    control = model.get("tuning", {}).get("control")
    return {
        "twin": _twin_of(data, where, leaves),
        "parent": _tuned_of("parent", model.get("parent"), data, where, leaves),
        "control": _tuned_of("control", control, data, where, leaves),
        "top": _top_of(data, where, leaves),
    }


def _twin_of(data: xr.Dataset, where: str, leaves: Mapping[str, xr.Dataset]) -> xr.Dataset | str:
    """The result of a model's twin to compare its own with, or why there is none.

    The twin has gradient forces, and was measured on the same system by the same card in the same tier.
    """
    model = json.loads(data.attrs["model_card"])
    if model.get("scheme") == "gradient":
        return "gradient forces are what others are compared with"
    if model.get("twin") is None:
        return "the model has no twin with gradient forces to be compared with"

    def unfit(twin: Mapping[str, Any]) -> str:
        return "" if twin.get("scheme") == "gradient" else "has no gradient forces either"

    return _result_of("twin", model["twin"], unfit, data, where, leaves)


def _tuned_of(
    relation: str, name: str | None, data: xr.Dataset, where: str, leaves: Mapping[str, xr.Dataset]
) -> xr.Dataset | str:
    """The result of a model's parent or control, or why there is none: nothing to say where it has none.

    It was run by the same force scheme, and measured on the same system by the same card in the same tier.
    """
    if name is None:
        return ""
    model = json.loads(data.attrs["model_card"])

    def unfit(other: Mapping[str, Any]) -> str:
        alike = all(other.get(key) == model.get(key) for key in ("scheme", "stride"))
        return "" if alike else "has forces by another scheme"

    return _result_of(relation, row_name(name), unfit, data, where, leaves)


def _top_of(data: xr.Dataset, where: str, leaves: Mapping[str, xr.Dataset]) -> xr.Dataset | str:
    """The result of the model that the settings call the top, as the file has it, or why there is none."""
    name = str(data.attrs.get("top", ""))
    if not name:
        return "no model is the top here"
    if name == data.attrs["model"]:
        return "the model is the top that others are compared with"
    return _result_of("top", name, lambda _: "", data, where, leaves)


def _result_of(
    relation: str,
    name: str,
    unfit: Callable[[Mapping[str, Any]], str],
    data: xr.Dataset,
    where: str,
    leaves: Mapping[str, xr.Dataset],
) -> xr.Dataset | str:
    """The result of another row to compare a cell's own with, or why there is none."""
    other = leaves.get(f"{where.rpartition('/')[0]}/{name}")
    if other is None:
        return f"no result of its {relation} {name} here"
    if said := unfit(json.loads(other.attrs["model_card"])):
        return f"its {relation} {name} {said}"
    if not other.data_vars:
        return f"its {relation} {name} was not measured: {other.attrs['outcome'].replace('_', ' ')}"
    if _measured_alike(data) != _measured_alike(other):
        return f"its {relation} {name} was measured by another card, or in another tier"
    return other


def _measured_alike(data: xr.Dataset) -> tuple[object, ...]:
    protocol = json.loads(data.attrs["protocol_card"])
    system = json.loads(data.attrs.get("identity", "{}")).get("system")
    return data.attrs["tier"], system, protocol["version"], digest_on(protocol, data.attrs["system"])


def _from_finding(finding: Finding, metric: Metric | None, names: Mapping[str, str]) -> Score:
    interval = finding.interval
    if interval is not None and not math.isfinite(interval.value):
        interval = None
    return Score(
        **names,
        metric=finding.metric,
        value=None if interval is None else interval.value,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        unit=finding.unit,
        n=0 if interval is None else interval.n,
        outcome=finding.outcome,
        gate=gate_of(metric, interval, finding.outcome),
        reason=finding.reason,
    )
