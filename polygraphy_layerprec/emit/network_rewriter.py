"""Keeps chosen layers of a TensorRT network in FP32 and puts the others into low precision.

Where the builder picks precisions (weak typing), the chosen layers are told to stay in FP32. Where
tensor types decide (strong typing), the network is rewritten in place, by casts, until the types
say the same.

This text is also part of every emitted script.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec.emit.low_precision import find_low_precision
from polygraphy_layerprec.emit.name_bridge import describe_unmatched, match_layers, shorten
from polygraphy_layerprec.emit.network_inputs import find_low_inputs
from polygraphy_layerprec.emit.network_view import (
    NetworkError,
    NetworkView,
    find_tensorrt,
    is_strongly_typed,
)
from polygraphy_layerprec.emit.strong_typing import StrongRewriter
from polygraphy_layerprec.emit.type_plan import TypePlan, plan_types
from polygraphy_layerprec.emit.typing_rules import TypingRole
from polygraphy_layerprec.emit.weak_typing import keep_in_fp32, lower_io

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from polygraphy_layerprec.emit.low_precision import LowPrecision
    from polygraphy_layerprec.emit.name_bridge import LayerConstraint, LayerMatch
    from polygraphy_layerprec.emit.network_view import LayerView

__all__ = ["constrain_network"]

_PREFIX = "[layerprec]"


def constrain_network(
    network: Any,
    constraints: Sequence[LayerConstraint],
    *,
    precision: str,
    io_precision: str = "fp32",
    allow_unmatched: bool = False,
    left: Sequence[LayerConstraint] = (),
    fp32_tensors: Collection[str] = (),
    low_tensors: Collection[str] = (),
) -> str:
    """Changes a TensorRT network in place so that the constrained layers compute in FP32.

    Args:
        network: A `tensorrt.INetworkDefinition`, as parsed from the ONNX model.
        constraints: The nodes of the model to keep in FP32.
        precision: What the others are lowered to: `fp16` or `bf16`.
        io_precision: Type of the network's float inputs and outputs: `fp32`, or `low` for
            `precision`.
        allow_unmatched: Whether a constraint that cannot be met is a warning, not an error.
        left: Nodes that stay in FP32 by a rule, as far as the network has them.
        fp32_tensors: Names of tensors that are in FP32 as planned, those that are moved included.
        low_tensors: Names of tensors that are in `precision` as planned; what neither names is
            decided here.

    Returns:
        One line that says what was done, which is printed too.

    Raises:
        NetworkError: If a constraint matches no layer or cannot be met, or if this TensorRT lacks
            the precision. The network has not been changed.
    """
    trt = find_tensorrt(network)
    low_precision = find_low_precision(precision, trt)
    view = NetworkView(network, trt)
    matches = match_layers(view, constraints)
    _check_all_matched(matches, view, allow_unmatched=allow_unmatched)
    kept = {layer for match in matches for layer in match.layers}
    low_io = io_precision == "low"
    if is_strongly_typed(network, trt):
        by_rule = {layer for match in match_layers(view, left) for layer in match.layers}
        widths = {**dict.fromkeys(low_tensors, True), **dict.fromkeys(fp32_tensors, False)}
        done = _rewrite_types(
            view,
            kept,
            low_precision,
            by_rule=by_rule,
            widths=widths,
            low_io=low_io,
            lenient=allow_unmatched,
        )
    else:
        done = _constrain_builder(view, kept, low_precision, low_io=low_io)
    summary = f"{_PREFIX} {done}; {_summarize_matches(matches)}."
    print(summary)  # noqa: T201
    return summary


def _rewrite_types(
    view: NetworkView,
    kept: set[LayerView],
    precision: LowPrecision,
    *,
    by_rule: set[LayerView],
    widths: dict[str, bool],
    low_io: bool,
    lenient: bool,
) -> str:
    low_inputs, objection = find_low_inputs(view) if low_io else (frozenset(), "")
    plan = plan_types(
        view, kept | by_rule, precision, low_inputs, widths=widths, low_outputs=low_io
    )
    _check_attention(kept, plan, lenient=lenient)
    rewriter = StrongRewriter(view, plan, precision)
    rewriter.rewrite(low_outputs=low_io)
    for note in rewriter.notes:
        print(f"{_PREFIX} Note: {note}.")  # noqa: T201
    done = _summarize_plan(plan, kept, rewriter.cast_count, precision)
    if not low_io:
        return done
    return f"{done}; {_summarize_io(view, precision, len(low_inputs), objection)}"


def _constrain_builder(
    view: NetworkView,
    kept: set[LayerView],
    precision: LowPrecision,
    *,
    low_io: bool,
) -> str:
    count = keep_in_fp32(view, kept)
    done = f"{count} layers kept in FP32, the others left to the builder"
    if not low_io:
        return done
    lower_io(view, precision.dtype)
    inputs = sum(tensor.is_float and not tensor.is_shape for tensor in view.inputs)
    return f"{done}; {_summarize_io(view, precision, inputs, '')}"


def _check_all_matched(
    matches: Sequence[LayerMatch], view: NetworkView, *, allow_unmatched: bool
) -> None:
    unmatched = [match.constraint for match in matches if not match.method]
    if not unmatched:
        return
    message = (
        f"{len(unmatched)} of {len(matches)} constraints match no layer of this network; was it "
        f"made from another model?\n{describe_unmatched(unmatched, view)}"
    )
    if not allow_unmatched:
        raise NetworkError(message)
    print(f"{_PREFIX} Warning: {message}")  # noqa: T201


def _check_attention(kept: set[LayerView], plan: TypePlan, *, lenient: bool) -> None:
    refused = [layer for layer in kept if plan.roles[layer] is TypingRole.ATTEND]
    if not refused:
        return
    names = ", ".join(sorted({shorten(layer.name) for layer in refused}))
    message = f"attention layers have no FP32 implementation and cannot be kept in FP32: {names}"
    if not lenient:
        raise NetworkError(message)
    print(f"{_PREFIX} Warning: {message}")  # noqa: T201


def _summarize_plan(
    plan: TypePlan, kept: set[LayerView], casts: int, precision: LowPrecision
) -> str:
    computing = [layer for layer, role in plan.roles.items() if role is not TypingRole.CONSTANT]
    lowered = sum(layer in plan.low for layer in computing)
    left = [layer for layer in computing if plan.roles[layer] is TypingRole.KEEP]
    kept_count = sum(layer in kept for layer in left)
    kinds = Counter(
        "shape arithmetic" if layer.carries_shape else layer.kind
        for layer in left
        if layer not in kept
    )
    by_type = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())) or "none"
    return (
        f"{kept_count} layers kept in FP32, {lowered} lowered to {precision.name}, {casts} casts "
        f"inserted, left in FP32 by type: {by_type}"
    )


def _summarize_io(view: NetworkView, precision: LowPrecision, inputs: int, objection: str) -> str:
    outputs = sum(tensor.is_float and not tensor.is_shape for tensor in view.outputs)
    shapes = [t.name for t in [*view.inputs, *view.outputs] if t.is_shape]
    parts = [f"{inputs} inputs and {outputs} outputs in {precision.name}"]
    if objection:
        parts.append(objection)
    if shapes:
        parts.append(f"in FP32 since they carry shapes: {', '.join(map(shorten, shapes))}")
    return "; ".join(parts)


def _summarize_matches(matches: Sequence[LayerMatch]) -> str:
    methods = Counter(match.method for match in matches if match.method)
    found = sum(methods.values())
    by_method = ", ".join(f"{count} by {method}" for method, count in sorted(methods.items()))
    return (
        f"{found} of {len(matches)} constraints matched ({by_method or 'none'}), "
        f"{len(matches) - found} unmatched"
    )
