"""The user's quantised model without the pairs of the layers that are kept."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from polygraphy_layerprec.emit.mixed_onnx.files import (
    EXTERNAL_THRESHOLD_BYTES,
    has_external_data,
    refuse_overwriting,
    write_model_files,
)
from polygraphy_layerprec.emit.mixed_onnx.weights import PendingWeight
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.model.errors import told_damage
from polygraphy_layerprec.model.quantized.finding import is_pair_node, reads_shape
from polygraphy_layerprec.model.weights import locate_weight
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.precision import FP16

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polygraphy_layerprec.model import Weight
    from polygraphy_layerprec.model.quantized import Pair, QuantizedGraph

__all__ = ["PruningSummary", "prune_pairs", "save_pruned_onnx"]


@dataclass(frozen=True, slots=True)
class PruningSummary:
    """What was done to a model."""

    removed_pairs: int
    """Pairs that are gone."""

    left_pairs: int
    """Pairs that are left."""

    restored_constants: int
    """Constants that are floats again."""

    dequantized_constants: int
    """Of these, those that are what the quantised values stand for: nobody gave the float ones."""


def save_pruned_onnx(
    graph: QuantizedGraph, model_path: str, output_path: str, kept_outputs: Collection[str]
) -> PruningSummary:
    """Writes a quantised model without the pairs of some of its layers; see `prune_pairs`.

    Args:
        graph: The model.
        model_path: Its file, which is never changed.
        output_path: The file to write.
        kept_outputs: As for `prune_pairs`.

    Raises:
        UserError: As `prune_pairs`, or if the output would replace a file of the input.
        OSError: If a file cannot be read or written.
    """
    weights = (*graph.quantized.weights.values(), *graph.weights.values())
    read = {weight.path for weight in weights if weight.path is not None}
    refuse_overwriting([output_path], {os.fspath(model_path), *read})
    with told_damage(model_path):
        model, pending, summary = prune_pairs(graph, kept_outputs)
    size_bytes = sum(weight.stored_bytes for weight in pending)
    external = has_external_data(graph.quantized, model_path)
    separate = external or size_bytes > EXTERNAL_THRESHOLD_BYTES
    write_model_files(model, pending, output_path, separate=separate, kept=read)
    return summary


def prune_pairs(
    graph: QuantizedGraph, kept_outputs: Collection[str]
) -> tuple[ModelProto, list[PendingWeight], PruningSummary]:
    """Returns a quantised model without the pairs of some layers, its constants still to be read.

    Constants of these layers are floats again: those of the reference, or what the quantised values
    stand for where there is none.

    Args:
        graph: The model.
        kept_outputs: Tensors that the layers make which are kept; others of their units follow.

    Raises:
        UserError: If a body of a loop or a branch holds large constants.
    """
    pruning = _Pruning(graph, kept_outputs)
    return pruning.model, pruning.pending, pruning.summary()


class _Pruning:
    def __init__(self, graph: QuantizedGraph, kept_outputs: Collection[str]) -> None:
        self._graph = graph
        kept = KeptLayers.of_outputs(kept_outputs)
        units = [unit for unit in graph.decisions if any(node in kept for node in unit)]
        self._kept = {next(filter(None, node.outputs)) for unit in units for node in unit}
        self._floats: dict[str, tuple[str, Weight]] = {}
        self._dequantized = 0
        self._taken = set(graph.quantized.types) | set(graph.quantized.weights)
        nodes = [self._rewired(node) for node in graph.quantized.proto.graph.node]
        self._before = sum(map(_ends_pair, nodes))
        self._nodes = self._without_idle(nodes)
        self.pending: list[PendingWeight] = []
        self.model = self._model()

    def summary(self) -> PruningSummary:
        left = sum(map(_ends_pair, self._nodes))
        total = sum(map(_ends_pair, self._graph.quantized.proto.graph.node))
        return PruningSummary(total - left, left, len(self._floats), self._dequantized)

    def _rewired(self, old: NodeProto) -> NodeProto:
        name = next(filter(None, old.output), "")
        if name in self._kept and name in self._graph.by_output:  # a pair in front of an output
            pair = self._graph.by_output[name]
            return helper.make_node("Identity", [self._source(pair)], [name], old.name)
        if name not in self._kept and not self._tells_shape_alone(old):
            return old
        node = NodeProto()
        node.CopyFrom(old)
        for position, taken in enumerate(old.input):
            if taken in self._graph.by_output:
                node.input[position] = self._source(self._graph.by_output[taken])
        return node

    def _tells_shape_alone(self, node: NodeProto) -> bool:
        """Whether a node reads the shape of what a pair makes, which all others do without."""
        graph = self._graph.quantized
        if not reads_shape(node) or node.input[0] not in self._graph.by_output:
            return False
        readers = [n for n in graph.consumers[node.input[0]] if not reads_shape(n.proto)]
        kept = all(next(filter(None, reader.outputs), "") in self._kept for reader in readers)
        return bool(readers) and kept and node.input[0] not in graph.outputs

    def _source(self, pair: Pair) -> str:
        """The float tensor before a pair, and before all pairs that stand before it."""
        if pair.is_stored:
            return self._float_constant(pair)
        before = self._graph.by_output.get(pair.source)
        return pair.source if before is None else self._source(before)

    def _float_constant(self, pair: Pair) -> str:
        if pair.output not in self._floats:
            weight = self._graph.weights.get(pair.output)
            if weight is None:
                stored = self._graph.quantized.weights[pair.source].read()
                values = numpy_helper.from_array(pair.dequantize(stored), pair.output)
                weight = locate_weight(values, pair.output, self._graph.folder)
                self._dequantized += 1
            name = weight.tensor.name or pair.output
            while name in self._taken:
                name += "_float"
            self._taken.add(name)
            self._floats[pair.output] = name, weight
        return self._floats[pair.output][0]

    def _without_idle(self, nodes: list[NodeProto]) -> list[NodeProto]:
        """The nodes without pairs that nothing reads any more."""
        while True:
            read = set(_names_read(nodes)) | set(self._graph.outputs)
            kept = [n for n in nodes if not is_pair_node(n) or not read.isdisjoint(n.output)]
            if len(kept) == len(nodes):
                return nodes
            nodes = kept

    def _model(self) -> ModelProto:
        old = self._graph.quantized.proto
        model = ModelProto(ir_version=old.ir_version)
        for field in ("opset_import", "functions", "metadata_props"):
            getattr(model, field).extend(getattr(old, field))
        model.producer_name, model.producer_version = old.producer_name, old.producer_version
        model.graph.name = old.graph.name
        model.graph.input.extend(old.graph.input)
        model.graph.output.extend(old.graph.output)
        weights = self._graph.quantized.weights
        nodes = [n for n in self._nodes if n.op_type != "Constant" or n.output[0] not in weights]
        made = {name for node in nodes for name in node.output}
        model.graph.value_info.extend(v for v in old.graph.value_info if v.name in made)
        model.graph.node.extend(nodes)
        _refuse_data_in_bodies(nodes)
        fed = {value.name for value in old.graph.input}
        read = set(_names_read(nodes)) | set(self._graph.outputs) | fed
        for name, weight in weights.items():
            if name in read:
                self._add(model, name, weight)
        for output, (name, weight) in self._floats.items():
            self._add(model, name, weight, self._graph.by_output[output].float_type)
        return model

    def _add(self, model: ModelProto, name: str, weight: Weight, kind: int | None = None) -> None:
        tensor = model.graph.initializer.add(
            name=name, data_type=kind or weight.tensor_type, dims=weight.shape
        )
        self.pending.append(PendingWeight(tensor, weight, FP16))


def _ends_pair(node: NodeProto) -> bool:
    return is_pair_node(node) and bool(node.op_type == "DequantizeLinear")


def _names_read(nodes: Collection[NodeProto]) -> Iterator[str]:
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for body in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from _names_read(body.node)
                yield from (value.name for value in body.output)


def _refuse_data_in_bodies(nodes: Collection[NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            tensors = [*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])]
            for body in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                tensors += body.initializer
                _refuse_data_in_bodies(body.node)
            if any(tensor.data_location == TensorProto.EXTERNAL for tensor in tensors):
                raise UserError(
                    f"the {node.op_type} {node.name!r} holds constants of more than 4 KB, which "
                    f"only the main graph may: export the model with its constants outside"
                )
