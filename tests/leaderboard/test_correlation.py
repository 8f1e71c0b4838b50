"""Errors on labels against errors of properties: coefficients against scipy, and intervals against their claim."""

import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from conservbench.cards import Metric
from conservbench.leaderboard import correlation
from conservbench.leaderboard.correlation import kendall, ladders, pearson, spearman
from conservbench.leaderboard.page import markdown
from conservbench.outcome import Outcome
from conservbench.scored import Score
from conservbench.scoring import ScoreTable
from conservbench.site.pages import report_page

METRICS = {
    "force_error": Metric("force_error", "force error", "meV/Å", headline=True, better="lower"),
    "energy_error": Metric("energy_error", "energy error", "meV/atom", headline=True, better="lower"),
    "lattice_error": Metric("lattice_error", "lattice constant off", "Å", headline=True, better="zero"),
    "diffusion": Metric("diffusion", "diffusion", "Å^2/ps", headline=True),
    "rdf_error": Metric("rdf_error", "g(r) off", "1", headline=True, better="lower"),
    "step_time": Metric("step_time", "time", "µs/atom", better="lower", timed=True),
}


@pytest.fixture
def make(make_cell):
    """The cells of one model: metric to its value, those of the melt on a system of their own."""

    def cells(name, values, *, scheme="gradient", role="model", half=0.0, lost=(), tier="standard"):
        made = []
        for system, keys in (
            ("si-64", ("force_error", "energy_error", "lattice_error", "step_time")),
            ("si-melt-64", ("rdf_error", "diffusion")),
        ):
            scores = tuple(
                Score(
                    name,
                    "complexity",
                    system,
                    key,
                    values[key],
                    values[key] - half,
                    values[key] + half,
                    METRICS[key].unit,
                    8,
                    Outcome.EXPLODED if key in lost else Outcome.COMPLETED,
                    None,
                )
                for key in keys
                if key in values
            )
            cell = make_cell(
                name,
                system=system,
                tier=tier,
                model={"scheme": scheme, "role": role},
                protocol={"name": "complexity", "title": "Complexity"},
            )
            made.append(replace(cell, metrics=METRICS, scores=scores))
        return made

    return cells


def test_coefficients_are_those_of_scipy():
    rng = np.random.default_rng(0)
    for n in (4, 9):
        # few levels, so that there are ties
        x, y = rng.integers(0, 5, (2, n)).astype(float)
        assert float(pearson(x, y)) == pytest.approx(stats.pearsonr(x, y).statistic)
        assert float(spearman(x, y)) == pytest.approx(stats.spearmanr(x, y).statistic)
        assert float(kendall(x, y)) == pytest.approx(stats.kendalltau(x, y).statistic)
    assert math.isnan(float(pearson(np.ones(4), np.arange(4.0))))


def test_a_ladder_pairs_models_across_systems_and_keeps_kinds_apart(make):
    # conservative: a better fit has the better g(r); direct: the worse one
    cells = []
    for rung in range(6):
        error = 100.0 + 20.0 * rung
        values = {"force_error": error, "lattice_error": 0.01 * (-1) ** rung * (rung + 1), "rdf_error": error**2}
        cells += make(f"g{rung}", {**values, "diffusion": 1.0})
        cells += make(f"d{rung}", {**values, "rdf_error": -error}, scheme="direct")
    found = {(each.other.key, each.fit.key): each for each in ladders(cells)}
    assert set(found) == {("lattice_error", "force_error"), ("rdf_error", "force_error")}
    conservative, direct = found["rdf_error", "force_error"].kinds
    assert found["rdf_error", "force_error"].system == "si-melt-64"
    assert (conservative.forces, direct.forces) == ("conservative", "direct")
    assert [point.model for point in conservative.points] == [f"g{rung}" for rung in range(6)]
    assert conservative.spearman.value == conservative.kendall.value == pytest.approx(1.0)
    assert conservative.pearson.value == pytest.approx(
        stats.pearsonr(100 + 20.0 * np.arange(6), (100 + 20.0 * np.arange(6)) ** 2).statistic
    )
    assert direct.pearson.value == pytest.approx(-1.0)
    assert conservative.spearman.low > 0 > direct.spearman.high
    # near zero is better: the size counts
    assert found["lattice_error", "force_error"].kinds[0].spearman.value == pytest.approx(1.0)


