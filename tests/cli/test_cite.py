"""``conservbench cite``: everything that a number rests on, once."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from conservbench.cards import find_model, find_protocol, list_models, list_protocols
from conservbench.cli import main
from conservbench.cli.bibliography import Reference, merged, references
from conservbench.cli.cite import (
    LOADER_PACKAGES,
    PACKAGES,
    PROTOCOL_PACKAGES,
    PROTOCOL_THERMOSTATS,
    THERMOSTATS,
    package_entries,
    suite_entry,
    thermostat_entries,
)
from conservbench.data.catalogue import catalogue
from conservbench.dynamics.thermostat import KINDS
from conservbench.systems import find_system

ROOT = Path(__file__).parent.parent.parent


def said(*words):
    result = CliRunner().invoke(main, ["cite", *words])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def keys(*words):
    entries = json.loads(said(*words, "--json"))
    return [match[1] for entry in entries if (match := re.match(r"@\w+\{([\w-]+),", entry))]


def test_own_entry_then_the_suite_then_packages(tmp_path):
    path = tmp_path / "net.toml"
    head = 'name = "net"\nversion = 1\ntitle = "x"\nloader = "mace"\nscheme = "direct"\n'
    path.write_text(head + 'bibtex = """\n@article{net2024,\n  title = {A net}\n}\n"""\n')
    assert keys(str(path)) == ["net2024", "conservbench", "mace", "e3nn", *PACKAGES]
    assert len(re.findall(r"^@", said(str(path)), re.MULTILINE)) == 4 + len(PACKAGES)


def test_a_card_with_a_doi_alone(tmp_path):
    path = tmp_path / "net.toml"
    head = 'name = "net"\nversion = 1\ntitle = "A net"\nloader = "toy"\nscheme = "direct"\nauthors = ["A. Nobody"]\n'
    path.write_text(head + 'doi = "10.1234/net"\ntraining_data = "fitsnap-si, and more"\n')
    assert keys(str(path))[:2] == ["net", "fitsnap-si"]
    assert "doi = {10.1234/net}" in said(str(path))


def test_training_data_fast_models_and_parents():
    # the paper of mlearn-si is among the model's own entries, under another key
    assert {"mace", "mlearn", "stillinger1985"} <= set(keys("si-mace-mts-sw"))
    assert "mlearn-si" not in keys("si-mace-direct")
    # g(r) of si-pbe is that of two other data sets
    tuned = keys("si-mace-direct-rdf")
    assert {"mace", "mlearn", "fitsnap-si"} <= set(tuned)
    assert "fitsnap-si" not in keys("si-mace-direct")


def test_thermostats_of_a_protocol():
    langevin, svr, chain = (THERMOSTATS[kind] for kind in ("langevin", "svr", "nose-hoover"))
    assert {*langevin, *svr, *chain, "physical_validation"} <= set(keys("thermostat"))
    assert set(langevin) <= set(keys("nve"))
    assert not {*svr, *chain} & set(keys("nve"))
    assert {*langevin, *svr} <= set(keys("mts"))
    assert set(svr) <= set(keys("fidelity"))
    assert not {*langevin, *svr, *chain} & set(keys("audit"))
    assert set(PROTOCOL_THERMOSTATS) <= set(list_protocols())


def test_data_sets_thermostats_systems_and_the_suite_by_name():
    assert keys("mlearn-si") == ["mlearn-si", "conservbench"]
    # what the reference rests on is published as data
    assert {"fitsnap-si", "si-force-constants", "conservbench"} <= set(keys("si-pbe"))
    assert keys("svr") == [*THERMOSTATS["svr"], "conservbench"]
    assert keys("conservbench") == ["conservbench"]
    assert f"% {find_system('si-64').citation}" in said("si-64")
    for data in catalogue().values():
        shown = said(data.name)
        assert data.home in shown
        assert data.doi in shown
        assert data.license in shown


def test_several_names_without_doubles():
    models, protocols = list_models(), list_protocols()
    listed = keys(*models, *protocols, *catalogue(), *THERMOSTATS, "conservbench")
    assert len(set(listed)) == len(listed)
    for name in (*models, *protocols):
        card = find_model(name) if name in models else find_protocol(name)
        for key in re.findall(r"@\w+\{([\w-]+),", card.bibtex):
            # bigi2024dark is bigi2025dark: they share their number on arXiv
            assert key in listed or key == "bigi2024dark"
    everything = said(*models, *protocols)
    for number in ("2412.11569", "10.1063/1.463940", "10.1063/1.2408420", "10.1021/acs.jpca.9b08723"):
        assert everything.count(f"{{{number}}}") == 1
    assert everything.count("{") == everything.count("}")


def test_unknown_names_are_told_with_the_nearest():
    result = CliRunner().invoke(main, ["cite", "nve", "nose-hover"])
    assert result.exit_code == 2
    assert "did you mean 'nose-hoover'" in result.stderr
    assert result.stdout == ""
    assert CliRunner().invoke(main, ["cite"]).exit_code == 2


def test_ase_factory_in_the_working_folder(monkeypatch, tmp_path):
    (tmp_path / "cite_springs.py").write_text("def make(): ...\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert keys("ase:cite_springs:make") == ["conservbench", *PACKAGES]


def test_entries_are_whole():
    packages = package_entries()
    further = [*LOADER_PACKAGES.values(), *PROTOCOL_PACKAGES.values()]
    assert {*PACKAGES, *(key for names in further for key in names)} == set(packages)
    thermostats = thermostat_entries()
    assert set(THERMOSTATS) == set(KINDS)
    assert {key for names in THERMOSTATS.values() for key in names} == set(thermostats)
    for entry in (*packages.values(), *thermostats.values(), suite_entry()):
        assert entry.count("{") == entry.count("}")
        assert "title" in entry
        assert "author" in entry


def test_the_suite_is_cited_as_its_citation_file_says():
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version = {{{version}}}" in suite_entry()
    assert f"version: {version}" in text
    assert re.search(r'^title: "(.*)"', text, re.MULTILINE)[1] in suite_entry()
    assert f"year = {{{re.search(r'date-released: (.{4})', text)[1]}}}" in suite_entry()


def entry(text):
    (found,) = references(text)
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("@article{a, doi = {10.1/X}}", "@article{b, DOI = {https://doi.org/10.1/x}}"),
        ("@misc{a, eprint = {2412.1}}", "@article{b, doi = {10.48550/arXiv.2412.1}}"),
        ("@book{a, title = {T}}", "@book{a, title = {T}, year = {1}}"),
        ("A sentence.", "A  sentence."),
    ],
)
def test_works_that_are_one(one, other):
    assert len(merged([entry(one), entry(other)])) == 1


def test_the_fuller_entry_of_a_work_is_kept():
    plain, full = entry("@misc{a, doi = {10.1/x}}"), entry("@article{b, doi = {10.1/x}}")
    assert merged([plain, full]) == (full,)
    assert merged([full, plain]) == (full,)


def test_two_works_under_one_key():
    first, second = entry("@article{a, doi = {10.1/x}}"), entry("@article{a, doi = {10.1/y}}")
    assert [each.key for each in merged([first, second, first, second])] == ["a", "ab"]
    assert merged([first, second])[1].text == "@article{ab, doi = {10.1/y}}"


def test_entries_are_cut_at_their_braces():
    text = 'noise @article{a, title = {An {@misc{b, x}} inside}}\n@book{c, note = "d"} more'
    assert [each.key for each in references(text)] == ["a", "c"]
    assert next(iter(references(text))).text == "@article{a, title = {An {@misc{b, x}} inside}}"
    assert list(references("  \n")) == []
    assert str(Reference("in words")) == "% in words"
