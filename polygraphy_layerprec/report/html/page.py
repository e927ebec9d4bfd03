"""Pages from templates, which escape whatever a model calls its layers."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.report.columns import printable, shorten
from polygraphy_layerprec.report.digits import describe_stability
from polygraphy_layerprec.report.numbers import (
    format_error,
    format_magnitude,
    format_percent,
    format_result,
)
from polygraphy_layerprec.report.obtained_precisions import summarize_obtained

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["render_page"]

_QUOTED: Final = re.compile(r"`([^`]+)`")
_LINE_LENGTH: Final = 16  # at the least: every place to break costs the browser time


def render_page(template: str, content: Mapping[str, Any]) -> str:
    """Returns a page as text.

    Args:
        template: File name of the template.
        content: What it shows, by name.
    """
    return _environment().get_template(template).render(content) + "\n"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("polygraphy_layerprec.report.html"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "asis": Markup,
        "breakable": _breakable,
        "count": count_of,
        "error": format_error,
        "obtained": summarize_obtained,
        "percent": format_percent,
        "result": format_result,
        "printable": printable,
        "prose": _prose,
        "shorten": lambda text, width: shorten(printable(text), width),
        "stability": describe_stability,
        "magnitude": format_magnitude,
        "json": _script_json,
    }
    environment.globals["asset"] = lambda name: _asset(environment, name)
    return environment


def _asset(environment: Environment, name: str) -> str:
    """A file of ours that goes into the page as it is."""
    assert environment.loader is not None
    source, _, _ = environment.loader.get_source(environment, name)
    return Markup(source)  # noqa: S704 - not made of anything that a model says


def _breakable(name: str) -> str:
    """A name, escaped, that a line may end within after a slash if it is long."""
    if len(name) < _LINE_LENGTH:
        return escape(name)
    return Markup("/<wbr>").join(map(escape, name.split("/")))


def _prose(text: str) -> str:
    """Words of ours, escaped; what is quoted in them with backticks is set as code."""
    return Markup(_QUOTED.sub(r"<code>\1</code>", str(escape(printable(text)))))  # noqa: S704 - escaped


def _script_json(value: Any) -> str:
    """JSON for within a script element, which nothing in it can end."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    for character in "<>&'":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - escaped above