def test_noise_of_the_scores_widens_intervals(make):
    def width(half):
        cells = []
        for rung, other in enumerate((1.0, 2.0, 2.6, 3.3, 4.0, 6.0, 7.0, 8.0)):
            cells += make(f"m{rung}", {"force_error": 10.0 * rung, "rdf_error": other}, half=half)
        (ladder,) = ladders(cells)
        return ladder.kinds[0].pearson.high - ladder.kinds[0].pearson.low

    assert width(6.0) > 1.5 * width(0.0)


def test_intervals_do_not_depend_on_the_order_of_the_cells(make):
    others = (1.0, 2.0, 1.5, 3.3, 2.9, 6.0)
    models = [make(f"m{n}", {"force_error": 10.0 * n, "rdf_error": other}) for n, other in enumerate(others)]
    (first,) = ladders([cell for cells in models for cell in cells])
    (second,) = ladders([cell for cells in reversed(models) for cell in cells])
    assert first == second


def test_models_without_a_value_are_named_and_few_models_have_no_coefficient(make):
    values = {"force_error": 1.0, "rdf_error": 1.0}
    cells = [*make("a", values), *make("b", {**values, "force_error": 2.0}), *make("c", values, lost=("rdf_error",))]
    (ladder,) = ladders(cells)
    (kind,) = ladder.kinds
    assert [point.model for point in kind.points] == ["a", "b"]
    assert kind.lost == ("c",)
    assert kind.spearman is None
    # the same error for all tells nothing
    alike = [cell for name in "abcd" for cell in make(name, values)]
    assert ladders(alike)[0].kinds[0].spearman is None
    # what another version of a model erred by says nothing of this one
    older = [replace(cell, model={**cell.model, "digest": "d0"}) if cell.system == "si-64" else cell for cell in cells]
    assert not ladders(older)
    # a protocol of a user's own, measured by the same plugin
    mine = [replace(cell, protocol={**cell.protocol, "name": "mine", "plugin": "complexity"}) for cell in cells]
    assert len(ladders(mine)) == 1
    # another tier is another ladder
    assert not ladders([*make("a", values), *make("b", values, tier="quick")])


def test_labels_of_a_system_go_with_its_own_properties(make):
    def on(cell, values):
        known = {score.metric: score for score in cell.scores}
        template = cell.scores[0]
        made = (
            replace(known.get(key, template), metric=key, value=value, low=value, high=value)
            for key, value in values.items()
        )
        return replace(cell, scores=tuple(made))

    cells = []
    for rung in range(5):
        (crystal, melt) = make(f"m{rung}", {"force_error": 1.0, "rdf_error": 1.0})
        cells.append(on(crystal, {"force_error": 10.0 * (rung + 1), "lattice_error": 0.01 * (rung + 1)}))
        cells.append(on(melt, {"force_error": 1000.0 - 100.0 * rung, "rdf_error": 1.0 + rung}))
    found = {(each.other.key, each.system): each.kinds[0].spearman.value for each in ladders(cells)}
    assert found == {("lattice_error", "si-64"): pytest.approx(1.0), ("rdf_error", "si-melt-64"): pytest.approx(-1.0)}
    # properties of a third system, where it is not known which labels are meant
    third = [replace(cell, system="si-hot-64", scores=cell.scores[1:]) for cell in cells if cell.system == "si-64"]
    assert {each.system for each in ladders([*cells, *third])} == {"si-64", "si-melt-64"}


def test_the_noise_of_a_size_is_that_of_what_was_measured():
    """Of 0 +- 0.04 the size has a bound of 0.04 too, but it is drawn on both sides."""
    measured = correlation.Interval(0.0, -0.04, 0.04, 6)
    point = correlation.Point("m", "direct", False, measured, measured, near_zero=True)
    assert (point.other.low, point.other.high) == (0.0, 0.04)
    np.testing.assert_allclose(correlation._spread([point.measured]), 0.04 / stats.t.ppf(0.975, 5))


def test_times_are_correlated_on_one_running_machine_alone(make):
    def found(boots):
        cells = []
        for rung, boot in enumerate(boots):
            values = {"force_error": 10.0 - rung, "step_time": 10.0 + rung}
            cells += [
                replace(
                    cell, provenance={**cell.provenance, "boot": boot, "threads": 1, "processor": "P", "device": "cpu"}
                )
                for cell in make(f"m{rung}", values)
            ]
        return ladders(cells)

    (ladder,) = found(["a"] * 4)
    assert ladder.other.key == "step_time"
    assert ladder.kinds[0].spearman.value == pytest.approx(-1.0)
    assert not found(["a", "a", "a", "b"])


