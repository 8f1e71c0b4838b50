"""Entries hold what was scored, come back as they were, and are refused where they are not as they must be."""

import copy
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conservbench.cards import find_protocol, metrics_of
from conservbench.leaderboard.entry import (
    EntryError,
    cells_of,
    document_of,
    parse,
    read_entries,
    spelled_out,
    without_plots,
    write_entries,
    write_entry,
)
from conservbench.outcome import Outcome
from conservbench.plot import Axis, Plot, line
from conservbench.result import WriteError
from conservbench.scored import Score, ScoredCell, gate_of
from conservbench.statistics import Interval

DIGEST = "a" * 64


def protocol(name="nve"):
    return json.loads(find_protocol(name).to_json())


def cell(model="net", values=((0.1, 0.05, 0.15),), *, outcome=Outcome.COMPLETED, system="si-64", name="nve", plots=()):
    """A cell of an installed protocol: values of its metrics in their order, the others without one."""
    card = protocol(name)
    metrics = metrics_of(card, "here")
    intervals = [value and Interval(*value, 8) for value in (*values, *[None] * len(metrics))]
    return ScoredCell(
        model={"name": model, "version": 2, "title": "A <b>net</b> for Å", "scheme": "direct", "digest": DIGEST},
        protocol=card,
        system=system,
        tier="standard",
        outcome=outcome,
        reason="it had to be",
        provenance={"conservbench": "0.1.0", "git": None, "packages": {"torch": "2.8"}, "seconds": 1.5},
        metrics=metrics,
        scores=tuple(
            Score(model, name, system, key, *((i.value, i.low, i.high) if i else (None, None, None)), metric.unit,
                  i.n if i else 0, outcome, gate_of(metric, i, outcome), "" if i else "not asked")
            for (key, metric), i in zip(metrics.items(), intervals, strict=False)
        ),
        plots=plots,
    )  # fmt: skip


PICTURE = Plot(
    "energy",
    "Energy",
    Axis("time", "ps"),
    Axis("E", "eV", log=True),
    (line("", [0.0, 1.0], [1.0, math.nan], [0.5, 0.6], [2.0, 3.0]), line("ref", [0.0], [1.0], style="reference")),
    "Look at the slope.",
)


def test_cells_come_back_as_they_were(tmp_path):
    cells = (cell(), cell("other"), cell("other", system="si-liquid-64", plots=(PICTURE,)))
    write_entry(cells, tmp_path / "a.json")
    assert read_entries(tmp_path / "a.json") == cells


def test_an_end_that_nothing_bounds_is_null_in_the_file_and_infinite_again(tmp_path):
    (before,) = cells = (cell(values=((0.1, -math.inf, 0.2), (1.0, 0.5, math.inf), (3.0, -math.inf, math.inf))),)
    write_entry(cells, tmp_path / "a.json")
    rows = json.loads((tmp_path / "a.json").read_text())["cells"][0]["scores"]
    assert [(row["low"], row["high"]) for row in rows[:4]] == [(None, 0.2), (0.5, None), (None, None), (None, None)]
    (after,) = read_entries(tmp_path / "a.json")
    assert after.scores == before.scores
    assert after.scores[3].low is None


SCORED = cell(plots=(PICTURE,))
KNOWN = [SCORED.protocol]
SOUND = json.loads(spelled_out(document_of([SCORED])))


@given(
    st.floats(-1e80, 1e80).filter(lambda value: value == 0 or abs(value) > 1e-80),
    st.floats(0, 1e80),
    st.integers(1, 10**6),
    st.sampled_from(Outcome),
    st.text(st.characters(exclude_categories=["Cs"])),
)
@settings(max_examples=50, deadline=None)
def test_any_score_comes_back_to_the_last_bit(value, width, n, outcome, reason):
    one = replace(SCORED, plots=())
    low, high = (end if abs(end) > 1e-100 else 0.0 for end in (value - width, value + width))
    low, high = min(low, value), max(high, value)
    made = replace(one.scores[0], value=value, low=low, high=high, n=n, outcome=outcome, reason=reason)
    made = replace(made, gate=gate_of(one.metrics["drift"], Interval(value, low, high, n), outcome))
    document = json.loads(spelled_out(document_of([replace(one, scores=(made,))])))
    assert cells_of(document, "here", KNOWN)[0].scores == (made,)


