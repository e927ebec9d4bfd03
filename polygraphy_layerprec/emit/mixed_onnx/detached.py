"""A model without its large weights, so that every later stage handles a small message.

Each large tensor is replaced by a stub of the same name, type and shape that says which original
it stands for. A stub whose type differs from its original's asks for a conversion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from polygraphy_layerprec.emit.mixed_onnx.weights import (
    element_count,
    is_external,
    read_raw_chunks,
    read_values,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    import numpy.typing as npt
    from google.protobuf.message import Message

    from polygraphy_layerprec.model.external_data import DataFolder

__all__ = ["TensorStore", "detach", "iterate_tensors"]

_STUB_KEY = "original"
_INLINE_ELEMENTS = 1024  # shapes, axes and scales: shape inference wants their values


class TensorStore:
    """The original tensors behind the stubs of one model."""

    def __init__(self, folder: DataFolder | None) -> None:
        """Starts empty.

        Args:
            folder: Where the data files of the model are; None for a model in memory.
        """
        self.folder = folder
        self._originals: list[TensorProto] = []

    def stub(self, tensor: TensorProto, *, name: str, tensor_type: int) -> TensorProto:
        """Returns a stand-in for a tensor or for what another stub stands for.

        Args:
            tensor: The tensor with its values, or a stub of it.
            name: Name of the new tensor.
            tensor_type: Its element type; another one than the original's asks for a conversion.
        """
        index = self._index(tensor)
        if index is None:
            index = len(self._originals)
            self._originals.append(tensor)
        result = TensorProto(name=name, data_type=tensor_type, dims=tensor.dims)
        result.doc_string = tensor.doc_string
        result.data_location = TensorProto.EXTERNAL
        result.external_data.add(key=_STUB_KEY, value=str(index))
        return result

    def original(self, tensor: TensorProto) -> TensorProto | None:
        """Returns the tensor that a stub stands for, or None if it is not a stub."""
        index = self._index(tensor)
        return None if index is None else self._originals[index]

    def values(self, tensor: TensorProto) -> npt.NDArray[np.float32]:
        """Returns the values of a FLOAT tensor or of what a stub stands for."""
        return read_values(self.original(tensor) or tensor, self.folder)

    def _index(self, tensor: TensorProto) -> int | None:
        if not is_external(tensor):
            return None
        return next((int(e.value) for e in tensor.external_data if e.key == _STUB_KEY), None)


def detach(model: ModelProto, store: TensorStore) -> ModelProto:
    """Returns a copy of a model in which stubs stand for the large and the external tensors.

    Raises:
        ValueError: If a small external tensor cannot be read.
    """
    result = ModelProto()

    def copy_tensor(tensor: TensorProto, target: TensorProto) -> None:
        _copy_tensor(tensor, target, store)

    def copy_attribute(attribute: AttributeProto, target: AttributeProto) -> None:
        handlers = {"t": copy_tensor, "tensors": copy_tensor, "g": copy_graph, "graphs": copy_graph}
        _copy(attribute, target, handlers)

    def copy_node(node: NodeProto, target: NodeProto) -> None:
        if any(_holds_tensors(attribute) for attribute in node.attribute):
            _copy(node, target, {"attribute": copy_attribute})
        else:
            target.CopyFrom(node)

    def copy_graph(graph: GraphProto, target: GraphProto) -> None:
        _copy(graph, target, {"node": copy_node, "initializer": copy_tensor})

    def copy_function(function: Message, target: Message) -> None:
        _copy(function, target, {"node": copy_node})

    _copy(model, result, {"graph": copy_graph, "functions": copy_function})
    return result


def iterate_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yields every tensor with values, bodies and local functions included, in model order."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _copy(source: Message, target: Message, handlers: dict[str, Callable[..., None]]) -> None:
    """Copies a message field by field, so that handled fields are never serialised as a whole."""
    for field, value in source.ListFields():
        handler = handlers.get(field.name)
        if handler is None:
            _copy_field(field.name, value, target)
        elif hasattr(value, "ListFields"):
            getattr(target, field.name).SetInParent()
            handler(value, getattr(target, field.name))
        else:
            for item in value:
                handler(item, getattr(target, field.name).add())


def _copy_field(name: str, value: object, target: Message) -> None:
    if hasattr(value, "ListFields"):
        getattr(target, name).CopyFrom(value)
    elif hasattr(value, "extend"):
        getattr(target, name).extend(value)
    else:
        setattr(target, name, value)


def _copy_tensor(tensor: TensorProto, target: TensorProto, store: TensorStore) -> None:
    small = element_count(tensor) <= _INLINE_ELEMENTS
    if is_external(tensor) and small and store.folder is not None:
        target.name, target.data_type = tensor.name, tensor.data_type
        target.dims.extend(tensor.dims)
        target.raw_data = b"".join(read_raw_chunks(tensor, store.folder))
    elif is_external(tensor) or (not small and tensor.data_type != TensorProto.STRING):
        target.CopyFrom(store.stub(tensor, name=tensor.name, tensor_type=tensor.data_type))
    else:
        target.CopyFrom(tensor)


def _holds_tensors(attribute: AttributeProto) -> bool:
    return bool(
        attribute.HasField("t")
        or attribute.HasField("g")
        or len(attribute.tensors)
        or len(attribute.graphs)
    )


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)
