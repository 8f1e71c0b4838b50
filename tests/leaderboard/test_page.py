"""The published page."""

import re
from dataclasses import replace

import pytest

from conservbench.leaderboard.markup import escaped
from conservbench.leaderboard.page import BoardError, check_publishable, markdown
from conservbench.outcome import Outcome

EVIL = "<script>x</script> | `a` [b](c) *d*\n```\nnew"


def unescaped_pipes(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


def section(page: str, title: str) -> str:
    """The text below a heading of the second level."""
    return page.split(f"\n## {title}")[1].split("\n## ")[0]


def test_page_has_tables_gates_models_and_the_command(make_cell):
    passport = {"authors": ["A. B.", "C"], "doi": "10.1/x", "license": "MIT", "training_data": "PBE"}
    cells = [
        make_cell("net", model=passport),
        make_cell("toy", (0.0, 0.1), model={"role": "control"}),
        make_cell("net", None, system="liquid", outcome=Outcome.UNSUPPORTED, reason="no element", model=passport),
        make_cell("toy", (0.0, 0.1), system="liquid", model={"role": "control"}),
    ]
    page = markdown(cells)
    assert "| net | 7.0 ± 0.4 ✗ | 1✓1✗ |" in page
    assert "| toy (control) | 0.00 ± 0.10 ✓ | 1✓1✗ |" in page
    assert "| net | unsupported | – |" in page
    assert "- net: unsupported: no element" in page
    assert "above -0.26 and below 0.26. paper" in page
    assert "- [**net**](entries/net.json), version 2: A network; forces direct; A. B., C; licence MIT; " in page
    assert "[10.1/x](https://doi.org/10.1/x); trained on: PBE." in page
    assert "conservbench run --tier standard -p nve -s si-64 -s liquid -m net -m toy\n" in page
    assert "conservbench 0.1.0 at commit 0123456789ab" in page


def test_verdicts_come_first_and_controls_have_none(make_cell):
    glance = section(markdown([make_cell("net"), make_cell("toy", model={"role": "control"})]), "At a glance")
    assert "| net | not usable | 1 of 1 | 1✓1✗ |" in glance
    assert "| toy | control | 1 of 1 | 1✓1✗ |" in glance
    assert (
        "- **net** is not usable: it fails 1 of 1 protocols: energy drift 7.0 ± 0.4 meV/atom/ps (limit ±0.26)" in glance
    )
    assert "**toy**" not in glance


def test_cells_that_are_missing_are_counted_and_named(make_cell):
    asked = {"systems": ["si-64", "liquid"]}
    cells = [make_cell("a", protocol=asked), make_cell("b", protocol=asked)]
    cells += [make_cell("a", system="liquid", protocol=asked)]
    cells += [make_cell("c", None, outcome=Outcome.FAILED, reason="raised", protocol=asked)]
    glance = section(markdown(cells), "At a glance")
    assert "| a | not usable | 2 of 2 |" in glance
    assert "| b | not usable | 1 of 2 |" in glance
    assert re.search(r"\*\*b\*\*.*; not measured: nve on liquid\.", glance)
    assert "| c | not measured | 0 of 2 | – |" in glance
    assert (
        "- **c** is not measured: failed: nve on si-64: raised; not measured: nve on si-64 (failed), nve on" in glance
    )


def test_a_protocol_that_nobody_measured_is_missing(make_cell):
    cells = [make_cell("a", (0.0, 0.1), model={"scheme": "gradient"})]
    cells = [replace(cell, scores=cell.scores[:1]) for cell in cells]
    more = [{"name": "relax", "systems": ["vacancy"]}, {"name": "speed", "systems": ["si-64"], "by_default": False}]
    assert "| a | usable | 1 of 1 | 1✓ |" in markdown(cells)
    glance = section(markdown(cells, more), "At a glance")
    assert "| a | usable with care | 1 of 2 | 1✓ |" in glance
    assert "- **a** is usable with care: not measured: relax on vacancy." in glance


def test_tiers_of_one_protocol_have_a_column_each(make_cell):
    glance = section(markdown([make_cell("a", tier="quick"), make_cell("b")]), "At a glance")
    assert "| model | verdict | cells | nve, quick | nve, standard |" in glance
    assert "| a | not usable | 1 of 1 | 1✓1✗ | – |" in glance
    assert "| b | not usable | 1 of 1 | – | 1✓1✗ |" in glance


def test_a_twin_without_values_loses_its_gates(make_cell):
    cells = [
        make_cell("net-gradient", (0.0, 0.1), system=system, model={"scheme": "gradient", "twin": "net-direct"})
        for system in ("si-64", "liquid", "melt")
    ]
    twin = {"scheme": "direct", "twin": "net-gradient"}
    cells += [
        make_cell("net-direct", None, system="si-64", outcome=Outcome.FAILED, reason="crashed", model=twin),
        make_cell("net-direct", (7.0, 0.4), system="liquid", model=twin),
        make_cell("net-direct", None, system="melt", outcome=Outcome.UNSUPPORTED, model=twin),
    ]
    # nobody is asked about the melt
    twins = section(markdown(cells), "What dropping the gradient costs")
    assert "- net-direct (direct) fails 2 of the 2 gates above that the gradient passes (1 without a value)." in twins
    assert r"| energy drift \[meV/atom/ps\], si-64 | 0.00 ± 0.10 ✓ | failed |" in twins
    crashed = [cell for cell in cells if cell.system == "si-64"]
    assert "- net-direct (direct) fails the one gate above that the gradient passes (1 without a value)." in markdown(
        crashed
    )


def test_models_without_a_gate_are_counted(make_cell):
    free = make_cell("free")
    free = replace(free, metrics={}, scores=tuple(replace(score, gate=None) for score in free.scores))
    assert "No verdict on 1 more, in tables without gates: see nve." in section(
        markdown([make_cell("net"), free]), "At a glance"
    )


def test_models_with_gates_that_no_table_shows_are_counted_too(make_cell):
    rung = make_cell("rung")
    hidden = {key: replace(metric, headline=False) for key, metric in rung.metrics.items()}
    shown = replace(next(iter(hidden.values())), key="shown", headline=True, above=None, below=None)
    rung = replace(rung, metrics={**hidden, "shown": shown})
    glance = section(markdown([make_cell("net"), rung]), "At a glance")
    assert "No verdict on 1 more, in tables without gates: see nve." in glance
    assert "| rung |" not in glance


def test_what_dropping_the_gradient_costs(make_cell):
    cells = [
        make_cell("net-gradient", (0.0, 0.1), model={"scheme": "gradient", "twin": "net-direct"}),
        make_cell("net-direct", (7.0, 0.4), model={"scheme": "direct", "twin": "net-gradient"}),
    ]
    twins = section(markdown(cells), "What dropping the gradient costs")
    assert "| what it costs | gradient: net-gradient | direct: net-direct |" in twins
    assert r"| energy drift \[meV/atom/ps\], si-64 | 0.00 ± 0.10 ✓ | 7.0 ± 0.4 ✗ |" in twins
    assert "- net-direct (direct) fails the one gate above that the gradient passes." in twins


def test_no_section_without_content(make_cell):
    page = markdown([make_cell()])
    assert "dropping the gradient" not in page
    assert "Speed against" not in page
    assert "Ranks over" not in page


def test_ranks_are_a_table_of_their_own(make_cell):
    cells = [make_cell("far", (7.0, 0.4)), make_cell("near", (1.0, 0.4)), make_cell("nearer", (0.9, 0.4))]
    ranked = [replace(c, metrics={**c.metrics, "drift": replace(c.metrics["drift"], better="zero")}) for c in cells]
    page = markdown([*ranked, make_cell("toy", (0.0, 0.1), model={"role": "control"})])
    assert "| rank | energy drift |" in page
    assert "| far | 3 |" in page
    assert "| near | 1–2 |" in page
    assert "| nearer | 1–2 |" in page
    assert "told apart" not in page


def test_ranks_that_tell_nobody_apart_are_a_line(make_cell):
    cells = [make_cell("near", (1.0, 0.4)), make_cell("nearer", (0.9, 0.4))]
    ranked = [replace(c, metrics={**c.metrics, "drift": replace(c.metrics["drift"], better="zero")}) for c in cells]
    page = markdown(ranked)
    assert "No two models are told apart by: energy drift." in page
    assert "| rank |" not in page


def test_a_system_that_nobody_can_be_asked_about_has_lines_for_a_table(make_cell):
    cells = [make_cell(), make_cell(drift=None, system="liquid", outcome=Outcome.UNSUPPORTED, reason="no element")]
    page = markdown(cells)
    assert "### liquid\n\n- net: unsupported: no element\n" in page


def test_versions_and_tiers_have_tables_of_their_own(make_cell):
    cells = [make_cell("a"), make_cell("b", tier="quick"), make_cell("b", protocol={"version": 2})]
    page = markdown(cells)
    for title in ("version 1, standard tier", "version 1, quick tier", "version 2, standard tier"):
        assert len([line for line in section(page, f"NVE drift: {title}").splitlines() if "7.0 ± 0.4" in line]) == 1


def test_a_wide_table_is_several_and_loses_nothing(make_cell):
    cell = make_cell()
    keys = [f"m{place}" for place in range(9)]
    metrics = {key: replace(cell.metrics["order"], key=key, label=key, headline=True) for key in keys}
    scores = tuple(replace(cell.scores[1], metric=key, value=float(place), low=float(place), high=float(place))
                   for place, key in enumerate(keys))  # fmt: skip
    text = section(markdown([replace(cell, metrics=metrics, scores=scores)]), "NVE drift")
    heads = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| model")]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| net")]
    assert [len(each) for each in heads] == [len(each) for each in rows] == [6, 6]
    assert [*heads[0][1:], *heads[1][1:]] == [*keys, "gates"]
    assert [*rows[0][1:], *rows[1][1:-1]] == [f"{place}.00 ✓" for place in range(9)]


