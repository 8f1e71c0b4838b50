"""File names of pages."""

from hypothesis import given
from hypothesis import strategies as st

from conservbench.site.links import file_names


def test_plain_names_stay():
    assert file_names(["si-mace", "a.b_c"]) == {"si-mace": "si-mace", "a.b_c": "a.b_c"}


@given(st.lists(st.text(min_size=1), unique=True, max_size=8))
def test_no_two_pages_meet_on_any_file_system(names):
    found = file_names(names)
    assert list(found) == names
    assert len({page.lower() for page in found.values()}) == len(names)
    for page in found.values():
        assert page.isascii()
        assert not set(page) & set('/\\:*?"<>|% #')
        assert page[0] not in ".-"


def test_names_that_differ_by_case_alone():
    pages = file_names(["Net", "net"])
    assert pages["Net"] == "Net"
    assert pages["net"].startswith("net-")
