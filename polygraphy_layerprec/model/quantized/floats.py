"""The float values of constants that a model holds in quantised form alone, from the float model.

Tools keep the names of what operators make, so that the operator that reads a constant is found in
the float model by them; the constant stands at the same place of its inputs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from onnx import TensorProto

from polygraphy_layerprec.model.errors import ModelError
from polygraphy_layerprec.model.quantized.finding import find_pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polygraphy_layerprec.model.graph import Graph, Node
    from polygraphy_layerprec.model.quantized.records import Pair
    from polygraphy_layerprec.model.weights import Weight

__all__ = ["check_reference", "find_float_weight", "same_node"]

_SUFFIXES: Final = ("_quantized", "_DequantizeLinear_Output", "_dequantized", "_DequantizeOutput")
"""What quantisers append to the name of a constant."""


def check_reference(quantized: Graph, reference: Graph) -> None:
    """Checks that two models take and give the same tensors, and that the second is a float model.

    Raises:
        ModelError: If they do not: the reference is another model, or quantised itself.
    """
    pairs = find_pairs(reference).pairs
    activations = [pair for pair in pairs.values() if not pair.is_weight]
    if activations:
        raise ModelError(
            f"The reference {reference.name!r} is quantised itself: "
            f"{activations[0].name!r} is the first of {len(activations)} pairs on its tensors.\n"
            f"Give the float model that was quantised with `--reference`."
        )
    for what, ours, theirs in (
        ("inputs", [i.name for i in quantized.inputs], [i.name for i in reference.inputs]),
        ("outputs", list(quantized.outputs), list(reference.outputs)),
    ):
        if sorted(ours) != sorted(theirs):
            raise ModelError(
                f"The reference {reference.name!r} is another model than {quantized.name!r}: their "
                f"{what} are {theirs!r:.300} and {ours!r:.300}.\n"
                f"Give the float model that was quantised with `--reference`."
            )


def find_float_weight(quantized: Graph, reference: Graph, pair: Pair) -> Weight | None:
    """Returns the float values of a constant, under the name that the pair makes; None if unknown.

    Args:
        quantized: The quantised model.
        reference: The float model.
        pair: A pair that is stored quantised.
    """
    shape = quantized.weights[pair.source].shape
    for name in _candidates(quantized, reference, pair):
        weight = reference.weights.get(name)
        if weight is not None and weight.shape == shape and weight.tensor_type in _FLOATS:
            return replace(weight, name=pair.output)
    return None


_FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})


def _candidates(quantized: Graph, reference: Graph, pair: Pair) -> Iterator[str]:
    """Names that the constant may have in the float model, the surest first."""
    for node in quantized.consumers.get(pair.output, ()):
        like = same_node(reference, node)
        if like is not None:
            position = node.inputs.index(pair.output)
            if position < len(like.inputs):
                yield like.inputs[position]
    for name in (pair.source, pair.output):
        yield name
        for suffix in _SUFFIXES:
            yield name.removesuffix(suffix)


def same_node(reference: Graph, node: Node) -> Node | None:
    """Returns the node of the float model that makes the same, or is called the same, else None."""
    for name in filter(None, node.outputs):
        for known in (name, name.removesuffix("_QuantizeLinear_Input")):
            found = reference.producers.get(known)
            if found is not None and found.op_type == node.op_type:
                return found
    if not node.proto.name:
        return None
    named = [n for n in reference.nodes if n.proto.name == node.proto.name]
    return named[0] if len(named) == 1 and named[0].op_type == node.op_type else None
