"""Templates and assets: pages that link to their assets, and pages that hold them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from conservbench.leaderboard.number import spelled

HERE: Final = Path(__file__).parent

STYLES: Final = ("site.css",)
SCRIPTS: Final = ("plotly.min.js", "dataTables.min.js", "site.js")
LICENCES: Final = ("dataTables.LICENSE.txt",)


@cache
def environment() -> Environment:
    """The templates; whatever is put into one is escaped, and a name that is not given is an error."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["spelled"] = spelled
    # a browser parses the figures as JSON, in which there is neither Infinity nor NaN
    made.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    return made


def render(template: str, **context: Any) -> str:
    """A page."""
    return environment().get_template(template).render(**context)


def asset(name: str) -> str:
    """The text of an asset."""
    if name == "plotly.min.js":
        return (files("plotly") / "package_data" / name).read_text(encoding="utf-8")
    return (HERE / "assets" / name).read_text(encoding="utf-8")


def inlined(name: str) -> Markup:
    """The text of an asset as it may stand inside an element of a page; it is ours, and not escaped."""
    # the one sequence that would end a script before its end
    return Markup(asset(name).replace("</script", "<\\/script"))  # noqa: S704 - no text of a card is in it
