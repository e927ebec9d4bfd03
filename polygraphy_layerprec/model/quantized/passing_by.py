"""From a quantised model to its float graph, every ranked pair passed by."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Final

import onnx
from onnx import NodeProto, helper

from polygraphy_layerprec.model.errors import ModelError, told_damage
from polygraphy_layerprec.model.graph import Graph, build_graph
from polygraphy_layerprec.model.operators import Behavior, behavior_of
from polygraphy_layerprec.model.quantized.finding import find_pairs, is_pair_node, reads_shape
from polygraphy_layerprec.model.quantized.floats import check_reference, find_float_weight
from polygraphy_layerprec.model.quantized.records import QuantizedGraph, UnrankedNode
from polygraphy_layerprec.model.quantized.units import carried_tensors, find_units
from polygraphy_layerprec.model.quantized.widening import widen_model, widen_weights
from polygraphy_layerprec.model.roles import Role

if TYPE_CHECKING:
    from polygraphy_layerprec.model.graph import Node
    from polygraphy_layerprec.model.quantized.finding import FoundPairs
    from polygraphy_layerprec.model.quantized.records import Chain, Pair
    from polygraphy_layerprec.model.weights import Weight

__all__ = ["pass_pairs_by"]

_MOST_NAMED: Final = 3


def pass_pairs_by(
    quantized: Graph, reference: Graph | None = None, *, reference_path: str | None = None
) -> QuantizedGraph:
    """Returns the float graph of a quantised model, with its pairs beside it.

    Args:
        quantized: The quantised model.
        reference: The float model that it was made of. Without it, constants that are stored
            quantised are what they are in both, and their error is not known.
        reference_path: Path of that model, where it is a file.

    Raises:
        ModelError: If there is no pair that can be ranked, a pair is damaged, or the reference is
            another model.
    """
    with told_damage(quantized.name or "The model", ValueError):
        return _pass_by(quantized, reference, reference_path)


def _pass_by(
    quantized: Graph, reference: Graph | None, reference_path: str | None
) -> QuantizedGraph:
    found = find_pairs(quantized)
    if not found.pairs:
        raise _nothing_to_rank(quantized, found)
    if reference is not None:
        check_reference(quantized, reference)
    floats = _float_weights(quantized, reference, found.pairs)
    stored = [pair for pair in found.pairs.values() if pair.is_stored]
    if reference is not None and stored and not floats:
        raise ModelError(
            f"The reference {reference.name!r} is another model than {quantized.name!r}: it has "
            f"none of the {len(stored)} constants that are stored quantised, "
            f"{stored[0].source!r} the first.\n"
            f"Give the float model that was quantised with `--reference`."
        )
    unknown = tuple(pair.source for pair in stored if pair.output not in floats)
    rewired = _Rewiring(quantized, found.pairs, floats)
    model, weights = rewired.model(), {**rewired.kept_weights, **floats}
    if any(pair.is_half for pair in found.pairs.values()):
        widen_model(model)
        weights = widen_weights(weights, quantized.folder)
    graph = build_graph(model, name=quantized.name, folder=quantized.folder, known_weights=weights)
    return _with_pairs(graph, rewired, quantized, reference, reference_path, unknown, found)


def _with_pairs(
    graph: Graph,
    rewired: _Rewiring,
    quantized: Graph,
    reference: Graph | None,
    reference_path: str | None,
    unknown: tuple[str, ...],
    found: FoundPairs,
) -> QuantizedGraph:
    carried = carried_tensors(graph, rewired.chains)
    units = find_units(graph, rewired.chains, carried)
    members = {name for unit in units for name in unit}
    nodes = tuple(_with_role(node, members, carried) for node in graph.nodes)
    given = {field.name: getattr(graph, field.name) for field in fields(Graph)}
    if not units:
        raise ModelError(
            f"{quantized.name!r} has constants that are stored quantised, {unknown[0]!r} the "
            f"first, and nothing else, so that the error is not known.\n"
            f"Give the float model that was quantised with `--reference`."
        )
    lost = _lost(graph, found, unknown, members, has_reference=reference is not None)
    return QuantizedGraph(
        **{**given, "nodes": nodes},
        chains=rewired.chains,
        carried=carried,
        units=units,
        by_output=found.pairs,
        quantized=quantized,
        reference=reference,
        reference_path=reference_path,
        unknown_weights=unknown,
        unranked=(*found.unranked, *lost),
    )


_NO_FLOATS: Final = "nobody gave its float values, so that its error is unknown"


def _lost(
    graph: Graph,
    found: FoundPairs,
    unknown: tuple[str, ...],
    members: set[str],
    *,
    has_reference: bool,
) -> list[UnrankedNode]:
    """Constants of unknown error: those that no layer tells of, or that the reference lacks."""
    lost = []
    for pair in found.pairs.values():
        readers = {_first(reader.outputs) for reader in graph.consumers.get(pair.output, ())}
        if pair.source in unknown and (has_reference or not readers <= members):
            lost.append(UnrankedNode(pair.name, "DequantizeLinear", (pair.output,), _NO_FLOATS))
    return lost


def _with_role(node: Node, members: set[str], carried: frozenset[str]) -> Node:
    """A layer is what takes something through a pair, and nothing else is."""
    is_layer = next(filter(None, node.outputs), "") in members and carried.isdisjoint(node.outputs)
    if is_layer:
        return replace(node, role=Role.LAYER)
    return replace(node, role=Role.APART) if node.role is Role.LAYER else node


def _float_weights(
    quantized: Graph, reference: Graph | None, pairs: Mapping[str, Pair]
) -> dict[str, Weight]:
    if reference is None:
        return {}
    stored = (pair for pair in pairs.values() if pair.is_stored)
    found = {pair.output: find_float_weight(quantized, reference, pair) for pair in stored}
    return {name: weight for name, weight in found.items() if weight is not None}


class _Rewiring:
    """The nodes of the float graph, and the pairs that stood before each of them."""

    def __init__(
        self, quantized: Graph, pairs: Mapping[str, Pair], floats: Mapping[str, Weight]
    ) -> None:
        self.chains: dict[str, dict[str, Chain]] = {}
        """As in `QuantizedGraph`."""
        self._quantized = quantized
        # A constant without float values stays as it is, quantised in reference and candidate.
        self._pairs = {n: p for n, p in pairs.items() if not p.is_stored or n in floats}
        self._passed = {pair.quantized for pair in self._pairs.values() if not pair.is_stored}
        self._nodes = [node for old in quantized.proto.graph.node for node in self._rewired(old)]
        self._nodes += list(self._output_nodes())

    @property
    def kept_weights(self) -> dict[str, Weight]:
        """The constants of the quantised model that are still read, by name."""
        read = {name for node in self._nodes for name in _names_read(node)}
        read |= set(self._quantized.outputs)
        return {n: w for n, w in self._quantized.weights.items() if n in read}

    def model(self) -> onnx.ModelProto:
        """Returns the model, without its constants."""
        old = self._quantized.proto
        model = onnx.ModelProto(ir_version=old.ir_version)
        model.opset_import.extend(old.opset_import)
        model.functions.extend(old.functions)
        graph = model.graph
        graph.name = old.graph.name
        constants = {tensor.name for tensor in old.graph.initializer}
        constants |= {tensor.values.name for tensor in old.graph.sparse_initializer}
        graph.input.extend(value for value in old.graph.input if value.name not in constants)
        graph.output.extend(old.graph.output)
        gone = set(self._pairs)
        graph.value_info.extend(v for v in old.graph.value_info if v.name not in gone)
        graph.node.extend(self._nodes)
        return model

    def _rewired(self, old: NodeProto) -> Iterator[NodeProto]:
        """A node as it reads in the float graph, after what it needs; nothing for a passed pair."""
        if old.op_type == "Constant" and old.output[0] in self._quantized.weights:
            return
        if is_pair_node(old) and self._is_passed(old):
            return
        node = NodeProto()
        node.CopyFrom(old)
        if reads_shape(old):
            node.input[0] = self._base(old.input[0])[0]
            yield node
            return
        chains: dict[str, Chain] = {}
        for position, name in enumerate(old.input):
            base, chain = self._base(name)
            if chain and _decides(old):
                yield from self._hand_over(name, base, chain)
                continue
            if base in node.input[:position] and chains.get(base, ()) != chain:
                base = yield from self._copy(base, f"{name}/unquantised")
            node.input[position] = base
            if chain:
                chains[base] = chain
        if chains:
            self.chains[_first(node.output)] = chains
        yield node

    def _is_passed(self, node: NodeProto) -> bool:
        if node.op_type == "DequantizeLinear":
            return node.output[0] in self._pairs
        readers = self._quantized.consumers.get(node.output[0], ())
        others = [r for r in readers if _first(r.outputs) not in self._pairs]
        is_output = node.output[0] in self._quantized.outputs
        return node.output[0] in self._passed and not others and not is_output

    def _base(self, name: str) -> tuple[str, Chain]:
        """The float tensor that a tensor is once pairs are passed by, and these pairs."""
        chain: list[Pair] = []
        while name in self._pairs:
            pair = self._pairs[name]
            chain.insert(0, pair)
            if pair.is_stored:
                break
            name = pair.source
        return name, tuple(chain)

    def _hand_over(self, name: str, base: str, chain: Chain) -> Iterator[NodeProto]:
        """A node that takes a tensor through its pairs, where no operator's error tells them."""
        if name not in self.chains:
            self.chains[name] = {base: chain}
            yield helper.make_node("Identity", [base], [name], chain[-1].name)

    def _copy(self, base: str, name: str) -> Generator[NodeProto, None, str]:
        yield helper.make_node("Identity", [base], [name], f"{name}/Identity")
        return name

    def _output_nodes(self) -> Iterator[NodeProto]:
        for name in self._quantized.outputs:
            if name in self._pairs:
                base, chain = self._base(name)
                yield from self._hand_over(name, base, chain)


