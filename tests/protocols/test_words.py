"""What cards and judges say to people: in words, not in keys."""

import re
from pathlib import Path

import pytest

import conservbench.protocols
from conservbench.cards import find_protocol, list_protocols

JUDGES = sorted(Path(conservbench.protocols.__file__).parent.glob("*/judge.py"))


@pytest.mark.parametrize("name", list_protocols())
def test_sources_and_labels_name_no_key(name):
    metrics = find_protocol(name).metrics
    keys = [key for key in metrics if "_" in key]
    for metric in metrics.values():
        said = f"{metric.label}. {metric.source}"
        assert not [key for key in keys if re.search(rf"\b{key}\b", said)], metric.key
        # a label also stands alone, with nothing before it that "it" could be
        assert not re.search(r"\bat it\b", metric.label), metric.key


@pytest.mark.parametrize("path", JUDGES, ids=lambda path: path.parent.name)
def test_reasons_name_no_key(path):
    assert not re.search(r"\bsee [a-z]+_[a-z_]+", path.read_text(encoding="utf-8"))
