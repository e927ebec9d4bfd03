"""Gives the tensors of a strongly typed network their planned types, in place.

This text is also part of every emitted script.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.emit.cast_scopes import find_scopes
from polygraphy_layerprec.emit.low_precision import LowPrecision, convert_weights
from polygraphy_layerprec.emit.name_bridge import shorten
from polygraphy_layerprec.emit.network_inputs import lower_inputs
from polygraphy_layerprec.emit.network_view import LayerView, NetworkView, TensorView, as_class
from polygraphy_layerprec.emit.typing_rules import TYPING_RULES, TypingRole

if TYPE_CHECKING:
    from polygraphy_layerprec.emit.type_plan import TypePlan

__all__ = ["StrongRewriter"]


_FENCED_KINDS = ("CONVOLUTION", "DECONVOLUTION", "EINSUM", "MATRIX_MULTIPLY")
_MOVING_ROLES = (TypingRole.FOLLOW, TypingRole.JOIN)


def _find_fenced(view: NetworkView, plan: TypePlan) -> set[LayerView]:
    """Returns the FP32 layers before which a cast from low precision must not vanish.

    They are products, and what only moves values on their way there.
    """
    fenced: set[LayerView] = set()
    for layer in reversed(view.layers):
        moves = plan.roles[layer] in _MOVING_ROLES and not fenced.isdisjoint(layer.consumers)
        if layer not in plan.low and (layer.kind in _FENCED_KINDS or moves):
            fenced.add(layer)
    return fenced


class StrongRewriter:
    """One rewrite of one network."""

    def __init__(self, view: NetworkView, plan: TypePlan, precision: LowPrecision) -> None:
        self.cast_count = 0
        self.notes: list[str] = []
        self._view = view
        self._plan = plan
        self._precision = precision
        self._scopes = find_scopes(view)
        self._casts: dict[tuple[TensorView, bool, bool, frozenset[tuple[LayerView, int]]], Any] = {}
        self._fenced = _find_fenced(view, plan)
        self._replaced: dict[TensorView, Any] = {}
        self._names = {t.name for t in view.tensors} | {layer.name for layer in view.layers}
        self._weights: list[Any] = []
        # TensorRT keeps a pointer to weights. Polygraphy drops the script's module right after
        # the call, so that the script's own names would not keep them alive until the build.
        weakref.finalize(view.network, self._weights.clear)

    def rewrite(self, *, low_outputs: bool) -> None:
        """Converts weights, connects every layer to inputs of its type, restores the outputs."""
        low_inputs = self._plan.low_inputs
        new_inputs = lower_inputs(self._view, low_inputs, self._precision.dtype, self._derive_name)
        self._replaced.update(new_inputs)
        for layer in self._view.layers:
            if layer in self._plan.low:
                self._convert_weights(layer)
                self._replace_dequantize(layer)
        back_edges = []
        for layer in self._view.layers:
            for index in range(len(layer.inputs)):
                if layer.kind == "RECURRENCE" and index == 1:
                    back_edges.append(layer)
                else:
                    self._connect(layer, index)
        for layer in back_edges:  # the type of a recurrence is that of its other input
            self._connect(layer, 1)
        self._restore_outputs(are_low=low_outputs)
        for tensor in new_inputs:
            self._view.network.remove_tensor(tensor.tensor)

    def _convert_weights(self, layer: LayerView) -> None:
        rule = TYPING_RULES[layer.kind]
        if not rule.weights:
            return
        with as_class(layer.layer, rule.layer_class, self._view.trt) as typed_layer:
            for attribute in rule.weights:
                values = getattr(typed_layer, attribute)
                if isinstance(values, np.ndarray) and values.dtype == np.float32 and values.size:
                    setattr(typed_layer, attribute, self._to_weights(values, layer, attribute))

    def _to_weights(self, values: Any, layer: LayerView, attribute: str) -> Any:
        converted = np.ascontiguousarray(convert_weights(values, self._precision))
        without_signs = converted.view(np.uint16) << 1
        if values.any() and not without_signs.any():
            self.notes.append(
                f"every value of {shorten(layer.name)} ({attribute}) becomes 0 in "
                f"{self._precision.name}; the largest is {abs(values).max():.3g}"
            )
        self._weights.append(converted)
        pointer = converted.ctypes.data
        return self._view.trt.Weights(self._precision.dtype, pointer, converted.size)

    def _replace_dequantize(self, layer: LayerView) -> None:
        if self._plan.roles[layer] is not TypingRole.DEQUANTIZE or not layer.outputs[0].is_float:
            return
        network, tensors = self._view.network, [t and t.tensor for t in layer.inputs]
        new = network.add_dequantize(tensors[0], tensors[1], self._precision.dtype)
        with as_class(layer.layer, "IDequantizeLayer", self._view.trt) as old:
            new.axis = old.axis
        for index, tensor in enumerate(tensors[2:], start=2):
            new.set_input(index, tensor)
        new.name = self._derive_name(layer.name)
        made = layer.outputs[0]
        made.tensor.name = self._derive_name(made.name)
        new.get_output(0).name = made.name
        self._replaced[made] = new.get_output(0)
        layer.layer = new

    def _connect(self, layer: LayerView, index: int) -> None:
        tensor, wants_low = layer.inputs[index], self._plan.wants_low(layer)
        if tensor is None:
            return
        if not tensor.is_float or wants_low is None or wants_low == self._plan.is_low(tensor):
            if tensor in self._replaced:
                layer.layer.set_input(index, self._replaced[tensor])
            return
        scope = self._scopes.get(layer, frozenset())
        fenced = not wants_low and layer in self._fenced
        cast = self._cast(tensor, scope, to_low=wants_low, fenced=fenced)
        layer.layer.set_input(index, cast)

    def _cast(
        self,
        tensor: TensorView,
        scope: frozenset[tuple[LayerView, int]],
        *,
        to_low: bool,
        fenced: bool,
    ) -> Any:
        key = (tensor, to_low, fenced, scope)
        if key not in self._casts:
            made = self._add_cast(tensor, to_low=to_low).get_output(0)
            self._casts[key] = self._fence(made, tensor.rank) if fenced else made
        return self._casts[key]

    def _fence(self, tensor: Any, rank: int) -> Any:
        """Adds -0.0, which changes no value, not even the sign of a zero.

        Without it, TensorRT-RTX 1.7.1 makes one kernel in low precision of a product and the casts
        around it.
        """
        if rank < 0:
            return tensor
        trt, network = self._view.trt, self._view.network
        zero = np.full((1,) * rank, -0.0, np.float32)
        self._weights.append(zero)
        constant = network.add_constant(zero.shape, trt.Weights(zero)).get_output(0)
        added = network.add_elementwise(tensor, constant, trt.ElementWiseOperation.SUM)
        added.name = f"layerprec_fence_{self.cast_count}"
        return added.get_output(0)

    def _add_cast(self, tensor: TensorView, *, to_low: bool) -> Any:
        dtype = self._precision.dtype if to_low else self._view.trt.float32
        cast = self._view.network.add_cast(self._replaced.get(tensor, tensor.tensor), dtype)
        cast.name = f"layerprec_cast_{self.cast_count}"
        self.cast_count += 1
        return cast

    def _restore_outputs(self, *, are_low: bool) -> None:
        network = self._view.network
        floats = [t for t in self._view.outputs if t.is_float]
        wrong = [t for t in floats if self._plan.is_low(t) != (are_low and not t.is_shape)]
        if not wrong and not any(t in self._replaced for t in self._view.outputs):
            return
        for tensor in self._view.outputs:
            network.unmark_output(tensor.tensor)
        for tensor in self._view.outputs:
            holder = self._replaced.get(tensor, tensor.tensor)
            result = holder
            if tensor in wrong:
                result = self._add_cast(tensor, to_low=are_low).get_output(0)
                holder.name = self._derive_name(tensor.name)
            if result is not tensor.tensor:
                result.name = tensor.name
            network.mark_output(result)

    def _derive_name(self, original: str) -> str:
        # TensorRT only logs that a name is taken or longer than 4096 characters.
        name = f"{original[:100]}_{self._precision.name}"
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name
