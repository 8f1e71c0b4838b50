"""Sheets: which rows share a table, and what is said below it."""

from dataclasses import replace

import pytest

from conservbench.leaderboard.sheet import comparable, limits_of, plain, sheets
from conservbench.outcome import Outcome


def test_rows_by_system_with_gates_and_controls(make_cell):
    cells = [make_cell("net"), make_cell("toy", (0.0, 0.1), model={"role": "control"}), make_cell(system="liquid")]
    (sheet,) = sheets(cells)
    assert sheet.title == "NVE drift: version 1, standard tier"
    assert sheet.headings == ("energy drift [meV/atom/ps]", "gates")
    assert list(sheet.systems) == ["si-64", "liquid"]
    net, toy = sheet.systems["si-64"]
    assert [entry.marked for entry in net.entries] == ["7.0 ± 0.4 ✗", "1✓1✗"]
    assert (toy.name, toy.entries[0].marked) == ("toy (control)", "0.00 ± 0.10 ✓")


@pytest.mark.parametrize("change", [{"protocol": {"version": 2}}, {"protocol": {"digest": "p2"}}, {"tier": "quick"}])
def test_what_is_not_comparable_does_not_share_a_table(make_cell, change):
    assert len(sheets([make_cell(), make_cell("other", **change)])) == 2


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (Outcome.UNSUPPORTED, "unsupported"),
        (Outcome.OUT_OF_MEMORY, "out of memory"),
        (Outcome.NOT_CONVERGED, "not converged"),
        (Outcome.FAILED, "failed"),
    ],
)
def test_an_outcome_without_value_is_a_word_and_a_note(make_cell, outcome, word):
    (sheet,) = sheets([make_cell(drift=None, outcome=outcome, reason="no direct forces")])
    assert [entry.marked for entry in sheet.systems["si-64"][0].entries] == [word, "–"]
    assert sheet.notes["si-64"] == (f"net: {word}: no direct forces",)


def test_an_explosion_is_a_failed_gate(make_cell):
    (sheet,) = sheets([make_cell(drift=None, outcome=Outcome.EXPLODED, reason="4 of 4")])
    assert [entry.marked for entry in sheet.systems["si-64"][0].entries] == ["exploded ✗", "2✗"]


def test_a_value_of_survivors_is_qualified(make_cell):
    cell = make_cell(drift=(0.0, 0.1), outcome=Outcome.EXPLODED, reason="1 of 8 replicas exploded")
    (sheet,) = sheets([cell])
    assert sheet.systems["si-64"][0].entries[0].marked == "0.00 ± 0.10 † ?"
    assert "net: exploded: 1 of 8 replicas exploded" in sheet.notes["si-64"]


def test_a_failed_gate_without_a_column_is_noted(make_cell):
    (sheet,) = sheets([make_cell(drift=(0.0, 0.1))])
    assert sheet.notes["si-64"] == ("net: ✗ order in dt 0.00 ± 0.10 (gate: above 1.5)",)


def test_limits_in_words(make_cell):
    metrics = make_cell().metrics
    assert limits_of(metrics["drift"]) == "above -0.26 and below 0.26"
    assert limits_of(metrics["order"]) == "above 1.5"


def test_plain_text_has_nothing_a_terminal_acts_on():
    assert plain("a\x1b[31m b\r\n\tc\u202e d") == "a [31m b c d"


def test_a_note_on_several_rows_is_one_line(make_cell):
    cells = [make_cell(name, None, outcome=Outcome.NOT_CONVERGED, reason="2 of 2") for name in ("a", "b", "c")]
    (sheet,) = sheets(cells)
    assert sheet.notes["si-64"] == ("all: not converged: 2 of 2",)
    (sheet,) = sheets([*cells[:2], make_cell("d", (0.0, 0.1))])
    assert sheet.notes["si-64"][0] == "a, b: not converged: 2 of 2"


def test_a_metric_without_meaning_for_a_measured_cell_is_a_dash(make_cell):
    cell = make_cell(drift=None, outcome=Outcome.UNSUPPORTED, reason="one species")
    (sheet,) = sheets([replace(cell, outcome=Outcome.COMPLETED)])
    assert sheet.systems["si-64"][0].entries[0].marked == "–"
    assert sheet.notes["si-64"] == ("net: unsupported: one species",)


def test_a_cell_that_lacks_a_headline_says_so(make_cell):
    cell = make_cell()
    (sheet,) = sheets([replace(cell, scores=cell.scores[1:]), make_cell("other")])
    assert sheet.systems["si-64"][0].entries[0].text == "missing"


def test_an_ending_that_no_field_shows_is_noted(make_cell):
    cell = replace(make_cell(drift=(0.0, 0.1)), outcome=Outcome.EXPLODED, reason="4 of 4 at stride 32")
    (sheet,) = sheets([cell])
    assert "net: exploded: 4 of 4 at stride 32" in sheet.notes["si-64"]


def test_models_that_were_asked_about_other_data_are_apart(make_cell):
    """A model without data on a system goes with those that it agrees with elsewhere."""

    def made(model, system, labels=None):
        digests = {"model": "m", "protocol": "p", "system": f"{system} 1", **({"labels": labels} if labels else {})}
        return replace(make_cell(model, system=system), provenance={"digests": digests})

    alike = [made("a", "si-64", "x"), made("a", "melt"), made("b", "melt"), made("c", "gan-32", "z")]
    assert comparable(alike) == [alike]
    other = [made("d", "si-64", "y"), made("d", "melt")]
    assert comparable([*alike[:2], *other, *alike[2:]]) == [alike, other]


def test_columns_that_mean_nothing_on_a_system_are_left_out(make_cell):
    idle = make_cell()
    unsupported = [replace(idle.scores[0], value=None, low=None, high=None, outcome=Outcome.UNSUPPORTED, gate=None)]
    both = {key: replace(metric, headline=True) for key, metric in idle.metrics.items()}
    idle = replace(idle, metrics=both, scores=(*unsupported, idle.scores[1]))
    (sheet,) = sheets([idle])
    assert sheet.headings == ("order in dt", "gates")
    # it means something for another one
    (sheet,) = sheets([idle, replace(make_cell("other"), metrics=both)])
    assert sheet.headings == ("energy drift [meV/atom/ps]", "order in dt", "gates")
