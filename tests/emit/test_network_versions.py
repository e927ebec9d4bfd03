"""The script on every TensorRT: networks mocked with the real bindings of each version."""

from __future__ import annotations

import pytest

from polygraphy_layerprec.emit.network_script import render_network_script, save_network_script
from polygraphy_layerprec.precision import BF16, FP16
from polygraphy_layerprec.records import Constraint
from tests.emit.trt_bindings import BINDINGS, UnavailableError, prepare_bindings, run_script

CONV = Constraint("conv", "Conv", ("x", "k", "b"), ("conv_output",), "a test")
MUL = Constraint("mul", "Mul", ("relu_output", "w"), ("mul_output",), "a test")
RESHAPE = Constraint("reshape", "Reshape", ("mul_output", "s"), ("reshape_output",), "a test")
WEAK = ["8.6.1", "10.13", "10.16"]
STRONG = ["10.13", "10.16", "11.4"]
UNTOUCHED = {"precision": None, "output_types": [], "inputs": [], "weights": []}
IN_FP32 = UNTOUCHED | {"precision": "FLOAT", "output_types": [[0, "FLOAT"]]}


@pytest.fixture
def bindings(request):
    try:
        return prepare_bindings(request.param)
    except UnavailableError as error:
        pytest.skip(f"TensorRT {request.param}: {error}")


def run(bindings, folder, constraints, *, strongly_typed, precision=FP16, **options):
    path = folder / "constraints.py"
    text = render_network_script(constraints, precision=precision, **options)
    save_network_script(text, str(path))
    return run_script(bindings, path, strongly_typed=strongly_typed)


def on(*versions):
    return pytest.mark.parametrize("bindings", versions, indirect=True)


@on(*WEAK)
def test_weakly_typed_networks_get_a_precision_on_the_chosen_layers_only(bindings, tmp_path):
    report = run(bindings, tmp_path, [CONV], strongly_typed=False)

    layers = report["layers"]
    assert layers.pop("conv") == IN_FP32
    assert all(layer == UNTOUCHED for layer in layers.values())
    assert report["casts"] == []
    assert report["inputs"] == [["x", "FLOAT"]]
    assert report["outputs"] == [["reshape_output", "FLOAT"]]


@on(*WEAK)
def test_constants_and_integer_tensors_get_no_precision(bindings, tmp_path):
    report = run(bindings, tmp_path, [MUL, RESHAPE], strongly_typed=False)

    layers = report["layers"]
    assert layers["mul"] == IN_FP32  # with the constant between its output and its input
    assert layers["reshape"] == IN_FP32
    assert layers["w"] == layers["shape"] == UNTOUCHED


@on(*WEAK)
def test_weakly_typed_networks_get_low_precision_inputs_and_outputs(bindings, tmp_path):
    report = run(bindings, tmp_path, [], strongly_typed=False, io_precision="low")

    assert report["inputs"] == [["x", "HALF"]]
    assert report["outputs"] == [["reshape_output", "HALF"]]


@on("10.13", "10.16")
def test_bf16_is_the_builders_affair_where_it_picks_precisions(bindings, tmp_path):
    report = run(bindings, tmp_path, [CONV], strongly_typed=False, precision=BF16)

    assert report["layers"]["conv"] == IN_FP32
    assert report["layers"]["mul"] == UNTOUCHED


@on("8.6.1")
def test_bf16_is_refused_where_tensorrt_has_none(bindings, tmp_path):
    with pytest.raises(RuntimeError, match="this TensorRT has no bfloat16"):
        run(bindings, tmp_path, [CONV], strongly_typed=False, precision=BF16)


@on(*STRONG)
def test_strongly_typed_networks_are_rewritten_without_precisions(bindings, tmp_path):
    report = run(bindings, tmp_path, [CONV], strongly_typed=True)

    layers = report["layers"]
    assert all(layer["precision"] is None for layer in layers.values())
    assert all(layer["output_types"] == [] for layer in layers.values())
    assert layers["conv"] == UNTOUCHED
    assert layers["relu"]["inputs"] == [[0, "conv_output_cast"]]
    assert layers["w"]["weights"] == ["HALF"]
    assert report["casts"] == [["conv_output", "HALF"], ["reshape_output", "FLOAT"]]
    assert report["outputs"] == [["reshape_output", "FLOAT"]]


@on(*STRONG)
def test_kernels_and_biases_are_converted(bindings, tmp_path):
    report = run(bindings, tmp_path, [], strongly_typed=True, precision=BF16)

    assert report["layers"]["conv"]["weights"] == ["BF16", "BF16"]
    assert report["casts"][0] == ["x", "BF16"]


@on(*STRONG)
def test_strongly_typed_networks_get_low_precision_inputs_and_outputs(bindings, tmp_path):
    report = run(bindings, tmp_path, [RESHAPE], strongly_typed=True, io_precision="low")

    assert report["inputs"] == [["x", "HALF"]]
    assert report["outputs"] == [["reshape_output", "HALF"]]
    assert report["casts"] == [["mul_output", "FLOAT"], ["reshape_output", "HALF"]]
    replaced = report["version"].startswith("11")  # up to 10 the type of an input can be set
    assert report["layers"]["conv"]["inputs"] == ([[0, "x"]] if replaced else [])


@on(*BINDINGS)
def test_a_constraint_that_matches_nothing_stops_every_version(bindings, tmp_path):
    lost = Constraint("canv", "Conv", ("x",), ("nowhere",), "a test")

    with pytest.raises(RuntimeError, match="nearest in the network: 'conv'"):
        run(bindings, tmp_path, [lost], strongly_typed=True)
