"""What was measured of single layers, as a CSV file from which plots are made."""

from __future__ import annotations

import csv
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["TrueLayer", "read_layers", "write_layers"]


@dataclass(frozen=True, slots=True)
class TrueLayer:
    """Three figures about one layer, and the truth."""

    model: str
    """What tables call the model."""

    position: int
    """Place of the layer among the layers of its model, in graph order, from 0."""

    name: str
    """Name of the layer."""

    op: str
    """ONNX operator."""

    introduced: float
    """Relative L2 error that the layer adds by itself."""

    cumulative: float
    """Relative L2 error at the layer's output with every layer in FP16."""

    impact: float
    """What the layer does to the outputs, by the adjoint."""

    truth: float
    """Relative L2 error of the outputs when the layer alone rounds."""


def write_layers(path: Path, layers: Iterable[TrueLayer]) -> None:
    """Writes one line for each layer, errors with six digits."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(TrueLayer)])
        for layer in layers:
            values = astuple(layer)
            writer.writerow([*values[:4], *(f"{value:.6g}" for value in values[4:])])


def read_layers(path: Path) -> list[TrueLayer]:
    """Returns the layers of a file that `write_layers` made."""
    with path.open(encoding="utf-8", newline="") as file:
        return [_layer(row) for row in csv.DictReader(file)]


def _layer(row: dict[str, str]) -> TrueLayer:
    errors = (float(row[name]) for name in ("introduced", "cumulative", "impact", "truth"))
    return TrueLayer(row["model"], int(row["position"]), row["name"], row["op"], *errors)
