"""What is known about single operators beyond their type constraints."""

from __future__ import annotations

__all__ = [
    "CONSTANT_FILLS",
    "FOLLOWERS",
    "FP32_OPERATORS",
    "FP32_VARIABLES",
    "LOOPS",
    "READERS",
    "SHAPE_ARITHMETIC",
    "SHAPE_MOVEMENT",
    "SHAPE_OPERANDS",
    "SHAPE_SOURCES",
    "TYPED_BY_ATTRIBUTE",
]

_MOVEMENT = frozenset(
    """Compress Concat DepthToSpace Dropout Expand Flatten Gather GatherElements GatherND Identity
    Pad Reshape ReverseSequence Scatter ScatterElements ScatterND Slice SpaceToDepth Split Squeeze
    Tile Transpose Trilu Unsqueeze Where CenterCropPad""".split()
)
_SELECTION = frozenset(
    """Abs Ceil Floor GlobalMaxPool Hardmax MaxPool Neg OneHot ReduceMax ReduceMin
    Relu Round Sign TopK""".split()
)
_COMPARISON = frozenset(
    "ArgMax ArgMin Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual NonZero".split()
)

CONSTANT_FILLS = frozenset({"ConstantOfShape"})
"""Operators that make a constant tensor out of an attribute."""

FOLLOWERS = _MOVEMENT | _SELECTION | _COMPARISON | CONSTANT_FILLS
"""Operators that round nothing: they compute in whatever precision their inputs arrive in."""

READERS = frozenset({"Cast", "Shape", "Size"})
"""Operators that take either precision, with the same result."""

LOOPS = frozenset({"GRU", "LSTM", "Loop", "RNN", "Scan"})
"""Operators that iterate."""

FP32_OPERATORS = {
    "Bernoulli": "random draws stay in FP32",
    "CastLike": "its type is that of its second input",
    "DynamicQuantizeLinear": "quantisation stays in FP32",
    "Multinomial": "random draws stay in FP32",
    "QLinearConv": "quantisation stays in FP32",
    "QLinearMatMul": "quantisation stays in FP32",
    "QuantizeLinear": "quantisation stays in FP32",
}
"""Operators that are never lowered, and why."""

FP32_VARIABLES = frozenset({("OneHot", "T1"), ("OneHot", "T2"), ("Resize", "T2")})
"""Type variables that stand for indices and coordinates, not for values of the network."""

TYPED_BY_ATTRIBUTE = CONSTANT_FILLS | {"DequantizeLinear"}
"""Operators whose output type is an attribute's, in some opset at least, that can be lowered by
changing it."""

SHAPE_SOURCES = frozenset({"Shape", "Size"})
"""Operators whose output is a property of a shape."""

SHAPE_MOVEMENT = frozenset(
    "Flatten Gather Identity Reshape Slice Split Squeeze Transpose Unsqueeze".split()
)
"""Operators that pick and arrange shapes, sizes and lengths."""

SHAPE_ARITHMETIC = SHAPE_MOVEMENT | frozenset(
    """Abs Add Cast Ceil Clip Concat Div Floor Max Min Mod Mul Neg Pow ReduceMax ReduceMin
    ReduceProd ReduceSum Round Sqrt Sub Sum Where""".split()
)
"""Operators that compute shapes from shapes, sizes and lengths."""

SHAPE_OPERANDS: dict[str, tuple[int, ...]] = {
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