def test_text_is_a_line_a_score_and_the_same_for_equal_cells(tmp_path):
    cells = (cell(plots=(PICTURE,)), cell("other"))
    text = spelled_out(document_of(cells))
    assert json.loads(text) == json.loads(json.dumps(document_of(cells)))
    assert sum(line.lstrip().startswith('{"metric": "drift"') for line in text.splitlines()) == 2
    assert text == spelled_out(document_of(copy.deepcopy(cells)))


def test_an_entry_without_cells_is_read():
    assert cells_of(json.loads(spelled_out(document_of(()))), "here") == []


def test_gates_are_made_anew():
    document = document_of([cell(values=((0.1, 0.05, 0.15),))])
    assert "gate" not in document["cells"][0]["scores"][0]
    document["cells"][0]["scores"][0].update(value=7.0, low=6.0, high=8.0)
    (after,) = cells_of(document, "here")
    assert after.scores[0].gate == "fail"


def test_pictures_can_be_left_out():
    assert without_plots([cell(plots=(PICTURE,))]) == (cell(),)


def test_one_file_a_model_and_other_files_are_left(tmp_path):
    (tmp_path / "third.json").write_text("untouched")
    paths = write_entries((cell("b"), cell("ase:pack.mod:make"), cell("b", system="si-liquid-64")), tmp_path)
    assert [path.name for path in paths] == ["ase%3Apack.mod%3Amake.json", "b.json"]
    assert [each.system for each in read_entries(paths[1])] == ["si-64", "si-liquid-64"]
    assert (tmp_path / "third.json").read_text() == "untouched"
    (tmp_path / "third.json").unlink()
    assert len(read_entries(tmp_path)) == 3


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        write_entries((cell(),), tmp_path / "file")


def test_a_folder_holds_the_entries_of_models_by_name(tmp_path):
    (path,) = write_entries((cell(),), tmp_path)
    assert len(read_entries(tmp_path)) == 1
    path.rename(tmp_path / "_best.json")
    with pytest.raises(
        EntryError, match=f"_best.json: expected the entry of one model, in a file of its name: {path.name}"
    ):
        read_entries(tmp_path)
    assert len(read_entries(tmp_path / "_best.json")) == 1


def test_a_protocol_that_is_not_installed_is_taken_from_those_known():
    one = cell()
    mine = {**one.protocol, "name": "mine", "version": 3, "digest": "b" * 64}
    document = document_of([replace(one, protocol=mine)])
    with pytest.raises(EntryError, match="no protocol 'mine'"):
        cells_of(document, "here")
    assert cells_of(document, "here", [mine])[0].protocol == mine
    with pytest.raises(EntryError, match=r"version 3 of protocol mine; the card here is version 2: measure it again"):
        cells_of(document, "here", [{**mine, "version": 2}])


def changed(change):
    document = copy.deepcopy(SOUND)
    change(document, document["cells"][0], document["cells"][0]["scores"][0])
    return json.loads(json.dumps(document))


