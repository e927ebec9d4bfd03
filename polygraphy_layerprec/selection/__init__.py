"""Choose what stays in FP32."""

from polygraphy_layerprec.selection.choice import (
    SelectionRequest,
    constraints_of,
    select_layers,
)
from polygraphy_layerprec.selection.curve import error_curve
from polygraphy_layerprec.selection.forecast import SetForecast

__all__ = [
    "SelectionRequest",
    "SetForecast",
    "constraints_of",
    "error_curve",
    "select_layers",
]
