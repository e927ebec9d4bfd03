"""How much a node amplifies an error that arrives at an input: measured, not derived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from polygraphy_layerprec.divergence.powers import norm_of, squared_distance
from polygraphy_layerprec.execution.kernels.node_session import tensor_of, value_of
from polygraphy_layerprec.execution.streams import can_carry_error, is_float, rounded_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnxruntime as ort

    from polygraphy_layerprec.model import Node
    from polygraphy_layerprec.precision import Precision

__all__ = ["probe_gains"]

_PERMUTES: Final = frozenset("Flatten Identity Neg Reshape Squeeze Transpose Unsqueeze".split())
_ADDS: Final = frozenset({"Add", "Sub"})
_LARGEST_PROBE: Final = 2.0**-5
"""Relative to the input. Behind a layer that overflowed, what arrives is wrong altogether."""


def probe_gains(
    run: Callable[[Mapping[str, ort.OrtValue]], Sequence[ort.OrtValue | None]],
    node: Node,
    exact: Mapping[str, ort.OrtValue],
    arriving: Mapping[str, ort.OrtValue],
    outputs: Sequence[ort.OrtValue | None],
    variable: Sequence[str],
    precision: Precision,
    moved: Sequence[ort.OrtValue | None] | None,
) -> dict[str, float]:
    """Returns the norm of the output's change over the input's for each variable input.

    The probe is the error that really arrives; where none does, it is not finite or too large to
    say what a small one would do, rounding the exact input takes its place.

    Args:
        run: Runs the node.
        node: The node.
        exact: Every input, as `outputs` were made from them.
        arriving: The candidate's inputs.
        outputs: The outputs for `exact`, not rounded.
        variable: Names of the float inputs that depend on what the user feeds.
        precision: The low precision.
        moved: The outputs for `arriving`, not rounded, if it differs from `exact` in one variable
            input alone: then they save a run. None if they are not known or do not show that.
    """
    gains: dict[str, float] = {}
    if any(can_carry_error(output) and not is_float(output) for output in outputs if output):
        return gains  # a sequence or FP16, whose elements are not compared
    for name in variable:
        if _keeps_errors(node, name, exact, outputs):
            gains[name] = 1.0
            continue
        probe = arriving[name]
        change = _distance(exact[name], probe)
        if not (0.0 < change <= _LARGEST_PROBE * _norm(exact[name])):
            probe = rounded_tensor(exact[name], precision, saturate=True)
            change = _distance(exact[name], probe)
        if not change:  # on the grid already: the arriving error, made small
            probe = _nearer(exact[name], arriving[name])
            change = _distance(exact[name], probe)
        if not (0.0 < change < np.inf):
            gains[name] = 0.0
            continue
        known = moved if probe is arriving[name] else None
        probed = known or run({**exact, name: probe})
        effect = [_distance(a, b) for a, b in zip(outputs, probed, strict=True) if a and b]
        total = float(np.hypot.reduce(effect)) if effect else 0.0
        gains[name] = total / change if np.isfinite(total) else 0.0
    return gains


def _keeps_errors(
    node: Node,
    name: str,
    exact: Mapping[str, ort.OrtValue],
    outputs: Sequence[ort.OrtValue | None],
) -> bool:
    """Whether an error at the input `name` arrives as it is at the output: no run is needed."""
    if node.domain:
        return False
    if node.op_type in _PERMUTES:
        return True
    once = node.inputs.count(name) == 1
    output = outputs[0]
    return (
        node.op_type in _ADDS
        and once
        and output is not None
        and exact[name].shape() == output.shape()
    )


def _nearer(exact: ort.OrtValue, arriving: ort.OrtValue) -> ort.OrtValue:
    """What is between two tensors, at the largest distance for a probe; `exact` without one."""
    distance = _distance(exact, arriving)
    if not 0.0 < distance < np.inf:
        return exact
    share = _LARGEST_PROBE * _norm(exact) / distance
    first, second = value_of(exact), value_of(arriving)
    return tensor_of(first + (second - first) * first.dtype.type(min(share, 1.0)))


def _norm(tensor: ort.OrtValue) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        norm = norm_of(value_of(tensor).reshape(-1))
    return norm if np.isfinite(norm) else 0.0


def _distance(first: ort.OrtValue, second: ort.OrtValue) -> float:
    """L2 norm of the difference; infinite where it is not a number or shapes differ."""
    if first is second or not is_float(first):
        return 0.0
    a, b = value_of(first), value_of(second)
    if a.shape != b.shape:
        return float("inf")
    with np.errstate(invalid="ignore", over="ignore"):
        norm = float(np.sqrt(squared_distance(a, b)))
    return norm if np.isfinite(norm) else float("inf")
