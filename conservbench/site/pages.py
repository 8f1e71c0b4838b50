"""Which pages there are and what is on each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from conservbench.leaderboard.chemistry import by_chemistry
from conservbench.leaderboard.correlation import WORDS, ladders
from conservbench.leaderboard.coverage import Coverage, coverage, coverage_of_run
from conservbench.leaderboard.pareto import fronts
from conservbench.leaderboard.sheet import LEGEND, columns_of, label_of, limits_of, plain
from conservbench.leaderboard.twins import twins
from conservbench.site.command import Installed, installed
from conservbench.site.figures import SLOTS, Figure, figure_of, in_json, overlaid
from conservbench.site.ladder import NOTE, Row, ladder_figure, rows_of
from conservbench.site.links import file_names
from conservbench.site.passport import passport, settings
from conservbench.site.render import SCRIPTS, STYLES, inlined, render
from conservbench.site.standing import (
    NetworkView,
    Standing,
    front_figure,
    network_view,
    rank_table,
    standings,
)
from conservbench.site.views import CellView, Field, field_of, groups, table_of, title_of, view_of

if TYPE_CHECKING:
    from conservbench.plot import Plot
    from conservbench.scored import ScoredCell

SHOWN: Final = SLOTS
"""Models that a picture of several shows at first: no two of one colour."""


@dataclass(frozen=True)
class Picture:
    """A plot on a page: where its figure is, its words, and what it is of."""

    key: str
    title: str
    note: str
    where: str


@dataclass(frozen=True)
class Names:
    """Names of the pages of models, protocols and networks."""

    models: Mapping[str, str]
    protocols: Mapping[str, str]
    networks: Mapping[str, str]


class Figures(dict[str, Figure]):
    """The figures of one page by their keys."""

    def add(self, title: str, note: str, where: str, figure: Figure) -> Picture:
        """Keep a figure under the next key."""
        key = f"figure-{len(self) + 1}"
        self[key] = in_json(figure)
        return Picture(key, plain(title), plain(note), plain(where))


@dataclass(frozen=True)
class Board:
    """What all pages share.

    Attributes:
        cells: all that is shown.
        cards: name to model card, models before controls.
        names: of pages.
        networks: rows of one network side by side, by the name of its gradient row.
        standings: name to where the model stands.
        here: cards that are installed.
        slots: name to the colour of the model in pictures of several.
        standalone: whether there is one page, that holds its assets.
    """

    cells: tuple[ScoredCell, ...]
    cards: Mapping[str, Mapping[str, Any]]
    names: Names
    networks: Mapping[str, NetworkView]
    standings: Mapping[str, Standing]
    here: Installed
    slots: Mapping[str, int]
    standalone: bool

    def page(self, template: str, figures: Figures, **context: Any) -> str:
        """A page of it."""
        return render(template, board=self, names=self.names, figures=figures, legend=LEGEND, **context)


def site_pages(
    cells: Sequence[ScoredCell], protocols: Iterable[Mapping[str, Any]] = ()
) -> tuple[dict[str, str], Mapping[str, str]]:
    """Path of each page to its text, the first page first; and the page names of the models.

    Args:
        cells: what is shown, with pictures.
        protocols: cards as parsed of more protocols that ask the models, measured or not.
    """
    board = _board(cells, coverage(cells, protocols))
    names = board.names
    pages = {"index.html": _index(board)}
    for name, page in names.models.items():
        pages[f"models/{page}.html"] = _model(name, board)
    for name, page in names.protocols.items():
        pages[f"protocols/{page}.html"] = _protocol([c for c in board.cells if c.protocol["name"] == name], board)
    for name, page in names.networks.items():
        pages[f"networks/{page}.html"] = _network(board.networks[name], board)
    return pages, names.models


def report_page(cells: Sequence[ScoredCell]) -> str:
    """The one page of a run, with everything in it."""
    figures = Figures()
    board = replace(_board(cells, coverage_of_run(cells)), names=Names({}, {}, {}), standalone=True)
    return board.page(
        "report.html",
        figures,
        root="",
        tables=[table_of(group, board.here) for group in groups(cells)],
        rungs=_rungs(cells, figures),
        models=[_sections(name, board, figures) for name in board.cards],
        styles=[inlined(name) for name in STYLES],
        scripts=[inlined(name) for name in SCRIPTS],
    )


def _board(cells: Sequence[ScoredCell], coverages: Iterable[Coverage]) -> Board:
    cards = _cards(cells)
    networks = {table.network: network_view(table) for table in twins(cells)}
    return Board(
        cells=tuple(cells),
        cards=cards,
        names=Names(file_names(cards), file_names(cell.protocol["name"] for cell in cells), file_names(networks)),
        networks=networks,
        standings=_standings(cells, cards, coverages),
        here=installed(),
        slots=_slots(cells, cards),
        standalone=False,
    )


def _standings(cells: Sequence[ScoredCell], cards: Iterable[str], coverages: Iterable[Coverage]) -> dict[str, Standing]:
    """Models before controls, those without a verdict last among them."""
    every = standings(cells, coverages)
    found = {name: every[name] for name in cards}
    return dict(
        sorted(
            found.items(), key=lambda item: (item[1].control, item[1].verdict.level in ("not measured", "no verdict"))
        )
    )


def _slots(cells: Sequence[ScoredCell], cards: Iterable[str]) -> dict[str, int]:
    """Colours: the models that most protocols measured come first, so that no two of them share one."""
    count = Counter(cell.model["name"] for cell in cells if not cell.is_control)
    return {name: place for place, name in enumerate(sorted(cards, key=lambda name: -count[name]))}


def _index(board: Board) -> str:
    figures = Figures()
    pictures = [
        figures.add(
            f"{front.title}: {plain(front.metric.label)}, {front.system}, {front.tier} tier",
            "Further right is faster. Filled: on the front, no model is better in both; open: behind it. Bars are 95 % "
            f"intervals; the speed is that of {front.speed_system}, {front.speed_tier} tier, on {front.machine}.",
            front.machine,
            front_figure(front),
        )
        for front in fronts(board.cells)
    ]
    tables = [table_of(group, board.here) for group in groups(board.cells)]
    return board.page("index.html", figures, root="", tables=tables, pictures=pictures)


def _model(name: str, board: Board) -> str:
    figures = Figures()
    return board.page("model.html", figures, root="../", model=_sections(name, board, figures))


def _protocol(cells: Sequence[ScoredCell], board: Board) -> str:
    figures = Figures()
    card = cells[-1].protocol
    metrics = cells[-1].metrics.values()
    tiers, rows = settings(card)
    tables = [table_of(group, board.here) for group in groups(cells)]
    ranked = [
        rank_table(own, ": ".join(filter(None, (table.title, elements))))
        for group, table in zip(groups(cells), tables, strict=True)
        for elements, own in by_chemistry(cell for cell in group if not cell.is_control).items()
    ]
    return board.page(
        "protocol.html",
        figures,
        root="../",
        card=card,
        tables=tables,
        ranked=[each for each in ranked if each is not None],
        rungs=_rungs(cells, figures),
        gates=[(label_of(each), limits_of(each), plain(each.source), each.better or "") for each in metrics],
        tiers=tiers,
        settings=rows,
        pictures=_overlays(cells, figures, board),
        filtered=_first_shown(list(_cards(cells).values()), board),
    )


@dataclass(frozen=True)
class Rungs:
    """What errors on labels say of errors of properties: the words above, a table, pictures."""

    words: str
    rows: tuple[Row, ...]
    pictures: tuple[Picture, ...]


def _rungs(cells: Sequence[ScoredCell], figures: Figures) -> Rungs:
    found = ladders(cells)
    pictures = tuple(
        figures.add(
            # pictures of several chemistries stand one below the other
            ", ".join(filter(None, (f"{plain(each.other.label)} against {plain(each.fit.label)}", each.elements))),
            NOTE,
            ", ".join(filter(None, (plain(each.title), f"{each.tier} tier", each.system, each.elements))),
            ladder_figure(each),
        )
        for each in found
        if sum(len(kind.points) for kind in each.kinds) > 1
    )
    return Rungs(WORDS, tuple(rows_of(found)), pictures)


def _network(network: NetworkView, board: Board) -> str:
    figures = Figures()
    cells = [cell for cell in board.cells if cell.model["name"] in network.members]
    # few models: each has a colour of its own
    own = replace(board, slots={name: place for place, name in enumerate(network.members)})
    return board.page(
        "network.html",
        figures,
        root="../",
        network=network,
        sides=[side for group in groups(cells) if (side := _side_by_side(group, network.members)).rows],
        pictures=_overlays(cells, figures, own),
        filtered=[(name, True) for name in network.members],
    )


@dataclass(frozen=True)
class Side:
    """Headline metrics of the rows of one network, side by side."""

    protocol: str
    title: str
    models: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[Field, ...]], ...]


def _side_by_side(cells: Sequence[ScoredCell], net: Sequence[str]) -> Side:
    found = {(cell.model["name"], cell.system): cell for cell in cells}
    models = tuple(name for name in net if any(model == name for model, _ in found))
    rows = []
    for system in dict.fromkeys(cell.system for cell in cells):
        for metric in columns_of(cells):
            fields = []
            for model in models:
                cell = found.get((model, system))
                scores = {score.metric: score for score in cell.scores} if cell else {}
                fields.append(field_of(scores.get(metric.key), metric, cell) if cell else Field("not asked"))
            rows.append((system, label_of(metric), tuple(fields)))
    return Side(cells[0].protocol["name"], title_of(cells), models, tuple(rows) if len(models) > 1 else ())


@dataclass(frozen=True)
class Section:
    """A model under one protocol, version and tier."""

    protocol: str
    title: str
    question: str
    cells: tuple[tuple[CellView, tuple[Picture, ...]], ...]


@dataclass(frozen=True)
class Model:
    """A model with its card and all its cells."""

    name: str
    title: str
    control: bool
    facts: tuple[Any, ...]
    notes: str
    bibtex: str
    sections: tuple[Section, ...]
    standing: Standing


def _sections(name: str, board: Board, figures: Figures) -> Model:
    own = [cell for cell in board.cells if cell.model["name"] == name]
    card = own[0].model
    sections = []
    for group in groups(own):
        title = title_of(group)
        views = tuple(
            (
                view_of(cell, board.here),
                tuple(_picture(plot, cell, figures) for plot in cell.plots),
            )
            for cell in group
        )
        sections.append(Section(group[0].protocol["name"], title, plain(group[0].protocol.get("question", "")), views))
    return Model(
        name=name,
        title=plain(card.get("title", "")),
        control=own[0].is_control,
        facts=tuple(passport(card)),
        notes=plain(card.get("notes", "")),
        bibtex=card.get("bibtex", "").strip(),
        sections=tuple(sections),
        standing=board.standings[name],
    )


def _picture(plot: Plot, cell: ScoredCell, figures: Figures) -> Picture:
    where = f"{cell.model['name']}, {title_of([cell])}, {cell.system}"
    return figures.add(plot.title, plot.note, where, figure_of(plot))


def _overlays(cells: Sequence[ScoredCell], figures: Figures, board: Board) -> list[tuple[str, list[Picture]]]:
    """Title of each group and system to its pictures, the models in each."""
    found = []
    for group in groups(cells):
        for system in dict.fromkeys(cell.system for cell in group):
            where = f"{title_of(group)}, {system}"
            plots: dict[str, dict[str, Plot]] = {}
            for cell in group:
                for plot in cell.plots if cell.system == system else ():
                    plots.setdefault(plot.key, {})[cell.model["name"]] = plot
            pictures = []
            for of in plots.values():
                first = next(iter(of.values()))
                pictures.append(figures.add(first.title, first.note, where, overlaid(of, board.slots)))
            if pictures:
                found.append((where, pictures))
    return found


def _first_shown(models: Sequence[Mapping[str, Any]], board: Board) -> list[tuple[str, bool]]:
    """Models and whether pictures show them at first: those that are not controls, up to the number of colours."""
    models = sorted(models, key=lambda card: board.slots[card["name"]])
    chosen = [card["name"] for card in models if card.get("role") != "control"][:SHOWN]
    return [(card["name"], card["name"] in chosen) for card in models]


def _cards(cells: Iterable[ScoredCell]) -> dict[str, Mapping[str, Any]]:
    """Name to card, models before controls."""
    cards = {cell.model["name"]: cell.model for cell in cells}
    return dict(sorted(cards.items(), key=lambda item: (item[1].get("role") == "control", item[0])))
