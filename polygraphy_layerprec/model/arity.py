"""Whether nodes have the inputs and outputs that their operators want.

Who reads a node takes it for granted, and ONNX-Runtime runs none of a model where it is otherwise.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from onnx import defs

from polygraphy_layerprec.model.errors import ModelError
from polygraphy_layerprec.model.operators import normal_domain
from polygraphy_layerprec.records.numbers import count_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from onnx import ModelProto

    from polygraphy_layerprec.model.expansion import PlacedNode

__all__ = ["check_arity", "check_opsets"]

_LARGEST_OPSET: Final = 2**31 - 1  # what onnx and ONNX-Runtime hold


class _Arity(NamedTuple):
    """How many operands an operator takes, and which of its inputs it cannot do without."""

    inputs: range
    outputs: range
    required: tuple[int, ...]


def check_opsets(model: ModelProto) -> None:
    """Checks that the opsets of a model and of its functions are numbers of a version.

    Raises:
        ModelError: If one is too large; the text names it.
    """
    entries = [*model.opset_import]
    entries += [entry for function in model.functions for entry in function.opset_import]
    for entry in entries:
        if entry.version > _LARGEST_OPSET:
            raise ModelError(
                f"The model wants opset {entry.version} of the domain {entry.domain!r}, which "
                f"cannot be.\nCopy or export the model again."
            )


def check_arity(nodes: Iterable[PlacedNode]) -> None:
    """Checks the nodes of operators that onnx knows, in versions that it knows.

    Raises:
        ModelError: If an operand is missing or there are too many; the text names the node.
    """
    newest = defs.onnx_opset_version()
    for node in nodes:
        proto, domain = node.proto, normal_domain(node.proto.domain)
        # A version that is newer than this onnx may have more of them.
        arity = None if node.opset > newest else _arity_of(proto.op_type, node.opset, domain)
        if arity is None:
            continue
        for kind, names, wanted in (
            ("input", proto.input, arity.inputs),
            ("output", proto.output, arity.outputs),
        ):
            if len(names) not in wanted:
                raise _wrong(node, f"has {count_of(len(names), kind)}, not {_in_words(wanted)}")
        for position in arity.required:
            if position < len(proto.input) and not proto.input[position]:
                raise _wrong(node, f"lacks its input {position}")


@cache
def _arity_of(op: str, version: int, domain: str) -> _Arity | None:
    try:
        schema = defs.get_schema(op, version, domain)
    except defs.SchemaError:
        return None
    single = defs.OpSchema.FormalParameterOption.Single
    return _Arity(
        range(schema.min_input, schema.max_input + 1),
        range(schema.min_output, schema.max_output + 1),
        tuple(i for i, formal in enumerate(schema.inputs) if formal.option == single),
    )


def _in_words(wanted: Sequence[int]) -> str:
    least, most = wanted[0], wanted[-1]
    if most >= _LARGEST_OPSET:
        return f"{least} or more"
    return str(least) if least == most else f"{least} to {most}"


def _wrong(node: PlacedNode, problem: str) -> ModelError:
    return ModelError(
        f"The {node.proto.op_type} node {node.label!r} {problem}.\n"
        f"The model is not valid: export it again."
    )
