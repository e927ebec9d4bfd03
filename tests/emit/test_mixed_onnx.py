"""Every construct of the zoo, lowered as a whole, not at all, and in random parts."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, inliner, shape_inference

from polygraphy_layerprec.emit.mixed_onnx import LoweringSummary, lower_model
from polygraphy_layerprec.execution.comparison.output_divergence import OutputDivergences
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import measure_output_error
from polygraphy_layerprec.plan import Target
from polygraphy_layerprec.precision import BF16, FP16, Precision
from tests.emit.onnx_zoo import ZOO, feeds
from tests.planned_runs import run_reference

_LOW_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_OPSET_OF_BF16 = 13
_NOT_RAISED = {"scan"}
"""Models of an older opset that onnx's converter does not raise, for the bodies in them."""
_READERS = ("Cast", "Constant", "Shape", "Size")
_NAMES = sorted(ZOO)
_NOT_EMULATED_ALIKE = {
    "contributed operator",  # cannot be lowered here
    "double part",  # FP64 is left as it is here
    "foreign local function",  # cannot be emulated
    "optional",  # cannot be emulated
}


def _named(case: str) -> ModelProto:
    """Returns a model of the zoo without local functions, every node under a name of its own."""
    model = inliner.inline_local_functions(ZOO[case]())
    for index, node in enumerate(model.graph.node):
        node.name = f"node {index}"
    return model


def layer_outputs(model: ModelProto) -> list[str]:
    graph = load_graph(model)
    return [name for node in graph.nodes for name in node.outputs if graph.is_fp32(name)]


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Yields the nodes of a graph and of its branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_nodes(attribute.g)


def run_model(model: ModelProto, inputs: dict[str, np.ndarray], *, optimized: bool = False) -> list:
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, inputs)


def signature_of(model: ModelProto) -> list[bytes]:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [
        value
        for value in model.graph.input
        if model.ir_version >= 4 or value.name not in weights
    ]  # fmt: skip
    return [value.SerializeToString() for value in (*inputs, *model.graph.output)]


