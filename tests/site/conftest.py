"""A small board made by hand: one network under three force schemes, a control, and a model named to do harm."""

import math

import pytest

from conservbench.cards import metrics_of
from conservbench.outcome import Outcome
from conservbench.plot import Axis, Plot, line
from conservbench.scored import Score, ScoredCell, gate_of
from conservbench.statistics import Interval

HOSTILE = "<img src=x onerror=alert(1)>"
"""Name and title of a model: it must be shown, not run."""

NVE = {
    "name": "nve",
    "version": 2,
    "title": "NVE energy drift",
    "question": "Do the forces conserve energy?",
    "method": "Replicas run by velocity Verlet.",
    "systems": ["si-64", "si-liquid-64"],
    "digest": "p1",
    "bibtex": "@misc{nve, title = {Drift}}",
    "settings": {"replicas": 8, "time_steps": [1.0, 2.0], "seed": 0},
    "tiers": {"smoke": {"replicas": 2}},
    "metrics": {
        "drift": {
            "label": "energy drift",
            "unit": "meV/atom/ps",
            "headline": True,
            "above": -0.26,
            "below": 0.26,
            "better": "zero",
            "source": "1 K/ps in a harmonic crystal",
        },
        "fluctuation": {"label": "fluctuation", "unit": "meV/atom", "headline": True, "better": "lower"},
        "order": {"label": "order in dt", "unit": "1", "above": 1.5, "better": "higher"},
    },
}

SPEED = {
    "name": "speed",
    "version": 1,
    "title": "Speed",
    "question": "How long is a step?",
    "systems": ["si-64"],
    "digest": "p2",
    "metrics": {
        "ns_per_day": {"label": "speed", "unit": "ns/day", "headline": True, "better": "higher"},
        "time_1": {"label": "time per step", "unit": "ms", "headline": True, "better": "lower"},
    },
}

DRIFTS = {"net-gradient": (0.01, 0.02), "net-direct": (13.0, 7.0), "net-mts8": (0.3, 0.4), HOSTILE: (-40.0, 1.0)}
SCHEMES = {"net-gradient": "gradient", "net-direct": "direct", "net-mts8": "mts", HOSTILE: "direct", "known": "direct"}


def card_of(name):
    scheme = SCHEMES[name]
    twin = {"twin": "net-gradient"} if name in ("net-direct", "net-mts8") else {}
    return {
        "name": name,
        "version": 1,
        "title": HOSTILE if name == HOSTILE else f"A network, {scheme}",
        "scheme": scheme,
        "digest": f"d-{name}",
        "doi": "10.1000/x",
        "authors": ["A. Author"],
        "bibtex": "@misc{net, title = {</script><script>alert(2)</script>}}",
        **({"stride": 8} if scheme == "mts" else {}),
        **({"role": "control"} if name == "known" else {}),
        **twin,
    }


def plots_of(name):
    """A curve with a band and a gap on a linear axis, points with bars and a reference on a logarithmic one."""
    slope = DRIFTS.get(name, (1.0, 0.1))[0]
    t = [0.02 * step for step in range(40)]
    energy = [math.nan if step == 20 else slope * x for step, x in enumerate(t)]
    curves = [
        line(f"{dt} fs", t, [dt * e for e in energy], [dt * e - 1 for e in energy], [dt * e + 1 for e in energy])
        for dt in (1, 2)
    ]
    strides = [1.0, 2.0, 4.0]
    points = line(
        "", strides, [abs(slope) * s for s in strides], [0.0, 1.0, 2.0], [50.0 * s for s in strides], "points"
    )
    limit = line("limit", strides, [0.26] * 3, style="reference")
    time, energies = Axis("time", "ps"), Axis("E(t) - E(0)", "meV/atom")
    return (
        Plot("energy", "Energy against time", time, energies, tuple(curves), "Level?"),
        Plot("sweep", "Drift against stride", Axis("stride", log=True), Axis("drift <b>", log=True), (points, limit)),
    )


def cell_of(name, protocol, system, values, *, outcome=Outcome.COMPLETED, reason="", plots=()):
    metrics = metrics_of(protocol, "test")
    scores = []
    for key, metric in metrics.items():
        interval = values.get(key) and Interval(values[key][0], values[key][0] - values[key][1], sum(values[key]), 8)
        ends = (interval.value, interval.low, interval.high) if interval else (None, None, None)
        gate = gate_of(metric, interval, outcome)
        n = interval.n if interval else 0
        scores.append(Score(name, protocol["name"], system, key, *ends, metric.unit, n, outcome, gate, reason))
    return ScoredCell(
        model=card_of(name),
        protocol=protocol,
        system=system,
        tier="standard",
        outcome=outcome,
        reason=reason,
        provenance={
            "conservbench": "0.1.0",
            "git": {"commit": "0123456789abcdef", "dirty": False},
            "seeds": {"seed": 0},
            "boot": "ab12",
            "processor": "CPU",
            "threads": 2,
        },
        metrics=metrics,
        scores=tuple(scores),
        plots=plots,
    )


@pytest.fixture(scope="session")
def cells():
    found = []
    for name, drift in (*DRIFTS.items(), ("known", (5.0, 0.1))):
        values = {"drift": drift, "fluctuation": (0.1, 0.01), "order": (2.0, 0.1)}
        found.append(cell_of(name, NVE, "si-64", values, plots=plots_of(name)))
    found.append(
        cell_of("net-direct", NVE, "si-liquid-64", {}, outcome=Outcome.EXPLODED, reason="<b>hot</b> after 1 ps")
    )
    found.append(cell_of("net-gradient", NVE, "si-liquid-64", {"drift": (0.0, 0.1), "fluctuation": (0.2, 0.01)}))
    found.append(cell_of("known", NVE, "sic-64", {"drift": (5.0, 0.1)}, plots=plots_of("known")))
    for place, name in enumerate(("net-gradient", "net-direct", "net-mts8")):
        speed = {"ns_per_day": (1.0 + place, 0.1), "time_1": (3.0 - place, 0.1)}
        found.append(cell_of(name, SPEED, "si-64", speed))
    return tuple(found)
