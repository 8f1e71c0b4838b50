"""What a protocol is to the suite, and the findings its judge returns. No torch.

A protocol is a package with three modules, or four:

* ``settings``: a frozen dataclass ``Settings``, the exact keys of the ``[settings]`` of its card; a field that names
  labelled data has the metadata :data:`DATA`, so that what is in it is part of what a result is of;
* ``measure``: ``measure(model, scheme, system, settings, report) -> xarray.Dataset``, slow, raw series with units;
* ``judge``: ``judge(data) -> list[Finding]``, a pure function of the file, which imports no torch. Where the card marks
  metrics ``twin = true``, also ``compare(data, twin) -> list[Finding]`` for them: ``twin`` is what was measured alike
  with the gradient forces of the model's ``twin``; it is not called for a row without one. Likewise
  ``after(data, parent)`` for metrics marked ``parent = true``, with the model that a tuned one was tuned from, and
  ``against(data, control)`` for those marked ``control = true``, with the one that was tuned to energies and forces,
  and ``below(data, top)`` for those marked ``top = true``, with the model that the attribute ``top`` of the file names.
* ``plots``: ``plots(data) -> list[conservbench.plot.Plot]``, a pure function of the file, which imports no torch; a
  protocol with nothing to draw has no such module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final

from conservbench.outcome import Outcome
from conservbench.statistics import Interval

DATA: Final = {"names": "data"}
"""Metadata of a field of ``Settings`` that names a data set, or a file of frames by its path from the card."""

Report = Callable[[float], None]
"""Told the fraction of a measurement that is done, in [0, 1]."""


def names_of_data(settings: Any) -> dict[str, str]:
    """The data that ``Settings`` name, by the field, but for fields that are empty."""
    named = {each.name: getattr(settings, each.name) for each in fields(settings) if each.metadata == DATA}
    return {key: name for key, name in named.items() if name}


def within(report: Report, begin: float, end: float) -> Report:
    """The report of a part of a measurement, which lies between two fractions of the whole."""
    return lambda fraction: report(begin + (end - begin) * fraction)


@dataclass(frozen=True)
class Finding:
    """One metric of one cell.

    Attributes:
        metric: its key in the protocol card.
        unit: of the interval.
        interval: value and 95 % interval, or None where there is none.
        outcome: how its measurement ended.
        reason: why there is no interval, or what a reader must know of it.
    """

    metric: str
    unit: str
    interval: Interval | None
    outcome: Outcome = Outcome.COMPLETED
    reason: str = ""
