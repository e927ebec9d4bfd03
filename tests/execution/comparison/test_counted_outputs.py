"""By which outputs a model is judged that ONNX-Runtime runs in part."""

from __future__ import annotations

import pytest

from polygraphy_layerprec.execution.comparison.counted_outputs import part_that_counts
from polygraphy_layerprec.model import load_graph
from tests.models import build_model, node, tensor


def model_of(*outputs):
    """Returns outputs `good`, and `bad` by an operator that ONNX-Runtime lacks."""
    unknown = node("Unknown", ["h"], "bad")
    unknown.domain = "somewhere"
    nodes = {"good": node("Tanh", ["h"], "good"), "bad": unknown}
    return load_graph(
        build_model(
            [node("Exp", ["x"], "h"), *(nodes[name] for name in outputs)],
            [tensor("x", [4])],
            [tensor(name, [4]) for name in outputs],
            domains=["somewhere"],
        )
    )


@pytest.mark.parametrize(
    ("outputs", "counted"),
    [
        (("good",), ("good",)),
        (("good", "bad"), ("good", "bad")),
        (("bad", "good"), ("bad", "good")),
        (("bad",), ("h",)),
    ],
)
def test_what_an_unknown_operator_takes_counts_only_where_no_output_can_be_computed(
    outputs, counted
):
    _, found = part_that_counts(model_of(*outputs), None)

    assert found == counted
