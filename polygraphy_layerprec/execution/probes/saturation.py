"""What overflow alone does: which layer leaves the range, and whether the damage is felt.

A mask of -3.4e38 becomes infinite and softmax makes the same zeros of it; a square of 1e6 becomes
infinite and a division by it makes everything zero. To tell them apart, a copy of the reference
that is infinite where the precision's range ends is carried on from the overflow until it is
absorbed, or seen to have damaged a value that is in range. It costs nothing where nothing
overflows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.arrays import is_all_true, is_any_true
from polygraphy_layerprec.divergence.powers import sum_of_squares
from polygraphy_layerprec.execution.kernels.node_session import tensor_of, value_of
from polygraphy_layerprec.execution.streams import is_float, union_of_overflows
from polygraphy_layerprec.rounding import chunks_of

if TYPE_CHECKING:
    import onnxruntime as ort

    from polygraphy_layerprec.execution.emulation.reference_run import ReferenceRun
    from polygraphy_layerprec.precision import Precision

__all__ = ["CarriedOverflows", "SaturatedOutput", "carry_overflows", "saturate_output"]

_HARMFUL_ERROR: Final = 1e-2
"""Relative error of the values in range above which an overflow counts as felt: twenty times what
rounding costs in FP16, and far below what a lost infinity does."""


@dataclass(frozen=True, slots=True)
class SaturatedOutput:
    """One output in the world where only overflow happens."""

    values: np.ndarray[Any, Any] | None
    """Its values; None if they are the reference's."""

    overflows: frozenset[int]
    """The nodes whose overflow it carries."""

    harmful: frozenset[int]
    """The nodes whose overflow is felt here."""


@dataclass(frozen=True, slots=True)
class CarriedOverflows:
    """The outputs of a layer in the world where only overflow happens."""

    outputs: tuple[ort.OrtValue | None, ...]
    """The outputs, the reference's where nothing overflows; None for absent ones."""

    overflows: frozenset[int]
    """The nodes whose overflow they carry."""

    harmful: frozenset[int]
    """The nodes whose overflow is felt here."""


def carry_overflows(
    run: Callable[[Mapping[str, ort.OrtValue]], Sequence[ort.OrtValue | None]],
    referenced: ReferenceRun,
    lowered: Mapping[str, ort.OrtValue],
    precision: Precision,
    *,
    overflows_here: bool,
) -> CarriedOverflows:
    """Returns the outputs of a layer in the world where only overflow happens.

    Args:
        run: Runs the node as it is lowered.
        referenced: The node with what it takes.
        lowered: Its rounded weights and inputs, by name.
        precision: The low precision.
        overflows_here: Whether values of its own output are beyond the range.
    """
    node, streams, outputs = referenced.node, referenced.streams, referenced.outputs
    origins = union_of_overflows(streams)
    threshold = precision.overflow_threshold
    fed = {n for n, s in streams.items() if s.fed and s.max_abs >= threshold}
    if fed:  # what the user feeds overflows as it enters the first layer
        origins |= {node.index}
    if not origins and not overflows_here:
        return CarriedOverflows(tuple(outputs), frozenset(), frozenset())
    arrived: Sequence[ort.OrtValue | None] = [None] * len(outputs)
    if origins and not referenced.is_random:
        saturated = {n: s.saturated for n, s in streams.items() if n not in fed}
        arrived = run({**lowered, **saturated})
    results = list(outputs)
    carried, harmful = frozenset[int](), frozenset[int]()
    for index, (reference, infinite) in enumerate(zip(outputs, arrived, strict=True)):
        if reference is None or not is_float(reference):
            continue
        made = saturate_output(
            value_of(reference),
            None if infinite is None else value_of(infinite),
            origins=origins,
            index=node.index,
            precision=precision,
        )
        carried |= made.overflows
        harmful |= made.harmful
        if made.harmful and referenced.max_abs_input >= threshold:
            harmful |= {node.index}  # kept in FP32 all the same, its input would be cast
        if made.values is not None:
            results[index] = tensor_of(made.values)
    return CarriedOverflows(tuple(results), carried, harmful)


def saturate_output(
    reference: np.ndarray[Any, Any],
    arrived: np.ndarray[Any, Any] | None,
    *,
    origins: frozenset[int],
    index: int,
    precision: Precision,
) -> SaturatedOutput:
    """Returns what becomes of an output of node `index`.

    Args:
        reference: The output in FP32, any shape.
        arrived: The output from saturated inputs; None if these are the reference's.
        origins: The nodes whose overflow is in the inputs.
        index: The node itself.
        precision: The low precision.
    """
    finite = np.isfinite(reference)
    beyond = finite & (np.abs(reference) >= precision.overflow_threshold)
    harmful = frozenset[int]()
    if arrived is None or arrived.shape != reference.shape:
        harmful = origins if arrived is not None else harmful
        arrived = reference
    elif _is_damaged(reference, arrived, finite & ~beyond):
        # Reported once; from here on every further overflow is judged on its own.
        harmful, arrived = origins, reference
    if not is_any_true(beyond):
        return SaturatedOutput(None, frozenset(), harmful)
    values = np.where(beyond, np.copysign(np.inf, reference), arrived).astype(reference.dtype)
    return SaturatedOutput(values, (origins - harmful) | {index}, harmful)


def _is_damaged(
    reference: np.ndarray[Any, Any], arrived: np.ndarray[Any, Any], in_range: np.ndarray[Any, Any]
) -> bool:
    expected_power = error_power = 0.0
    reference, arrived, in_range = reference.ravel(), arrived.ravel(), in_range.ravel()
    if is_all_true((reference == arrived) | ~in_range):
        return False
    for chunk in chunks_of(
        reference.size, like=reference
    ):  # in the cache, without copies of the whole
        expected = np.where(in_range[chunk], reference[chunk], 0.0).astype(np.float64)
        found = np.where(in_range[chunk], arrived[chunk], 0.0).astype(np.float64)
        expected_power += sum_of_squares(expected)
        error_power += sum_of_squares(found - expected)
    # A NaN compares as false, an infinity as too much.
    return not error_power <= _HARMFUL_ERROR**2 * expected_power
