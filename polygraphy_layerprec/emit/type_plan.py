"""Which layers of a strongly typed network compute in low precision.

This text is also part of every emitted script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from polygraphy_layerprec.emit.network_view import as_class
from polygraphy_layerprec.emit.typing_rules import LEFT_ALONE, TYPING_RULES, TypingRole, TypingRule

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from polygraphy_layerprec.emit.low_precision import LowPrecision
    from polygraphy_layerprec.emit.network_view import LayerView, NetworkView, TensorView

__all__ = ["TypePlan", "plan_types"]

_FIXED_ROLES = (TypingRole.ACCEPT, TypingRole.ATTEND, TypingRole.CONSTANT, TypingRole.ITERATE)
_NEVER_FOLDED = ("FILL", "ITERATOR", "RECURRENCE")  # others in each run or iteration
_MOVING_ROLES = (TypingRole.FOLLOW, TypingRole.JOIN, TypingRole.ITERATE)
_ADAPTING_ROLES = (TypingRole.CONSTANT, TypingRole.FOLLOW, TypingRole.JOIN, TypingRole.DEQUANTIZE)


class TypePlan(NamedTuple):
    """The type of every FLOAT tensor."""

    roles: dict[LayerView, TypingRole]
    """What each layer does with types, constraints taken into account."""

    low: set[LayerView]
    """Layers whose FLOAT outputs are in low precision."""

    low_inputs: frozenset[TensorView] = frozenset()
    """Inputs of the network that are in low precision."""

    def is_low(self, tensor: TensorView) -> bool:
        """Returns whether a FLOAT tensor becomes low precision where it is produced."""
        return tensor.producer in self.low or tensor in self.low_inputs

    def wants_low(self, layer: LayerView) -> bool | None:
        """Returns whether a layer's FLOAT inputs must be in low precision; None if any will do."""
        role = self.roles[layer]
        if role is TypingRole.ACCEPT:
            return None
        if role is TypingRole.DEQUANTIZE and not _is_blocked(layer):
            return False
        return layer in self.low


def plan_types(
    view: NetworkView,
    kept: Collection[LayerView],
    precision: LowPrecision,
    low_inputs: frozenset[TensorView] = frozenset(),
    *,
    widths: Mapping[str, bool] | None = None,
    low_outputs: bool = False,
) -> TypePlan:
    """Returns the types that keep the layers `kept` in FP32 and as few others as possible.

    Args:
        view: The network.
        kept: Layers that stay in FP32.
        precision: What the others are lowered to.
        low_inputs: Inputs of the network in low precision.
        widths: Whether a tensor is in low precision, by name, as far as it was planned.
        low_outputs: Whether the outputs of the network are in low precision.
    """
    planned = _find_planned(view, widths or {})
    roles = {layer: _role(layer, kept, precision, view) for layer in view.layers}
    for layer, is_low in planned.items():
        if roles[layer] is TypingRole.LOWER and not is_low:
            roles[layer] = TypingRole.KEEP
    folded = _find_folded(view)
    # The builder computes these once; kept layers must not find them rounded.
    roles.update((layer, TypingRole.KEEP) for layer in folded if roles[layer] is TypingRole.LOWER)
    plan = TypePlan(roles, set(), low_inputs)
    takers = _find_takers_of_low(view, plan, low_outputs=low_outputs)
    from_constants: set[LayerView] = set()
    for layer in view.layers:
        if layer in folded or _moves_constants_only(layer, plan, from_constants):
            from_constants.add(layer)
        elif layer in planned and roles[layer] in _MOVING_ROLES:
            if planned[layer]:
                plan.low.add(layer)
        elif _is_lowered(layer, plan, from_constants, takers) and (
            layer in takers or _fits(layer, plan, from_constants, precision, view)
        ):
            plan.low.add(layer)
    for layer in reversed(view.layers):
        if layer in from_constants and _is_wanted_low(layer, plan, view):
            plan.low.add(layer)
    return plan


def _find_planned(view: NetworkView, widths: Mapping[str, bool]) -> dict[LayerView, bool]:
    """Returns whether a layer is in low precision, where a tensor that it makes was planned."""
    planned = {}
    for layer in view.layers:
        for tensor in layer.float_outputs:
            if tensor.name in widths:
                planned[layer] = widths[tensor.name]
    return planned


def _role(
    layer: LayerView, kept: Collection[LayerView], precision: LowPrecision, view: NetworkView
) -> TypingRole:
    if not layer.float_inputs and not layer.float_outputs:
        return TypingRole.ACCEPT
    if layer.carries_shape:
        return TypingRole.KEEP
    rule = TYPING_RULES.get(layer.kind, LEFT_ALONE)
    if rule.role in _FIXED_ROLES:
        return TypingRole.KEEP if _is_empty_constant(layer, view) else rule.role
    if layer in kept or (precision.name == "bf16" and not rule.has_bf16):
        return TypingRole.KEEP
    if rule.role is TypingRole.LOWER and not layer.float_outputs:
        return TypingRole.JOIN  # a comparison: nobody ranks it, so nobody could keep it
    return TypingRole.FOLLOW if _is_exact(layer, rule, view) else rule.role


