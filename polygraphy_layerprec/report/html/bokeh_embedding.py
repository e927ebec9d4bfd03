"""Bokeh's figures as data in a page, the same bytes for the same figures."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bokeh.document import Document
from bokeh.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bokeh.model import Model

__all__ = ["ChartAxes", "bokeh_script", "embedded_figures"]


@dataclass(frozen=True, slots=True)
class ChartAxes:
    """Where the dots of layers are in a chart."""

    x: str
    """Column along the chart."""

    y: tuple[str, ...]
    """Columns up the chart, each with a dot for every layer."""

    weight: float = 1.0
    """How much a vertical distance counts when the nearest dot is looked for; less than 1 where a
    layer has its own place along the chart."""


def bokeh_script() -> str:
    """Returns the JavaScript of Bokeh that draws figures, without what fetches anything."""
    # All that the environment could change is said here.
    resources = Resources(mode="inline", components=["bokeh"], log_level="warn", minified=True)
    script = "\n".join(resources.js_raw)
    # Developer tools would look for the map beside the page.
    return re.sub(r"^//# sourceMappingURL=.*$", "", script, flags=re.MULTILINE)


def embedded_figures(figures: Mapping[str, Model], axes: Mapping[str, ChartAxes]) -> dict[str, Any]:
    """Returns what the page's script draws, as JSON values.

    Args:
        figures: Figures by name; the element for one has the identifier `chart-` and its name.
        axes: Where to look for the nearest layer in a figure, by its name, or in others.
    """
    document = Document()
    for chart in figures.values():
        document.add_root(chart)
    content = _renumbered(document.to_json(deferred=False), {})
    roots = [root["id"] for root in content["roots"]]
    places = {root: f"chart-{name}" for root, name in zip(roots, figures, strict=True)}
    item = {"docid": "report", "roots": places, "root_ids": roots}
    return {
        "docs": {"report": content},
        "items": [item],
        "axes": {name: asdict(columns) for name, columns in axes.items() if name in figures},
    }


def _renumbered(value: Any, numbers: dict[str, str]) -> Any:
    """Replaces identifiers of models, which go on from figure to figure, by ones that start anew.

    Only what Bokeh writes as an object has a key `id`: names of a model are values of other keys.
    """
    if isinstance(value, dict):
        return {
            key: numbers.setdefault(item, f"m{len(numbers)}")
            if key == "id" and isinstance(item, str)
            else _renumbered(item, numbers)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_renumbered(item, numbers) for item in value]
    return value
