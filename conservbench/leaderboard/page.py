"""The published page in markdown: verdicts, twins, speed, then a section a protocol. Equal results give equal text."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from conservbench.leaderboard.chemistry import by_chemistry
from conservbench.leaderboard.correlation import WORDS
from conservbench.leaderboard.correlation_table import HEADINGS, NAMES, TITLE, correlation_rows
from conservbench.leaderboard.coverage import Coverage, coverage
from conservbench.leaderboard.entry import entry_name
from conservbench.leaderboard.markup import escaped, folded, table
from conservbench.leaderboard.number import spelled
from conservbench.leaderboard.pareto import Front, Point, Standing, fronts
from conservbench.leaderboard.ranking import rankable, ranks
from conservbench.leaderboard.sheet import (
    LEGEND,
    MARKS,
    comparable,
    label_of,
    limits_of,
    plain,
    sheet_of,
    tally,
    value_of,
)
from conservbench.leaderboard.twins import TwinRow, TwinTable, gate_in, is_lost, scheme_of, twins
from conservbench.leaderboard.verdict import Verdict, verdict
from conservbench.outcome import Outcome

if TYPE_CHECKING:
    from conservbench.scored import Score, ScoredCell

_INTRODUCTION: Final = (
    "Can the forces of these potentials be used in a simulation? Each was put through the same protocols, and each "
    "number is held against a gate with a source. All numbers, with what is behind them, are in [entries](entries); "
    "this page is written from them by `conservbench board`."
)

_READING: Final = """\
- A model is not usable if it fails more than half of the protocols that have gates, usable with care if it fails some,
  if gates stayed unclear or if it was not measured on all that is asked, and usable if it passes all. A gate that has
  no value, though the metric has a meaning for the model, is failed.
- Cells are those measured of those asked. A cell that exploded, failed or is missing counts against the model: it ranks
  last and is never averaged over.
