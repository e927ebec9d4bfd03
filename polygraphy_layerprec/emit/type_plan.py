"""Which layers of a strongly typed network compute in low precision.

This text is also part of every emitted script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from polygraphy_layerprec.emit.network_view import as_class
from polygraphy_layerprec.emit.typing_rules import LEFT_ALONE, TYPING_RULES, Role

if TYPE_CHECKING:
    from collections.abc import Collection

    from polygraphy_layerprec.emit.low_precision import LowPrecision
    from polygraphy_layerprec.emit.network_view import LayerView, NetworkView, TensorView

__all__ = ["TypePlan", "plan_types"]

_FIXED_ROLES = (Role.ACCEPT, Role.ATTEND, Role.CONSTANT, Role.ITERATE)


class TypePlan(NamedTuple):
    """The type of every FLOAT tensor."""

    roles: dict[LayerView, Role]
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
        if role is Role.ACCEPT:
            return None
        if role is Role.DEQUANTIZE and not _is_blocked(layer):
            return False
        return layer in self.low


def plan_types(
    view: NetworkView,
    kept: Collection[LayerView],
    precision: LowPrecision,
    low_inputs: frozenset[TensorView] = frozenset(),
) -> TypePlan:
    """Returns the types that keep the layers `kept` in FP32 and as few others as possible."""
    roles = {layer: _role(layer, kept, precision, view) for layer in view.layers}
    plan = TypePlan(roles, set(), low_inputs)
    takers = _find_takers_of_low(view, plan)
    from_constants: set[LayerView] = set()
    for layer in view.layers:
        if _depends_on_constants_only(layer, plan, from_constants):
            from_constants.add(layer)
        elif _is_lowered(layer, plan, from_constants, takers):
            plan.low.add(layer)
    for layer in reversed(view.layers):
        if layer in from_constants and _is_wanted_low(layer, plan, view):
            plan.low.add(layer)
    return plan


def _role(
    layer: LayerView, kept: Collection[LayerView], precision: LowPrecision, view: NetworkView
) -> Role:
    if not layer.float_inputs and not layer.float_outputs:
        return Role.ACCEPT
    if layer.carries_shape:
        return Role.KEEP
    rule = TYPING_RULES.get(layer.kind, LEFT_ALONE)
    if rule.role in _FIXED_ROLES:
        return rule.role
    if layer in kept or (precision.name == "bf16" and not rule.has_bf16):
        return Role.KEEP
    attribute, exact_values = rule.exact
    if attribute:
        with as_class(layer.layer, rule.layer_class, view.trt) as typed_layer:
            if getattr(typed_layer, attribute).name in exact_values.split():
                return Role.FOLLOW
    return rule.role


def _depends_on_constants_only(
    layer: LayerView, plan: TypePlan, from_constants: set[LayerView]
) -> bool:
    if plan.roles[layer] is Role.CONSTANT:
        return True
    producers = [tensor.producer for tensor in layer.float_inputs]
    moves = plan.roles[layer] in (Role.FOLLOW, Role.JOIN)
    return moves and all(p in from_constants for p in producers)


def _is_blocked(layer: LayerView) -> bool:
    # In blocks, the scales must have the type of the output.
    quantized = layer.inputs[0]
    return quantized is not None and quantized.tensor.dtype.name in ("FP4", "INT4")


def _find_takers_of_low(view: NetworkView, plan: TypePlan) -> set[LayerView]:
    """Returns the layers that turn into low precision whatever they read, at once or later on."""
    takers: set[LayerView] = set()
    for layer in reversed(view.layers):
        if plan.roles[layer] in (Role.FOLLOW, Role.JOIN, Role.ITERATE):
            is_taker = bool(layer.consumers) and takers.issuperset(layer.consumers)
        else:
            is_taker = plan.roles[layer] in (Role.LOWER, Role.ATTEND)
        if is_taker:
            takers.add(layer)
    return takers


def _is_lowered(
    layer: LayerView, plan: TypePlan, from_constants: set[LayerView], takers: set[LayerView]
) -> bool:
    role = plan.roles[layer]
    if role is Role.ITERATE:
        # One cast before the loop costs less than one in each iteration.
        return layer in takers or plan.is_low(layer.float_inputs[0])
    # A constant takes whatever type it is asked for, so it is not one to follow.
    lows = [plan.is_low(t) for t in layer.float_inputs if t.producer not in from_constants]
    if role is Role.FOLLOW:
        return lows[0]
    if role is Role.JOIN:
        return all(lows) or (any(lows) and layer in takers)
    return role in (Role.LOWER, Role.ATTEND, Role.DEQUANTIZE)


def _is_wanted_low(layer: LayerView, plan: TypePlan, view: NetworkView) -> bool:
    if any(output in view.outputs for output in layer.outputs):
        return False
    return bool(layer.consumers) and all(map(plan.wants_low, layer.consumers))
