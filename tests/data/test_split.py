"""Which frames are for testing."""

import pytest
from ase import Atoms

from conservbench.data.split import is_test, require_sides


def frames(n, marked=()):
    return [Atoms("H", info={"split": "test"} if index in marked else {}) for index in range(n)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("last 2", [4, 5]),
        ("every 3rd", [2, 5]),
        ("every 2nd", [1, 3, 5]),
        ("marked", [0, 4]),
        ("marked, or every 2nd", [0, 4]),
    ],
)
def test_rules(rule, expected):
    chosen = is_test(frames(6, marked=(0, 4)), rule)
    assert [index for index, test in enumerate(chosen) if test] == expected


def test_an_unknown_mark_is_refused():
    some = frames(4, marked=(1,))
    some[2].info["split"] = "Test"
    with pytest.raises(ValueError, match="frame 2: split=Test; expected one of train, test"):
        is_test(some, "marked")


def test_second_rule_where_no_frame_is_marked():
    assert is_test(frames(4), "marked, or every 2nd") == [False, True, False, True]


@pytest.mark.parametrize("rule", ["marked", "last 0", "every 10th"])
@pytest.mark.parametrize("training", [True, False])
def test_a_rule_that_leaves_none_for_testing_is_refused(rule, training):
    with pytest.raises(ValueError, match="leaves none of 4 frames for testing"):
        require_sides(is_test(frames(4), rule), rule, training=training)


def test_a_set_may_be_for_testing_alone_but_not_for_training_alone():
    chosen = is_test(frames(4), "last 4")
    require_sides(chosen, "last 4", training=False)
    with pytest.raises(ValueError, match="leaves none of 4 frames for training"):
        require_sides(chosen, "last 4", training=True)


@pytest.mark.parametrize("rule", ["every 0th", "first 3", "every third", ""])
def test_unknown_rules_are_refused(rule):
    with pytest.raises(ValueError, match="unknown rule"):
        is_test(frames(4), rule)
