"""What torch exports, lowered as a whole, not at all and in random parts: scripts and models."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraphy_layerprec.emit.mixed_onnx import lower_model
from polygraphy_layerprec.emit.network_script import render_network_script
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import measure_output_error
from polygraphy_layerprec.plan import KeptLayers, Planner, Target
from polygraphy_layerprec.plan.network_widths import network_widths
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.records import Constraint
from tests.emit.test_mixed_onnx import run_model, signature_of
from tests.emit.test_network_rewriter import check_types, inputs_of, layers_of, outputs_of, types_of
from tests.planned_runs import run_reference
from tests.torch_models import TORCH_MODELS, export_model, feeds_of

WITH_BODIES = {"scripted if, legacy", "scripted loop, legacy", "conditional, dynamo"}
"""Models of which the mixed-precision form keeps the bodies in FP32."""

EXPORTED_TWICE = [
    name
    for name in TORCH_MODELS
    if "dynamo" in name and name.replace("dynamo", "legacy") in TORCH_MODELS
]


@pytest.fixture(scope="module", params=TORCH_MODELS)
def name(request):
    """Parametrised here, so that all tests of a model follow one another in one process."""
    pytest.importorskip("torch", reason="needs torch to export models")
    pytest.importorskip("onnxscript", reason="needs the exporter of torch")
    return request.param


def layers_to_rank(name):
    graph = load_graph(export_model(name))
    return [
        Constraint(node.proto.name, node.op_type, node.inputs, node.outputs, "a test")
        for node in graph.layers
    ]


def assert_script_builds(tensorrt, name, chosen):
    """Returns the network that the emitted script leaves behind: types as asked, and it builds."""
    parsed = tensorrt.parse(export_model(name))
    interface = inputs_of(parsed.network), outputs_of(parsed.network)
    graph = load_graph(export_model(name))
    kept = KeptLayers.of_outputs(name for constraint in chosen for name in constraint.outputs)
    widths = network_widths(Planner(graph, FP16).plan(kept))
    script = {"__name__": "constraints"}
    exec(render_network_script(chosen, precision=FP16, widths=widths), script)

    script["postprocess"](parsed.network)

    assert (inputs_of(parsed.network), outputs_of(parsed.network)) == interface
    check_types(parsed.network, name, chosen, "fp16", {node.name for node in widths.left})
    assert tensorrt.build(parsed) is not None
    return parsed.network


def relative_error(candidate, reference):
    difference = np.linalg.norm(candidate.astype(np.float64) - reference)
    return difference / np.linalg.norm(reference.astype(np.float64))


def check_mixed_model(name, chosen):
    """The mixed model is valid, loads, and errs as much as the emulation says."""
    model, feeds = export_model(name), feeds_of(name)
    kept = {output for constraint in chosen for output in constraint.outputs if output}

    mixed, _ = lower_model(model, kept)

    onnx.checker.check_model(mixed, full_check=True)
    assert signature_of(mixed) == signature_of(model)
    emulated_error = measure_output_error(model, [feeds], fp32_outputs=kept, target=Target.ONNX)
    (reference,) = run_model(model, feeds)
    (candidate,) = run_model(mixed, feeds, optimized=True)
    # Casts that cancel out are dropped, and with them some of the roundings.
    assert relative_error(candidate, reference) <= 2 * emulated_error + 2.0**-20
    # Node by node nothing is dropped.
    node_by_node = run_reference(mixed, feeds)["y"]
    tolerance = 0.5 if name in WITH_BODIES else 0.1
    exact = run_reference(model, feeds)["y"]
    assert relative_error(node_by_node, exact) == pytest.approx(emulated_error, rel=tolerance)


@pytest.mark.trt
def test_without_constraints_the_script_lowers_everything(tensorrt, name):
    network = assert_script_builds(tensorrt, name, [])

    assert any("HALF" in types_of(layer) for layer in layers_of(network))


@pytest.mark.trt
def test_with_every_layer_kept_nothing_is_rounded(tensorrt, name):
    network = assert_script_builds(tensorrt, name, layers_to_rank(name))

    assert not [layer.name for layer in layers_of(network) if "HALF" in types_of(layer)]


@pytest.mark.trt
@settings(max_examples=2)
@given(data=st.data())
def test_any_choice_of_layers_builds_with_types_as_asked(tensorrt, name, data):
    layers = layers_to_rank(name)

    assert_script_builds(tensorrt, name, data.draw(st.lists(st.sampled_from(layers), unique=True)))


@pytest.mark.onnxrt
def test_mixed_model_all_lowered_errs_as_the_emulation_says(name):
    check_mixed_model(name, [])


@pytest.mark.onnxrt
def test_mixed_model_all_kept_gives_the_same_bits(name):
    model, feeds = export_model(name), feeds_of(name)
    kept = [output for layer in layers_to_rank(name) for output in layer.outputs if output]

    mixed, summary = lower_model(model, kept)

    assert (summary.lowered, summary.casts) == (0, 0)
    np.testing.assert_array_equal(run_model(mixed, feeds)[0], run_model(model, feeds)[0])


@pytest.mark.onnxrt
@settings(max_examples=4)
@given(data=st.data())
def test_mixed_model_of_any_choice_errs_as_the_emulation_says(name, data):
    layers = layers_to_rank(name)

    check_mixed_model(name, data.draw(st.lists(st.sampled_from(layers), unique=True)))


@pytest.mark.parametrize("name", EXPORTED_TWICE, indirect=True)
def test_both_exporters_write_different_graphs_of_one_model(name):
    other = name.replace("dynamo", "legacy")

    operators = [[n.op_type for n in export_model(each).graph.node] for each in (name, other)]
    results = [run_model(export_model(each), feeds_of(each))[0] for each in (name, other)]

    assert operators[0] != operators[1]
    np.testing.assert_allclose(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_the_models_hold_what_they_are_there_for():
    pytest.importorskip("torch")
    operators = {
        "transformer encoder, legacy": {"Identity", "LayerNormalization", "Softmax"},
        "lstm, legacy": {"LSTM"},
        "gru, legacy": {"GRU"},
        "u-net, legacy": {"ConvTranspose", "Resize", "Concat"},
        "scripted if, legacy": {"If"},
        "scripted loop, legacy": {"Loop"},
    }

    for name, expected in operators.items():
        assert expected <= {node.op_type for node in export_model(name).graph.node}, name
