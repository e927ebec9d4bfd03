"""Lowering a model in memory; `files` does the same from file to file."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING

from onnx import GraphProto, ModelProto, TensorProto, inliner

from polygraphy_layerprec.emit.mixed_onnx.casting import Rewriting
from polygraphy_layerprec.emit.mixed_onnx.decisions import decide
from polygraphy_layerprec.emit.mixed_onnx.detached import TensorStore, detach, iterate_tensors
from polygraphy_layerprec.emit.mixed_onnx.graph_view import view_graph
from polygraphy_layerprec.emit.mixed_onnx.plan import NodePlan, Verdict, Width
from polygraphy_layerprec.emit.mixed_onnx.restoring import restore_inline
from polygraphy_layerprec.emit.mixed_onnx.schema_types import DEFAULT_DOMAINS
from polygraphy_layerprec.emit.mixed_onnx.scopes import bodies, defined_names, sort_nodes
from polygraphy_layerprec.emit.mixed_onnx.summary import Fp32Node, LoweringSummary
from polygraphy_layerprec.emit.mixed_onnx.weights import (
    ConversionCounts,
    low_tensor_type,
)
from polygraphy_layerprec.precision import FP16, Precision

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from polygraphy_layerprec.emit.mixed_onnx.graph_view import GraphView

__all__ = ["lower_detached", "lower_model", "with_counts"]

_IO_WIDTHS = {"fp32": Width.FP32, "low": Width.LOW}
_OLDEST_OPSETS: dict[int, int] = {
    TensorProto.FLOAT16: 7,
    TensorProto.BFLOAT16: 13,
}  # Cast takes them from there
_OPTIONAL_INPUTS_IR = 4  # before it every initializer had to be declared as a graph input


def lower_model(
    model: ModelProto,
    fp32_outputs: Collection[str],
    *,
    precision: Precision = FP16,
    io_precision: str = "fp32",
) -> tuple[ModelProto, LoweringSummary]:
    """Returns a model in which all layers but the chosen ones compute in a low precision.

    A lowered layer reads its inputs and weights rounded to the low precision and gives its output
    in it; the others read and give FP32. Local functions are inlined, weights beyond the range
    are clamped to it. The bodies of `If`, `Loop` and `Scan` stay in FP32.

    Args:
        model: The FP32 model, weights in memory; it is not changed.
        fp32_outputs: Output tensors of the layers that stay in FP32, as they are named once local
            functions are inlined.
        precision: The low precision.
        io_precision: Type of the model's float inputs and outputs: `fp32`, or `low` for the low
            precision.

    Raises:
        ValueError: If a name in `fp32_outputs` is not that of a layer's output, if an option is
            unknown, if the model's opset is too old for the precision, if its graph has a cycle,
            or if a weight lies in a file.
    """
    store = TensorStore(None)
    result, summary = lower_detached(
        detach(model, store),
        fp32_outputs,
        precision=precision,
        io_precision=io_precision,
        store=store,
    )
    counts = sum(
        (restore_inline(tensor, precision, store) for tensor in iterate_tensors(result)),
        ConversionCounts(),
    )
    return result, with_counts(summary, counts)


def lower_detached(
    model: ModelProto,
    fp32_outputs: Collection[str],
    *,
    precision: Precision,
    io_precision: str,
    store: TensorStore,
) -> tuple[ModelProto, LoweringSummary]:
    """Returns a lowered model that holds stubs, and a summary without counts of values.

    Args:
        model: A detached model; it may be changed.
        fp32_outputs: As for `lower_model`.
        precision: As for `lower_model`.
        io_precision: As for `lower_model`.
        store: Where the stubs' originals are.

    Raises:
        ValueError: As `lower_model`.
    """
    if io_precision not in _IO_WIDTHS:
        raise ValueError(f"io_precision must be one of {sorted(_IO_WIDTHS)}, got {io_precision!r}")
    _require_opset(model, precision)
    if model.functions:
        model = inliner.inline_local_functions(model)
    _sort_graph(model.graph)
    _drop_declared_weights(model)
    view = view_graph(model)
    fp32_outputs = frozenset(fp32_outputs)
    _require_known(fp32_outputs, model.graph)
    io_width = _IO_WIDTHS[io_precision]
    plans = decide(view, fp32_outputs, precision, store=store, io_width=io_width)
    left = _left_in_fp32(view, plans)
    rewriting = Rewriting(model, view, plans, precision, io_width, store)
    rewriting.run()
    return model, _summarize(plans, left, rewriting)


def with_counts(summary: LoweringSummary, counts: ConversionCounts) -> LoweringSummary:
    """Returns a summary completed by what became of the weights' values."""
    return replace(summary, clamped=counts.clamped, flushed=counts.flushed)


def _require_opset(model: ModelProto, precision: Precision) -> None:
    oldest = _OLDEST_OPSETS[low_tensor_type(precision)]
    for entry in model.opset_import:
        if entry.domain in DEFAULT_DOMAINS and entry.version < oldest:
            raise ValueError(
                f"the opset must be {oldest} or newer for {precision.name}, got {entry.version}"
            )


def _sort_graph(graph: GraphProto) -> None:
    for node in graph.node:
        for body in bodies(node):
            _sort_graph(body)
    nodes = sort_nodes(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)


def _drop_declared_weights(model: ModelProto) -> None:
    """Takes the weights out of the inputs of old models, where they never were a caller's."""
    if model.ir_version >= _OPTIONAL_INPUTS_IR:
        return
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = _OPTIONAL_INPUTS_IR


def _require_known(fp32_outputs: Iterable[str], graph: GraphProto) -> None:
    known = set(defined_names(graph))
    known -= {value.name for value in graph.input} | {t.name for t in graph.initializer}
    for name in sorted(fp32_outputs):
        if name not in known:
            nearest = ", ".join(map(repr, difflib.get_close_matches(name, sorted(known))))
            raise ValueError(
                f"fp32_outputs must name outputs of layers, got {name!r}; "
                f"nearest: {nearest or 'none'}"
            )


def _summarize(
    plans: Sequence[NodePlan], left: tuple[Fp32Node, ...], rewriting: Rewriting
) -> LoweringSummary:
    verdicts = [plan.verdict for plan in plans]
    return LoweringSummary(
        lowered=verdicts.count(Verdict.LOWERED),
        kept=verdicts.count(Verdict.KEPT),
        followed=verdicts.count(Verdict.FOLLOWS),
        left_in_fp32=left,
        casts=rewriting.casts,
        converted=rewriting.converted,
        clamped=0,
        flushed=0,
    )


def _left_in_fp32(view: GraphView, plans: Sequence[NodePlan]) -> tuple[Fp32Node, ...]:
    return tuple(
        Fp32Node(node.name, node.op_type, tuple(node.output), plan.reason)
        for node, plan in zip(view.nodes, plans, strict=True)
        if plan.verdict is Verdict.LEFT
    )