def test_passports_of_tuned_models(make_cell):
    record = {"parent": "net_1", "tuning": {"target": "rdf", "steps": 20}}
    page = markdown([make_cell("net_1"), make_cell("net-rdf", model=record)])
    assert (
        "- [**net-rdf**](entries/net-rdf.json), version 2: A network; forces direct; tuned from net\\_1 to rdf." in page
    )


def test_one_command_for_each_block_of_cells(make_cell):
    page = markdown([make_cell("a"), make_cell("b"), make_cell("a", system="liquid")])
    commands = [line for line in page.splitlines() if line.startswith("conservbench run")]
    assert commands == [
        "conservbench run --tier standard -p nve -s si-64 -m a -m b",
        "conservbench run --tier standard -p nve -s liquid -m a",
    ]


def test_all_card_text_is_escaped(make_cell):
    cell = make_cell(
        EVIL,
        drift=None,
        reason=EVIL,
        outcome=Outcome.EXPLODED,
        model={"title": EVIL, "authors": [EVIL], "doi": EVIL, "license": EVIL, "training_data": EVIL},
        protocol={"title": EVIL, "question": EVIL},
        system=EVIL,
    )
    twin = make_cell("twin", (0.0, 0.1), model={"scheme": "gradient", "twin": EVIL}, system=EVIL)
    page = markdown([cell, twin])
    # the commands are code, in which nothing is markup
    prose, code, rest = page.split("\n```\n")
    assert rest == ""
    assert code.count("\n") == 1
    assert "<script" not in prose
    assert prose.count("&lt;script&gt;") >= 12
    tables = [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)]
    assert len(tables) == 3
    for rows in tables:
        assert len({unescaped_pipes(line) for line in rows}) == 1
    assert escaped("a|b") == r"a\|b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://x.org/y", "at https:<!-- -->//x.org/y"),
        ("WWW.x.org", "WWW<!-- -->.x.org"),
        ("me@x.org or @me", "me@<!-- -->x.org or @<!-- -->me"),
        ("a: b/c, d//e", "a: b/c, d//e"),
    ],
)
def test_no_address_becomes_a_link(text, shown):
    assert escaped(text) == shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tier": "smoke"}, "smoke tier, which is never published"),
        ({"protocol": {"version": 3}}, "differ in their protocol: version 1 against version 3"),
        ({"protocol": {"digest": "p2"}}, "different cards of one protocol version"),
        (
            {"protocol": {"metrics": {"drift": {"below": 9.0}}}},
            "for different metrics or gates of one protocol version",
        ),
        ({"model": {"version": 3}}, "differ in their model: version 2 against version 3"),
        ({"model": {"digest": "d2"}}, "different cards of one model version"),
        ({"system": "si-64"}, "nve / si-64 / net is there twice"),
    ],
)
def test_refusals(make_cell, change, message):
    with pytest.raises(BoardError, match=message):
        check_publishable([make_cell(), make_cell(**{"system": "liquid", **change})])


def test_nothing_is_no_page():
    with pytest.raises(BoardError, match="no results"):
        check_publishable([])