def _types(model: ModelProto) -> dict[str, int]:
    inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    graph = inferred.graph
    types = {t.name: t.data_type for t in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    return types


def _operand_types(node: NodeProto, types: dict[str, int]) -> set[int]:
    return {types.get(name, 0) for name in (*node.input, *node.output) if name}


def assert_types_as_asked(
    original: ModelProto, mixed: ModelProto, kept: set[str], summary: LoweringSummary, low: int
) -> None:
    before, after = _types(original), _types(mixed)
    rewritten = {node.name: node for node in mixed.graph.node}
    left = {entry.name for entry in summary.left_in_fp32}
    lowered = 0
    for node in original.graph.node:
        if node.name not in rewritten:
            assert node.op_type == "Constant" or mixed.opset_import != original.opset_import
            continue  # a weight like any other, or a function that was expanded
        was = _operand_types(node, before)
        now = _operand_types(rewritten[node.name], after)
        if not kept.isdisjoint(node.output):
            assert now == was, f"{node.name} ({node.op_type}) must stay as it is"
        elif node.name in left:
            assert low not in now - was, f"{node.name} ({node.op_type}) must stay in FP32"
        elif node.op_type not in _READERS:
            lowered += low in now and TensorProto.FLOAT in was
    if len(load_graph(original).nodes) <= len(original.graph.node):  # no branches, no functions
        assert lowered == summary.lowered


@pytest.mark.parametrize("case", _NAMES)
def test_model_kept_as_a_whole_gives_the_same_bits(case: str) -> None:
    model = _named(case)

    mixed, summary = lower_model(model, layer_outputs(model))

    onnx.checker.check_model(mixed, full_check=True)
    assert (summary.lowered, summary.casts, summary.converted) == (0, 0, 0)
    inputs = feeds(model)
    for reference, candidate in zip(
        run_model(model, inputs), run_model(mixed, inputs), strict=True
    ):
        np.testing.assert_array_equal(reference, candidate)


@pytest.mark.parametrize("precision", [FP16, BF16], ids=lambda precision: precision.name)
@pytest.mark.parametrize("io_precision", ["fp32", "low"])
@pytest.mark.parametrize("case", _NAMES)
def test_lowered_model_is_valid_and_typed_as_asked(
    case: str, io_precision: str, precision: Precision
) -> None:
    model = _named(case)
    is_old = model.opset_import[0].version < _OPSET_OF_BF16
    if precision is BF16 and is_old and case in _NOT_RAISED:
        with pytest.raises(ValueError, match="opset must be 13 or newer for bf16, got 11"):
            lower_model(model, (), precision=precision, io_precision=io_precision)
        return

    mixed, summary = lower_model(model, (), precision=precision, io_precision=io_precision)

    onnx.checker.check_model(mixed, full_check=True)
    assert summary.lowered > 0 or precision is BF16
    low = _LOW_TYPES[precision.name]
    assert_types_as_asked(model, mixed, set(), summary, low)
    names = [value.name for value in (*model.graph.input, *model.graph.output)]
    if io_precision == "fp32":
        assert signature_of(mixed) == signature_of(model)
    else:
        before, after = _types(model), _types(mixed)
        for name in names:
            if name in after and before[name] == TensorProto.FLOAT:
                assert after[name] == low
            elif name in after:
                assert after[name] == before[name]


@pytest.mark.parametrize("io_precision", ["fp32", "low"])
@pytest.mark.parametrize("case", _NAMES)
def test_lowered_model_runs_with_an_error_of_half_precision(case: str, io_precision: str) -> None:
    model = _named(case)
    inputs = feeds(model)

    mixed, _ = lower_model(model, (), io_precision=io_precision)

    low_inputs = {
        name: value.astype(np.float16)
        if io_precision == "low" and value.dtype == np.float32
        else value
        for name, value in inputs.items()
    }
    references = run_model(model, inputs)
    for optimized in (False, True):
        candidates = run_model(mixed, low_inputs, optimized=optimized)
        for reference, candidate in zip(references, candidates, strict=True):
            assert candidate.shape == reference.shape
            if reference.dtype.kind == "f":
                # Some ten roundings of at most 2**-11 each, none of them amplified here.
                difference = np.linalg.norm(candidate.astype(np.float64) - reference)
                assert difference <= 10 * 2.0**-11 * np.linalg.norm(reference)


@pytest.mark.parametrize("part", [0, 2])
@pytest.mark.parametrize("case", sorted(ZOO.keys() - _NOT_EMULATED_ALIKE))
def test_mixed_model_errs_as_much_as_the_emulation_says(case: str, part: int) -> None:
    model, inputs = _named(case), feeds(_named(case))
    layers = load_graph(model).layers
    chosen = random.Random(1).sample(layers, len(layers) // part) if part else []
    kept = [name for layer in chosen for name in layer.outputs if name]

    mixed, _ = lower_model(model, kept)

    # Node by node, so that ONNX-Runtime can drop no cast and no rounding with it.
    reference, candidate = (run_reference(m, inputs) for m in (model, mixed))
    divergences = OutputDivergences(tuple(reference), FP16)
    divergences.add(reference, candidate)
    emulated_error = measure_output_error(model, [inputs], fp32_outputs=kept, target=Target.ONNX)
    # What FP16 kernels round besides: sums in parts, a scale times a shift.
    assert divergences.error == pytest.approx(emulated_error, rel=0.5)


@pytest.mark.parametrize("case", _NAMES)
@settings(max_examples=4)
@given(data=st.data())
def test_any_choice_of_layers_is_valid_and_typed_as_asked(case: str, data: st.DataObject) -> None:
    model = _named(case)
    outputs = layer_outputs(model)
    kept = data.draw(st.sets(st.sampled_from(outputs), min_size=1))
    io_precision = data.draw(st.sampled_from(["fp32", "low"]))

    mixed, summary = lower_model(model, kept, io_precision=io_precision)

    onnx.checker.check_model(mixed, full_check=True)
    assert_types_as_asked(model, mixed, kept, summary, TensorProto.FLOAT16)
    if io_precision == "fp32":
        assert signature_of(mixed) == signature_of(model)
        assert len(run_model(mixed, feeds(model))) == len(model.graph.output)


@pytest.mark.parametrize("case", _NAMES)
def test_nothing_is_cast_forth_and_back(case: str) -> None:
    model = _named(case)
    outputs = layer_outputs(model)
    own = {node.name for node in load_graph(model).nodes}
    for seed in range(3):
        kept = random.Random(seed).sample(outputs, len(outputs) // 2)

        mixed, summary = lower_model(model, kept)

        inserted = [
            node
            for node in all_nodes(mixed.graph)
            if node.name not in own and node.op_type == "Cast"
        ]
        assert len(inserted) == summary.casts
        made = {node.output[0] for node in inserted}
        read = [node.input[0] for node in inserted]
        assert made.isdisjoint(read)
        assert len(set(read)) == len(read)


@pytest.mark.parametrize("case", _NAMES)
def test_model_is_left_as_it_was_and_lowered_the_same_way_again(case: str) -> None:
    model = ZOO[case]()
    before = model.SerializeToString(deterministic=True)

    first, first_summary = lower_model(model, ())
    second, second_summary = lower_model(model, ())

    assert model.SerializeToString(deterministic=True) == before
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )
    assert first_summary == second_summary


@pytest.mark.trt
@pytest.mark.parametrize("case", _NAMES)
def test_mixed_model_builds_wherever_the_original_does(case: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    model = _named(case)
    if not _builds(model):
        pytest.skip("TensorRT-RTX does not build the FP32 model")
    outputs = layer_outputs(model)

    for seed in range(3):
        kept = random.Random(seed).sample(outputs, len(outputs) * seed // 3)
        io_precision = "low" if seed == 1 else "fp32"
        mixed, _ = lower_model(model, kept, io_precision=io_precision)
        assert _builds(mixed), f"kept in FP32: {kept}"


def _builds(model: ModelProto) -> bool:
    import tensorrt_rtx as trt

    builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse(model.SerializeToString()):
        return False
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        value = network.get_input(index)
        shape = [2 if extent < 0 else extent for extent in value.shape]
        profile.set_shape(value.name, shape, shape, shape)
    config.add_optimization_profile(profile)
    return builder.build_serialized_network(network, config) is not None
