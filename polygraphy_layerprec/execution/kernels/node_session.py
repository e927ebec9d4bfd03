"""One tiny ONNX-Runtime session for each distinct node structure, shared by all nodes like it."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.execution.errors import NodeError
from polygraphy_layerprec.execution.kernels.node_model import (
    Detail,
    InputDescription,
    describe_inputs,
    neutral_node,
    node_model,
    session_names,
)
from polygraphy_layerprec.execution.kernels.ort_tensors import tensor_of, value_of
from polygraphy_layerprec.execution.kernels.quantizers import convert_by_reference, is_conversion
from polygraphy_layerprec.execution.kernels.sessions import (
    RUN_OPTIONS,
    create_session,
    session_threads,
    threads_per_session,
)

if TYPE_CHECKING:
    import onnxruntime as ort

    from polygraphy_layerprec.execution.kernels.device import Device
    from polygraphy_layerprec.model import Graph, Node

__all__ = ["NodeRunner", "create_session", "tensor_of", "value_of"]

_MEASURERS: Final = frozenset({"Shape", "Size"})
"""What they give is read on the host, by what makes shapes of it."""

_LIGHT: Final = frozenset(
    "Abs Add And BatchNormalization Cast Ceil Clip Concat Div Equal Expand Flatten Floor Gather "
    "Greater Identity LeakyRelu Less Max Min Mul Neg Not Or Pad Relu Reshape Round Shape Sign "
    "Slice Split Squeeze Sub Transpose Unsqueeze Where".split()
)
"""A few operations an element: what they wait for is memory."""

_MOST_LIGHT_ELEMENTS: Final = 1 << 20

_MOST_SHAPED_SESSIONS: Final = 256  # each sample may bring shapes of its own


@dataclass(frozen=True, slots=True)
class _InformedSession:
    """A session that knows more than types."""

    inputs: Mapping[str, InputDescription]
    """What it knows of its inputs, by name in the session."""

    session: ort.InferenceSession
    """The session."""

    names: Sequence[tuple[str, str]]
    """Its inputs, constants excepted, and the tensors they stand for."""


class NodeRunner:
    """Runs single nodes of a graph in FP32, caching sessions by node structure.

    All sessions share one thread pool and one allocator: with their own, set-up and memory would
    grow with their number.
    """

    def __init__(self, graph: Graph, device: Device | None = None) -> None:
        """Prepares to run nodes of `graph`, all on the host or all on `device`."""
        self._graph = graph
        self._device = device
        self._sessions: dict[bytes, ort.InferenceSession | NodeError] = {}
        self._shaped: dict[bytes, ort.InferenceSession | NodeError] = {}
        self._names_by_node: dict[int, list[tuple[str, str]]] = {}
        self._by_node: dict[tuple[int, int, tuple[str, ...]], ort.InferenceSession] = {}
        self._details: dict[int, Detail] = {}
        self._latest: dict[int, _InformedSession] = {}

    @property
    def session_count(self) -> int:
        """Distinct node structures met so far."""
        return len(self._sessions) + len(self._shaped)

    def run(self, node: Node, feeds: Mapping[str, ort.OrtValue]) -> list[ort.OrtValue | None]:
        """Returns the node's outputs, None for those that are absent.

        Args:
            node: The node.
            feeds: A value for each of the node's `sources`.

        Raises:
            NodeError: If ONNX-Runtime has no kernel for it or the kernel fails.
        """
        detail = self._details.get(node.index, Detail.TYPES)
        try:
            return self._run_knowing(detail, node, feeds)
        except NodeError as error:
            return self._run_knowing_more(detail, node, feeds, error)

    def _run_knowing_more(
        self,
        detail: Detail,
        node: Node,
        feeds: Mapping[str, ort.OrtValue],
        first_error: NodeError,
    ) -> list[ort.OrtValue | None]:
        for more in list(Detail)[detail + 1 :]:
            try:
                outputs = self._run_knowing(more, node, feeds)
            except NodeError:
                continue
            self._details[node.index] = more
            return outputs
        if _is_identity_of_tensor(node, feeds):
            # Without a kernel for its type, ONNX-Runtime still takes it out of a whole model.
            return [tensor_of(value_of(feeds[node.inputs[0]]).copy())]
        if is_conversion(node):
            with contextlib.suppress(NodeError):
                return convert_by_reference(self._graph, node, feeds)
        raise first_error

    def _run_knowing(
        self, detail: Detail, node: Node, feeds: Mapping[str, ort.OrtValue]
    ) -> list[ort.OrtValue | None]:
        session, names = self._session(node, feeds, detail)
        present = [index for index, name in enumerate(node.outputs) if name]
        try:
            binding = session.io_binding()
            for new, name in names:
                binding.bind_ortvalue_input(new, feeds[name])
            for index in present:
                if self._device is None or node.op_type in _MEASURERS:
                    binding.bind_output(f"o{index}")
                else:
                    self._device.bind_output(binding, f"o{index}")
            session.run_with_iobinding(binding, RUN_OPTIONS)
            results = binding.get_outputs()
        except Exception as error:  # ONNX-Runtime raises a dozen types without a common base
            raise NodeError(_first_line(error)) from error
        outputs: list[ort.OrtValue | None] = [None] * len(node.outputs)
        for index, result in zip(present, results, strict=True):
            outputs[index] = result
        return outputs

    def _session(
        self, node: Node, feeds: Mapping[str, ort.OrtValue], detail: Detail
    ) -> tuple[ort.InferenceSession, Sequence[tuple[str, str]]]:
        """A session of the node, and which tensor goes to which of its inputs."""
        if detail is not Detail.TYPES:
            latest = self._informed_session(node, feeds, detail)
            return latest.session, latest.names
        types = tuple(feeds[name].data_type() for name in node.sources)
        threads = 1 if self._device is None and _is_light(node, feeds) else session_threads()
        session = self._by_node.get((node.index, threads, types))
        if session is None:
            inputs = describe_inputs(self._graph, node, feeds, detail)
            with threads_per_session(threads):
                session = self._cached_session(self._sessions, node, inputs)
            self._by_node[node.index, threads, types] = session
        return session, self._names(node)

    def _informed_session(
        self, node: Node, feeds: Mapping[str, ort.OrtValue], detail: Detail
    ) -> _InformedSession:
        inputs = describe_inputs(self._graph, node, feeds, detail)
        latest = self._latest.get(node.index)
        if latest is None or latest.inputs != inputs:
            cache = self._sessions if detail is Detail.RANKS else self._shaped
            if cache is self._shaped and len(cache) >= _MOST_SHAPED_SESSIONS:
                del cache[next(iter(cache))]
            session = self._cached_session(cache, node, inputs)
            names = [(new, name) for new, name in self._names(node) if not inputs[new].constant]
            latest = self._latest[node.index] = _InformedSession(inputs, session, names)
        return latest

    def _cached_session(
        self,
        cache: dict[bytes, ort.InferenceSession | NodeError],
        node: Node,
        inputs: Mapping[str, InputDescription],
    ) -> ort.InferenceSession:
        body = neutral_node(node)
        structure = repr((node.opset, inputs, session_threads())).encode() + body.SerializeToString(
            deterministic=True
        )
        key = hashlib.sha256(structure).digest()  # constants may be among it
        if key not in cache:
            try:
                model = node_model(self._graph, node, body, inputs)
                make = create_session if self._device is None else self._device.create_session
                cache[key] = make(model.SerializeToString())
            except Exception as error:  # noqa: BLE001 - as in `_run_knowing`
                cache[key] = NodeError(_first_line(error))
        session = cache[key]
        if isinstance(session, NodeError):
            raise session
        return session

    def _names(self, node: Node) -> list[tuple[str, str]]:
        if node.index not in self._names_by_node:
            self._names_by_node[node.index] = session_names(node)
        return self._names_by_node[node.index]


def _is_light(node: Node, feeds: Mapping[str, ort.OrtValue]) -> bool:
    """Whether one thread runs a node as fast as several, which first have to be woken."""
    if node.domain or node.op_type not in _LIGHT:
        return False
    shapes = [feed.shape() for feed in feeds.values() if feed.data_type().startswith("tensor")]
    return all(math.prod(shape) <= _MOST_LIGHT_ELEMENTS for shape in shapes)


def _is_identity_of_tensor(node: Node, feeds: Mapping[str, ort.OrtValue]) -> bool:
    if node.op_type != "Identity" or node.domain:
        return False
    return bool(feeds[node.inputs[0]].data_type().startswith("tensor"))


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
