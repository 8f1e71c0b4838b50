"""Models are ranked among those that were asked about the same elements."""

from dataclasses import replace

from conservbench.leaderboard.chemistry import by_chemistry
from conservbench.leaderboard.page import markdown
from conservbench.leaderboard.ranking import ranks
from conservbench.site.pages import site_pages

NVE = {"name": "nve", "systems": ["si-64", "si-liquid-64"], "more_systems": ["ethanol"]}


def test_cells_are_apart_by_the_elements_of_their_systems(make_cell):
    cells = [make_cell(name, system=name, protocol=NVE) for name in ("si-64", "ethanol", "si-liquid-64", "sic-64")]
    found = {elements: [cell.system for cell in own] for elements, own in by_chemistry(cells).items()}
    assert found == {"Si": ["si-64", "si-liquid-64"], "C, H, O": ["ethanol"], "C, Si": ["sic-64"]}
    assert by_chemistry(cells[:1]) == {"": cells[:1]}
    assert by_chemistry([]) == {}


def ranked(cell):
    """The same cell, by a card that says which values are better."""
    return replace(cell, metrics={**cell.metrics, "drift": replace(cell.metrics["drift"], better="zero")})


def test_a_model_of_other_elements_is_not_behind_all_others(make_cell):
    def pair(name, system, drifts):
        return [ranked(make_cell(f"{name}-{drift}", (drift, 0.1), system=system, protocol=NVE)) for drift in drifts]

    silicon, organic = pair("si", "si-64", (1, 9)), pair("cho", "ethanol", (2, 30))
    cells = [*silicon, *organic]
    found = [
        {rank.model: (rank.low, rank.high) for rank in ranks(own, "drift")} for own in by_chemistry(cells).values()
    ]
    assert found == [{"si-1": (1, 1), "si-9": (2, 2)}, {"cho-2": (1, 1), "cho-30": (2, 2)}]
    page = markdown(cells)
    assert "Ranks over all systems of the protocol with Si, 1 the best:" in page
    assert "Ranks over all systems of the protocol with C, H, O, 1 the best:" in page
    assert "Ranks over all systems of the protocol, 1 the best:" in markdown(silicon)
    pages, _ = site_pages(cells)
    (text,) = [text for name, text in pages.items() if name.startswith("protocols/")]
    assert text.count("<caption>Ranks: ") == 2
    assert "tier: C, H, O</caption>" in text