def _is_exact(layer: LayerView, rule: TypingRule, view: NetworkView) -> bool:
    attribute, exact_values = rule.exact
    if not attribute:
        return False
    with as_class(layer.layer, rule.layer_class, view.trt) as typed_layer:
        return getattr(typed_layer, attribute).name in exact_values.split()


def _is_empty_constant(layer: LayerView, view: NetworkView) -> bool:
    if layer.kind != "CONSTANT":
        return False
    with as_class(layer.layer, "IConstantLayer", view.trt) as constant:
        return bool(constant.weights.size == 0)  # so it cannot be given those of another type


def _find_folded(view: NetworkView) -> set[LayerView]:
    """Returns the layers that depend on constants alone."""
    folded: set[LayerView] = set()
    for layer in view.layers:
        is_source = layer.kind == "CONSTANT" or _counts_up(layer, view)
        reads = [tensor.producer for tensor in layer.inputs if tensor is not None]
        if (is_source or (reads and layer.kind not in _NEVER_FOLDED)) and folded.issuperset(reads):
            folded.add(layer)
    return folded


def _counts_up(layer: LayerView, view: NetworkView) -> bool:
    if layer.kind != "FILL":
        return False
    with as_class(layer.layer, "IFillLayer", view.trt) as fill:
        return bool(fill.operation.name == "LINSPACE")


def _moves_constants_only(layer: LayerView, plan: TypePlan, from_constants: set[LayerView]) -> bool:
    producers = [tensor.producer for tensor in layer.float_inputs]
    moves = plan.roles[layer] in (TypingRole.FOLLOW, TypingRole.JOIN)
    return moves and all(p in from_constants for p in producers)


def _is_blocked(layer: LayerView) -> bool:
    # In blocks, the scales must have the type of the output.
    quantized = layer.inputs[0]
    return quantized is not None and quantized.tensor.dtype.name in ("FP4", "INT4")


def _find_takers_of_low(view: NetworkView, plan: TypePlan, *, low_outputs: bool) -> set[LayerView]:
    """Returns the layers that turn into low precision whatever they read, at once or later on."""
    ends = {tensor.producer for tensor in view.outputs}
    takers: set[LayerView] = set()
    for layer in reversed(view.layers):
        if plan.roles[layer] in (TypingRole.FOLLOW, TypingRole.JOIN, TypingRole.ITERATE):
            is_used = low_outputs if layer in ends else bool(layer.consumers)
            is_taker = is_used and bool(layer.float_outputs) and takers.issuperset(layer.consumers)
        else:
            is_taker = plan.roles[layer] in (TypingRole.LOWER, TypingRole.ATTEND)
        if is_taker:
            takers.add(layer)
    return takers


def _is_lowered(
    layer: LayerView, plan: TypePlan, from_constants: set[LayerView], takers: set[LayerView]
) -> bool:
    role = plan.roles[layer]
    if role is TypingRole.ITERATE:
        # One cast before the loop costs less than one in each iteration.
        return layer in takers or plan.is_low(layer.float_inputs[0])
    # A constant takes whatever type it is asked for, so it is not one to follow.
    lows = [plan.is_low(t) for t in layer.float_inputs if t.producer not in from_constants]
    if role is TypingRole.FOLLOW:
        return lows[0]
    if role is TypingRole.JOIN:
        return all(lows) or (any(lows) and layer in takers)
    return role in (TypingRole.LOWER, TypingRole.ATTEND, TypingRole.DEQUANTIZE)


def _fits(
    layer: LayerView,
    plan: TypePlan,
    from_constants: set[LayerView],
    precision: LowPrecision,
    view: NetworkView,
) -> bool:
    """Returns whether a layer that moves values moves no constant that would be limited."""
    if plan.roles[layer] not in (TypingRole.FOLLOW, TypingRole.JOIN):
        return True
    sources = [p for p in layer.producers if p in from_constants]
    for source in sources:  # grows on the way
        sources += [p for p in source.producers if p in from_constants and p not in sources]
        if plan.roles[source] is TypingRole.CONSTANT:
            with as_class(source.layer, "IConstantLayer", view.trt) as constant:
                magnitudes = np.abs(np.asarray(constant.weights))
            if np.any(np.isfinite(magnitudes) & (magnitudes > precision.max_finite)):
                return False
    return True


def _is_wanted_low(layer: LayerView, plan: TypePlan, view: NetworkView) -> bool:
    if plan.roles[layer] not in _ADAPTING_ROLES or not layer.float_outputs:
        return False
    if any(output in view.outputs for output in layer.outputs):
        return False
    return bool(layer.consumers) and all(map(plan.wants_low, layer.consumers))
