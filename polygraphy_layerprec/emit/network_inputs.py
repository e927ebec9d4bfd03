"""The inputs of a strongly typed network in low precision, where TensorRT lets them be.

This text is also part of every emitted script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polygraphy_layerprec.emit.name_bridge import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from polygraphy_layerprec.emit.network_view import NetworkView, TensorView

__all__ = ["find_low_inputs", "lower_inputs"]


def find_low_inputs(view: NetworkView) -> tuple[frozenset[TensorView], str]:
    """Returns the FLOAT inputs whose type can be changed, and why others keep theirs, in words.

    Up to TensorRT 10 an input's type can be set. Later ones only let an input be replaced, and
    refuse to build (RTX 1.7.1: "should have been removed from Graph::tensors") where the shapes
    or the conditions of the network depend on the one that is gone.
    """
    floats = [tensor for tensor in view.inputs if tensor.is_float and not tensor.is_shape]
    if not floats or _has_type_setter(view.trt):
        return frozenset(floats), ""
    fixed = [tensor.name for tensor in _from_first(floats, view) if _is_fixed(tensor)]
    if not fixed:
        return frozenset(floats), ""
    names = ", ".join(map(shorten, fixed))
    return frozenset(), (
        f"inputs stay in FP32, since this TensorRT cannot replace inputs of dynamic shape, "
        f"scalars and shape tensors, here {names}"
    )


def lower_inputs(
    view: NetworkView,
    low: Collection[TensorView],
    dtype: Any,
    derive_name: Callable[[str], str],
) -> dict[TensorView, Any]:
    """Gives the inputs `low` the type `dtype`, and returns what stands for inputs from now on.

    Inputs that were replaced remain in the network, under another name, until nothing reads them.
    """
    if not low:
        return {}
    if _has_type_setter(view.trt):
        for tensor in low:
            tensor.tensor.dtype = dtype
        return {}
    replaced = {}
    # New inputs come last: all that follow the first of them are made anew to keep their order.
    for tensor in _from_first(low, view):
        old = tensor.tensor
        old.name = derive_name(tensor.name)
        new_type = dtype if tensor in low else old.dtype
        replaced[tensor] = view.network.add_input(tensor.name, new_type, old.shape)
    return replaced


def _has_type_setter(trt: Any) -> bool:
    return trt.ITensor.dtype.fset is not None


def _from_first(low: Collection[TensorView], view: NetworkView) -> list[TensorView]:
    first = next(index for index, tensor in enumerate(view.inputs) if tensor in low)
    return view.inputs[first:]


def _is_fixed(tensor: TensorView) -> bool:
    shape = tuple(tensor.tensor.shape)
    return not shape or -1 in shape or tensor.tensor.is_shape_tensor
