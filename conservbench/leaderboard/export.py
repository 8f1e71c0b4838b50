"""Scores as tidy tables for other programs: CSV, JSON, Parquet, and the folder of a Hugging Face dataset. No torch.

One row a score, with all that sets it apart. Where there is a value, an empty ``low`` or ``high`` is an end that
nothing bounds. Numbers are written to the last bit.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from conservbench.leaderboard.markup import escaped
from conservbench.provenance import version_of
from conservbench.result import write_bytes

if TYPE_CHECKING:
    from conservbench.scored import Score, ScoredCell

Kind = Literal["string", "int64", "float64", "bool"]
Format = Literal["csv", "json", "parquet", "huggingface"]

FORMATS: Final[tuple[Format, ...]] = get_args(Format)

Row = dict[str, str | int | float | bool | None]

SCORES: Final[Mapping[str, Kind]] = {
    "model": "string",
    "model_version": "int64",
    "model_digest": "string",
    "role": "string",
    "scheme": "string",
    "stride": "int64",
    "protocol": "string",
    "protocol_version": "int64",
    "protocol_digest": "string",
    "system": "string",
    "tier": "string",
    "metric": "string",
    "label": "string",
    "unit": "string",
    "value": "float64",
    "low": "float64",
    "high": "float64",
    "n": "int64",
    "outcome": "string",
    "gate": "string",
    "below": "float64",
    "above": "float64",
    "headline": "bool",
    "reason": "string",
    "cell_outcome": "string",
    "cell_reason": "string",
    "conservbench": "string",
    "commit": "string",
    "dirty": "bool",
    "python": "string",
    "torch": "string",
    "platform": "string",
    "processor": "string",
    "boot": "string",
    "device": "string",
    "dtype": "string",
    "threads": "int64",
    "seconds": "float64",
    "seed": "int64",
}
"""Columns of the table of scores, by their type."""

MODELS: Final[Mapping[str, Kind]] = {
    "model": "string",
    "model_version": "int64",
    "model_digest": "string",
    "title": "string",
    "role": "string",
    "loader": "string",
    "scheme": "string",
    "stride": "int64",
    "fast": "string",
    "twin": "string",
    "parent": "string",
    "authors": "string",
    "license": "string",
    "doi": "string",
    "training_data": "string",
    "notes": "string",
    "sha256": "string",
    "bibtex": "string",
}
"""Columns of the table of models, by their type; authors are joined by semicolons."""

_FORMULA: Final = re.compile(r"[\t\r]|[\s\x00-\x20\u200b-\u200f\u2060\ufeff]*[=+@＝＋－＠-]")
"""Start of a formula, also after what a spreadsheet leaves out."""

_DESCRIPTION: Final = """
Can the forces of a machine-learned interatomic potential be used in a simulation? Each row is one number that
conservbench measured: a metric of one model, by one protocol, on one system, with its 95 % interval.

- `scores`: one row a score. A gate is `pass` where the whole interval keeps the limits `above` and `below`, `fail`
  where it is wholly outside, `unclear` in between. Without `value` there is no number, and `outcome` and `reason` say
  why; beside a `value`, a missing `low` or `high` is an end that nothing bounds.
- `models`: one row a model, with how to cite it. Its licence is that of the model; the numbers are under the licence
  above.

Compare rows of equal `protocol`, `protocol_version`, `tier`, `system` and `metric` only; a row without a value counts
against its model, and controls (`role`) are rows whose answer is known beforehand.
"""


class ExportError(ValueError):
    """Scores cannot be written in this format."""


def export(cells: Sequence[ScoredCell], format: Format, out: Path) -> list[Path]:  # noqa: A002 - the word users know
    """Write the scores of cells.

    Args:
        cells: of any models and protocols.
        format: one of :data:`FORMATS`.
        out: the file; a folder for ``huggingface``.

    Returns:
        The files written.

    Raises:
        ExportError: Parquet without the package that writes it.
        conservbench.result.WriteError: a file cannot be written.
    """
    if format == "huggingface":
        files = huggingface_files(cells)
        for name, content in files.items():
            write_bytes(content, out / name)
        return [out / name for name in files]
    write: Mapping[str, Callable[[Sequence[Row], Mapping[str, Kind]], bytes]] = {
        "csv": csv_bytes,
        "json": json_bytes,
        "parquet": parquet_bytes,
    }
    write_bytes(write[format](score_rows(cells), SCORES), out)
    return [out]


def score_rows(cells: Sequence[ScoredCell]) -> list[Row]:
    """One row a score, with the columns :data:`SCORES`."""
    return [_score_row(score, cell) for cell in cells for score in cell.scores]


def model_rows(cells: Sequence[ScoredCell]) -> list[Row]:
    """One row a model, by name, with the columns :data:`MODELS`."""
    cards = {str(cell.model["name"]): cell.model for cell in cells}
    return [_model_row(cards[name]) for name in sorted(cards)]


def csv_bytes(rows: Sequence[Row], columns: Mapping[str, Kind]) -> bytes:
    """A CSV table with a heading; text that a spreadsheet would run as a formula gets an apostrophe before it."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(columns), lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows({key: _defused(value) for key, value in row.items()} for row in rows)
    return stream.getvalue().encode()


def json_bytes(rows: Sequence[Row], columns: Mapping[str, Kind]) -> bytes:
    """A JSON list of objects, one a line."""
    lines = [json.dumps({key: row[key] for key in columns}, ensure_ascii=False, allow_nan=False) for row in rows]
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def parquet_bytes(rows: Sequence[Row], columns: Mapping[str, Kind]) -> bytes:
    """A Parquet table with typed columns.

    Raises:
        ExportError: the package that writes it is not installed.
    """
    try:
        pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ExportError("Parquet needs pyarrow: install conservbench[parquet], or export csv or json") from error
    kinds = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
    schema = pa.schema([(key, kinds[kind]) for key, kind in columns.items()])
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), stream)
    return stream.getvalue()