def _decides(node: NodeProto) -> bool:
    """Whether a node makes no floats of floats, so that its own error says nothing."""
    return behavior_of(node.op_type, node.domain) is Behavior.DECIDES


def _first(names: Sequence[str]) -> str:
    return next(filter(None, names), "")


def _names_read(node: NodeProto) -> Iterator[str]:
    yield from node.input
    for attribute in node.attribute:
        for body in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
            for inner in body.node:
                yield from _names_read(inner)
            yield from (value.name for value in body.output)


def _nothing_to_rank(quantized: Graph, found: FoundPairs) -> ModelError:
    name = quantized.name or "The model"
    if not found.unranked:
        return ModelError(
            f"{name!r} has no pairs of QuantizeLinear and DequantizeLinear, so there is no "
            f"quantisation to rank.\n"
            f"Give a quantised model in QDQ format, or rank this one for FP16 or BF16: "
            f"`--precision fp16`."
        )
    told = "".join(
        f"\n  {node.op} {node.name!r}: {node.reason}" for node in found.unranked[:_MOST_NAMED]
    )
    more = len(found.unranked) - _MOST_NAMED
    told += f"\n  and {more} more" if more > 0 else ""
    return ModelError(
        f"{name!r} has no pair of QuantizeLinear and DequantizeLinear that can be ranked.\n"
        f"Note: These are left out:{told}\n"
        f"Quantise to INT8 with symmetric activations (in ONNX-Runtime `activation_type="
        f"QuantType.QInt8` and `extra_options={{'ActivationSymmetric': True}}`), or to FP8 E4M3."
    )
