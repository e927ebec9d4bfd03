"""Integers that flow as floats: ids, positions, sizes, which a narrow float cannot tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.execution.kernels.node_session import value_of
from polygraphy_layerprec.execution.streams import is_float, largest_finite
from polygraphy_layerprec.rounding import round_to_precision

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnxruntime as ort

    from polygraphy_layerprec.model import Node
    from polygraphy_layerprec.precision import Precision

__all__ = ["IntegerFloats"]

_CASTS: Final = frozenset({"Cast", "CastLike"})
_FIRST_LOOK: Final = 64


class IntegerFloats:
    """Finds the layers whose floats are integers in FP32, are taken for such, and are not exact."""

    def __init__(self, precision: Precision) -> None:
        self._precision = precision
        self._layers: dict[str, dict[int, float]] = {}
        self._inexact: dict[int, float] = {}

    @property
    def inexact(self) -> Mapping[int, float]:
        """The largest magnitude of such floats, by the index of the layer that makes them."""
        return self._inexact

    def follow(self, node: Node, tensors: Mapping[str, ort.OrtValue], *, is_layer: bool) -> None:
        """Takes the next node in execution order, with its sources and outputs."""
        behind: dict[int, float] = {}
        for name in node.inputs:
            behind |= self._layers.get(name, {})
        made = tensors.get(node.outputs[0])
        if made is None:
            return
        if node.op_type == "OneHot" or (node.op_type in _CASTS and not is_float(made)):
            self._inexact |= self._layers.get(node.inputs[0], {})
        if not is_float(made) or not (behind or is_layer):
            return
        values = value_of(made).reshape(-1)
        if not (_are_integers(values[:_FIRST_LOOK]) and _are_integers(values)):
            return
        largest = self._largest_inexact(values) if is_layer else 0.0
        if behind or largest:
            self._layers[node.outputs[0]] = behind | ({node.index: largest} if largest else {})

    def forget(self) -> None:
        """Forgets everything, before the next sample."""
        self._layers.clear()
        self._inexact.clear()

    def _largest_inexact(self, values: npt.NDArray[Any]) -> float:
        """The largest magnitude, 0 where the precision has a number for each of the integers."""
        largest = largest_finite(values)
        if largest <= self._precision.max_exact_integer:
            return 0.0
        rounded = round_to_precision(values, self._precision)
        return 0.0 if np.array_equal(rounded, values) else largest


def _are_integers(values: npt.NDArray[Any]) -> bool:
    with np.errstate(invalid="ignore"):
        return bool(np.array_equal(np.rint(values), values))