def huggingface_files(cells: Sequence[ScoredCell]) -> dict[str, bytes]:
    """The folder of a Hugging Face dataset, name to content: a card with its metadata, and two tables as JSON lines."""
    tables = {"scores": (score_rows(cells), SCORES), "models": (model_rows(cells), MODELS)}
    files = {"README.md": _dataset_card(cells, {name: len(rows) for name, (rows, _) in tables.items()}).encode()}
    for name, (rows, _) in tables.items():
        lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        files[f"data/{name}.jsonl"] = "".join(lines).encode()
    return files


def _score_row(score: Score, cell: ScoredCell) -> Row:
    metric, origin = cell.metrics.get(score.metric), cell.provenance
    git = origin.get("git") or {}
    found: dict[str, Any] = {
        **score.to_row(),
        "model_version": cell.model["version"],
        "model_digest": cell.model.get("digest"),
        "role": cell.model.get("role", "model"),
        "scheme": cell.model["scheme"],
        "stride": cell.model.get("stride", 1),
        "protocol_version": cell.protocol["version"],
        "protocol_digest": cell.protocol.get("digest"),
        "tier": cell.tier,
        "label": metric and metric.label,
        "below": metric and metric.below,
        "above": metric and metric.above,
        "headline": any(each.key == score.metric for each in cell.headlines),
        "reason": score.reason,
        "cell_outcome": str(cell.outcome),
        "cell_reason": cell.reason,
        "commit": git.get("commit"),
        "dirty": git.get("dirty"),
        "torch": origin.get("packages", {}).get("torch"),
        "seed": origin.get("seeds", {}).get("seed"),
    }
    return {key: _of_kind(found[key] if key in found else origin.get(key), kind) for key, kind in SCORES.items()}


def _model_row(card: Mapping[str, Any]) -> Row:
    found = {
        **card,
        "model": card["name"],
        "model_version": card["version"],
        "model_digest": card.get("digest"),
        "role": card.get("role", "model"),
        "stride": card.get("stride", 1),
        "authors": "; ".join(card.get("authors", ())),
    }
    return {key: _of_kind(found.get(key), kind) for key, kind in MODELS.items()}


def _of_kind(value: Any, kind: Kind) -> str | int | float | bool | None:
    """A value of the type of its column; None where it is of another, as provenance may be that others wrote."""
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    if kind == "float64":
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    if kind == "int64":
        return value if isinstance(value, int) and abs(value) < 2**63 else None
    return value if isinstance(value, str) else None


def _defused(value: str | int | float | bool | None) -> str | int | float | bool | None:
    # numbers stay numbers: -1.5 is no formula
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _dataset_card(cells: Sequence[ScoredCell], sizes: Mapping[str, int]) -> str:
    version = version_of("conservbench") or "0"
    measured = sorted({str(cell.protocol["name"]) for cell in cells})
    own = (
        "@software{conservbench,\n  author = {{conservbench developers}},\n"
        f"  title = {{conservbench: do the forces of a machine-learned potential conserve energy?}},\n"
        f"  version = {{{version}}}\n}}"
    )
    citation = "\n\n".join([own, *_sources(cells)]).replace("```", "")
    counted = f"{sizes['scores']} scores of {sizes['models']} models"
    named = ", ".join(map(escaped, measured)) or "(none)"
    return "\n".join(
        [
            "---",
            *_metadata(sizes),
            "---",
            "",
            "# conservbench: scores of machine-learned potentials",
            _DESCRIPTION,
            f"Written by conservbench {escaped(version)}: {counted} by the protocols {named}.",
            "",
            "## Citation",
            "",
            "How to cite a model is in the column `bibtex` of `models`.",
            "",
            "```bibtex",
            citation,
            "```",
            "",
        ]
    )


def _sources(cells: Sequence[ScoredCell]) -> list[str]:
    """BibTeX entries of the protocols, each key once."""
    text = "\n".join(str(cell.protocol.get("bibtex", "")) for cell in cells)
    entries = (part.strip() for part in re.split(r"^(?=@)", text, flags=re.MULTILINE))
    return list({entry.partition(",")[0]: entry for entry in entries if entry.startswith("@")}.values())


def _metadata(sizes: Mapping[str, int]) -> list[str]:
    """YAML that the Hub reads: licence, tags, and the types of both tables."""
    tags = ("chemistry", "physics", "molecular-dynamics", "interatomic-potentials", "benchmark")
    lines = [
        "license: bsd-3-clause",
        'pretty_name: "conservbench: scores of machine-learned potentials"',
        "tags:",
        *(f"- {tag}" for tag in tags),
        "size_categories:",
        f"- {_size(sum(sizes.values()))}",
        "configs:",
    ]
    for name in sizes:
        lines += [f"- config_name: {name}", f"  data_files: data/{name}.jsonl"]
        lines += ["  default: true"] if name == "scores" else []
    lines.append("dataset_info:")
    for name, columns in (("scores", SCORES), ("models", MODELS)):
        lines += [f"- config_name: {name}", "  features:"]
        for key, kind in columns.items():
            lines += [f"  - name: {key}", f"    dtype: {kind}"]
    return lines


def _size(rows: int) -> str:
    """The category of a number of rows, as the Hub names it."""
    steps = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for most, name in steps if rows < most), "1M<n<10M")
