"""The Python interface: every public name is there."""

import importlib

import conservbench


def test_public_names_resolve():
    assert all(getattr(conservbench, name) for name in conservbench.__all__)


def test_no_module_takes_the_place_of_a_function():
    importlib.import_module("conservbench.scoring")
    importlib.import_module("conservbench.runner")
    assert callable(conservbench.score)
    assert callable(conservbench.run)