WRONG = {
    "no key": (lambda d, c, s: d.pop("models"), "missing key 'models'"),
    "another schema": (lambda d, c, s: d.update(schema=1), "schema is 1; expected 2"),
    "a key too many": (lambda d, c, s: c.update(gate="pass"), r"cells\[0\]: unknown key 'gate'"),
    "a list for a table": (lambda d, c, s: d.update(models=[]), r"models is \[\]; expected dict"),
    "a name for a list": (lambda d, c, s: c.update(scores="drift"), "scores is 'drift'; expected list"),
    "a list for a name": (lambda d, c, s: c.update(protocol=["nve"]), "expected str"),
    "no such protocol": (lambda d, c, s: c.update(protocol="nvt"), "protocol 'nvt' is not among the protocols"),
    "no such model": (lambda d, c, s: c.update(model="nut"), "model 'nut' is not among the models"),
    "an unknown tier": (lambda d, c, s: c.update(tier="gold"), "tier is 'gold'; expected one of smoke"),
    "an unknown outcome": (lambda d, c, s: s.update(outcome="great"), "outcome is 'great'; expected one of"),
    "an outcome that is a list": (lambda d, c, s: c.update(outcome=[]), r"outcome is \[\]; expected one of"),
    "another version": (lambda d, c, s: d["protocols"]["nve"].update(version=1), "measured by version 1 of protocol"),
    "another digest": (lambda d, c, s: d["protocols"]["nve"].update(digest="0"), "the digests differ: measure it"),
    "true for a version": (lambda d, c, s: d["protocols"]["nve"].update(version=True), "version is True; expected int"),
    "a value outside": (lambda d, c, s: s.update(value=0.2), r"the interval \[0.05, 0.15\] does not hold"),
    "ends swapped": (lambda d, c, s: s.update(low=0.15, high=0.05), "does not hold the value 0.1"),
    "text for a value": (lambda d, c, s: s.update(value="0.1"), "value is '0.1'; expected a finite number"),
    "true for a value": (lambda d, c, s: s.update(value=True), "value is True; expected a finite number"),
    "an interval alone": (lambda d, c, s: s.update(value=None), "an interval or samples without a value"),
    "samples alone": (lambda d, c, s: s.update(value=None, low=None, high=None), "samples without a value"),
    "no samples": (lambda d, c, s: s.update(n=0), "drift: a value of 0 samples; expected 1 or more"),
    "half a sample": (lambda d, c, s: s.update(n=7.5), "n is 7.5; expected int"),
    "another unit": (lambda d, c, s: s.update(unit="eV"), "drift is in 'eV'; its card says 'meV/atom/ps'"),
    "a metric twice": (lambda d, c, s: c["scores"].append(s), "scores: drift is there twice"),
    "a cell twice": (lambda d, c, s: d["cells"].append(c), "nve / si-64 / standard / net is there twice"),
    "a picture twice": (lambda d, c, s: c["plots"].append(c["plots"][0]), "plots: energy is there twice"),
    "a model by another name": (lambda d, c, s: d["models"]["net"].update(name="nut"), "net: is named 'nut'"),
    "a model without digest": (lambda d, c, s: d["models"]["net"].pop("digest"), "missing key 'digest'"),
    "an unknown scheme": (lambda d, c, s: d["models"]["net"].update(scheme="curl"), "scheme is 'curl'"),
    "a stride without mts": (lambda d, c, s: d["models"]["net"].update(stride=8), "stride 8 does not go with"),
    "authors in one text": (lambda d, c, s: d["models"]["net"].update(authors="A. One"), "authors is 'A. One'"),
    "a commit that is none": (lambda d, c, s: c["provenance"].update(git={"commit": "<b>"}), "commit is '<b>'"),
    "packages in a list": (lambda d, c, s: c["provenance"].update(packages=[]), r"packages is \[\]; expected dict"),
    "a line without y": (lambda d, c, s: c["plots"][0]["lines"][0].pop("y"), "missing key 'y'"),
    "a line cut short": (lambda d, c, s: c["plots"][0]["lines"][0]["y"].pop(), "x, y and the edges of its band"),
    "an axis of its own": (lambda d, c, s: c["plots"][0].update(x="time"), "x is 'time'"),
    "a style that is none": (lambda d, c, s: c["plots"][0]["lines"][0].update(style="x"), "style is 'x'|expected"),
}


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG)
def test_what_is_not_as_it_must_be_is_named(change, said):
    document = changed(change)
    with pytest.raises(EntryError, match=said) as caught:
        cells_of(document, "here")
    assert str(caught.value).startswith("here")
    assert "\n" not in str(caught.value)


def test_a_protocol_named_by_a_file_is_not_looked_up(tmp_path):
    evil = tmp_path / "evil.toml"
    evil.write_text('name = "evil"\n')
    for name in (str(evil), "evil.toml", "../nve", "<b>"):
        document = changed(lambda d, c, s, name=name: d["protocols"].update({name: d["protocols"].pop("nve")}))
        with pytest.raises(EntryError, match=r"expected (letters|the name of a protocol)"):
            cells_of(document, "here")


