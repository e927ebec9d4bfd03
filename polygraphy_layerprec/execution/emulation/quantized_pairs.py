"""Runs pairs as ONNX-Runtime does: what becomes of a tensor on its way through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from onnx import TensorProto, helper

from polygraphy_layerprec.execution.errors import NodeError
from polygraphy_layerprec.execution.kernels.device import current_device
from polygraphy_layerprec.execution.kernels.device_runner import fetched
from polygraphy_layerprec.execution.kernels.node_session import create_session
from polygraphy_layerprec.execution.kernels.ort_tensors import placed, tensor_of
from polygraphy_layerprec.execution.kernels.sessions import RUN_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnxruntime as ort

    from polygraphy_layerprec.execution.kernels.device import Device
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.model.quantized import QuantizedGraph
    from polygraphy_layerprec.model.quantized.records import Chain, Pair

__all__ = ["PairRunner"]

_MOST_KEPT_BYTES: Final = 1 << 29
"""Of dequantised constants; what does not fit is made again."""
_BYTES_PER_ELEMENT: Final = 4


class PairRunner:
    """Runs the pairs of one quantised model."""

    def __init__(self, graph: QuantizedGraph) -> None:
        self._graph = graph
        self._device = current_device()
        self._sessions: dict[tuple[bytes, bool], ort.InferenceSession] = {}
        self._by_pair: dict[tuple[str, bool], ort.InferenceSession] = {}
        self._lacking: set[str] = set()
        self._scales: dict[str, list[ort.OrtValue]] = {}
        self._kept: dict[tuple[str, ...], ort.OrtValue] = {}
        self._kept_bytes = 0

    def feeds(self, node: Node, values: Mapping[str, ort.OrtValue]) -> dict[str, ort.OrtValue]:
        """Returns what a node takes, each tensor through its pairs.

        Args:
            node: The node.
            values: What it reads in the float graph, by name.

        Raises:
            NodeError: If ONNX-Runtime cannot run a pair.
        """
        chains = self._graph.chains_of(node)
        return {
            name: self._through(chains[name], value) if name in chains else value
            for name, value in values.items()
        }

    def _through(self, chain: Chain, value: ort.OrtValue) -> ort.OrtValue:
        if not chain[0].is_weight:
            for pair in chain:
                value = self._run(pair, value)
            return value
        key = tuple(pair.name for pair in chain)
        if key in self._kept:
            return self._kept[key]
        if chain[0].is_stored:
            value = tensor_of(self._graph.quantized.weights[chain[0].source].read())
        for pair in chain:
            value = self._run(pair, value)
        size = _BYTES_PER_ELEMENT
        for extent in value.shape():
            size *= extent
        if self._kept_bytes + size <= _MOST_KEPT_BYTES:
            self._kept[key] = value
            self._kept_bytes += size
        return value

    def _run(self, pair: Pair, value: ort.OrtValue) -> ort.OrtValue:
        device = self._device
        if device is None or pair.name in self._lacking or not device.holds(value):
            return placed(self._run_on(None, pair, fetched(value)))
        try:
            return self._run_on(device, pair, value)
        except NodeError as error:
            result = placed(self._run_on(None, pair, fetched(value)))
            self._lacking.add(pair.name)
            device.host_nodes[pair.name] = str(error)
            return result

    def _run_on(self, device: Device | None, pair: Pair, value: ort.OrtValue) -> ort.OrtValue:
        try:
            session = self._session(pair, device)
            binding = session.io_binding()
            binding.bind_ortvalue_input("x", value)
            for place, constant in enumerate(self._constants(pair)):
                binding.bind_ortvalue_input(f"c{place}", constant)
            if device is None:
                binding.bind_output("y")
            else:
                device.bind_output(binding, "y")
            session.run_with_iobinding(binding, RUN_OPTIONS)
            return binding.get_outputs()[0]
        except Exception as error:  # ONNX-Runtime raises a dozen types without a common base
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise NodeError(f"the pair {pair.name!r} cannot run: {told[0][:300]}") from error

    def _session(self, pair: Pair, device: Device | None) -> ort.InferenceSession:
        """The session of a pair, shared by all that differ in scale and zero point alone."""
        is_there = device is not None
        if (pair.name, is_there) not in self._by_pair:
            key = _model_of(self._graph.quantized, pair), is_there
            if key not in self._sessions:
                create = create_session if device is None else device.create_session
                self._sessions[key] = create(key[0])
            self._by_pair[pair.name, is_there] = self._sessions[key]
        return self._by_pair[pair.name, is_there]

    def _constants(self, pair: Pair) -> list[ort.OrtValue]:
        if pair.name not in self._scales:
            read = [weight.read() for weight in pair.constants.values()]
            self._scales[pair.name] = [tensor_of(values) for values in read]
        return self._scales[pair.name]


def _model_of(quantized: Graph, pair: Pair) -> bytes:
    """A model of the pair alone, from `x` and its constants to `y`."""
    places = {name: f"c{place}" for place, name in enumerate(pair.constants)}
    nodes, name = [], "x"
    kinds = {"x": quantized.element_type(pair.source)}
    if pair.is_half and not pair.is_stored:  # the float graph is in FP32
        kinds["x"] = TensorProto.FLOAT
        nodes.append(helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16))
        name = "half"
    for place, proto in enumerate(pair.nodes):
        node = helper.make_node(proto.op_type, [], [], domain=proto.domain)
        node.attribute.extend(proto.attribute)
        node.input.extend([name, *(places.get(other, "") for other in proto.input[1:])])
        name = f"t{place}"
        node.output.append(name)
        nodes.append(node)
    nodes.append(helper.make_node("Cast", [name], ["y"], to=TensorProto.FLOAT))
    kinds |= {places[name]: weight.tensor_type for name, weight in pair.constants.items()}
    graph = helper.make_graph(
        nodes,
        "pair",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid(domain, v) for domain, v in quantized.opsets.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=quantized.ir_version)
    return bytes(model.SerializeToString())
