"""A snapshot of a TensorRT network: its layers in topological order, and who feeds whom.

This text is also part of every emitted script: it knows the standard library only, and whatever
TensorRT made the network. Its classes are plain, since a dataclass with postponed annotations
cannot be created in a script that is executed without an entry in `sys.modules`.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "LayerView",
    "NetworkError",
    "NetworkView",
    "TensorView",
    "as_class",
    "find_region",
    "find_tensorrt",
    "is_strongly_typed",
    "predecessors_of",
]

_REGION_BOUNDARIES = {
    "CONDITIONAL_INPUT": ("IIfConditionalBoundaryLayer", "conditional"),
    "CONDITIONAL_OUTPUT": ("IIfConditionalBoundaryLayer", "conditional"),
    "ITERATOR": ("ILoopBoundaryLayer", "loop"),
    "LOOP_OUTPUT": ("ILoopBoundaryLayer", "loop"),
    "RECURRENCE": ("ILoopBoundaryLayer", "loop"),
}


class NetworkError(RuntimeError):
    """A network that cannot be constrained as asked."""


class TensorView:
    """One tensor, as it was before anything was changed."""

    __slots__ = ("consumers", "is_float", "is_shape", "name", "producer", "rank", "tensor")

    def __init__(self, tensor: Any, trt: Any) -> None:
        self.tensor = tensor
        self.name: str = tensor.name
        self.is_float: bool = tensor.dtype == trt.float32
        self.is_shape: bool = self.is_float and tensor.is_shape_tensor
        self.rank: int = _rank_of(tensor)
        self.producer: LayerView | None = None
        self.consumers: list[LayerView] = []


class LayerView:
    """One layer, as it was before anything was changed."""

    __slots__ = ("inputs", "kind", "layer", "metadata", "name", "outputs")

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.kind: str = layer.type.name
        self.name: str = layer.name
        self.metadata: str = getattr(layer, "metadata", "") or ""  # 8.6 has none
        self.inputs: list[TensorView | None] = []
        self.outputs: list[TensorView] = []

    @property
    def float_inputs(self) -> list[TensorView]:
        """The FLOAT inputs, in order."""
        return [tensor for tensor in self.inputs if tensor is not None and tensor.is_float]

    @property
    def float_outputs(self) -> list[TensorView]:
        """The FLOAT outputs, in order."""
        return [tensor for tensor in self.outputs if tensor.is_float]

    @property
    def consumers(self) -> list[LayerView]:
        """The layers that read its outputs, as often as they do."""
        return [consumer for tensor in self.outputs for consumer in tensor.consumers]

    @property
    def producers(self) -> list[LayerView]:
        """The layers that it reads from, in the order of its inputs."""
        return [tensor.producer for tensor in self.inputs if tensor and tensor.producer]

    @property
    def carries_shape(self) -> bool:
        """Whether it computes a shape in floating point."""
        return any(tensor.is_shape for tensor in [*self.float_inputs, *self.float_outputs])


class NetworkView:
    """All layers and tensors of a network, read once, so that changes cannot disturb it."""

    def __init__(self, network: Any, trt: Any) -> None:
        self.network = network
        self.trt = trt
        self._views: dict[int, TensorView] = {}
        self.inputs = [self._view(network.get_input(i)) for i in range(network.num_inputs)]
        layers = [self._view_layer(network.get_layer(i)) for i in range(network.num_layers)]
        self.outputs = [self._view(network.get_output(i)) for i in range(network.num_outputs)]
        self.tensors = list(self._views.values())
        self.layers = _sort_topologically(layers)

    def _view_layer(self, layer: Any) -> LayerView:
        view = LayerView(layer)
        for index in range(layer.num_outputs):
            output = self._view(layer.get_output(index))
            output.producer = view
            view.outputs.append(output)
        for index in range(layer.num_inputs):
            tensor = layer.get_input(index)
            source = None if tensor is None else self._view(tensor)
            view.inputs.append(source)
            if source is not None:
                source.consumers.append(view)
        return view

    def _view(self, tensor: Any) -> TensorView:
        # By identity, not by name: two tensors may have the same name. A view keeps its tensor's
        # Python object alive, and the bindings hand out that object again.
        view = self._views.get(id(tensor))
        if view is None:
            view = self._views[id(tensor)] = TensorView(tensor, self.trt)
        return view


def find_tensorrt(network: Any) -> Any:
    """Returns the module that made a network: `tensorrt`, `tensorrt_rtx` or their bindings.

    Raises:
        NetworkError: If no loaded module around the network's class is a TensorRT.
    """
    parts = network.__class__.__module__.split(".")
    for length in range(len(parts), 0, -1):
        module = sys.modules.get(".".join(parts[:length]))
        if hasattr(module, "ILayer") and hasattr(module, "float16"):
            return module
    raise NetworkError(f"must be a TensorRT network, got {network.__class__.__qualname__!r}")


def is_strongly_typed(network: Any, trt: Any) -> bool:
    """Returns whether tensor types alone decide what a layer computes in."""
    if not hasattr(trt.ILayer, "precision"):
        return True
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return flag is not None and bool(network.get_flag(flag))


@contextmanager
def as_class(layer: Any, class_name: str, trt: Any) -> Iterator[Any]:
    """Gives access to what is particular to a layer's class; `get_layer` gives a bare `ILayer`.

    The class goes back afterwards: with `IActivationLayer`, for one, `layer.type` is the kind of
    activation, which whoever gets the same object next does not expect.
    """
    layer.__class__ = getattr(trt, class_name)
    try:
        yield layer
    finally:
        layer.__class__ = trt.ILayer


def find_region(layer: LayerView, trt: Any) -> Any:
    """Returns the loop or conditional that a layer is a boundary of, None for other layers.

    It is the same object for the same region as long as somebody holds it.
    """
    if layer.kind not in _REGION_BOUNDARIES:
        return None
    class_name, attribute = _REGION_BOUNDARIES[layer.kind]
    with as_class(layer.layer, class_name, trt) as boundary:
        return getattr(boundary, attribute)


def _rank_of(tensor: Any) -> int:
    try:
        return len(tensor.shape)
    except (ValueError, RuntimeError):  # of a rank that is not known, the length is negative
        return -1


def _sort_topologically(layers: list[LayerView]) -> list[LayerView]:
    waiting = {layer: len({*predecessors_of(layer)}) for layer in layers}
    ready = [layer for layer in layers if waiting[layer] == 0]
    for layer in ready:  # grows on the way
        for follower in dict.fromkeys(layer.consumers):
            if layer not in predecessors_of(follower):
                continue  # the back edge of a loop
            waiting[follower] -= 1
            if waiting[follower] == 0:
                ready.append(follower)
    if len(ready) != len(layers):
        stuck = sorted(layer.name for layer in layers if waiting[layer])[:3]
        raise NetworkError(f"must have no cycle outside of loops, got one through {stuck!a}")
    return ready


def predecessors_of(layer: LayerView) -> list[LayerView]:
    """Returns the layers that a layer waits for: what it reads, but for the back edge of a loop."""
    if layer.kind != "RECURRENCE":
        return layer.producers
    initial = layer.inputs[0]
    return [initial.producer] if initial and initial.producer else []
