"""Decisions that low precision turns: a comparison, an index, a whole number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.arrays import count_true
from polygraphy_layerprec.execution.kernels.node_session import value_of
from polygraphy_layerprec.execution.streams import is_float

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnxruntime as ort

    from polygraphy_layerprec.model import Node

__all__ = ["count_flipped"]

_WHOLE_NUMBERS: Final = frozenset(["Ceil", "Floor", "Round", "Sign"])


def count_flipped(
    node: Node,
    references: Sequence[ort.OrtValue | None],
    candidates: Sequence[ort.OrtValue | None],
) -> int:
    """Returns how many elements differ, of outputs whose errors are jumps and not small.

    Args:
        node: What made them.
        references: Its outputs, None for absent ones.
        candidates: The same in low precision. Another shape counts as a difference in all.
    """
    count = 0
    for reference, candidate in zip(references, candidates, strict=True):
        if reference is None or candidate is None or not reference.data_type().startswith("tensor"):
            continue
        if is_float(reference) and node.op_type not in _WHOLE_NUMBERS:
            continue
        exact, found = value_of(reference), value_of(candidate)
        same_shape = exact.shape == found.shape
        count += count_true(exact != found) if same_shape else max(exact.size, 1)
    return count
