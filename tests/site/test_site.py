"""The pages of a board: which there are, and what they may hold."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from conservbench.leaderboard.entry import document_of
from conservbench.site import SiteError, write_report, write_site

HOSTILE = "<img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Links, elements, scripts and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.tags, self.ids, self.words, self.loads = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if tag == "a" else []
        self.loads += [given[key] for key in ("src", "href") if key in given and tag in ("script", "link", "img")]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def site(cells, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    return out, write_site(cells, out)


def test_a_page_for_each_model_protocol_and_network(site):
    out, paths = site
    assert paths[0] == out / "index.html"
    assert sum(path.parent.name == "models" for path in paths) == 5
    assert {path.name for path in paths if path.parent.name == "protocols"} == {"nve.html", "speed.html"}
    assert {path.name for path in paths if path.parent.name == "networks"} == {"net-gradient.html"}
    assert all(path.is_file() for path in paths)


def test_all_links_between_pages_lead_somewhere(site):
    paths = site[1]
    for path in paths:
        if path.suffix != ".html":
            continue
        page = Page(path.read_text(encoding="utf-8"))
        assert len(page.ids) == len(set(page.ids)), path
        for link in [*page.links, *page.loads]:
            if link.startswith(("https://doi.org/", "data:")):
                continue
            where, _, anchor = link.partition("#")
            target = (path.parent / where).resolve() if where else path
            assert target.is_file(), (path, link)
            assert not anchor or anchor in Page(target.read_text(encoding="utf-8")).ids, (path, link)


def test_nothing_is_loaded_from_the_network(site):
    for path in site[1]:
        if path.suffix in (".html", ".css"):
            page = Page(path.read_text(encoding="utf-8"))
            assert not [each for each in page.loads if re.match(r"(https?:)?//", each)]


def test_names_with_html_are_text(site, cells, tmp_path):
    out, paths = site
    write_report(cells, tmp_path / "report.html")
    pages = [path for path in paths if path.suffix == ".html"]
    for path in [*pages, tmp_path / "report.html"]:
        page = Page(path.read_text(encoding="utf-8"))
        assert "img" not in page.tags, path
        assert "b" not in page.tags, path
    assert HOSTILE in "".join(Page((out / "index.html").read_text(encoding="utf-8")).words)


def test_the_data_of_a_model_is_its_entry(site, cells):
    own = [cell for cell in cells if cell.model["name"] == "net-direct"]
    assert json.loads((site[0] / "data" / "net-direct.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(document_of(own))
    )


def test_every_cell_has_its_command(site, cells):
    text = "".join(Page((site[0] / "protocols" / "nve.html").read_text(encoding="utf-8")).words)
    # the names are not installed: the reader's own cards
    for cell in cells:
        if cell.protocol["name"] == "nve" and not cell.model["name"].startswith("<"):
            name, system = cell.model["name"], cell.system
            assert f"conservbench run -m path/to/{name}.toml -p nve -s {system} --tier standard" in text
    assert f"conservbench run -m 'path/to/{HOSTILE}.toml' -p nve" in text
    assert "path/to/ stands for the folder it is in" in text


def test_a_method_is_cut_at_its_blank_lines_alone(cells, tmp_path):
    card = {**cells[0].protocol, "method": "\nOne line,\nand another.\n\nA new thought.\n"}
    write_site([replace(cells[0], protocol=card)], tmp_path)
    text = (tmp_path / "protocols" / "nve.html").read_text(encoding="utf-8")
    found = re.findall(r'<p class="method">(.*?)</p>', text, re.DOTALL)
    assert found == ["One line,\nand another.", "A new thought."]
    style = (tmp_path / "assets" / "site.css").read_text(encoding="utf-8")
    assert "pre-line" not in style


def test_a_network_says_whose_its_fast_force_is(site, cells, tmp_path):
    path = "networks/net-gradient.html"
    assert "that of another model" not in (site[0] / path).read_text(encoding="utf-8")
    lent = [replace(cell, model={**cell.model, "fast": "si-sw"}) if cell.model["name"] == "net-mts8" else cell
            for cell in cells]  # fmt: skip
    write_site(lent, tmp_path)
    assert "The fast force of net-mts8 is that of another model, si-sw." in (tmp_path / path).read_text(
        encoding="utf-8"
    )


def test_sides_have_no_row_of_dashes(site, cells, tmp_path):
    def rows(path):
        text = path.read_text(encoding="utf-8")
        sides = text[text.index('id="sides"') :]
        return len(re.findall(r'<th scope="row">fluctuation', sides))

    path = "networks/net-gradient.html"
    assert rows(site[0] / path) == 2
    silent = []
    for cell in cells:
        scores = [score for score in cell.scores if cell.system != "si-64" or score.metric != "fluctuation"]
        silent.append(replace(cell, scores=tuple(scores)))
    write_site(silent, tmp_path)
    assert rows(tmp_path / path) == 1


def test_costs_start_with_the_metric(site):
    text = (site[0] / "networks" / "net-gradient.html").read_text(encoding="utf-8")
    costs = text[text.index('id="costs"') :]
    assert re.findall(r'<th scope="col">(\w+)</th>', costs)[:3] == ["metric", "system", "protocol"]


def test_equal_cells_give_equal_pages(site, cells, tmp_path):
    for path in write_site(cells, tmp_path):
        assert path.read_bytes() == (site[0] / path.relative_to(tmp_path)).read_bytes()


def test_nothing_to_show(tmp_path):
    with pytest.raises(SiteError, match="no results to show"):
        write_site([], tmp_path)
    assert not list(tmp_path.iterdir())


def test_versions_and_tiers_do_not_share_a_table(cells, tmp_path):
    newer = replace(cells[0], protocol={**cells[0].protocol, "version": 3, "digest": "p9"})
    quick = replace(cells[1], tier="quick")
    write_site([*cells, newer, quick], tmp_path)
    text = (tmp_path / "protocols" / "nve.html").read_text(encoding="utf-8")
    captions = [each for each in re.findall(r"<caption>(.*?)</caption>", text) if "cells measured" in each]
    assert captions == [
        "NVE energy drift: version 2, quick tier; 1 of 1 cells measured",
        "NVE energy drift: version 2, standard tier; 8 of 8 cells measured",
        "NVE energy drift: version 3, standard tier; 1 of 1 cells measured",
    ]
    name = newer.model["name"]
    data = json.loads((tmp_path / "data" / f"{name}.json").read_text(encoding="utf-8"))
    assert data["protocols"]["nve"] == {"version": 3, "digest": "p9"}
    assert len([each for each in data["cells"] if each["protocol"] == "nve"]) == 1


def test_the_report_is_one_file(cells, tmp_path):
    path = tmp_path / "report.html"
    write_report(cells, path)
    page = Page(path.read_text(encoding="utf-8"))
    assert [each for each in page.loads if each != "data:,"] == []
    assert all(link.startswith(("#", "https://doi.org/")) for link in page.links)
    assert "net-direct is not usable" in "".join(page.words)


def test_the_smoke_tier_judges_no_model(cells, tmp_path):
    path = tmp_path / "report.html"
    write_report([replace(cell, tier="smoke") for cell in cells], path)
    text = "".join(Page(path.read_text(encoding="utf-8")).words)
    assert "No verdict: the smoke tier tests that everything runs" in text
    assert "usable" not in text
