"""The end of the walk."""

from conservbench.protocols.base import Finding
from conservbench.statistics import Interval


def judge(data):
    """Where the walk ended."""
    end = float(data["walk"][-1])
    return [Finding("end", "eV", Interval(end, end, end, 1))]
