"""Judge tuned models: what changed from the parent, and from the control, under every condition. No torch.

The key of what is known of one condition ends with its name. A change is over pairs of replicas that share their start
and their noise, and negative where the error fell. What tuning cost, and what it did to energies and forces, is what
the model card records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from conservbench.outcome import Outcome
from conservbench.protocols.base import Finding
from conservbench.protocols.fidelity.judge import (
    of_crystal,
    of_motion,
    rdf_change,
    reference_of,
)
from conservbench.protocols.survivors import of_survivors
from conservbench.statistics import Interval, distance_change_interval, distance_from_interval

HELD_OUT: Final = "held_out"
"""Ends the key of what all conditions but that of the tuning give together."""

RECORDED: Final = {
    "energy_change": "meV/atom",
    "gradient_change": "meV/Å",
    "direct_change": "meV/Å",
    "force_change": "meV/Å",
    "evaluations": "1",
    "seconds": "s",
    "steps": "1",
    "rejected": "1",
}
"""Unit of each metric that the model card records."""

Series = NDArray[np.float64]


def judge(data: xr.Dataset) -> list[Finding]:
    """Findings of one cell, by the metrics of the protocol card.

    Args:
        data: what :func:`conservbench.protocols.finetune.measure.measure` returned, with the model card that the runner
            adds to it.
    """
    findings = []
    for condition in _conditions(data):
        findings += [_renamed(each, condition) for each in of_motion(at(data, condition))]
    findings.append(_together("rdf_error", [data], distance_from_interval))
    return [*findings, *of_crystal(data), *_recorded(data)]


def after(data: xr.Dataset, parent: xr.Dataset) -> list[Finding]:
    """Change of the error of g(r) from the model that this one was tuned from.

    Args:
        data: what was measured.
        parent: what was measured with the parent, under the same settings.
    """
    return _changes("rdf_change", data, parent)


def against(data: xr.Dataset, control: xr.Dataset) -> list[Finding]:
    """Error of g(r) less that of the model that was tuned to energies and forces instead.

    Args:
        data: what was measured.
        control: what was measured with the control, under the same settings.
    """
    return _changes("rdf_against", data, control)


def at(data: xr.Dataset, condition: str) -> xr.Dataset:
    """What was measured under one condition, as :func:`conservbench.protocols.fidelity.liquid.measure_rdf` gives it."""
    # the reference of another condition may have more blocks
    mine = data.sel(condition=condition).dropna("block", subset=["reference_rdf_blocks"])
    return mine.assign_attrs(target_temperature=float(mine.target_temperature))


def _changes(metric: str, data: xr.Dataset, other: xr.Dataset) -> list[Finding]:
    findings = []
    for condition in _conditions(data):
        mine, theirs = (at(each, condition) for each in (data, other))
        both = _lasted(mine) & _lasted(theirs)
        samples = [each.rdf.values[both] for each in (mine, theirs)]
        reference = reference_of(mine)
        statistic = _bound(rdf_change, *samples, reference)
        findings.append(of_survivors(f"{metric}_{_key(condition)}", "1", both, statistic))
    return [*findings, _together(metric, [data, other], distance_change_interval)]


def _bound(function: Callable[..., Interval], *arguments: Any) -> Callable[[], Interval]:
    return lambda: function(*arguments)


def _together(metric: str, cells: Sequence[xr.Dataset], statistic: Callable[..., Interval]) -> Finding:
    """A statistic of g(r), the mean over the conditions that are held out.

    The jackknife leaves a replica out of all conditions at once, and a block out of the one that it is of.
    """
    key = f"{metric}_{HELD_OUT}"
    names = [name for name in _conditions(cells[0]) if name != cells[0].attrs["tuned_at"]]
    if not names:
        return Finding(key, "1", None, Outcome.UNSUPPORTED, "these settings hold no condition out")
    measured = [[at(cell, name) for name in names] for cell in cells]
    blocks = [reference_of(each).blocks for each in measured[0]]
    lasted = np.logical_and.reduce([_lasted(each) for cell in measured for each in cell])
    sampled = [[each.rdf.values[lasted] for each in cell] for cell in measured]
    return of_survivors(key, "1", lasted, lambda: statistic(*sampled, blocks))


def _recorded(data: xr.Dataset) -> list[Finding]:
    """What the model card says of the tuning; for a model that was not tuned there is nothing to say."""
    card = json.loads(data.attrs.get("model_card", "{}"))
    tuning: Mapping[str, Any] | None = card.get("tuning")
    if tuning is None:
        return [Finding(metric, unit, None, Outcome.UNSUPPORTED) for metric, unit in RECORDED.items()]
    changes = {key: _change(tuning, key) for key in ("energy", "gradient", "direct")}
    # the gradient forces are those whose ensemble multiple time steps sample
    own = changes["direct" if card["scheme"] == "direct" else "gradient"]
    values: dict[str, float | None] = {f"{key}_change": change for key, change in changes.items()}
    values |= {"force_change": own, "rejected": tuning.get("rejected", 0)}
    values |= {key: tuning.get(key) for key in ("evaluations", "seconds", "steps")}
    return [_of_card(metric, values[metric]) for metric in RECORDED]


def _of_card(metric: str, value: float | None) -> Finding:
    if value is None:
        reason = "the model card does not record it"
        return Finding(metric, RECORDED[metric], None, Outcome.UNSUPPORTED, reason)
    return Finding(metric, RECORDED[metric], Interval(float(value), float(value), float(value), 1))


def _change(tuning: Mapping[str, Any], key: str) -> float | None:
    before, now = tuning.get(f"{key}_before"), tuning.get(f"{key}_after")
    return None if before is None or now is None else now - before


def _conditions(data: xr.Dataset) -> list[str]:
    return [str(name) for name in data.condition.values]


def _lasted(data: xr.Dataset) -> NDArray[np.bool_]:
    return np.asarray(data.explosion_time.isnull().values)


def _renamed(finding: Finding, condition: str) -> Finding:
    return replace(finding, metric=f"{finding.metric}_{_key(condition)}")


def _key(condition: str) -> str:
    return condition.replace("-", "_")
