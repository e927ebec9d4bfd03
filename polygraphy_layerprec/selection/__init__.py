"""Choose what stays in FP32."""

from polygraphy_layerprec.selection.choice import (
    constraints_of,
    constraints_of_members,
    select_layers,
)
from polygraphy_layerprec.selection.curve import error_curve
from polygraphy_layerprec.selection.forecast import SetForecast
from polygraphy_layerprec.selection.request import SelectionRequest

__all__ = [
    "SelectionRequest",
    "SetForecast",
    "constraints_of",
    "constraints_of_members",
    "error_curve",
    "select_layers",
]
