"""The numbers of README.md are the published ones."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEADING = re.compile(r"^(?:## )?(\S.*: version \d+, \w+ tier)$")


def tables(text):
    """Title, and system and model, to the values of a row: of a page, or of what is printed."""
    found, title, system = {}, None, None
    for line in text.replace("\\", "").splitlines():
        if match := HEADING.match(line):
            title, system = match[1], None
        elif match := re.match(r"^(?:### | )([a-z]+-[\w-]*\d+)$", line.rstrip()):
            system = match[1]
        elif title and system and re.search(r"\d+[✓✗?]", line):
            row = line.strip("| ")
            model, *values = re.split(r" \| " if "|" in line else r"  +", row)
            found.setdefault((title, system, model.removesuffix(" (control)")), values)
        elif line.startswith("```"):
            title = None
    return found


def said(values):
    """Without dashes: the page leaves out a column that holds nothing else."""
    return ["".join(value.split()) for value in values if value.strip() != "–"]


def test_the_sample_tables_are_published():
    shown = tables((ROOT / "README.md").read_text(encoding="utf-8"))
    published = tables((ROOT / "leaderboard" / "README.md").read_text(encoding="utf-8"))
    assert len({title for title, _, _ in shown}) == 2
    assert len(shown) >= 16
    for row, values in shown.items():
        assert said(values) == said(published[row]), row
