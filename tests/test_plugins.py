"""Plugins are found by entry points, ours and those of others."""

import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from conservbench.plugins import PluginError, card_folders, find_entry, loader, protocol_module

PLUGIN = Path(__file__).parent / "plugin"


@pytest.fixture
def ticks(monkeypatch):
    monkeypatch.syspath_prepend(PLUGIN)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "ticks"]:
        del sys.modules[name]


def test_third_party_loader_and_protocol(ticks):
    assert find_entry("conservbench.models", "acting").value == "ticks.acting:load"
    assert loader("acting").__module__ == "ticks.acting"
    assert protocol_module("ticks", "settings").Settings(steps=1, seed=2).pause == 0.0


def test_listing_imports_nothing(ticks):
    assert card_folders("models") == [PLUGIN / "ticks" / "models"]
    find_entry("conservbench.protocols", "ticks")
    assert "ticks" not in sys.modules


def test_unknown_names_get_a_hint(ticks):
    with pytest.raises(PluginError, match=r"no plugin 'actin' in conservbench.models; did you mean 'acting'"):
        loader("actin")
    with pytest.raises(PluginError, match=r"no plugin 'tick' in conservbench.protocols; did you mean 'ticks'"):
        protocol_module("tick", "judge")


def test_card_package_that_is_not_there(tmp_path, monkeypatch):
    info = tmp_path / "ghost-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ghost\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[conservbench.cards]\nghost = ghostly\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"'ghost' in conservbench.cards: no package 'ghostly'"):
        card_folders("models")


def test_our_own_entry_points_point_to_something():
    for name in entry_points(group="conservbench.models").names:
        assert callable(loader(name))
    for name in entry_points(group="conservbench.protocols").names:
        assert protocol_module(name, "settings").Settings
