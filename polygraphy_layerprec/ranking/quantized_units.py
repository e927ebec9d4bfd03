"""From what operators of a quantised model were seen to do to the decisions that are ranked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.divergence.pair_fit import PairFit, describe_fit, fit_of
from polygraphy_layerprec.divergence.sums import merge_sums
from polygraphy_layerprec.model.quantized import QuantizedGraph
from polygraphy_layerprec.model.quantized.floats import same_node
from polygraphy_layerprec.records.numbers import count_of

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.model.quantized import Pair
    from polygraphy_layerprec.ranking.order import LayerObservation
    from polygraphy_layerprec.records import RankedLayer

__all__ = ["merge_units", "pair_warnings", "with_pair_reasons"]

_MOST_NAMED: Final = 3
_TELLING_SHARE: Final = 0.001
_UNKNOWN_CONSTANTS: Final = "what quantisation did to its constants is not known"
_ORDER: Final = ("saturation", "outlier channel", "lost values", "wasted range", "dead channels")


def merge_units(graph: Graph, observations: Sequence[LayerObservation]) -> list[LayerObservation]:
    """Returns one observation for each decision: operators that share a pair are one.

    Errors of a decision are taken for independent, as those of different layers are.

    Args:
        graph: The model; where it is not quantised, each layer is a decision.
        observations: One for each layer, in execution order.
    """
    if not isinstance(graph, QuantizedGraph):
        return list(observations)
    by_index = {observation.graph_index: observation for observation in observations}
    merged = []
    for unit in graph.decisions:
        seen = [by_index[node.index] for node in unit if node.index in by_index]
        if seen:
            merged.append(_merged(unit, seen))
    names = {one.name: unit.name for unit in merged for one in observations
             if one.outputs[0] in unit.outputs}  # fmt: skip
    return [replace(unit, readers=_readers(unit, names)) for unit in merged]


def _merged(unit: Sequence[Node], seen: Sequence[LayerObservation]) -> LayerObservation:
    leader = seen[0]
    outputs = [name for one in seen for name in one.outputs if name]
    outputs += [name for node in unit for name in node.outputs if name]
    made = dict.fromkeys(outputs)
    inputs = (name for node in unit for name in node.inputs if name and name not in made)
    independent = [one.independent_power or 0.0 for one in seen]
    return replace(
        leader,
        inputs=tuple(dict.fromkeys(inputs)),
        outputs=tuple(made),
        sums=merge_sums([one.sums for one in seen]),
        max_abs_input=max(one.max_abs_input for one in seen),
        impact_power=math.fsum(one.impact_power for one in seen),
        independent_power=math.fsum(independent),
        impact_method="gain" if any(o.impact_method == "gain" for o in seen) else "adjoint",
        flops=sum(one.flops for one in seen),
        caveats=frozenset().union(*(one.caveats for one in seen)),
        readers=tuple(reader for one in seen for reader in one.readers),
    )


def _readers(unit: LayerObservation, names: Mapping[str, str]) -> tuple[tuple[str, float], ...]:
    shares: dict[str, float] = {}
    for reader, share in unit.readers:
        name = names.get(reader, reader)
        if name != unit.name:
            shares[name] = min(1.0, shares.get(name, 0.0) + share)
    return tuple(shares.items())


def with_pair_reasons(
    graph: Graph, layers: Sequence[RankedLayer], fits: Mapping[str, PairFit]
) -> tuple[RankedLayer, ...]:
    """Returns the layers with what their pairs say: how scales fit, and who shares them.

    Args:
        graph: The model; where it is not quantised, nothing changes.
        layers: The layers.
        fits: How scales of activations fit, by the pair's name.
    """
    if not isinstance(graph, QuantizedGraph):
        return tuple(layers)
    units = {name: unit for unit in graph.decisions for node in unit for name in node.outputs}
    return tuple(
        _told(graph, layer, units[layer.outputs[0]], fits) if layer.outputs[0] in units else layer
        for layer in layers
    )


def pair_warnings(graph: Graph) -> list[str]:
    """Returns what a reader must know of a quantised model, in words; nothing of another one."""
    if not isinstance(graph, QuantizedGraph):
        return []
    warnings = []
    unknown = graph.unknown_weights
    if unknown:
        remedy = "; give the float model with `--reference`" if graph.reference is None else ""
        warnings.append(
            f"What quantisation did to {len(unknown)} constants, {unknown[0]!r} the first, is not "
            f"known and not part of any error: the model holds them quantised alone{remedy}."
        )
    if graph.alike:
        first, more = graph.alike[0], len(graph.alike) - 1
        warnings.append(
            f"Not ranked, but part of reference and candidate alike: {first.op} {first.name!r} "
            f"({first.reason}){f' and {more} more' if more else ''}. Errors are those of the "
            f"ranked pairs alone."
        )
    odd = [pair.name for pair in graph.pairs if pair.multiplies]
    if odd:
        warnings.append(
            f"QuantizeLinear and DequantizeLinear of {count_of(len(odd), 'pair')}, {odd[0]!r} the "
            f"first, have other scales or zero points, so that the values come out multiplied or "
            f"moved: quantise the model again if that is not meant."
        )
    if any(pair.is_half for pair in graph.by_output.values()):
        warnings.append(
            "The model computes in FP16 around its pairs, which is taken for FP32 here: what FP16 "
            "does to these parts is ranked by `--precision fp16` on the float model."
        )
    biases = [p for p in graph.by_output.values() if p.is_bias]
    if biases:
        warnings.append(
            f"{len(biases)} constants, {biases[0].source!r} the first, are stored in INT32, which "
            f"TensorRT does not take: quantise without biases, in ONNX-Runtime by "
            f"`extra_options={{'QuantizeBias': False}}`."
        )
    dropped = [pair for pair in graph.pairs if _loses_its_relu(graph, pair)]
    if dropped:
        warnings.append(
            f"Run as a whole, ONNX-Runtime leaves out the Relu in front of "
            f"{count_of(len(dropped), 'FP8 pair')}, {dropped[0].name!r} the first, unless "
            f"`graph_optimization_level` is ORT_ENABLE_BASIC or less; here, each runs."
        )
    return warnings


def _loses_its_relu(graph: QuantizedGraph, pair: Pair) -> bool:
    """Whether ONNX-Runtime takes a zero point of 0 for the least number of FP8, as of UINT8.

    Seen with 1.24 and 1.32, where nothing else reads what the Relu makes.
    """
    whole = graph.quantized
    before = whole.producers.get(pair.source)
    return (
        before is not None
        and before.op_type == "Relu"
        and not pair.has_even_steps
        and bool("".join(pair.nodes[0].input[2:]))
        and len(whole.consumers[pair.source]) == 1
        and pair.source not in whole.outputs
    )


def _told(
    graph: QuantizedGraph, layer: RankedLayer, unit: Sequence[Node], fits: Mapping[str, PairFit]
) -> RankedLayer:
    kind, told = layer.kind, []
    worst = _worst_fit(graph, unit, fits) if layer.share >= _TELLING_SHARE else None
    if worst is not None:
        kind, words = worst[:2]
        told.append(words)
    told.append(layer.reason)
    others = [node.name for node in unit if not graph.carries(node) and node.name != layer.name]
    if others:
        more = len(others) - _MOST_NAMED
        shown = ", ".join(repr(name) for name in others[:_MOST_NAMED])
        told.append(f"one decision with {shown}{f' and {more} more' if more > 0 else ''}, "
                    f"which {'takes' if len(others) == 1 else 'take'} the same pair")  # fmt: skip
    caveat = layer.caveat
    if any(graph.has_unknown_constant(node) for node in unit):
        caveat = "; ".join(filter(None, (_UNKNOWN_CONSTANTS, caveat)))
        told.append(_UNKNOWN_CONSTANTS)
    return replace(
        layer,
        kind=kind,
        reason="; ".join(told),
        caveat=caveat,
        members=_members(graph, unit),
    )


def _members(graph: QuantizedGraph, unit: Sequence[Node]) -> tuple[str, ...]:
    """The nodes of a unit as the float model calls them; pairs that end in an output are none."""
    names = []
    for node in unit:
        if node.outputs[0] not in graph.by_output:
            like = None if graph.reference is None else same_node(graph.reference, node)
            names.append((like or node).proto.name)
    return tuple(filter(None, names))


def _worst_fit(
    graph: QuantizedGraph, unit: Sequence[Node], fits: Mapping[str, PairFit]
) -> tuple[str, str, float] | None:
    """The pair of a unit that fits worst, activations before weights."""
    chains = [chain for node in unit for chain in graph.chains_of(node).values()]
    pairs = {chain[0].name: chain[0] for chain in chains}.values()
    found = []
    for pair in pairs:
        fit = _weight_fit(graph, pair) if pair.is_weight else fits.get(pair.name)
        described = None if fit is None else describe_fit(repr(pair.source), fit)
        if described is not None:
            found.append((_ORDER.index(described[0]), pair.is_weight, -described[2], described))
    return min(found)[3] if found else None


def _weight_fit(graph: QuantizedGraph, pair: Pair) -> PairFit | None:
    """How a scale fits a constant whose float values are known."""
    weight = graph.weights.get(pair.output if pair.is_stored else pair.source)
    if weight is None or not weight.element_count or pair.largest_step > _LARGEST_TOLD:
        return None
    values = weight.read()
    axis = pair.axis if pair.axis is not None else (0 if values.ndim > 1 else None)
    return fit_of(
        values,
        pair.limits(values.shape),
        largest_step=pair.largest_step,
        has_even_steps=pair.has_even_steps,
        channel_axis=axis,
    )


_LARGEST_TOLD: Final = 1e6  # a bias in INT32 uses few of its steps, and is none the worse for it
