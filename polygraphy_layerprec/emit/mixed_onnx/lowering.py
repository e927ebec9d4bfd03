"""Lowering a model in memory; `files` does the same from file to file."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING

from polygraphy_layerprec.emit.mixed_onnx.newer_opset import OLDEST_OPSETS, in_newer_opset
from polygraphy_layerprec.emit.mixed_onnx.rewriting import Rewriting
from polygraphy_layerprec.emit.mixed_onnx.summary import LoweringSummary
from polygraphy_layerprec.emit.mixed_onnx.weights import ConversionCounts
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.model import Graph, load_graph
from polygraphy_layerprec.plan import KeptLayers, Plan, Planner, Target, Verdict, Width
from polygraphy_layerprec.plan.operands import LOW_TENSOR_TYPES
from polygraphy_layerprec.precision import FP16, Precision

if TYPE_CHECKING:
    from collections.abc import Collection

    from onnx import ModelProto

    from polygraphy_layerprec.emit.mixed_onnx.weights import PendingWeight

__all__ = ["lower_graph", "lower_model", "with_counts"]

_IO_WIDTHS = {"fp32": Width.FP32, "low": Width.LOW}
_MOST_COMPARED = 80  # hostile names would take minutes to compare in full


def lower_model(
    model: ModelProto | Graph,
    fp32_outputs: Collection[str],
    *,
    precision: Precision = FP16,
    io_precision: str = "fp32",
) -> tuple[ModelProto, LoweringSummary]:
    """Returns a model in which all layers but the chosen ones compute in a low precision.

    A lowered layer reads its inputs and weights rounded to the low precision and gives its output
    in it; the others read and give FP32. Local functions are expanded, weights beyond the range
    are clamped to it. An opset that is too old, or has no BF16 for an operator, is raised if it can
    be.
    `Loop`, `Scan` and recurrent operators stay in FP32.

    Args:
        model: The FP32 model, weights in memory, or its graph; it is not changed.
        fp32_outputs: Output tensors of the layers that stay in FP32, as the graph calls them.
        precision: The low precision.
        io_precision: Type of the model's float inputs and outputs: `fp32`, or `low` for the low
            precision.

    Raises:
        UserError: If a name in `fp32_outputs` is not that of a layer's output, if an option is
            unknown, if the model's opset is too old for the precision, or if it is not valid.
    """
    graph = model if isinstance(model, Graph) else load_graph(model)
    result, summary, pending = lower_graph(
        graph, fp32_outputs, precision=precision, io_precision=io_precision
    )
    counts = sum((weight.fill_inline() for weight in pending), ConversionCounts())
    return result, with_counts(summary, counts)


def lower_graph(
    graph: Graph, fp32_outputs: Collection[str], *, precision: Precision, io_precision: str
) -> tuple[ModelProto, LoweringSummary, list[PendingWeight]]:
    """Returns a lowered model without its weights, a summary without counts of values, and them.

    Args:
        graph: The FP32 model.
        fp32_outputs: As for `lower_model`.
        precision: As for `lower_model`.
        io_precision: As for `lower_model`.

    Raises:
        UserError: As `lower_model`.
    """
    if io_precision not in _IO_WIDTHS:
        raise UserError(f"io_precision must be one of {sorted(_IO_WIDTHS)}, got {io_precision!r}")
    if precision.name not in LOW_TENSOR_TYPES:
        known = ", ".join(sorted(LOW_TENSOR_TYPES))
        raise UserError(f"precision must be one of {known}, got {precision.name!r}")
    newer = in_newer_opset(graph, precision)
    opsets = None if newer is None else (graph.opset(), newer.opset())
    graph = graph if newer is None else newer
    oldest = OLDEST_OPSETS[precision.name]
    if graph.opset() < oldest:
        raise UserError(
            f"the opset must be {oldest} or newer for {precision.name}, got {graph.opset()}, and "
            f"onnx's version converter cannot raise it: export the model again"
        )
    _require_known(fp32_outputs, graph)
    planner = Planner(graph, precision, Target.ONNX, io_width=_IO_WIDTHS[io_precision])
    plan = planner.plan(KeptLayers.of_outputs(fp32_outputs))
    rewriting = Rewriting(plan)
    result = rewriting.run()
    return result, _summarize(plan, rewriting, opsets), rewriting.pending


def with_counts(summary: LoweringSummary, counts: ConversionCounts) -> LoweringSummary:
    """Returns a summary completed by what became of the weights' values."""
    return replace(summary, clamped=counts.clamped, flushed=counts.flushed)


def _require_known(fp32_outputs: Collection[str], graph: Graph) -> None:
    for name in sorted(fp32_outputs):
        if name not in graph.producers:
            known = {other[:_MOST_COMPARED]: other for other in sorted(graph.producers)}
            close = difflib.get_close_matches(name[:_MOST_COMPARED], known)
            nearest = ", ".join(repr(known[match]) for match in close)
            raise UserError(
                f"fp32_outputs must name outputs of layers, got {name!r}; "
                f"nearest: {nearest or 'none'}"
            )


def _summarize(plan: Plan, rewriting: Rewriting, opsets: tuple[int, int] | None) -> LoweringSummary:
    verdicts = [node.verdict for node in plan.nodes]
    return LoweringSummary(
        lowered=verdicts.count(Verdict.LOWERED),
        kept=verdicts.count(Verdict.KEPT),
        followed=verdicts.count(Verdict.FOLLOWS),
        left_in_fp32=plan.left,
        deviating=plan.deviating,
        casts=rewriting.casts,
        converted=rewriting.converted,
        clamped=0,
        flushed=0,
        raised_opset=opsets,
    )
