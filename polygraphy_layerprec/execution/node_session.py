"""One tiny ONNX-Runtime session for each distinct node structure, shared by all nodes like it."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import onnx
import onnxruntime as ort
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper

from polygraphy_layerprec.execution.errors import NodeError
from polygraphy_layerprec.model import Graph, Node
from polygraphy_layerprec.model.external_data import DataFolder
from polygraphy_layerprec.model.weights import locate_weight

__all__ = ["NodeRunner", "create_session", "tensor_of", "value_of"]

_NEWEST_IR_VERSION: Final = 9  # ONNX-Runtime 1.17 reads no newer one, and a node needs none
_ELEMENT_TYPES: Final = {
    "float": TensorProto.FLOAT,
    "double": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
    **{f"{sign}int{bits}": getattr(TensorProto, f"{sign}INT{bits}".upper())
       for sign in ("", "u") for bits in (4, 8, 16, 32, 64)},
    "float8e4m3fn": TensorProto.FLOAT8E4M3FN,
    "float8e4m3fnuz": TensorProto.FLOAT8E4M3FNUZ,
    "float8e5m2": TensorProto.FLOAT8E5M2,
    "float8e5m2fnuz": TensorProto.FLOAT8E5M2FNUZ,
}  # fmt: skip
_MOST_THREADS: Final = 16  # dozens of sessions have as many each
_OWNERS: Final[WeakKeyDictionary[ort.OrtValue, np.ndarray[Any, Any]]] = WeakKeyDictionary()


def tensor_of(values: np.ndarray[Any, Any]) -> ort.OrtValue:
    """Returns ONNX-Runtime's view of an array, which must stay alive and in place."""
    # `ascontiguousarray` makes a 0-D array 1-D; `require` does not.
    values = np.require(values, requirements="C")
    if values.dtype.name == "bfloat16":
        bits = values.view(np.uint16)
        tensor = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)
    else:
        tensor = ort.OrtValue.ortvalue_from_numpy(values)
    _OWNERS[tensor] = values
    return tensor


def value_of(tensor: ort.OrtValue) -> np.ndarray[Any, Any]:
    """Returns the elements of a tensor, without a copy where ONNX-Runtime can."""
    # ONNX-Runtime's own view of an array of numpy's would not keep the array alive.
    owner = _OWNERS.get(tensor)
    if owner is not None:
        return owner
    if tensor.data_type() == "tensor(bfloat16)":  # a type that numpy lacks
        return _copied_bits(tensor).view(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16))
    values: np.ndarray[Any, Any] = tensor.numpy()
    return values


def create_session(model: bytes) -> ort.InferenceSession:
    """Returns a session for a serialized model of a node or two, as `NodeRunner` makes them."""
    return ort.InferenceSession(model, _session_options(), providers=["CPUExecutionProvider"])


