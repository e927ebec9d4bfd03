"""Which layers stay in FP32: read from a script, a ranking, or a mixed-precision model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from polygraphy_layerprec.divergence.judges import tolerance_judge
from polygraphy_layerprec.emit.mixed_onnx.reading import read_mixed_onnx
from polygraphy_layerprec.emit.name_bridge import shorten
from polygraphy_layerprec.emit.script_reading import load_network_script
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.execution.kernels.plain_session import PlainSession
from polygraphy_layerprec.files.ranking_file import load_ranking
from polygraphy_layerprec.matching.constraint_matching import (
    check_ranked_model,
    check_same_model,
    kept_layers_of,
)
from polygraphy_layerprec.matching.earlier_versions import (
    constraints_of_today,
    ranking_of_today,
)
from polygraphy_layerprec.model.quantized import QuantizedGraph
from polygraphy_layerprec.plan import Planner, Target, Width
from polygraphy_layerprec.plan.network_widths import network_widths
from polygraphy_layerprec.precision import PRECISIONS, QDQ, precision_named
from polygraphy_layerprec.records import NetworkWidths, RequestedPrecisions
from polygraphy_layerprec.selection import SelectionRequest, constraints_of, select_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Constraint, Ranking

__all__ = [
    "all_lowered",
    "requested_by_mixed_onnx",
    "requested_by_ranking",
    "requested_by_script",
    "widths_of",
]


def widths_of(
    graph: Graph, precision: str, constraints: Sequence[Constraint], *, io_precision: str = "fp32"
) -> NetworkWidths:
    """Returns what the plan that keeps the constrained layers says of a network's other tensors."""
    io_width = Width.LOW if io_precision == "low" else Width.FP32
    planner = Planner(graph, PRECISIONS[precision], Target.STRONG, io_width=io_width)
    return network_widths(planner.plan(kept_layers_of(graph, constraints)))


def all_lowered(precision: str) -> RequestedPrecisions:
    """Returns that every layer is lowered to `precision`: `fp16`, `bf16`, or `qdq` for pairs."""
    return RequestedPrecisions("", precision, (), ())


def requested_by_script(path: str | os.PathLike[str], graph: Graph) -> RequestedPrecisions:
    """Returns what an emitted script keeps in FP32, read from its literals without running it.

    Raises:
        UserError: If it is no such script, or was made for another model.
        OSError: If it cannot be read.
    """
    path = os.fspath(path)
    script = load_network_script(path)
    source = f"the script {path!r}"
    warnings: list[str] = []
    if script.model_digest:
        warnings += check_same_model(
            graph,
            name=script.model_name,
            digest=script.model_digest,
            tensors=(),
            made=f"The script {path!r}",
        )
    else:
        warnings.append(f"{path!r} does not say which model it was made for.")
    if script.altered:
        warnings.append(
            f"{path!r} is not what this version writes for its data: it was changed, or another "
            f"version made it. Only its data are verified; nothing in it is run."
        )
    if script.io_precision == "low":
        warnings.append(
            f"{path!r} asks for inputs and outputs in {script.precision.upper()}; these are left "
            f"in FP32 here."
        )
    constraints = constraints_of_today(graph, script.model_digest, script.constraints)
    return RequestedPrecisions(
        source, script.precision, constraints, tuple(warnings), widths=script.widths
    )


def requested_by_ranking(
    path: str | os.PathLike[str], graph: Graph, request: SelectionRequest
) -> RequestedPrecisions:
    """Returns what a saved ranking proposes to keep in FP32, as its forecast has it.

    The set that was measured and chosen for the same tolerance goes before the forecast.

    Raises:
        UserError: If the file is no ranking, is about another model, or the request is not valid.
        OSError: If it cannot be read.
    """
    path = os.fspath(path)
    found = load_ranking(path)
    of_pairs = found.precision == QDQ.name
    if of_pairs and not isinstance(graph, QuantizedGraph):
        raise UserError(
            f"The ranking {path!r} is about the pairs of a quantised model, and this is about FP16 "
            f"and BF16.\nMeasure sets of pairs with `polygraphy layerprec verify`."
        )
    ranking = ranking_of_today(graph, found)
    uncertain = check_ranked_model(graph, ranking, made=f"The ranking {path!r}")
    selection = select_layers(
        ranking, SelectionRequest() if _was_decided(ranking, request) else request
    )
    warnings = () if selection.reached else (_not_reached(selection.forecast_error),)
    return RequestedPrecisions(
        f"the ranking {path!r}",
        ranking.precision,
        constraints_of(selection),
        (*uncertain, *warnings),
        widths=NetworkWidths()
        if of_pairs
        else widths_of(graph, ranking.precision, constraints_of(selection)),
    )


def _was_decided(ranking: Ranking, request: SelectionRequest) -> bool:
    """Whether the ranking holds what was chosen for the tolerance of a request."""
    if request.tolerance is None or ranking.decision is None:
        return False
    (asked,) = tolerance_judge(request.tolerance, precision_named(ranking.precision)).criteria
    return asked in {judgement.criterion for judgement in ranking.decision.outcome.judgements}


def requested_by_mixed_onnx(path: str | os.PathLike[str], graph: Graph) -> RequestedPrecisions:
    """Returns which layers a mixed-precision form of the model keeps in FP32.

    Raises:
        UserError: If it is no ONNX model, ONNX-Runtime cannot load it, or it lacks layers.
        OSError: If it cannot be read.
    """
    path = os.fspath(path)
    mixed = read_mixed_onnx(path, graph)
    if mixed.missing:
        total = len(mixed.missing) + len(mixed.kept) + mixed.lowered_count
        raise UserError(
            f"{path!r} is not a mixed-precision form of {graph.name!r}: it lacks "
            f"{len(mixed.missing)} of {total} layers, or does not tell their types.\n"
            f"Note: The first is {mixed.missing[0].op} {mixed.missing[0].name!r}.\n"
            f"Make it from this model, with every node under its name."
        )
    if len(mixed.precisions) > 1:
        raise UserError(
            f"{path!r} has layers in {' and in '.join(mixed.precisions)}.\n"
            f"One low precision at a time can be verified."
        )
    problem = _loading_problem(path, mixed.fatal)
    warnings = [problem] if problem else []
    if not mixed.lowered_count:
        warnings.append(f"No layer of {path!r} is in low precision.")
    precision = mixed.precisions[0] if mixed.precisions else "fp16"
    return RequestedPrecisions(
        f"the mixed-precision model {path!r}",
        precision,
        mixed.kept,
        tuple(warnings),
        target="onnx",
        opset=mixed.opset,
    )


def _loading_problem(path: str, fatal: tuple[str, ...]) -> str:
    if fatal:  # loading it would take this process along
        return (
            f"ONNX-Runtime crashes on {path!r} at its default level of optimisation, because of "
            f"{shorten(fatal[0])}, a Transpose in low precision before a MatMul, so it was not "
            f"loaded.\nDisable its NchwcTransformer, or save a model with `--save-onnx`."
        )
    try:
        PlainSession(path)
    except ExecutionError as error:
        # The CPU has no kernel for most operators in BF16, which says nothing against the model.
        if "NOT_IMPLEMENTED" not in str(error):
            raise UserError(f"{path!r} does not load.\nNote: {error}") from error
        return f"{path!r} is valid, but does not run on the CPU: {error}"
    return ""


def _not_reached(forecast: float) -> str:
    return (
        f"No set of layers is forecast to meet the tolerance; the best is forecast to leave "
        f"{forecast:.3g}."
    )
