"""Tables in a terminal and in a notebook."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from conservbench.scoring import ScoreTable


def printed(table: ScoreTable, width: int) -> list[str]:
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_a_row_is_one_line(make_cell, width):
    cells = (make_cell("si-mace-direct"), make_cell("si-sw", (1e-5, 3e-3), model={"role": "control"}))
    lines = printed(ScoreTable(cells), width)
    (direct,) = [line for line in lines if "si-mace-direct" in line and "note" not in line and "✗" in line]
    assert direct.split() == ["si-mace-direct", "7.0", "±", "0.4", "✗", "1✓1✗"]
    assert any(line.split()[:5] == ["si-sw", "(control)", "0.000", "±", "0.003"] for line in lines)
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_narrow_terminal_breaks_a_table_and_loses_nothing(make_cell, width):
    cell = make_cell("si-mace-direct", (-1234.5, 678.9))
    wide = replace(cell, metrics={key: replace(cell.metrics[key], headline=True) for key in cell.metrics})
    lines = printed(ScoreTable((wide,)), width)
    assert max(map(len, lines)) <= width
    rows = "".join(line for line in lines if line.lstrip().startswith("si-mace-direct"))
    assert rows.count("-1200 ± 700 ✗") == 2
    assert rows.count("2✗") == 1


def test_card_text_is_neither_markup_nor_a_command(make_cell):
    table = ScoreTable((make_cell(model={"name": "[red]x[/nothing]"}, protocol={"title": "\x1b[2J[bold]T"}),))
    text = "\n".join(printed(table, 120))
    assert "[red]x[/nothing]" in text
    assert "[bold]T" in text
    assert "\x1b" not in text


def test_html_escapes_card_text(make_cell):
    evil = "<script>alert(1)</script>"
    cell = make_cell(model={"name": evil}, protocol={"title": evil}, reason=evil, drift=None, system=evil)
    html = ScoreTable((cell,))._repr_html_()
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)
    parser.feed(html)
    assert "script" not in tags
    assert {"table", "caption", "th", "td"} <= set(tags)
    assert html.count("&lt;script&gt;") >= 3


def test_no_scores():
    assert str(ScoreTable(())).strip() == "no scores"


def test_verdicts_of_models_come_last_and_controls_have_none(make_cell):
    cells = (make_cell("net"), make_cell("toy", model={"role": "control"}), make_cell("none", None))
    text = " ".join(printed(ScoreTable(cells), 80)).split("not shown. ")[1]
    assert " ".join(text.split()) == (
        "- net is not usable: it fails 1 of 1 protocols: energy drift 7.0 ± 0.4 meV/atom/ps (limit ±0.26) on si-64."
    )
