"""The curve of output error against layers in FP32, as a picture."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.files.atomic_file import write_file
from polygraphy_layerprec.report.broken_axis import break_axis
from polygraphy_layerprec.report.plot_axis import break_y_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.records import CurvePoint
    from polygraphy_layerprec.report.broken_axis import BrokenAxis

__all__ = ["save_curve_plot"]


def save_curve_plot(points: Sequence[CurvePoint], path: str) -> None:
    """Draws forecast and measured errors, in the format that the ending of `path` names.

    Same points, same bytes.

    Raises:
        UserError: If `path` cannot be written, or matplotlib is not installed.
    """
    figure = _figure()
    axes = figure.add_subplot()
    curves = {
        "forecast": [(p.layer_count, p.forecast_error) for p in points],
        "measured": [
            (p.layer_count, p.measured_error) for p in points if p.measured_error is not None
        ],
    }
    axis = break_axis(error for curve in curves.values() for _, error in curve)
    for (name, curve), style in zip(curves.items(), ("o--", "s-"), strict=True):
        if curve:
            _draw_curve(axes, curve, axis, style, name)
    break_y_axis(axes, axis)
    axes.set_xlabel("layers in FP32, the worst first")
    axes.set_ylabel("relative L2 error of the outputs")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    kind = os.path.splitext(path)[1].lstrip(".").lower()
    # A date would make every file differ.
    dateless = {"Date": None} if kind == "svg" else None
    write_file(path, lambda file: figure.savefig(file, format=kind, metadata=dateless))


def _figure() -> Any:
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an optional dependency
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise UserError(
            "Drawing a curve needs matplotlib.\n"
            "Install it with `pip install 'polygraphy-layerprec[plot]'`, or save a `.csv` file."
        ) from error
    mpl.rcParams["svg.hashsalt"] = "layerprec"  # else identifiers in the file are random
    return Figure(figsize=(7.0, 4.0), layout="constrained")


def _draw_curve(
    axes: Any, curve: Sequence[tuple[int, float]], axis: BrokenAxis, style: str, name: str
) -> None:
    """Dots, and a line between those that stand on the axis: none leads across its breaks."""
    marker, line = style[0], style[1:]
    on_axis = [(count, error) for count, error in curve if axis.reaches(error)]
    (drawn,) = axes.plot(*zip(*on_axis, strict=True), line) if on_axis else axes.plot([], [])
    places = [count for count, _ in curve], [axis.place(error) for _, error in curve]
    axes.plot(*places, marker, color=drawn.get_color(), label=name)
