"""What an operator does to values: compute new ones, or only move and choose among them."""

from __future__ import annotations

from typing import Final

__all__ = ["ONNX_DOMAINS", "draws_random_numbers", "is_exact", "normal_domain"]

ONNX_DOMAINS: Final = frozenset({"", "ai.onnx"})

_MOVES: Final = frozenset(
    """
    Cast CastLike CenterCropPad Compress Concat ConcatFromSequence Constant ConstantOfShape
    DepthToSpace Dropout Expand EyeLike Flatten Gather GatherElements GatherND Identity OneHot
    Optional OptionalGetElement OptionalHasElement Pad Range Reshape ReverseSequence Scatter
    ScatterElements ScatterND SequenceAt SequenceConstruct SequenceEmpty SequenceErase
    SequenceInsert SequenceLength Shape Size Slice SpaceToDepth Split SplitToSequence Squeeze
    TensorScatter Tile Transpose Trilu Unique Unsqueeze Where
    """.split()
)
# Rounding is monotone, so it commutes with choosing among values, and with what cannot leave the
# precision's grid: changing a sign, or going to an integer. Clip, Min and Max compare with bounds
# that are rounded too (1e-12 becomes 0), so they count as layers.
_CHOOSES: Final = frozenset(
    """
    Abs ArgMax ArgMin Ceil Floor GlobalMaxPool IsInf IsNaN MaxPool MaxRoiPool MaxUnpool Neg
    NonMaxSuppression NonZero ReduceMax ReduceMin Relu Round Sign TopK
    """.split()
)
_RANDOM: Final = frozenset(
    "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split()
)


def normal_domain(domain: str) -> str:
    """Returns the domain with `ai.onnx` written as `""`, as in models."""
    return "" if domain in ONNX_DOMAINS else domain


def is_exact(op_type: str, domain: str, *, reduction: str = "none") -> bool:
    """Whether every output value is one of the input values, or exact for any input.

    Such a node introduces no rounding error of its own: it is not a layer. `reduction` is the
    attribute by which a scatter adds or multiplies instead of moving.
    """
    if domain not in ONNX_DOMAINS:
        return False
    return (op_type in _MOVES or op_type in _CHOOSES) and reduction in {"none", "max", "min"}


def draws_random_numbers(op_type: str, domain: str) -> bool:
    """Whether two runs give different values, so that a candidate must share the reference's."""
    return domain in ONNX_DOMAINS and op_type in _RANDOM