class NodeRunner:
    """Runs single nodes of a graph in FP32, caching sessions by node structure.

    All sessions share one thread pool and one allocator: with their own, set-up and memory would
    grow with their number.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._sessions: dict[bytes, ort.InferenceSession | NodeError] = {}
        self._names_by_node: dict[int, list[tuple[str, str]]] = {}
        self._by_node: dict[tuple[int, tuple[str, ...]], ort.InferenceSession] = {}

    @property
    def session_count(self) -> int:
        """Distinct node structures met so far."""
        return len(self._sessions)

    def run(self, node: Node, feeds: Mapping[str, ort.OrtValue]) -> list[ort.OrtValue | None]:
        """Returns the node's outputs, None for those that are absent.

        Args:
            node: The node.
            feeds: A value for each of the node's `sources`.

        Raises:
            NodeError: If ONNX-Runtime has no kernel for it or the kernel fails.
        """
        session = self._session(node, feeds)
        present = [index for index, name in enumerate(node.outputs) if name]
        try:
            binding = session.io_binding()
            for new, name in self._names(node):
                binding.bind_ortvalue_input(new, feeds[name])
            for index in present:
                binding.bind_output(f"o{index}")
            session.run_with_iobinding(binding)
            results = binding.get_outputs()
        except Exception as error:  # ONNX-Runtime raises a dozen types without a common base
            raise NodeError(_first_line(error)) from error
        outputs: list[ort.OrtValue | None] = [None] * len(node.outputs)
        for index, result in zip(present, results, strict=True):
            outputs[index] = result
        return outputs

    def _names(self, node: Node) -> list[tuple[str, str]]:
        if node.index not in self._names_by_node:
            self._names_by_node[node.index] = _session_names(node)
        return self._names_by_node[node.index]

    def _session(self, node: Node, feeds: Mapping[str, ort.OrtValue]) -> ort.InferenceSession:
        types = tuple(feeds[name].data_type() for name in node.sources)
        known = self._by_node.get((node.index, types))
        if known is not None:
            return known
        body = _body(node)
        key = repr(types).encode() + body.SerializeToString(deterministic=True)
        if key not in self._sessions:
            self._sessions[key] = self._create(node, body, types)
        session = self._sessions[key]
        if isinstance(session, NodeError):
            raise session
        self._by_node[node.index, types] = session
        return session

    def _create(
        self, node: Node, body: NodeProto, types: Sequence[str]
    ) -> ort.InferenceSession | NodeError:
        try:
            model = self._model(node, body, dict(zip(node.sources, types, strict=True)))
            return create_session(model.SerializeToString())
        except Exception as error:  # noqa: BLE001 - as in `run`
            return NodeError(_first_line(error))

    def _model(self, node: Node, body: NodeProto, types: Mapping[str, str]) -> onnx.ModelProto:
        inputs = {new: types[name] for new, name in _session_names(node)}
        for attribute in body.attribute:
            _embed_weights(attribute, self._graph.folder)
        nodes = [body]
        outputs = [f"o{index}" for index, name in enumerate(node.outputs) if name]
        graph = helper.make_graph(
            nodes,
            "node",
            [_value_info(name, type_name) for name, type_name in inputs.items()],
            [onnx.ValueInfoProto(name=name) for name in outputs],
        )
        opsets = [helper.make_opsetid(d, v) for d, v in self._graph.opsets.items()]
        return helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=min(self._graph.ir_version, _NEWEST_IR_VERSION),
        )


def _copied_bits(tensor: ort.OrtValue) -> np.ndarray[Any, np.dtype[np.uint16]]:
    shape = tensor.shape()
    memory = (ctypes.c_uint16 * math.prod(shape)).from_address(tensor.data_ptr())
    return np.frombuffer(memory, np.uint16).reshape(shape).copy()


def _body(node: Node) -> NodeProto:
    """The node with neutral names, so that nodes of one structure look alike."""
    body = NodeProto()
    body.CopyFrom(node.proto)
    body.name = ""
    body.doc_string = ""
    new_names = {name: new for new, name in _session_names(node) if name not in node.captures}
    body.input[:] = [new_names.get(name, name) for name in body.input]
    body.output[:] = [f"o{i}" if name else "" for i, name in enumerate(body.output)]
    return body


def _session_names(node: Node) -> list[tuple[str, str]]:
    """Pairs of a name in the session and the tensor it stands for; captures keep theirs."""
    pairs: dict[str, str] = {}
    for index, name in enumerate(node.inputs):
        if name and name not in node.captures:
            pairs.setdefault(name, f"i{index}")
    pairs.update({name: name for name in node.captures})
    return [(new, name) for name, new in pairs.items()]


def _value_info(name: str, type_name: str) -> onnx.ValueInfoProto:
    """A graph input of the type that ONNX-Runtime calls, say, `seq(tensor(float))`."""
    return onnx.ValueInfoProto(name=name, type=_type_proto(type_name))


def _type_proto(type_name: str) -> onnx.TypeProto:
    kind, _, inner = type_name.partition("(")
    inner = inner.removesuffix(")")
    if kind == "tensor":
        return helper.make_tensor_type_proto(_ELEMENT_TYPES[inner], None)
    make = {"seq": helper.make_sequence_type_proto, "optional": helper.make_optional_type_proto}
    return make[kind](_type_proto(inner))


def _embed_weights(attribute: AttributeProto, folder: DataFolder) -> None:
    """Brings the large constants of a subgraph into it: a session cannot take them as inputs."""
    for graph in (attribute.g, *attribute.graphs):
        _embed_graph(graph, folder)
    if attribute.HasField("t"):
        _embed_tensor(attribute.t, folder)


def _embed_graph(graph: GraphProto, folder: DataFolder) -> None:
    for tensor in graph.initializer:
        _embed_tensor(tensor, folder)
    for node in graph.node:
        for attribute in node.attribute:
            _embed_weights(attribute, folder)


def _embed_tensor(tensor: TensorProto, folder: DataFolder) -> None:
    if tensor.data_location == TensorProto.EXTERNAL:
        values = locate_weight(tensor, tensor.name, folder).read()
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def _session_options() -> ort.SessionOptions:
    _register_allocator()
    options = ort.SessionOptions()
    # Nothing to fuse in one node: optimising would only cost time.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_mem_pattern = False
    # Not ONNX-Runtime's global thread pool: once made, no other session of this process may have
    # threads of its own, the user's included.
    options.intra_op_num_threads = min(_available_threads(), _MOST_THREADS)
    options.inter_op_num_threads = 1
    return options


def _available_threads() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on every platform
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@cache
def _register_allocator() -> None:
    """Makes the memory arena that all sessions share; a process has one."""
    arena = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(arena, None)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
