"""The curve of output error against layers in FP32, as a table for other programs."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from polygraphy_layerprec.files.atomic_file import write_text_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from polygraphy_layerprec.records import CurvePoint

__all__ = ["save_curve"]

_COLUMNS = ("layer_count", "forecast_error", "measured_error", "flops_fraction", "cast_count")


def save_curve(points: Iterable[CurvePoint], path: str) -> None:
    """Writes one row for each point; what was not measured is empty.

    Raises:
        UserError: If `path` cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for point in points:
        measured = "" if point.measured_error is None else repr(point.measured_error)
        writer.writerow(
            (
                point.layer_count,
                repr(point.forecast_error),
                measured,
                repr(point.cost.flops_fraction),
                point.cost.cast_count,
            )
        )
    write_text_file(path, text.getvalue())
