"""The command that measures a cell again."""

import shlex
from dataclasses import replace

from conservbench.cli.run import run
from conservbench.site.command import Installed, command_of, origin_of

HERE = Installed(frozenset({"net-direct"}), frozenset({"nve"}))


def asked(command):
    """What the command line makes of it."""
    words = shlex.split(command)
    assert words[:2] == ["conservbench", "run"]
    return run.make_context("run", words[2:]).params


def test_the_command_asks_for_the_cell(cells):
    cell = next(cell for cell in cells if cell.model["name"] == "net-direct")
    given = asked(command_of(cell, HERE))
    assert (given["models"], given["protocols"], given["systems"]) == (("net-direct",), ("nve",), ("si-64",))
    assert (given["tier"], given["seed"], given["device"]) == ("standard", None, "cpu")


def test_another_seed_and_device_are_said(cells):
    cell = next(cell for cell in cells if cell.model["name"] == "net-direct")
    other = replace(cell, provenance={"seeds": {"seed": 7}, "device": "cuda"})
    given = asked(command_of(other, HERE))
    assert (given["seed"], given["device"]) == (7, "cuda")


def test_a_card_that_is_not_installed_is_a_file(cells):
    assert asked(command_of(cells[0], HERE))["models"] == ("path/to/net-gradient.toml",)


def test_what_a_metric_compares_with_is_measured_too(cells):
    alone = next(cell for cell in cells if cell.model["name"] == "net-direct")
    (key, metric), *_ = alone.metrics.items()
    assert asked(command_of(alone, HERE))["models"] == ("net-direct",)
    beside = replace(alone, metrics={key: replace(metric, twin=True)})
    assert asked(command_of(beside, HERE))["models"] == ("net-direct", "path/to/net-gradient.toml")
    # a tuned model whose parent and control are files of the reader's
    card = {**alone.model, "parent": "cards/net.toml", "tuning": {"control": "cards/net-control.toml"}}
    tuned = replace(alone, model=card, metrics={"a": replace(metric, parent=True), "b": replace(metric, control=True)})
    models = ("net-direct", "path/to/net.toml", "path/to/net-control.toml")
    assert asked(command_of(tuned, HERE))["models"] == models
    # a gradient is compared with none of its twins
    gradient = replace(beside, model={**alone.model, "scheme": "gradient"})
    assert asked(command_of(gradient, HERE))["models"] == ("net-direct",)
    # the model that others are compared with is not measured twice
    own = replace(beside, model={**alone.model, "twin": "net-direct"})
    assert asked(command_of(own, HERE))["models"] == ("net-direct",)


def test_origin():
    assert origin_of({}) == ""
    assert origin_of({"conservbench": "1.0", "git": {"commit": "0123456789abcdef", "dirty": True}}) == (
        "conservbench 1.0, commit 0123456789ab with local changes"
    )
