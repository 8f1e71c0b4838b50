"""A check raises the false alarms it says, and sees what it must: toys measured anew by the protocols themselves.

Replicas have random numbers of their own, fixed by the seed and their number, so that a wide measurement is many runs
side by side, each with the replicas of the card; the first test shows it. Both sides of a check are runs of different
seeds.
"""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from conservbench import plugins
from conservbench.compare import compare, known_as
from conservbench.models.load import load_model
from conservbench.runner import plan
from conservbench.scoring import score
from conservbench.systems import find_system

CHECKS = 200
MOST_ALARMS = 6
"""At 1 % each, 200 independent checks raise more than 6 alarms in 4 of 1000 cases (binomial)."""


def measured(name, protocol, *, seed, runs=1, options=None):
    """Cards and data of a toy on si-64 in the quick tier: as many runs as asked for, side by side."""
    (cell,) = plan([name], [protocol], ["si-64"], "quick", seed)
    card = replace(cell.model, options={**cell.model.options, **(options or {})})
    system, settings = find_system("si-64"), cell.settings
    dtype = None if cell.protocol.dtype == "model" else cell.protocol.dtype
    model = load_model(card, system, device="cpu", dtype=dtype)
    per_run = getattr(settings, "replicas", None)
    if per_run is not None:
        settings = replace(settings, replicas=runs * per_run)
        # a run of few replicas starts from the first snapshots alone, and so does each of these
        system = replace(system, snapshots=system.snapshots[:per_run])
    data = plugins.protocol_module(protocol, "measure").measure(model, card.scheme, system, settings, lambda _: None)
    slices = [data]
    if per_run is not None:
        slices = [data.isel(replica=slice(k * per_run, (k + 1) * per_run)) for k in range(runs)]
    attributes = {
        "outcome": "completed",
        "model": name,
        "protocol": protocol,
        "system": "si-64",
        "tier": "quick",
        "model_card": cell.model.to_json(),
        "protocol_card": cell.protocol.to_json(),
        **data.attrs,
    }
    return [part.assign_attrs(attributes) for part in slices]


def many(name, protocol, *, runs, first_seed, options=None, wide=50):
    """Runs of many seeds, or wide ones of a few."""
    if protocol in ("audit", "relax"):
        return [run for k in range(runs) for run in measured(name, protocol, seed=first_seed + k)]
    parts = [
        measured(name, protocol, seed=first_seed + k, runs=min(wide, runs - k), options=options)
        for k in range(0, runs, wide)
    ]
    return [run for part in parts for run in part]


def cells(*data):
    """The scored cells of one run of everything given."""
    return score(
        xr.DataTree.from_dict({f"/{each.attrs['protocol']}/si-64/{each.attrs['model']}": each for each in data})
    ).cells


@pytest.fixture(scope="module")
def swirls():
    """Each side's cells of swirl under nve."""
    return [[cells(run) for run in many("swirl", "nve", runs=CHECKS, first_seed=seed)] for seed in (1000, 2000)]


def test_a_wide_measurement_is_runs_side_by_side():
    wide = measured("swirl", "nve", seed=5, runs=2)
    (alone,) = measured("swirl", "nve", seed=5)
    np.testing.assert_allclose(wide[0].total_energy, alone.total_energy, rtol=1e-9)
    assert not np.allclose(wide[1].total_energy, alone.total_energy, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_checks_of_an_unchanged_model(swirls):
    """Constant energy, where forces are no gradient: 200 checks, none of whose runs another one shares."""
    verdicts = [compare(base, head).verdict for base, head in zip(*swirls, strict=True)]
    assert verdicts.count("regression") <= MOST_ALARMS
    assert verdicts.count("improved") <= MOST_ALARMS
    assert "nothing comparable" not in verdicts


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_checks_of_everything_unchanged():
    """All protocols that both toys have, every metric, the pair of them: 200 pairs of 20 runs a side.

    Runs recur, so that alarms come in clusters where there are any; their expectation is the same.
    """
    protocols = ("audit", "nve", "relax", "thermostat")
    sides = []
    for seed in (3000, 4000):
        runs = [
            many(name, each, runs=20, first_seed=seed, wide=20) for name in ("harmonic", "swirl") for each in protocols
        ]
        sides.append([cells(*parts) for parts in zip(*runs, strict=True)])
    rng = np.random.default_rng(0)
    pairs = rng.choice(20 * 20, size=CHECKS, replace=False)
    comparisons = [compare(sides[0][pair // 20], sides[1][pair % 20]) for pair in pairs]
    assert min(len(comparison.compared) for comparison in comparisons) > 80
    assert sum(comparison.verdict == "regression" for comparison in comparisons) <= MOST_ALARMS
    assert sum(comparison.verdict == "improved" for comparison in comparisons) <= MOST_ALARMS


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_drift_that_doubles_is_caught(swirls):
    """The energy of swirl grows with the square of its curl at first, so that a curl of sqrt(2) as much doubles it."""
    runs = many("swirl", "nve", runs=100, first_seed=5000, options={"curl": 0.15 * 2.0**0.5})
    doubled = [cells(run) for run in runs]
    drifts = [
        np.mean([next(each.value for each in cell.scores if each.metric == "drift") for (cell,) in side])
        for side in (swirls[0], doubled)
    ]
    assert drifts[1] == pytest.approx(2.0 * drifts[0], rel=0.1)
    caught = [compare(base, head) for base, head in zip(swirls[0], doubled, strict=False)]
    assert sum(comparison.verdict == "regression" for comparison in caught) >= 95


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_direct_force_in_place_of_a_gradient_is_caught(swirls):
    """The checkpoint's name stays that of the gradient: the curl of swirl comes in under the name of harmonic."""
    gradients = [cells(run) for run in many("harmonic", "nve", runs=100, first_seed=6000)]
    caught = [compare(base, known_as(head, "harmonic")) for base, head in zip(gradients, swirls[1], strict=False)]
    assert sum("drift" in {row.metric for row in comparison.of("regression")} for comparison in caught) >= 95
    assert sum(comparison.verdict == "regression" for comparison in caught) >= 95
