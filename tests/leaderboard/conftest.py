"""Scored cells made by hand."""

import pytest

from conservbench.cards import Metric
from conservbench.outcome import Outcome
from conservbench.scored import Score, ScoredCell, gate_of
from conservbench.statistics import Interval

DRIFT = Metric("drift", "energy drift", "meV/atom/ps", headline=True, digits=3, below=0.26, above=-0.26, source="paper")
ORDER = Metric("order", "order in dt", "1", digits=2, above=1.5)


@pytest.fixture
def make_cell():
    """A cell of model, its drift (value, half-width) or None, and changes to the cards."""

    def make(
        name="net",
        drift=(7.0, 0.4),
        *,
        system="si-64",
        tier="standard",
        outcome=Outcome.COMPLETED,
        reason="",
        model=(),
        protocol=(),
    ) -> ScoredCell:
        interval = drift and Interval(drift[0], drift[0] - drift[1], drift[0] + drift[1], 8)
        card = {"name": name, "version": 2, "title": "A network", "scheme": "direct", "digest": "d1", **dict(model)}
        question = {"name": "nve", "version": 1, "title": "NVE drift", "question": "Does it drift?", "digest": "p1"}
        values = (interval.value, interval.low, interval.high) if interval else (None, None, None)

        def score(metric: Metric) -> Score:
            gate = gate_of(metric, interval, outcome)
            n = interval.n if interval else 0
            return Score(card["name"], "nve", system, metric.key, *values, metric.unit, n, outcome, gate, reason)

        return ScoredCell(
            model=card,
            protocol={**question, **dict(protocol)},
            system=system,
            tier=tier,
            outcome=outcome,
            reason=reason,
            provenance={"conservbench": "0.1.0", "git": {"commit": "0123456789abcdef", "dirty": False}, "packages": {}},
            metrics={"drift": DRIFT, "order": ORDER},
            scores=(score(DRIFT), score(ORDER)),
        )

    return make
