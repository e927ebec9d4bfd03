"""The curve of output error against layers in FP32, as a picture."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec.files.atomic_file import write_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.records import CurvePoint

__all__ = ["save_curve_plot"]


def save_curve_plot(points: Sequence[CurvePoint], path: str) -> None:
    """Draws forecast and measured errors, in the format that the ending of `path` names.

    Same points, same bytes.

    Raises:
        ValueError: If `path` cannot be written, or matplotlib is not installed.
    """
    figure = _figure()
    axes = figure.add_subplot()
    counts = [point.layer_count for point in points]
    axes.plot(counts, [p.forecast_error for p in points], "o--", label="forecast")
    measured = [(p.layer_count, p.measured_error) for p in points if p.measured_error is not None]
    if measured:
        axes.plot(*zip(*measured, strict=True), "s-", label="measured")
    axes.set_yscale("symlog", linthresh=_smallest([p.forecast_error for p in points]))
    axes.set_ylim(bottom=0.0)
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
        raise ValueError(
            "Drawing a curve needs matplotlib.\n"
            "Install it with `pip install 'polygraphy-layerprec[plot]'`, or save a `.csv` file."
        ) from error
    mpl.rcParams["svg.hashsalt"] = "layerprec"  # else identifiers in the file are random
    return Figure(figsize=(7.0, 4.0), layout="constrained")


def _smallest(errors: Sequence[float]) -> float:
    """Where the axis turns linear, to show the zero at the end."""
    return min((error for error in errors if error > 0.0), default=1.0)
