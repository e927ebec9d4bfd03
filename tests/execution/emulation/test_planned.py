"""A model run as a plan says, against plain sessions, the comparison, and numpy."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from polygraphy_layerprec.execution import PlannedExecutor
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.plan import KeptLayers, Planner
from polygraphy_layerprec.precision import BF16, FP16
from tests import models
from tests.execution.numpy_emulation import half
from tests.models import build_model, node, normal, sample_inputs, scalar, tensor
from tests.planned_runs import emulated_executor

pytestmark = pytest.mark.onnxrt

BUILDERS = [
    models.small_cnn,
    models.small_transformer,
    models.optional_tensors,
    models.float64_part,
    models.if_with_capture,
    models.loop_with_capture,
    models.scan_with_capture,
    models.local_function,
    models.quantize_dequantize,
    models.shared_weight,
    models.constant_nodes,
    models.integer_output,
]

WEIGHTS = {"third": scalar(1 / 3), "zero": scalar(0.0)}


def run(model, kept, sample=None, *, precision=FP16, **options):
    """Runs `model` with the layers named in `kept` in FP32, all others lowered."""
    graph = load_graph(model)
    plan = Planner(graph, precision).plan(
        KeptLayers.of_nodes(each for each in graph.nodes if each.name in kept)
    )
    executor = PlannedExecutor(graph, precision)
    return executor.run(sample or sample_inputs(model), plan, **options)


def everything(model):
    return {each.name for each in load_graph(model).nodes}


def chain_of_sums():
    """Returns `y = ((x + a) + b) + c`: every sum rounds, and nothing else does."""
    nodes = [
        node("Add", ["x", "a"], "t0", name="first"),
        node("Add", ["t0", "b"], "t1", name="second"),
        node("Add", ["t1", "c"], "y", name="third"),
    ]
    weights = {name: normal(index, 64) for index, name in enumerate("abc")}
    return build_model(nodes, [tensor("x", [64])], [tensor("y", [64])], weights)


def sums_of(sample, *, lowered):
    """Returns the same in numpy, FP16 in and out of each sum that is lowered."""
    value = sample["x"]
    for index, name in enumerate(("first", "second", "third")):
        term = normal(index, 64)
        value = half(half(value) + half(term)) if name in lowered else value + term
    return value


@pytest.mark.parametrize("build", BUILDERS)
def test_all_in_fp32_equals_a_plain_session(build):
    model = build()
    sample = sample_inputs(model)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    outputs = run(model, everything(model), sample)

    for name, expected in zip(names, session.run(names, sample), strict=True):
        assert outputs[name].dtype == expected.dtype
        np.testing.assert_allclose(outputs[name], expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("precision", [FP16, BF16])
@pytest.mark.parametrize("build", [*BUILDERS, models.overflow_then_recovery, models.additive_mask])
def test_all_lowered_equals_the_candidate_of_the_comparison(build, precision):
    model = build()
    sample = sample_inputs(model)
    compared = emulated_executor(model, precision).compare(sample, lambda _: None)

    outputs = run(model, (), sample, precision=precision)

    assert set(outputs) == set(compared.candidate)
    for name, expected in compared.candidate.items():
        np.testing.assert_array_equal(outputs[name], expected)


@pytest.mark.parametrize(
    "lowered",
    [
        (),
        ("first",),
        ("second",),
        ("third",),
        ("first", "second"),
        ("first", "third"),
        ("second", "third"),
        ("first", "second", "third"),
    ],
)
def test_a_tensor_is_rounded_where_a_lowered_layer_makes_or_takes_it(lowered):
    model = chain_of_sums()
    sample = sample_inputs(model)

    outputs = run(model, everything(model) - set(lowered), sample)

    np.testing.assert_array_equal(outputs["y"], sums_of(sample, lowered=lowered))


def test_between_fp32_layers_a_tensor_stays_exact_though_its_other_reader_is_lowered():
    nodes = [
        node("Mul", ["x", "third"], "t", name="make"),
        node("Add", ["t", "zero"], "exact", name="kept"),
        node("Add", ["t", "zero"], "rounded", name="lowered"),
    ]
    outputs = [tensor("exact", [8]), tensor("rounded", [8])]
    model = build_model(nodes, [tensor("x", [8])], outputs, WEIGHTS)
    sample = sample_inputs(model)

    made = run(model, {"make", "kept"}, sample)

    product = sample["x"] * np.float32(1 / 3)
    np.testing.assert_array_equal(made["exact"], product)
    np.testing.assert_array_equal(made["rounded"], half(product))
    assert (half(product) != product).any()


def test_what_an_fp32_layer_hands_to_a_lowered_one_is_cast_and_not_clipped():
    nodes = [
        node("Mul", ["x", "large"], "t", name="make"),
        node("Transpose", ["t"], "moved", name="move"),
        node("Add", ["moved", "zero"], "y", name="read"),
    ]
    shapes = [tensor("x", [1, 2])], [tensor("y", [2, 1])]
    model = build_model(nodes, *shapes, {"large": scalar(2.0**17), "zero": scalar(0.0)})
    sample = {"x": np.array([[1.0, -0.25]], np.float32)}

    assert run(model, {"make"}, sample)["y"].tolist() == [[np.inf], [-(2.0**15)]]


@pytest.mark.parametrize("value", [65504, 70000])
def test_numbers_cast_from_integers_are_not_clipped_either(value):
    nodes = [
        node("Cast", ["n"], "t", name="cast", to=onnx.TensorProto.FLOAT),
        node("Transpose", ["t"], "moved", name="move"),
        node("Mul", ["moved", "half"], "y", name="read"),
    ]
    n = tensor("n", [1, 1], onnx.TensorProto.INT32)
    model = build_model(nodes, [n], [tensor("y", [1, 1])], {"half": scalar(0.5)})
    sample = {"n": np.array([[value]], np.int32)}
    expected = [[value / 2 if value <= 65504 else np.inf]]

    harmful = set()
    compared = emulated_executor(model).compare(
        sample, lambda node_run: harmful.update(node_run.harmful_overflows)
    )

    assert run(model, (), sample)["y"].tolist() == expected
    assert compared.candidate["y"].tolist() == expected
    assert harmful == ({2} if value > 65504 else set())  # the layer that takes it


def test_what_moves_values_neither_rounds_nor_hides_that_they_are_exact():
    nodes = [
        node("Mul", ["x", "third"], "t", name="make"),
        node("Transpose", ["t"], "moved", name="move"),
        node("Add", ["moved", "zero"], "y", name="read"),
    ]
    shapes = [tensor("x", [2, 3])], [tensor("y", [3, 2])]
    model = build_model(nodes, *shapes, WEIGHTS)
    sample = sample_inputs(model)
    product = sample["x"] * np.float32(1 / 3)

    np.testing.assert_array_equal(run(model, {"make", "read"}, sample)["y"], product.T)
    np.testing.assert_array_equal(run(model, {"make"}, sample)["y"], half(product.T))


def test_one_layer_alone_takes_exact_inputs_where_that_is_asked_for():
    model = chain_of_sums()
    sample = sample_inputs(model)
    kept = {"first", "third"}
    a, b, c = (normal(index, 64) for index in range(3))

    alone = run(model, kept, sample, exact_inputs=True)["y"]

    # What the first made is not rounded for the second, but its weight is, and what it makes.
    np.testing.assert_array_equal(alone, half(sample["x"] + a + half(b)) + c)


def test_an_input_of_the_model_is_rounded_even_then():
    model = chain_of_sums()
    sample = sample_inputs(model)
    a, b, c = (normal(index, 64) for index in range(3))

    alone = run(model, {"second", "third"}, sample, exact_inputs=True)["y"]

    np.testing.assert_array_equal(alone, half(half(sample["x"]) + half(a)) + b + c)


def test_the_sample_and_the_weights_survive():
    model = chain_of_sums()
    graph = load_graph(model)
    sample = sample_inputs(model)
    before = sample["x"].copy()
    executor = PlannedExecutor(graph, FP16)

    first = executor.run(sample)["y"].copy()
    executor.run(sample, Planner(graph, FP16).plan())

    np.testing.assert_array_equal(sample["x"], before)
    np.testing.assert_array_equal(executor.run(sample)["y"], first)


def test_all_runs_of_one_sample_share_their_random_numbers():
    model = models.random_numbers()
    executor = PlannedExecutor(load_graph(model), FP16)
    samples = [sample_inputs(model, seed=seed) for seed in range(2)]
    first = [executor.run(sample) for sample in samples]

    again = [executor.run(sample) for sample in samples]

    for before, after in zip(first, again, strict=True):
        for name, values in before.items():
            np.testing.assert_array_equal(after[name], values)


class Sample(dict):
    """A sample that can tell whether it is still held."""


def test_a_sample_is_held_only_if_random_numbers_were_drawn_for_it():
    # They go by its identity, which another sample may take over once it is gone.
    for build, is_held in [(models.random_numbers, True), (models.small_cnn, False)]:
        model = build()
        executor = PlannedExecutor(load_graph(model), FP16)
        sample = Sample(sample_inputs(model))
        reference = weakref.ref(sample)
        executor.run(sample)
        executor.run(sample_inputs(model))

        del sample

        gc.collect()
        assert (reference() is not None) == is_held


def test_other_samples_have_random_numbers_of_their_own():
    model = models.random_numbers()
    executor = PlannedExecutor(load_graph(model), FP16)

    runs = [executor.run(sample_inputs(model)) for _ in range(3)]

    name = next(iter(runs[0]))
    assert len({values[name].tobytes() for values in runs}) == 3


def test_what_cannot_run_is_missing_from_the_outputs():
    model = models.custom_domain()
    computed = run(model, ())

    assert [output.name for output in model.graph.output if output.name in computed] == ["z"]


def test_sequences_are_not_handed_out():
    nodes = [
        node("Neg", ["x"], "y", name="negate"),
        node("SequenceConstruct", ["x", "y"], "pair", name="pair"),
    ]
    sequence = onnx.helper.make_tensor_sequence_value_info("pair", onnx.TensorProto.FLOAT, None)
    model = build_model(nodes, [tensor("x", [2])], [tensor("y", [2]), sequence])

    assert set(run(model, ())) == {"y"}


def test_what_gives_no_floats_is_no_layer_and_takes_what_it_gets():
    # 2048.8 becomes 2048 in FP16, and the limit too.
    nodes = [
        node("Greater", ["x", "limit"], "above", name="compare"),
        node("Cast", ["above"], "y", name="cast", to=onnx.TensorProto.FLOAT),
    ]
    shapes = [tensor("x", [2])], [tensor("y", [2])]
    model = build_model(nodes, *shapes, {"limit": scalar(2048.5)})
    sample = {"x": np.array([2048.8, 2048.2], np.float32)}
    graph = load_graph(model)
    executor = PlannedExecutor(graph, FP16)

    for _ in range(2):
        assert executor.run(sample, Planner(graph, FP16).plan())["y"].tolist() == [1.0, 0.0]


def in_tf32(values):
    """Rounds to 10 bits of mantissa, ties to even, in integer arithmetic on the bits of FP32."""
    bits = values.view(np.uint32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & 0xFFFFE000).astype(np.uint32).view(np.float32)


def test_tf32_rounds_the_factors_of_products_in_fp32_and_nothing_else():
    nodes = [
        node("Gemm", ["x", "w", "bias"], "h", name="product"),
        node("Add", ["h", "bias"], "y", name="sum"),
    ]
    weights = {"w": normal(0, 8, 4), "bias": normal(1, 4) * 1e-3}
    model = build_model(nodes, [tensor("x", [3, 8])], [tensor("y", [3, 4])], weights)
    graph, x = load_graph(model), normal(2, 3, 8)
    plan = Planner(graph, FP16).plan(KeptLayers.of_outputs(["h", "y"]))

    exact = PlannedExecutor(graph, FP16).run({"x": x}, plan)["y"]
    found = PlannedExecutor(graph, FP16, tf32=True).run({"x": x}, plan)["y"]

    product = in_tf32(x).astype(np.float64) @ in_tf32(weights["w"])
    np.testing.assert_allclose(found, product + 2 * weights["bias"], rtol=1e-6, atol=1e-7)
    assert 1e-5 < np.linalg.norm(found - exact) / np.linalg.norm(exact) < 2**-10
