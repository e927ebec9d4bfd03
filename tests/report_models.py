"""Reports for the tests of what is shown to people."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from polygraphy_layerprec.records import (
    Constraint,
    EngineMeasurement,
    LayerPrecision,
    ModelIdentity,
    ObtainedPrecision,
    ObtainedPrecisions,
    OutputDivergence,
    RankedLayer,
    Verification,
    VerifiedOutput,
)
from polygraphy_layerprec.report.ranking_report import Command, RankingReport
from polygraphy_layerprec.selection import SelectionRequest, error_curve, select_layers
from tests.decisions import L2, make_decision, make_outcome
from tests.rankings import make_layer, make_ranking

__all__ = [
    "HOSTILE_NAMES",
    "decided_report",
    "hostile_report",
    "make_obtained",
    "make_report",
    "make_verification",
    "plain_layers",
]

HOSTILE_NAMES = (
    "<script>document.title = 'owned'</script>",
    "</script><script>document.title = 'owned'</script>",
    "'\"& onmouseover=alert(1) {{ 7 * 7 }} {% raw %}",
    "<!-- <script> -->",
    "x" * 10_000,
    "new\nline\x1b[31m\u202eright to left",
    "$\\frac{a}{b}$ | `code` | @somebody #12",
)
"""What a model may call its layers."""


def plain_layers(count: int = 4) -> tuple[RankedLayer, ...]:
    """Returns layers of known impact, in execution order the other way round."""
    return tuple(
        make_layer(
            rank,
            f"/block.{rank % 2}/Op_{rank}",
            op=("MatMul", "Add")[rank % 2],
            block=f"/block.{rank % 2}",
            graph_index=count - rank,
            impact=10.0**-rank,
            share=0.9 * 10.0 ** (1 - rank),
            reason=f"reason number {rank}",
            inputs=(f"in_{rank}", ""),
            outputs=(f"out_{rank}",),
        )
        for rank in range(1, count + 1)
    )


def make_report(
    *layers: RankedLayer, request: SelectionRequest | None = None, **changes: Any
) -> RankingReport:
    """Returns a report that keeps the first layer in FP32, unless `request` says otherwise."""
    ranking = make_ranking(*(layers or plain_layers()), **changes)
    request = request or SelectionRequest(top_k=1)
    return RankingReport(
        ranking=ranking,
        selection=select_layers(ranking, request),
        curve=error_curve(ranking),
        commands=(Command("Save a script:", "polygraphy layerprec constrain 'a b.json'"),),
    )


def decided_report(metric: str = L2.metric) -> RankingReport:
    """Returns a report with two sets to choose from, judged by a metric of this name."""
    report = make_report()
    criterion = replace(L2, metric=metric)
    decision = make_decision()
    sets = tuple(
        replace(found, outcome=make_outcome(found.outcome.error, criterion=criterion))
        for found in decision.sets
    )
    selection = replace(report.selection, decision=replace(decision, sets=sets))
    return replace(report, selection=selection)


def hostile_report() -> RankingReport:
    """Returns a report about a model in which everything that has a name has a hostile one."""
    layers = [
        make_layer(
            rank,
            name,
            op=name,
            block=name,
            reason=name,
            inputs=(name,),
            outputs=(name,),
            graph_index=rank,
        )
        for rank, name in enumerate(HOSTILE_NAMES, start=1)
    ]
    first = HOSTILE_NAMES[0]
    return make_report(
        *layers,
        model=ModelIdentity(first, "ab" * 32, 7, 17),
        warnings=(first,),
    )


def make_obtained(*kept: ObtainedPrecision, low: tuple[str, ...] = ()) -> ObtainedPrecisions:
    """Returns what layers to stay in FP32 obtained: `kept`, and for those named `low` precision."""
    layers = [
        LayerPrecision(f"kept{i}", "Add", "fp32", obtained, ("kernel",), "FP32 -> FP32")
        for i, obtained in enumerate(kept)
    ]
    layers += [
        LayerPrecision(name, "MatMul", "fp32", "low", ("a_kernel",), "FP16 -> FP16") for name in low
    ]
    return ObtainedPrecisions(tuple(layers), 12, 0.5)


def make_verification(**changes: Any) -> Verification:
    """Returns a verification that passed, with `changes`."""
    content: dict[str, Any] = {
        "model": ModelIdentity("model.onnx", "ab" * 32, 7, 17),
        "precision": "fp16",
        "backend": "onnxruntime-emulated",
        "sample_count": 2,
        "inputs": "user",
        "source": "the script 'constraints.py'",
        "kept_count": 3,
        "layer_count": 12,
        "fp32_error": 1e-7,
        "lowered_error": 1e-2,
        "constrained_error": 1e-4,
        "recovered": 0.99,
        "outputs": (
            VerifiedOutput(
                "logits",
                OutputDivergence("logits", 1e-7, 1e-6, 0, 0.1),
                OutputDivergence("logits", 1e-2, 1e-1, 0, 1.0),
                OutputDivergence("logits", 1e-4, 1e-3, 0, 0.9),
                0.99,
            ),
        ),
        "failures": (),
        "engines": (
            EngineMeasurement(
                "constrained",
                3 * 2**20,
                0.0015,
                make_obtained("fp32", "fused", low=("kept_in_vain",)),
            ),
        ),
        "warnings": (),
        "sentence": "FP16 loses accuracy: relative L2 error 0.01 (at most 0.005).",
        "constraints": (
            Constraint("/norm/Pow", "Pow", ("x",), ("y",), "overflow: |x| up to 8.1e5"),
            Constraint("", "Add", ("y",), ("", "sum"), "31 % of the output error"),
        ),
        "lowered": make_outcome(1e-2),
        "outcome": make_outcome(1e-4),
    }
    return Verification(**{**content, **changes})
