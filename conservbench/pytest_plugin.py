"""``pytest --conservbench CARD``: gates and conformance checks of a model as tests."""
