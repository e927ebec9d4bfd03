"""Floating-point operations of a node, from its shapes: what keeping it in FP32 costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["count_flops"]


def count_flops(
    op_type: str,
    input_shapes: Sequence[tuple[int, ...] | None],
    output_shapes: Sequence[tuple[int, ...] | None],
) -> float:
    """Returns the floating-point operations; 2 for a multiply and add.

    Products and convolutions count their multiplications; anything else counts one for each
    element that it reads or writes, whichever are more.
    """
    sizes_out = sum(_size(shape) for shape in output_shapes)
    inputs = [shape for shape in input_shapes if shape is not None]
    if op_type in {"MatMul", "Gemm"} and inputs and inputs[0]:
        return 2.0 * sizes_out * _shared_extent(op_type, inputs[0], output_shapes[0])
    if op_type == "Conv" and len(inputs) > 1:
        return float(2 * sizes_out * np.prod(inputs[1][1:]))
    if op_type == "ConvTranspose" and len(inputs) > 1:
        return float(2 * _size(inputs[0]) * np.prod(inputs[1][1:]))
    return float(max(sizes_out, *(_size(shape) for shape in inputs), 0))


def _shared_extent(
    op_type: str,
    first: tuple[int, ...],
    output: tuple[int, ...] | None,
) -> int:
    """Extent of the axis that a product sums over."""
    if op_type == "MatMul":
        return first[-1]
    # Gemm may transpose either operand: what is not in the output is what is summed.
    rows = output[0] if output else 1
    return _size(first) // max(rows, 1)


def _size(shape: tuple[int, ...] | None) -> int:
    return 0 if shape is None else int(np.prod(shape, dtype=np.int64))
