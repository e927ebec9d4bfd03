"""Tells the builder of a weakly typed network which layers to keep in FP32.

This text is also part of every emitted script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

    from polygraphy_layerprec.emit.network_view import LayerView, NetworkView

__all__ = ["keep_in_fp32", "lower_io"]

_WITHOUT_PRECISION = frozenset(
    {
        "ASSERTION",
        "CAST",
        "CONDITION",
        "CONDITIONAL_INPUT",
        "CONDITIONAL_OUTPUT",
        "CONSTANT",
        "DEQUANTIZE",
        "ITERATOR",
        "LOOP_OUTPUT",
        "QUANTIZE",
        "RECURRENCE",
        "SHAPE",
        "TRIP_LIMIT",
    }
)
"""Layers that compute nothing, or whose type is said otherwise."""


def keep_in_fp32(view: NetworkView, kept: Collection[LayerView]) -> int:
    """Returns how many of the layers `kept` are now constrained to FP32."""
    float32 = view.trt.float32
    count = 0
    for layer in view.layers:
        is_float = layer.float_inputs or layer.float_outputs
        if layer not in kept or layer.kind in _WITHOUT_PRECISION or not is_float:
            continue
        if layer.carries_shape:
            continue
        layer.layer.precision = float32
        for index, output in enumerate(layer.outputs):
            if output.is_float:
                layer.layer.set_output_type(index, float32)
        count += 1
    return count


def lower_io(view: NetworkView, dtype: Any) -> None:
    """Gives the FLOAT inputs and outputs of the network the type `dtype`."""
    for tensor in [*view.inputs, *view.outputs]:
        if tensor.is_float and not tensor.is_shape:
            tensor.tensor.dtype = dtype
