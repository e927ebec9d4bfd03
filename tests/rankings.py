"""Small rankings for the tests of what is shown and saved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from polygraphy_layerprec.records import (
    ModelIdentity,
    NonFiniteOrigin,
    OutputDivergence,
    OutputError,
    RankedLayer,
    Ranking,
    RunConditions,
    UnmeasuredLayer,
)

__all__ = ["make_layer", "make_ranking", "troubled_ranking"]


def make_layer(rank: int = 1, name: str = "/encoder/layer.0/Add", **changes: Any) -> RankedLayer:
    """Returns a layer that rounds, with `changes`."""
    layer = RankedLayer(
        rank=rank,
        name=name,
        node_name=name,
        op="Add",
        block="/encoder/layer.0",
        graph_index=rank,
        inputs=("x", ""),
        outputs=("y",),
        impact=0.001 / rank,
        impact_method="adjoint",
        share=0.5 / rank,
        introduced_error=2.0**-11 / rank,
        cumulative_error=0.002,
        max_abs_input=3.5,
        max_abs=12.25,
        element_count=128,
        overflow_count=0,
        underflow_count=3,
        reference_nonfinite_count=0,
        candidate_nonfinite_count=0,
        overflow=False,
        kind="rounding",
        reason="rounding: 50.0 % of the output error",
    )
    return replace(layer, **changes)


def make_ranking(*layers: RankedLayer, **changes: Any) -> Ranking:
    """Returns a ranking of `layers`, of one layer by default, with `changes`."""
    ranking = Ranking(
        model=ModelIdentity(name="model.onnx", digest="ab" * 32, node_count=7, opset=17),
        precision="fp16",
        conditions=RunConditions(
            backend="onnxruntime-emulated",
            versions=(("numpy", "2.0.0"), ("onnxruntime", "1.20.0")),
            sample_count=2,
            inputs="user",
            impact="adjoint",
        ),
        output_error=OutputError(
            measured=0.0123,
            forecast=0.0119,
            outputs=(
                OutputDivergence("logits", 0.0123, 0.5, 0, 0.75),
                OutputDivergence("label", None, None, 0, 0.0),
            ),
        ),
        layers=layers or (make_layer(),),
        unmeasured=(),
        nonfinite_origins=(),
        stability=0.987,
        warnings=(),
    )
    return replace(ranking, **changes)


def troubled_ranking() -> Ranking:
    """Returns a ranking with an instance of everything that can be shown."""
    overflowing = make_layer(
        rank=1,
        name="/encoder/layer.11/attention/output/LayerNorm/Pow",
        op="Pow",
        block="/encoder/layer.11",
        impact=0.41,
        share=0.62,
        cumulative_error=None,
        max_abs=8.1e5,
        overflow_count=17,
        overflow=True,
        kind="overflow",
        reason="overflow: |x| up to 8.1e5, 17 of 128 values become infinite, 62.0 % of the error",
    )
    cancelling = make_layer(
        rank=2,
        name="head/Sub",
        op="Sub",
        block="head",
        impact=0.02,
        impact_method="gain",
        share=0.3,
        introduced_error=0.9,
        kind="cancellation",
        reason="cancellation: the result is 1e-4 of what is subtracted",
    )
    wide = make_layer(rank=3, name="層/正規化\n\x1b[31m", op="LayerNormalization", share=0.08)
    unmeasured = UnmeasuredLayer("loop/Custom", "Custom", ("z",), "no kernel for domain 'acme'")
    origin = NonFiniteOrigin(
        overflowing.name,
        "Pow",
        "inf",
        in_reference=False,
        path=tuple(f"layer{i}" for i in range(9)),
    )
    return make_ranking(
        overflowing, cancelling, wide, unmeasured=(unmeasured,), nonfinite_origins=(origin,)
    )
