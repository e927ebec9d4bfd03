"""What operators do to values: the one table that every stage reads."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

    from onnx import NodeProto

__all__ = [
    "ITERATING",
    "JUMPING",
    "ONNX_DOMAINS",
    "PRODUCTS",
    "RECURRENT",
    "SHAPE_ARITHMETIC",
    "SHAPE_MOVEMENT",
    "SHAPE_OPERANDS",
    "SHAPE_SOURCES",
    "Behavior",
    "behavior_of",
    "draws_random_numbers",
    "normal_domain",
]

ONNX_DOMAINS: Final = frozenset({"", "ai.onnx"})


class Behavior(Enum):
    """What an operator does to floating-point values."""

    MOVES = "moves"
    """Every output value is an input value, or a constant."""

    CHOOSES = "chooses"
    """The output is on the grid of any precision that the input is on, and rounding before or
    after gives the same, unless it is one of those that jump."""

    DECIDES = "decides"
    """Floats come in and none go out: comparisons, indices."""

    READS = "reads"
    """Takes any type, with a result that does not depend on it: casts, shapes."""

    COMPUTES = "computes"
    """Rounds its result."""


# Rounding is monotone, so it commutes with choosing among values, and with what cannot leave the
# precision's grid: changing a sign, or going to an integer. Clip, Min and Max compare with bounds
# that are rounded too (1e-12 becomes 0), so they compute.
_BEHAVIORS: Final = {
    Behavior.MOVES: """
        CenterCropPad Compress Concat ConcatFromSequence Constant ConstantOfShape DepthToSpace
        Dropout Expand EyeLike Flatten Gather GatherElements GatherND Identity If OneHot Optional
        OptionalGetElement Pad Range Reshape ReverseSequence Scatter ScatterElements ScatterND
        SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert Slice SpaceToDepth
        Split SplitToSequence Squeeze TensorScatter Tile Transpose Trilu Unique Unsqueeze Where
        """,
    Behavior.CHOOSES: """
        Abs Ceil Floor GlobalMaxPool Hardmax MaxPool MaxRoiPool MaxUnpool Neg ReduceMax ReduceMin
        Relu Round Sign TopK
        """,
    Behavior.DECIDES: """
        ArgMax ArgMin Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual NonMaxSuppression
        NonZero
        """,
    Behavior.READS: "Cast CastLike OptionalHasElement SequenceLength Shape Size",
}
_BEHAVIOR_BY_OPERATOR: Final = {
    operator: behavior for behavior, names in _BEHAVIORS.items() for operator in names.split()
}
_RANDOM: Final = frozenset(
    "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split()
)

JUMPING: Final = frozenset({"Ceil", "Floor", "Hardmax", "Round", "Sign", "TopK"})
"""Operators that choose, and choose otherwise where their input is rounded: it makes ties."""

RECURRENT: Final = frozenset({"GRU", "LSTM", "RNN"})
"""Operators that run a cell once for each step."""

ITERATING: Final = RECURRENT | {"Loop", "Scan"}
"""Operators that run a body once for each step, and are one layer."""

PRODUCTS: Final = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
"""Operators that multiply matrices, in one way or another."""

SHAPE_SOURCES: Final = frozenset({"Shape", "Size"})
"""Operators whose output is a property of a shape."""

SHAPE_MOVEMENT: Final = frozenset(
    "Flatten Gather Identity Reshape Slice Split Squeeze Transpose Unsqueeze".split()
)
"""Operators that pick and arrange shapes, sizes and lengths."""

SHAPE_ARITHMETIC: Final = SHAPE_MOVEMENT | frozenset(
    """Abs Add Cast Ceil Clip Concat Div Floor Max Min Mod Mul Neg Pow ReduceMax ReduceMin
    ReduceProd ReduceSum Round Sqrt Sub Sum Where""".split()
)
"""Operators that compute shapes from shapes, sizes and lengths."""

SHAPE_OPERANDS: Final[dict[str, tuple[int, ...]]] = {
    "AffineGrid": (1,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Loop": (0,),
    "MaxUnpool": (2,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1, 2),
    "TopK": (1,),
    "Upsample": (1,),
}
"""Positions of the inputs that decide the shape of the output."""


def normal_domain(domain: str) -> str:
    """Returns the domain with `ai.onnx` written as `""`, as in models."""
    return "" if domain in ONNX_DOMAINS else domain


def behavior_of(op_type: str, domain: str, *, reduction: str = "none") -> Behavior:
    """Returns what an operator does to floating-point values.

    Args:
        op_type: Name of the operator.
        domain: Its domain.
        reduction: The attribute by which a scatter adds or multiplies instead of moving.
    """
    if domain not in ONNX_DOMAINS or reduction not in {"none", "max", "min"}:
        return Behavior.COMPUTES
    return _BEHAVIOR_BY_OPERATOR.get(op_type, Behavior.COMPUTES)


def draws_random_numbers(node: NodeProto, switched_off: Collection[str] = ()) -> bool:
    """Whether two runs give different values, so that a candidate must share the reference's.

    Args:
        node: A node; it draws if a node of its bodies does.
        switched_off: Constants that are false: Dropout draws where it is told to train.
    """
    if node.domain in ONNX_DOMAINS:
        trains = [name for name in node.input[2:3] if name and name not in switched_off]
        if node.op_type in _RANDOM or (node.op_type == "Dropout" and trains):
            return True
    bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return any(draws_random_numbers(inner, switched_off) for body in bodies for inner in body.node)
