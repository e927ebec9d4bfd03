"""How much larger an error leaves a quantizer than it came: small errors show rarely, and whole.

Straight through its steps, an error keeps its size. In truth an error far below a step changes few
integers, each by a whole step, so that the power that leaves is about step times error instead of
error squared. What the candidate's error became is measured, and gradients are scaled with it, as
in statistical linearization (Booton, 1954).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from polygraphy_layerprec.divergence.powers import sum_of_squares
from polygraphy_layerprec.execution.kernels.node_session import value_of
from polygraphy_layerprec.execution.streams import is_float

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    import onnxruntime as ort

    from polygraphy_layerprec.model import Node

__all__ = ["step_gain"]

_ROUNDERS: Final = frozenset({"Ceil", "Floor", "Round"})
_QUANTIZERS: Final = frozenset({"DynamicQuantizeLinear", "QuantizeLinear"})


def step_gain(
    node: Node,
    exact: Mapping[str, ort.OrtValue],
    arriving: Mapping[str, ort.OrtValue],
    outputs: Sequence[ort.OrtValue | None],
    candidates: Sequence[ort.OrtValue | None],
) -> float:
    """Returns the norm of the error that leaves a quantizer over that of the one that arrives.

    At least 1: what is beyond the range, where errors vanish, has no gradient.

    Args:
        node: The node; for any but a quantizer the gain is 1.
        exact: What it takes in the reference.
        arriving: What it takes in the candidate.
        outputs: What it makes of `exact`.
        candidates: What it makes of `arriving`.
    """
    if node.domain or node.op_type not in _ROUNDERS | _QUANTIZERS:
        return 1.0
    name = node.inputs[0]
    if name not in arriving:
        return 1.0
    before, after = exact[name], arriving[name]
    if after is before or not is_float(before) or before.shape() != after.shape():
        return 1.0
    made = _steps(node, exact, outputs)
    moved = _steps(node, arriving, candidates)
    if made is None or moved is None or made.shape != moved.shape:
        return 1.0
    arrived = _power(value_of(after), value_of(before))
    left = _power(moved, made)
    gain = np.sqrt(left / arrived) if arrived else 1.0
    return float(gain) if np.isfinite(gain) and gain > 1.0 else 1.0


def _steps(
    node: Node, inputs: Mapping[str, ort.OrtValue], outputs: Sequence[ort.OrtValue | None]
) -> npt.NDArray[np.float64] | None:
    """What a quantizer makes, as the floats it stands for; None where it has several scales."""
    made = outputs[0]
    if made is None:
        return None
    scale, zero = 1.0, 0.0
    if node.op_type in _QUANTIZERS:
        if node.op_type == "DynamicQuantizeLinear":
            scale_of, zero_of = outputs[1], outputs[2]
        else:  # the zero point is the same in both
            scale_of, zero_of = inputs.get(node.inputs[1]), None
        if scale_of is None or math.prod(scale_of.shape()) != 1:
            return None
        scale = float(value_of(scale_of).reshape(()))
        zero = 0.0 if zero_of is None else float(value_of(zero_of))
    steps: npt.NDArray[np.float64] = (value_of(made).astype(np.float64) - zero) * scale
    return steps


def _power(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> float:
    with np.errstate(all="ignore"):
        difference = np.subtract(first, second, dtype=np.float64).reshape(-1)
        return sum_of_squares(difference)
