"""A card over calculators that cost nothing."""

import sys
from pathlib import Path

import pytest

from conservbench.data.labelling.card import read_labelling

HEAD = """
name = "springs"
version = 1
title = "Springs"
license = "CC0-1.0"
citation = "paper"

[start]
factory = "springs:crystal"

[calculator]
factory = "springs:{calculator}"
arguments = {{ {arguments} }}

[walk]
time_step = 4.0
friction = 10.0
equilibration = 200.0
spacing = {spacing}
correlation = {correlation}
seed = 3
"""

STRETCH = """
[[schedule]]
temperature = {temperature}
frames = {frames}
isotropic = {isotropic}
rattle = 0.05
test = [1]
"""


@pytest.fixture
def springs(tmp_path, monkeypatch):
    """Makes cards; the module of calculators is found by workers, too."""
    here = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("PYTHONPATH", here)
    sys.modules.pop("springs", None)

    def make(
        calculator="Springs",
        arguments="",
        frames=4,
        temperature=300.0,
        isotropic="[0.0, 0.0]",
        spacing=60.0,
        correlation=0.4,
        extra="",
    ):
        head = HEAD.format(calculator=calculator, arguments=arguments, spacing=spacing, correlation=correlation)
        path = tmp_path / "springs.toml"
        path.write_text(
            extra + head + STRETCH.format(temperature=temperature, frames=frames, isotropic=isotropic), encoding="utf-8"
        )
        return read_labelling(path)

    return make
