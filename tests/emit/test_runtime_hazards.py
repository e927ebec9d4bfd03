"""Patterns that ONNX-Runtime dies of at its default level of optimisation: in its own process."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from polygraphy_layerprec.emit.mixed_onnx import lower_model
from tests.emit.onnx_zoo import float_value, make_model, random_weights

EXTENTS = (2, 3, 4, 5)
LOAD = """if True:
    import sys, onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for path in sys.argv[1:]:
        print(path, flush=True)
        onnxruntime.InferenceSession(path, options)
    print("all loaded")
"""


def transposed_product(perm, *, matrix_first=False, weight_rank=2, between="") -> onnx.ModelProto:
    """A Concat, which the CPU computes in FP16, transposed and multiplied by a weight."""
    shape = list(EXTENTS[: len(perm)])
    shape[0] *= 2
    moved = [shape[axis] for axis in perm]
    weight = (3, moved[-2]) if matrix_first else (moved[-1], 3)
    weight = (1,) * (weight_rank - 2) + weight
    product = moved[:-2] + ([3, moved[-1]] if matrix_first else [moved[-2], 3])
    nodes = [
        helper.make_node("Tanh", ["x"], ["h"]),
        helper.make_node("Concat", ["h", "h"], ["c"], axis=0),
        helper.make_node("Transpose", ["c"], ["t"], perm=perm),
    ]
    if between:
        nodes.append(helper.make_node(between, ["t"], ["b"]))
    factors = ["w", "b" if between else "t"]
    nodes.append(helper.make_node("MatMul", factors if matrix_first else factors[::-1], ["y"]))
    inputs = [float_value("x", *EXTENTS[: len(perm)])]
    return make_model(
        nodes, inputs, [float_value("y", *product)], random_weights(w=weight), opset=17
    )


def left_in_fp32(model, kept=()):
    _, summary = lower_model(model, kept)
    return {entry.op: entry.reason for entry in summary.left_in_fp32}


FATAL = [(1, 0, 2), (1, 2, 0), (1, 2, 0, 3), (1, 2, 3, 0)]
HARMLESS = [(0, 2, 1), (2, 0, 1), (2, 1, 0), (0, 2, 1, 3), (0, 2, 3, 1), (1, 0, 2, 3)]


@pytest.mark.onnxrt
def test_mixed_models_load_at_the_default_level_of_optimisation(tmp_path):
    cases = itertools.product([*FATAL, *HARMLESS], [False, True], ["", "Identity"], [(), ("y",)])
    paths = []
    for index, (perm, matrix_first, between, kept) in enumerate(cases):
        model = transposed_product(perm, matrix_first=matrix_first, between=between)
        mixed, _ = lower_model(model, kept)
        paths.append(str(tmp_path / f"{index}.onnx"))
        onnx.save(mixed, paths[-1])

    done = subprocess.run(
        [sys.executable, "-c", LOAD, *paths], capture_output=True, text=True, check=False
    )

    assert done.stdout.endswith("all loaded\n"), f"{done.returncode}: {done.stdout[-60:]}"


@pytest.mark.parametrize("perm", FATAL)
@pytest.mark.parametrize("kept", [(), ("y",)], ids=["lowered", "kept"])
def test_a_fatal_transpose_is_left_in_fp32_and_says_why(perm, kept):
    reasons = left_in_fp32(transposed_product(perm, between="Identity"), kept)

    assert reasons == {"Transpose": "ONNX-Runtime crashes on it in low precision"}


@pytest.mark.parametrize("perm", HARMLESS)
def test_a_harmless_transpose_is_lowered(perm):
    assert left_in_fp32(transposed_product(perm)) == {}


def test_a_transpose_that_multiplies_no_matrix_is_lowered():
    assert left_in_fp32(transposed_product((1, 0, 2), weight_rank=3)) == {}
    assert left_in_fp32(transposed_product((1, 0, 2), between="Exp")) == {}


def test_without_a_permutation_the_axes_are_reversed_which_does_no_harm():
    model = transposed_product((2, 1, 0))
    del model.graph.node[2].attribute[:]

    assert left_in_fp32(model) == {}


def test_a_transpose_before_a_kept_product_costs_no_further_cast():
    model = transposed_product((1, 0, 2))

    mixed, summary = lower_model(model, ["y"])

    transpose = next(node for node in mixed.graph.node if node.op_type == "Transpose")
    makers = {node.output[0]: node.op_type for node in mixed.graph.node}
    fence = next(node for node in mixed.graph.node if node.output[0] == transpose.input[0])
    assert (fence.op_type, makers[fence.input[0]]) == ("Add", "Cast")
    assert summary.casts == 2  # of the input, and before the Transpose instead of behind it


def test_values_pass_a_transpose_in_fp32_unchanged():
    model = transposed_product((1, 0, 2))
    x = np.random.default_rng(0).normal(size=EXTENTS[:3]).astype(np.float32)

    mixed, _ = lower_model(model, ())

    (y,) = ReferenceEvaluator(mixed).run(None, {"x": x})
    weight = random_weights(w=(4, 3))["w"].astype(np.float16)
    half = np.tanh(x.astype(np.float16))
    moved = np.concatenate([half, half]).transpose(1, 0, 2)
    np.testing.assert_array_equal(y, (moved @ weight).astype(np.float32))
