"""Networks parsed and engines built by the TensorRT-RTX that is installed; it needs no GPU."""

from __future__ import annotations

from typing import Any, NamedTuple

import onnx
import pytest

from polygraphy_layerprec.emit.name_bridge import LayerConstraint


class ParsedNetwork(NamedTuple):
    """A network, and what must live as long as it."""

    network: Any
    builder: Any
    parser: Any


class Tensorrt:
    """The real module, with the few steps that tests repeat."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self._logger = module.Logger(module.Logger.INTERNAL_ERROR)

    def parse(self, model: onnx.ModelProto) -> ParsedNetwork:
        builder = self.module.Builder(self._logger)
        network = builder.create_network(0)
        parser = self.module.OnnxParser(network, self._logger)
        parsed = parser.parse(model.SerializeToString())
        assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
        return ParsedNetwork(network, builder, parser)

    def build(self, parsed: ParsedNetwork) -> bytes | None:
        """Returns an engine, None where TensorRT refuses; dynamic dimensions are 4."""
        config = parsed.builder.create_builder_config()
        profile = parsed.builder.create_optimization_profile()
        for index in range(parsed.network.num_inputs):
            tensor = parsed.network.get_input(index)
            shape = [4 if size == -1 else size for size in tensor.shape]
            profile.set_shape(tensor.name, shape, shape, shape)
        config.add_optimization_profile(profile)
        engine = parsed.builder.build_serialized_network(parsed.network, config)
        return None if engine is None else bytes(engine)


@pytest.fixture(scope="session")
def tensorrt() -> Tensorrt:
    return Tensorrt(pytest.importorskip("tensorrt_rtx", reason="needs the TensorRT-RTX builder"))


@pytest.fixture(scope="session")
def constraints_of():
    """Gives the constraints that keep every node of a model in FP32, subgraphs included."""

    def collect(graph: onnx.GraphProto) -> list[LayerConstraint]:
        found = []
        for node in graph.node:
            names = (node.name, node.op_type, tuple(node.input), tuple(node.output))
            found.append(LayerConstraint(*names, reason="a test"))
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    found += collect(attribute.g)
        return found

    return lambda model: collect(model.graph)
