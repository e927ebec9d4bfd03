"""What each type of TensorRT layer does with the types of its tensors, as one table.

This text is also part of every emitted script.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["LEFT_ALONE", "TYPING_RULES", "TypingRole", "TypingRule"]


class TypingRole(Enum):
    """How a layer's FLOAT tensors get their type."""

    LOWER = "lower"
    """All become low precision, unless a constraint says FP32."""

    FOLLOW = "follow"
    """It moves values without rounding: all have the type of the first one."""

    JOIN = "join"
    """It moves values of several inputs without rounding: low precision where all of these are, or
    where some are and all consumers want that."""

    CONSTANT = "constant"
    """The type that its consumers want."""

    ITERATE = "iterate"
    """Like FOLLOW, and low precision too where all consumers want that."""

    ACCEPT = "accept"
    """Any type comes in; what goes out is said by the layer itself."""

    DEQUANTIZE = "dequantize"
    """The output becomes low precision; the scale stays FP32."""

    ATTEND = "attend"
    """Low precision always: there is no FP32 implementation."""

    KEEP = "keep"
    """FP32."""


class TypingRule(NamedTuple):
    """The rule for one type of layer."""

    role: TypingRole
    """How its FLOAT tensors get their type."""

    layer_class: str = ""
    """Class that gives access to the attributes below."""

    weights: tuple[str, ...] = ()
    """Attributes that hold weights, which have the type of the tensors."""

    has_bf16: bool = True
    """Whether there is a BF16 implementation; without one it stays in FP32."""

    exact: tuple[str, str] = ("", "")
    """Attribute and values, space-separated, with which the layer does not round: it follows."""


_LOWER = TypingRule(TypingRole.LOWER)
_FOLLOW = TypingRule(TypingRole.FOLLOW)
_JOIN = TypingRule(TypingRole.JOIN)
_ACCEPT = TypingRule(TypingRole.ACCEPT)
_KEEP = TypingRule(TypingRole.KEEP)

LEFT_ALONE = _KEEP
"""The rule for every type of layer that the table does not know: plugins, NMS, and new ones."""

TYPING_RULES = {
    "ACTIVATION": TypingRule(TypingRole.LOWER, "IActivationLayer", exact=("type", "RELU")),
    "ASSERTION": _ACCEPT,
    "ATTENTION_INPUT": TypingRule(TypingRole.ATTEND),
    "ATTENTION_OUTPUT": TypingRule(TypingRole.ATTEND),
    "CAST": _ACCEPT,
    "CONCATENATION": _JOIN,
    "CONDITION": _ACCEPT,
    "CONDITIONAL_INPUT": _FOLLOW,
    "CONDITIONAL_OUTPUT": _KEEP,
    "CONSTANT": TypingRule(TypingRole.CONSTANT, "IConstantLayer", ("weights",)),
    "CONVOLUTION": TypingRule(TypingRole.LOWER, "IConvolutionLayer", ("kernel", "bias")),
    "CUMULATIVE": _LOWER,
    "DECONVOLUTION": TypingRule(
        TypingRole.LOWER, "IDeconvolutionLayer", ("kernel", "bias"), has_bf16=False
    ),
    "DEQUANTIZE": TypingRule(TypingRole.DEQUANTIZE, "IDequantizeLayer"),
    "EINSUM": _LOWER,
    "ELEMENTWISE": _LOWER,
    "GATHER": _FOLLOW,
    "GRID_SAMPLE": _LOWER,
    "IDENTITY": _FOLLOW,
    "ITERATOR": TypingRule(TypingRole.ITERATE),
    "KV_CACHE_UPDATE": _LOWER,
    "LOOP_OUTPUT": _FOLLOW,
    "LRN": _LOWER,
    "MATRIX_MULTIPLY": _LOWER,
    "NON_ZERO": _ACCEPT,
    "NORMALIZATION": _LOWER,
    "ONE_HOT": _JOIN,
    "PADDING": _FOLLOW,
    "PARAMETRIC_RELU": _LOWER,
    "POOLING": TypingRule(TypingRole.LOWER, "IPoolingLayer", exact=("type", "MAX")),
    "QUANTIZE": _KEEP,
    "RAGGED_SOFTMAX": _LOWER,
    "RECURRENCE": _KEEP,
    "REDUCE": TypingRule(TypingRole.LOWER, "IReduceLayer", exact=("op", "MAX MIN")),
    "RESIZE": _LOWER,
    "REVERSE_SEQUENCE": _FOLLOW,
    "ROTARY_EMBEDDING": _LOWER,
    "SCALE": TypingRule(TypingRole.LOWER, "IScaleLayer", ("scale", "shift", "power")),
    "SCATTER": _JOIN,
    "SELECT": _JOIN,
    "SHAPE": _ACCEPT,
    "SHUFFLE": _FOLLOW,
    "SLICE": _FOLLOW,
    "SOFTMAX": _LOWER,
    "SQUEEZE": _FOLLOW,
    "TOPK": _FOLLOW,
    "UNARY": TypingRule(
        TypingRole.LOWER, "IUnaryLayer", exact=("op", "ABS CEIL FLOOR NEG ROUND SIGN")
    ),
    "UNSQUEEZE": _FOLLOW,
}
"""Rules by the name in `tensorrt.LayerType`."""