TEXTS = {
    "no JSON": ("{", "not a JSON file"),
    "NaN": ('{"schema": NaN}', "NaN is no number"),
    "infinity": ('{"schema": -Infinity}', "-Infinity is no number"),
    "an overflow": ('{"schema": 1e999}', "a number is not finite, or too large"),
    "a long number": ('{"schema": 1' + "0" * 400 + "}", "a number is not finite, or too large"),
    "a very long number": ('{"schema": 1' + "0" * 5000 + "}", "not a JSON file"),
    "a key twice": ('{"schema": 2, "cells": [], "schema": 2}', "key 'schema' is there twice"),
    "half a character": (r'{"schema": "\ud800"}', "half a character"),
    "half a character as key": (r'{"\udfff": 1}', "half a character"),
    "depth": ("[" * 50 + "]" * 50, "more than 20 tables and arrays inside each other"),
    "much depth": ("[" * 200_000, "not a JSON file"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), TEXTS.values(), ids=TEXTS)
def test_json_is_read_strictly(text, said, tmp_path):
    with pytest.raises(EntryError, match=said):
        parse(text, "here")
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(EntryError, match=said):
        read_entries(tmp_path)


def test_whole_characters_beyond_sixteen_bits_are_read():
    assert parse('"\\ud83d\\ude00"', "here") == "\N{GRINNING FACE}"


def test_files_that_are_none(tmp_path):
    with pytest.raises(EntryError, match="no entry"):
        read_entries(tmp_path / "none.json")
    with pytest.raises(EntryError, match=r"no entries in .*: expected files MODEL\.json"):
        read_entries(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(EntryError, match="not a JSON file"):
        read_entries(tmp_path / "bytes.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(value, path=()):
    """Paths of all values inside a document."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*path, key))


PLACES = [path for path in places(SOUND) if path]


@given(st.sampled_from(PLACES), JSON)
@settings(max_examples=300, deadline=None)
def test_whatever_stands_at_any_place_is_read_or_refused(path, value):
    document = copy.deepcopy(SOUND)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    try:
        cells = cells_of(parse(json.dumps(document), "here"), "here", KNOWN)
    except EntryError:
        return
    # what is read can be written, and is read again as the same
    assert cells_of(parse(spelled_out(document_of(cells)), "here"), "here", KNOWN) == cells


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_text_is_read_or_refused(text):
    try:
        parse(text, "here")
    except EntryError:
        return
    json.loads(text)


@pytest.mark.parametrize("key", ["protocol", "model"])
@pytest.mark.parametrize(
    ("change", "said"), [({"version": 99}, r"\b99\b.*: an entry holds one"), ({"digest": "f" * 64}, "digests")]
)
def test_two_versions_are_never_told_as_one(key, change, said):
    one, other = cell(), cell(system="si-liquid-64")
    other = replace(other, **{key: {**getattr(other, key), **change}})
    for both in ((one, other), (other, one)):
        with pytest.raises(EntryError, match=said):
            document_of(both)


def with_numbers(size):
    """The sound entry with a number at each place in turn that has one."""
    line_of = lambda c: c["plots"][0]["lines"][0]  # noqa: E731 - four places alike
    for change in (
        lambda c: c["scores"][0].update(value=size, low=size, high=size),
        lambda c: c["scores"][0].update(low=min(size, 0.0), value=0.0, high=max(size, 0.0)),
        lambda c: line_of(c).update(x=[size, 0.0]),
        lambda c: line_of(c).update(y=[size, None]),
        lambda c: line_of(c).update(high=[size, 0.0]),
    ):
        document = copy.deepcopy(SOUND)
        change(document["cells"][0])
        yield document


@pytest.mark.parametrize("size", [1.01e100, -1.7e308])
def test_a_number_of_no_measurement_is_refused(size):
    for document in with_numbers(size):
        with pytest.raises(EntryError, match=r"expected a size of 1e\+100 or less"):
            cells_of(document, "here", KNOWN)


@pytest.mark.parametrize("size", [5e-324, -0.99e-100])
def test_a_number_of_no_size_is_zero(size):
    for document, zero in zip(with_numbers(size), with_numbers(0.0), strict=True):
        assert cells_of(document, "here", KNOWN) == cells_of(zero, "here", KNOWN)


def test_a_file_of_too_many_values_is_refused():
    assert parse("[[1, 2], {}]", "here", most=6) == [[1, 2], {}]
    with pytest.raises(EntryError, match="here: more than 4 keys and values"):
        parse("[[1, 2], {}]", "here", most=4)