@pytest.mark.parametrize("rho", [0.8, 0.97])
def test_intervals_cover_at_the_rate_they_claim(monkeypatch, rho):
    """150 ladders of 8 models: fewer than 136 covered at a true rate of 95 % has a chance below 1 %."""
    monkeypatch.setattr(correlation, "DRAWS", 200)
    rng = np.random.default_rng(5)
    truth = np.array([6 / np.pi * np.arcsin(rho / 2), 2 / np.pi * np.arcsin(rho), rho])
    covered = np.zeros(3)
    for _ in range(150):
        z = rng.standard_normal((2, 8))
        sides = (z[0], rho * z[0] + math.sqrt(1 - rho**2) * z[1])
        points = [
            correlation.Point("m", "direct", False, *(correlation.Interval(v, v, v, 1) for v in pair))
            for pair in zip(*sides, strict=True)
        ]
        found = correlation._three(points)
        covered += [each.low <= true <= each.high for each, true in zip(found, truth, strict=True)]
    assert (covered >= 136).all()


def test_a_model_that_is_too_noisy_is_left_out_and_told(make):
    cells = []
    for rung in range(8):
        half = 30.0 if rung == 3 else 0.01
        cells += make(f"m{rung}", {"force_error": 10.0 + rung, "rdf_error": 2.0 + rung}, half=half)
    (ladder,) = ladders(cells)
    (kind,) = ladder.kinds
    assert kind.vague == ("m3",)
    assert kind.count == "7 (1 too noisy)"
    assert kind.spearman.n == 7
    assert kind.spearman.low > 0.0
    # it is drawn all the same
    assert len(kind.points) == 8
    # where noise is all there is, nothing is left out, and nothing said
    vague = [
        cell for rung in range(8) for cell in make(f"m{rung}", {"force_error": rung, "rdf_error": rung}, half=30.0)
    ]
    (kind,) = ladders(vague)[0].kinds
    assert (kind.vague, kind.spearman.low, kind.spearman.high) == ((), -1.0, 1.0)


def test_intervals_cover_where_models_are_of_unlike_noise(monkeypatch):
    """150 ladders of 8 models, noise of 0.05 to 5 spreads: fewer than 136 at a true 95 % has a chance below 1 %."""
    monkeypatch.setattr(correlation, "DRAWS", 200)
    rng = np.random.default_rng(7)
    rho, n = 0.8, 8
    covered, left = 0, 0
    for _ in range(150):
        z = rng.standard_normal((2, n))
        x, y = z[0], rho * z[0] + math.sqrt(1 - rho**2) * z[1]
        noise = np.exp(rng.uniform(math.log(0.05), math.log(5.0), n))
        half = noise * stats.t.ppf(0.975, 7)
        seen = y + noise * rng.standard_normal(n)
        points = [
            correlation.Point(
                "m", "direct", False, correlation.Interval(a, a, a, 1), correlation.Interval(b, b - h, b + h, 8)
            )
            for a, b, h in zip(x, seen, half, strict=True)
        ]
        kept = correlation.placed(points)
        left += n - len(kept)
        found = correlation._three(kept)[2]
        covered += found.low <= rho <= found.high
    assert left > 150
    assert covered >= 136


def test_page_and_report_say_it(make):
    cells = []
    for rung in range(5):
        role = "control" if rung == 4 else "model"
        cells += make(f"rung<{rung}>", {"force_error": 10.0 + rung, "rdf_error": 2.0 + rung}, half=0.01, role=role)
    page = markdown(cells)
    assert "### What a better fit buys" in page
    (row,) = [line for line in page.splitlines() if line.startswith(("| g\\(r\\) off", "| g(r) off"))]
    assert "conservative" in row
    html = report_page(cells)
    assert "What a better fit buys" in html
    assert "g(r) off against force error" in html
    assert "rung<4>" not in html
    assert "What a better fit buys" not in markdown(cells[:2])


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_says_it_too(make, width):
    cells = [
        cell
        for rung in range(5)
        for cell in make(f"rung{rung}", {"force_error": 10.0 + rung, "rdf_error": 2.0 + rung}, half=0.01)
    ]
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(ScoreTable(tuple(cells)))
    lines = capture.get().splitlines()
    assert "What a better fit buys" in lines
    assert max(map(len, lines)) <= width
    assert any("g(r)" in line and "force" in line and "1.0 [" in line for line in lines)