- Ranks are 95 % intervals, by a bootstrap over replicas and systems; overlapping ones are ties.
- Controls are rows whose answer is known beforehand: they check the benchmark, and have neither verdict nor rank.
- † follows a value that a note below the table qualifies."""

_MOST_COLUMNS: Final = 7
"""Numbers side by side on a page."""

_RANKS: Final = "Ranks over all systems of the protocol{where}, 1 the best:"

_TWINS: Final = (
    "Rows of one network, by the forces that a simulation takes from it: minus the gradient of its energy, its direct "
    "head, or direct forces that the gradient corrects every few steps (MTS)."
)

_SPEED: Final = (
    "● no other model is as good in both values and better in one; ▽ another one is better in both by whole intervals. "
    "Times are of one running machine."
)

_STANDINGS: Final[Mapping[Standing | None, str]] = {
    "front": " ●",
    "dominated": "",
    "surely dominated": " ▽",
    None: "",
}


class BoardError(ValueError):
    """Results that are not to be published, or not side by side."""


def check_publishable(cells: Sequence[ScoredCell]) -> None:
    """Check that results may stand on one page.

    Raises:
        BoardError: there are none; one is of the smoke tier; two are of one model, protocol and system; or two differ
            in version or card of their protocol, or in version or card of their model. The gates count as part of the
            protocol's card.
    """
    if not cells:
        raise BoardError("no results to publish")
    seen: set[str] = set()
    for cell in cells:
        if cell.tier == "smoke":
            raise BoardError(
                f"{_label(cell)} is of the smoke tier, which is never published; expected quick or standard"
            )
        if _label(cell) in seen:
            raise BoardError(f"{_label(cell)} is there twice")
        seen.add(_label(cell))
    for kind in ("protocol", "model"):
        first: dict[str, ScoredCell] = {}
        for cell in cells:
            other = first.setdefault(getattr(cell, kind)["name"], cell)
            _check_alike(kind, other, cell)


def _check_alike(kind: Literal["protocol", "model"], one: ScoredCell, other: ScoredCell) -> None:
    cards = [getattr(cell, kind) for cell in (one, other)]
    versions = [f"version {card['version']}" for card in cards]
    where = f"{_label(one)} and {_label(other)}"
    if versions[0] != versions[1]:
        raise BoardError(f"{where} differ in their {kind}: {versions[0]} against {versions[1]}; measure them alike")
    if cards[0].get("digest") != cards[1].get("digest"):
        raise BoardError(f"{where} were measured with different cards of one {kind} version; measure them again")
    # the digest leaves the gates out
    if cards[0].get("metrics") != cards[1].get("metrics"):
        raise BoardError(
            f"{where} were measured for different metrics or gates of one {kind} version; measure them alike"
        )


def markdown(cells: Sequence[ScoredCell], protocols: Iterable[Mapping[str, Any]] = ()) -> str:
    """The page.

    Args:
        cells: one a model, protocol and system.
        protocols: cards as parsed of more protocols that ask the models, measured or not.
    """
    lines = ["# Leaderboard: what the published models scored", "", _INTRODUCTION, ""]
    lines += _glance(cells, coverage(cells, protocols)) + _twins(cells) + _speed(cells)
    for group in comparable(cells):
        lines += _protocol(group)
        lines += _ladders(group)
    lines += _models(cells) + _reproduction(cells)
    return "\n".join(lines).rstrip() + "\n"


def _glance(cells: Sequence[ScoredCell], covering: Iterable[Coverage]) -> list[str]:
    """Verdicts: a row a model, a column a protocol, one for each tier of it."""
    covered = {each.model: each for each in covering}
    models: dict[str, list[ScoredCell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.is_control):
        models.setdefault(str(cell.model["name"]), []).append(cell)
    gated = {name: own for name, own in models.items() if any(map(_has_gates, own))}
    columns = sorted({_column(cell) for cell in cells if _has_gates(cell)})
    body, sentences = [], []
    for name, own in gated.items():
        said = verdict(own, covered[name])
        control = own[0].is_control
        tallies = [tally(s for cell in own if _column(cell) == each for s in cell.scores) for each in columns]
        shown = ("control", name) if control else (said.level, name)
        body.append((shown[1], shown[0], covered[name].text, *tallies))
        sentences += [] if control else [_sentence(said)]
    lines = ["## At a glance", "", *table(("model", "verdict", "cells", *_column_heads(columns)), body, words=2)]
    lines += [escaped(LEGEND), "", *sentences, *([""] if sentences else [])]
    if others := [cell for cell in cells if cell.model["name"] not in gated]:
        count, names = len({cell.model["name"] for cell in others}), sorted({cell.protocol["name"] for cell in others})
        lines += [f"No verdict on {count} more, in tables without gates: see {escaped(', '.join(names))}.", ""]
    return lines + folded("How to read this page", _READING.splitlines())


def _column(cell: ScoredCell) -> tuple[str, str]:
    """What may share a column: gates of one protocol in one tier."""
    return str(cell.protocol["name"]), cell.tier


def _column_heads(columns: Sequence[tuple[str, str]]) -> list[str]:
    """Protocols, with the tier unless all are of one."""
    several = len({tier for _, tier in columns}) > 1
    return [f"{protocol}, {tier}" if several else protocol for protocol, tier in columns]


def _has_gates(cell: ScoredCell) -> bool:
    """Whether the cell can count in a verdict, which is on the gates of tables alone."""
    return any(metric.gated for metric in cell.headlines)


def _sentence(said: Verdict) -> str:
    return f"- **{escaped(said.model)}** {escaped(said.sentence.removeprefix(said.model))}"


def _twins(cells: Sequence[ScoredCell]) -> list[str]:
    tables = [each for each in twins(cells) if each.costs or each.saves]
    if not tables:
        return []
    lines = [
        "## What dropping the gradient costs, and what it saves",
        "",
        _TWINS,
        "",
    ]
    for each in tables:
        if not each.control:
            lines += [f"### {escaped(each.network)}", "", *_twin_table(each)]
    controls = [each for each in tables if each.control]
    return lines + (folded("The same of controls", [*chain(*map(_twin_table, controls))]) if controls else [])


def _twin_table(twin: TwinTable) -> list[str]:
    # a tier that all rows share is told once
    several = len({row.tier for row in (*twin.costs, *twin.saves)}) > 1
    machines = len({row.machine for row in twin.saves}) > 1
    names = [f"{scheme}: {name}" for scheme, name in zip(twin.schemes, twin.members, strict=True)]
    costs, saves = (
        [
            (_twin_label(row, tier=several, machine=machines), *(_twin_field(row, score) for score in row.scores))
            for row in rows
        ]
        for rows in (twin.costs, twin.saves)
    )
    divider = [("what it saves:", *([""] * len(names)))] if costs and saves else []
    heading = "what it costs" if costs else "what it saves"
    return [*table((heading, *names), [*costs, *divider, *saves]), *_twin_sentences(twin), ""]


def _twin_label(row: TwinRow, *, tier: bool, machine: bool) -> str:
    parts = [label_of(row.metric), row.system]
    parts += [f"{row.tier} tier"] if tier else []
    parts += [f"on {row.machine}"] if machine and row.machine else []
    return ", ".join(parts)


def _twin_field(row: TwinRow, score: Score | None) -> str:
    if score is None or (score.value is None and score.outcome is Outcome.UNSUPPORTED):
        return "–"
    return f"{value_of(score, row.metric)} {MARKS[score.gate] if score.gate else ''}".strip()


def _twin_sentences(twin: TwinTable) -> list[str]:
    """How many gates that the gradient passes each other row loses: fails, or has no value for."""
    lines = []
    for place, (name, scheme) in enumerate(zip(twin.members, twin.schemes, strict=True)):
        both = [row for row in twin.costs if place and row.scores[0] is not None and row.scores[place] is not None]
        passed = [row.scores[place] for row in both if gate_in(row.scores[0]) == "pass"]
        if passed:
            lost = sum(is_lost(score) for score in passed)
            silent = sum(is_lost(score) and gate_in(score) != "fail" for score in passed)
            count = (
                f"{lost or 'none'} of the {len(passed)} gates above"
                if len(passed) > 1
                else ("the one gate above" if lost else "no gate above")
            )
            without = f" ({silent} without a value)" if silent else ""
            gained = "".join(f"; {_gain(row, place)}" for row in twin.saves if _is_gain(row, place))
            line = f"({scheme}) fails {count} that the gradient passes{without}{gained}."
            lines.append(f"- {escaped(f'{name} {line}')}")
    return lines


def _is_gain(row: TwinRow, place: int) -> bool:
    score = row.scores[place]
    return row.metric.key == "speedup" and score is not None and score.value is not None


def _gain(row: TwinRow, place: int) -> str:
    score = row.scores[place]
    return "" if score is None else f"{row.metric.label} {value_of(score, row.metric)}"


def _speed(cells: Sequence[ScoredCell]) -> list[str]:
    """Speed against fidelity: a table a machine, a row a metric, a column a model."""
    machines: dict[tuple[tuple[str, ...], str, str], list[Front]] = {}
    for front in fronts(cells):
        machines.setdefault((front.machine_key, front.speed_system, front.speed_tier), []).append(front)
    speed_tiers = {tier for _, _, tier in machines}
    if not machines:
        return []
    lines = ["## Speed against fidelity", "", _SPEED, ""]
    for (_, system, tier), group in machines.items():
        machine = group[0].machine + (f", {tier} tier" if len(speed_tiers) > 1 else "")
        points = {point.model: point for front in group for point in front.points}
        models = sorted(points.values(), key=lambda each: (each.control, -each.speed.value, each.model))
        headings = [f"{each.model}{' (control)' if each.control else ''}" for each in models]
        digits = group[0].speed.digits
        speeds = [spelled(each.speed.value, each.speed.low, each.speed.high, digits) for each in models]
        body = [(f"{label_of(group[0].speed)}, {system}", *speeds)]
        several = len({front.tier for front in group}) > 1
        for front in group:
            found = {point.model: point for point in front.points}
            fields = [_point(found.get(each.model), front) for each in models]
            named = f"{front.system}, {front.tier} tier" if several else front.system
            body.append((f"{label_of(front.metric)}, {named}", *fields))
        lines += [f"On {escaped(machine)}:", "", *table(("fastest first", *headings), body)]
    return lines


def _point(point: Point | None, front: Front) -> str:
    if point is None:
        return "–"
    return (
        spelled(point.other.value, point.other.low, point.other.high, front.metric.digits) + _STANDINGS[point.standing]
    )


def _protocol(cells: Sequence[ScoredCell]) -> list[str]:
    """The section of cells that can be compared: a table a system, ranks, gates."""
    systems: dict[str, list[ScoredCell]] = {}
    for cell in cells:
        systems.setdefault(cell.system, []).append(cell)
    whole = sheet_of(cells)
    lines = [f"## {escaped(whole.title)}", "", escaped(whole.question), ""]
    for system, own in systems.items():
        lines += [f"### {escaped(system)}", "", *_system(own)]
    for elements, own in by_chemistry(cell for cell in cells if not cell.is_control).items():
        lines += _ranks(own, elements)
    return lines + _gates(cells[0])


def _system(cells: Sequence[ScoredCell]) -> list[str]:
    """The table of one system and what a reader must know of it."""
    if all(cell.outcome is Outcome.UNSUPPORTED for cell in cells):
        return _unsupported(cells)
    sheet = sheet_of(cells)
    ((system, rows),) = sheet.systems.items()
    lines: list[str] = []
    for places in _parts(len(sheet.headings)):
        body = [(row.name, *(row.entries[place].marked for place in places)) for row in rows]
        lines += table(("model", *(sheet.headings[place] for place in places)), body)
    notes = [f"- {escaped(note)}" for note in sheet.notes[system]]
    return [*lines, *notes, *([""] if notes else [])]


def _parts(columns: int) -> list[list[int]]:
    """Columns of as many tables as a page is wide enough for, about as many in each."""
    tables = -(-columns // _MOST_COLUMNS)
    bounds = [columns * part // tables for part in range(tables + 1)]
    return [list(range(*pair)) for pair in pairwise(bounds)]


def _unsupported(cells: Sequence[ScoredCell]) -> list[str]:
    """A line a reason in place of a table without any number."""
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        reasons.setdefault(cell.reason, []).append(f"{cell.model['name']}{' (control)' if cell.is_control else ''}")
    said = [f"{', '.join(names)}: unsupported: {why or 'no reason recorded'}" for why, names in reasons.items()]
    return [*(f"- {escaped(each)}" for each in said), ""]


def _ranks(cells: Sequence[ScoredCell], elements: str) -> list[str]:
    """Rank intervals: a row a model, a column a headline metric that tells any two models apart."""
    where = f" with {escaped(elements)}" if elements else ""
    found = {plain(metric.label): ranks(cells, metric.key) for metric in rankable(cells[0].headlines)}
    found = {label: each for label, each in found.items() if each}
    telling = {
        label: each for label, each in found.items() if any(rank.high - rank.low < len(each) - 1 for rank in each)
    }
    alike = "; ".join(label for label in found if label not in telling)
    lines = [f"No two models are told apart{where} by: {escaped(alike)}.", ""] if alike else []
    if not telling:
        return lines
    texts = {(rank.model, label): rank.text for label, each in telling.items() for rank in each}
    models = sorted({model for model, _ in texts})
    body = [(model, *(texts.get((model, label), "–") for label in telling)) for model in models]
    return [_RANKS.format(where=where), "", *table(("rank", *telling), body), *lines]


def _gates(cell: ScoredCell) -> list[str]:
    lines = [
        f"- {escaped(label_of(metric))}: {limits_of(metric) or 'no gate'}. {escaped(metric.source)}".rstrip()
        for metric in sorted(cell.metrics.values(), key=lambda metric: not metric.headline)
        if limits_of(metric) or metric.headline
    ]
    return folded(f"Gates of {cell.protocol['name']} and where they come from", lines) if lines else []


def _ladders(cells: Sequence[ScoredCell]) -> list[str]:
    """What errors on labels say of errors of properties: a row a property, and kind of forces."""
    body = correlation_rows(cells)
    return [f"### {TITLE}", "", WORDS, "", *table(HEADINGS, body, words=NAMES)] if body else []


def _models(cells: Sequence[ScoredCell]) -> list[str]:
    lines = ["## Models", ""]
    cards = {cell.model["name"]: (cell.is_control, cell.model) for cell in cells}
    for _, (control, card) in sorted(cards.items(), key=lambda item: (item[1][0], item[0])):
        link = f"entries/{quote(entry_name(card['name']), safe='')}"
        lines.append(
            f"- [**{escaped(card['name'])}**]({link}), version {card['version']}{' (control)' if control else ''}: "
            + _passport(card)
        )
    return [*lines, ""]


def _passport(card: Mapping[str, Any]) -> str:
    parts = [escaped(card["title"]), f"forces {escaped(scheme_of(card))}"]
    parts += [escaped(f"tuned from {card['parent']} to {card['tuning']['target']}")] if card.get("parent") else []
    parts += [escaped(", ".join(card["authors"]))] if card.get("authors") else []
    parts += [f"licence {escaped(card['license'])}"] if card.get("license") else []
    parts += [f"[{escaped(card['doi'])}](https://doi.org/{quote(plain(card['doi']))})"] if card.get("doi") else []
    parts += [f"trained on: {escaped(card['training_data'])}"] if card.get("training_data") else []
    return "; ".join(parts).rstrip(".") + "."


def _reproduction(cells: Sequence[ScoredCell]) -> list[str]:
    codes = sorted({_code(cell.provenance) for cell in cells})
    return [
        "## Reproduce",
        "",
        f"Measured with {escaped('; '.join(codes))}.",
        "",
        "```",
        # on one line each, so that no name ends the block
        *map(plain, _commands(cells)),
        "conservbench board conservbench-results --out leaderboard",
        "```",
    ]


def _commands(cells: Sequence[ScoredCell]) -> list[str]:
    """Commands that measure these cells and no others: one for each block of protocols, systems and models."""
    models: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        models.setdefault((cell.tier, cell.protocol["name"], cell.system), []).append(cell.model["name"])
    systems: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for (tier, protocol, system), names in models.items():
        systems.setdefault((tier, protocol, tuple(sorted(names))), []).append(system)
    protocols: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (tier, protocol, block), names in systems.items():
        protocols.setdefault((tier, tuple(names), block), []).append(protocol)
    return [
        shlex.join(
            ["conservbench", "run", "--tier", tier, *_flagged("-p", names), *_flagged("-s", on), *_flagged("-m", of)]
        )
        for (tier, on, of), names in protocols.items()
    ]


def _flagged(flag: str, names: Iterable[str]) -> list[str]:
    return [word for name in names for word in (flag, name)]


def _code(provenance: Mapping[str, Any]) -> str:
    git = provenance.get("git") or {}
    commit = f" at commit {git['commit'][:12]}{' with local changes' if git.get('dirty') else ''}" if git else ""
    packages = provenance.get("packages", {})
    versions = [f"{name} {packages[name]}" for name in ("torch", "mace-torch", "ase") if packages.get(name)]
    return ", ".join([f"conservbench {provenance.get('conservbench')}{commit}", *versions])


def _label(cell: ScoredCell) -> str:
    return f"{cell.protocol['name']} / {cell.system} / {cell.model['name']}"
