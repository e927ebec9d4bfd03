"""Models with a numeric hazard planted in them, or with what only looks like one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto

from tests.model_parts import build_model, node, normal, scalar, tensor

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "MASK_FILL",
    "additive_mask",
    "cancellation",
    "decomposed_layer_norm",
    "harmless_large_values",
    "infinity_minus_infinity",
    "large_activations",
    "long_reduction",
    "overflow_then_recovery",
    "two_hazards",
    "underflow",
]

MASK_FILL = float(np.finfo(np.float32).min)
"""What exporters add to masked attention scores: about -3.4e38."""


def cancellation(offset: float = 400.0) -> onnx.ModelProto:
    """Returns `y = (x + offset) - offset`; in FP16 nothing is left of |x| < 0.1 at 400."""
    nodes = [
        node("Add", ["x", "offset"], "shifted", name="shift_up"),
        node("Sub", ["shifted", "offset"], "restored", name="shift_down"),
        node("Mul", ["restored", "two"], "y", name="scale"),
    ]
    weights = {"offset": scalar(offset), "two": scalar(2.0)}
    return build_model(nodes, [tensor("x", [4, 8])], [tensor("y", [4, 8])], weights)


def overflow_then_recovery(factor: float = 1e6) -> onnx.ModelProto:
    """Returns `y = (x * factor) / factor`: infinite in between in FP16, harmless in FP32."""
    nodes = [
        node("Mul", ["x", "factor"], "large", name="blow_up"),
        node("Div", ["large", "factor"], "small", name="shrink"),
        node("Tanh", ["small"], "y", name="squash"),
    ]
    weights = {"factor": scalar(factor)}
    return build_model(nodes, [tensor("x", [4, 8])], [tensor("y", [4, 8])], weights)


def decomposed_layer_norm(spread: float = 400.0, width: int = 64) -> onnx.ModelProto:
    """Returns `LayerNormalization(x * spread)` in primitive ops; `Pow` passes 65504 at 400."""
    nodes = [
        node("Mul", ["x", "spread"], "wide", name="widen"),
        node("ReduceMean", ["wide"], "mean", name="norm/ReduceMean", axes=[-1]),
        node("Sub", ["wide", "mean"], "centred", name="norm/Sub"),
        node("Pow", ["centred", "two"], "squared", name="norm/Pow"),
        node("ReduceMean", ["squared"], "variance", name="norm/ReduceMean_1", axes=[-1]),
        node("Add", ["variance", "epsilon"], "stable", name="norm/Add"),
        node("Sqrt", ["stable"], "deviation", name="norm/Sqrt"),
        node("Div", ["centred", "deviation"], "normal", name="norm/Div"),
        node("Mul", ["normal", "gamma"], "scaled", name="norm/Mul"),
        node("Add", ["scaled", "beta"], "y", name="norm/Add_1"),
    ]
    weights = {
        "spread": scalar(spread),
        "two": scalar(2.0),
        "epsilon": scalar(1e-5),
        "gamma": np.linspace(0.5, 1.5, width, dtype=np.float32),
        "beta": np.linspace(-0.1, 0.1, width, dtype=np.float32),
    }
    return build_model(nodes, [tensor("x", [2, width])], [tensor("y", [2, width])], weights)


def two_hazards() -> tuple[onnx.ModelProto, npt.NDArray[np.float32]]:
    """Returns a normalisation that overflows before a shift that cancels, and an input for it.

    Sums and products in FP32 are exact or rounded once, so that every machine has the same figures.
    """
    nodes = [
        node("ReduceMean", ["x"], "mean", name="block.0/norm/ReduceMean", axes=[-1]),
        node("Sub", ["x", "mean"], "centred", name="block.0/norm/Sub"),
        node("Mul", ["centred", "centred"], "squared", name="block.0/norm/Mul"),
        node("ReduceMean", ["squared"], "variance", name="block.0/norm/ReduceMean_1", axes=[-1]),
        node("Sqrt", ["variance"], "deviation", name="block.0/norm/Sqrt"),
        node("Div", ["centred", "deviation"], "normal", name="block.0/norm/Div"),
        node("Mul", ["normal", "eighth"], "little", name="block.1/Mul"),
        node("Add", ["little", "offset"], "shifted", name="block.1/shift/Add"),
        node("Sub", ["shifted", "offset"], "y", name="block.1/shift/Sub"),
    ]
    weights = {"eighth": scalar(0.125), "offset": scalar(512.0)}
    model = build_model(nodes, [tensor("x", [4, 16])], [tensor("y", [4, 16])], weights)
    steps = np.arange(64, dtype=np.float32).reshape(4, 16)
    return model, 64.0 * ((7.0 * steps) % 17.0 - 8.0)


def long_reduction(length: int = 8192, *, signs: str = "same") -> onnx.ModelProto:
    """Returns a matrix product whose sum of |terms| passes 65504.

    Args:
        length: Number of terms; each is about 26.
        signs: `same`: the sum itself passes 65504. `opposite`: the first half adds up, the second
            half cancels it, so only partial sums are large.
    """
    column = np.full((length, 1), 32.0, np.float32)
    if signs == "opposite":
        column[length // 2 :] *= -1.0
    nodes = [
        node("Abs", ["x"], "magnitude", name="abs"),
        node("MatMul", ["magnitude", "column"], "total", name="reduce"),
        node("Mul", ["total", "share"], "y", name="average"),
    ]
    weights = {"column": column, "share": scalar(1.0 / length)}
    return build_model(nodes, [tensor("x", [2, length])], [tensor("y", [2, 1])], weights)


def underflow(factor: float = 1e-4) -> onnx.ModelProto:
    """Returns `x * factor * factor / factor / factor`: 0 in FP16 where |x| < 2, `x` in FP32."""
    nodes = [
        node("Mul", ["x", "factor"], "small", name="shrink"),
        node("Mul", ["small", "factor"], "tiny", name="vanish"),
        node("Mul", ["tiny", "inverse"], "less_tiny", name="grow"),
        node("Mul", ["less_tiny", "inverse"], "y", name="regrow"),
    ]
    weights = {"factor": scalar(factor), "inverse": scalar(1.0 / factor)}
    return build_model(nodes, [tensor("x", [4, 8])], [tensor("y", [4, 8])], weights)


def additive_mask(fill: float = MASK_FILL) -> onnx.ModelProto:
    """Returns attention with `fill` (-3.4e38 or -inf) added to masked scores: benign in FP16.

    Input `mask` is bool, shape `(1, 8)`; at least one entry must be True.
    """
    nodes = [
        node("Unsqueeze", ["mask", "mask_axes"], "wide_mask", name="unsqueeze"),
        node("Where", ["wide_mask", "zero", "fill"], "bias", name="mask_bias"),
        node("Add", ["scores", "bias"], "masked", name="add_mask"),
        node("Softmax", ["masked"], "probabilities", name="softmax", axis=-1),
        node("MatMul", ["probabilities", "values"], "y", name="attend"),
    ]
    weights = {
        "mask_axes": np.array([1, 2], np.int64),
        "zero": scalar(0.0),
        "fill": scalar(fill),
        "values": normal(0, 1, 2, 8, 4),
    }
    inputs = [tensor("scores", [1, 2, 8, 8]), tensor("mask", [1, 8], TensorProto.BOOL)]
    return build_model(nodes, inputs, [tensor("y", [1, 2, 8, 4])], weights)


def infinity_minus_infinity(distance: int = 6) -> onnx.ModelProto:
    """Returns a graph finite in FP32 whose FP16 run has `inf - inf` at `difference`.

    The overflow starts at `overflow_left` and `overflow_right`; the NaN appears at `difference`
    and reaches output `y` after `distance` further nodes.
    """
    nodes = [
        node("Exp", ["x"], "positive", name="positive"),
        node("Mul", ["positive", "large"], "left", name="overflow_left"),
        node("Mul", ["positive", "larger"], "right", name="overflow_right"),
        node("Sub", ["right", "left"], "apart", name="difference"),
        node("Mul", ["apart", "tiny"], "step_0", name="scale"),
    ]
    for index in range(distance - 2):
        operator = ("Tanh", "Neg")[index % 2]
        nodes.append(node(operator, [f"step_{index}"], f"step_{index + 1}", name=f"step_{index}"))
    nodes.append(node("Sigmoid", [f"step_{distance - 2}"], "y", name="last"))
    weights = {"large": scalar(2e6), "larger": scalar(3e6), "tiny": scalar(1e-6)}
    return build_model(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 4])], weights)


def harmless_large_values() -> onnx.ModelProto:
    """Returns Conv, Relu and Add on activations of 500 to 3,000, which FP16 holds well."""
    nodes, weights = large_activations()
    nodes += [
        node("GlobalAveragePool", ["doubled"], "pooled", name="pool"),
        node("Mul", ["pooled", "down"], "y", name="scale_down"),
    ]
    return build_model(nodes, [tensor("x", [1, 4, 8, 8])], [tensor("y", [1, 4, 1, 1])], weights)


def large_activations(
    prefix: str = "",
) -> tuple[list[onnx.NodeProto], dict[str, npt.NDArray[np.float32]]]:
    """Returns nodes from `x` to `doubled`, of which those that see 500 to 3,000 have `prefix`.

    With them come their weights, and `down`, which brings `doubled` back to about 1.
    """
    identity = np.zeros((4, 4, 1, 1), np.float32)
    identity[range(4), range(4)] = 1.0
    nodes = [
        node("Sigmoid", ["x"], "unit", name="unit"),
        node("Mul", ["unit", "spread"], "wide", name="widen"),
        node("Add", ["wide", "floor"], "large", name=f"{prefix}lift"),
        node("Conv", ["large", "identity", "bias"], "mixed", name=f"{prefix}conv"),
        node("Relu", ["mixed"], "active", name=f"{prefix}relu"),
        node("Add", ["active", "large"], "doubled", name=f"{prefix}residual"),
    ]
    weights = {
        "spread": scalar(900.0),
        "floor": scalar(500.0),
        "identity": identity,
        "bias": np.full(4, 8.0, np.float32),
        "down": scalar(2.0**-11),
    }
    return nodes, weights
