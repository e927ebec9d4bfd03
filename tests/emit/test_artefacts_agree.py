"""One choice, three artefacts: emulation, mixed ONNX and script put the same layers in FP16."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.emit.mixed_onnx import lower_model
from polygraphy_layerprec.emit.name_bridge import match_layers
from polygraphy_layerprec.emit.network_rewriter import constrain_network
from polygraphy_layerprec.emit.network_view import NetworkView
from polygraphy_layerprec.pipeline import load_graph
from polygraphy_layerprec.plan import Target
from tests.emit.networks import make_model
from tests.planned_runs import run_lowered, run_reference

pytestmark = pytest.mark.trt

ROWS = np.array([[0.3, -1.7, 2.9, 0.1], [-0.6, 1.1, 0.7, -2.3]], np.float32)
COMPUTING = {"ACTIVATION", "ELEMENTWISE", "MATRIX_MULTIPLY", "SOFTMAX", "UNARY"}


def scalar(value):
    return np.array(value, np.float32)


MODELS = {
    "a weight that is computed": make_model(
        """(float[2,4] x) => (float[2,4] y) {
            v = Mul (w, u)
            t = Transpose (v)
            h = MatMul (x, t)
            y = Exp (h)
        }""",
        "w[4,4] u[4,4]",
    ),
    "a weight that is dequantized": make_model(
        """(float[2,4] x) => (float[2,4] y) {
            v = DequantizeLinear (w, scale)
            h = MatMul (x, v)
            y = Tanh (h)
        }""",
        "",
        {"w": np.arange(-8, 8, dtype=np.int8).reshape(4, 4), "scale": scalar(0.0123)},
        opset=21,
    ),
    "constants that count up": make_model(
        """(float[2,4] x) => (float[2,4] y) {
            r = Range (zero, four, one)
            v = Mul (r, third)
            h = Add (x, v)
            y = Exp (h)
        }""",
        "",
        {"zero": scalar(0), "four": scalar(4), "one": scalar(1), "third": scalar(1 / 3)},
    ),
    "a comparison": make_model(
        """(float[2,4] x) => (float[2,4] y) {
            h = Mul (x, almost)
            g = Mul (x, third)
            k = Mul (g, three)
            c = Greater (k, h)
            s = Where (c, h, g)
            y = Exp (s)
        }""",
        "",
        {"almost": scalar(1 - 2**-20), "third": scalar(1 / 3), "three": scalar(3)},
    ),
    "infinite only when rounded": make_model(
        """(float[2,4] x) => (float[2,4] y) {
            h = Mul (x, large)
            c = IsInf (h)
            s = Where (c, zero, h)
            y = Mul (s, small)
        }""",
        "",
        {"large": scalar(1e5), "zero": scalar(0), "small": scalar(1e-5)},
    ),
    "a bound": make_model(
        """(float[2,4] x) => (float[2,4] y) {
            h = Exp (x)
            b = Clip (h, low, high)
            m = Max (b, x)
            y = Tanh (m)
        }""",
        "",
        {"low": scalar(1 / 3), "high": scalar(2 / 3)},
    ),
    "a mask that is seen": make_model(
        """(float[2,4] x, bool[2,4] m) => (float[2,4] s, float[2,4] y) {
            h = Exp (x)
            s = Where (m, lowest, h)
            y = Softmax (s)
        }""",
        "",
        {"lowest": scalar(-1e9)},
    ),
    "a shared weight": make_model(
        """(float[2,4] x) => (float[2,4] y) {
            h = MatMul (x, w)
            k = Tanh (h)
            y = MatMul (k, w)
        }""",
        "w[4,4]",
    ),
}
CHOICES = ("none", "first", "last", "every other", "all but one", "all")


def chosen(layers, choice):
    return {
        "none": [],
        "first": layers[:1],
        "last": layers[-1:],
        "every other": layers[::2],
        "all but one": [*layers[:1], *layers[2:]],
        "all": layers,
    }[choice]


def sample_of(graph):
    mask = np.array([[True, False, False, False]] * 2)
    return {value.name: mask if value.dtype == bool else ROWS for value in graph.inputs}


def errors(reference, candidate):
    return {
        name: np.linalg.norm(value - candidate[name]) / np.linalg.norm(value)
        for name, value in reference.items()
    }


def ranked(graph):
    """The layers of the model that give floats."""
    return list(graph.layers)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_mixed_model_errs_as_the_emulation_says(name, choice, tmp_path):
    graph = graph_of(MODELS[name], tmp_path / "model.onnx")
    kept = {output for layer in chosen(ranked(graph), choice) for output in layer.outputs}
    sample = sample_of(graph)
    reference = run_reference(graph, sample)
    emulated = errors(reference, run_lowered(graph, sample, kept, target=Target.ONNX))

    mixed, _ = lower_model(MODELS[name], kept)

    lowered = graph_of(mixed, tmp_path / "mixed.onnx")
    found = errors(reference, run_reference(lowered, sample))
    for output, error in emulated.items():
        assert found[output] == pytest.approx(error, rel=0.5, abs=1e-6)


def graph_of(model, path):
    path.write_bytes(model.SerializeToString())
    return load_graph(str(path))


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_script_lowers_what_the_emulation_lowers(tensorrt, name, choice, constraints_of, tmp_path):
    graph = graph_of(MODELS[name], tmp_path / "model.onnx")
    layers = ranked(graph)
    kept = {layer.proto.name for layer in chosen(layers, choice)}
    parsed = tensorrt.parse(MODELS[name])
    constraints = {c.name: c for c in constraints_of(MODELS[name])}
    view = NetworkView(parsed.network, tensorrt.module)
    matches = match_layers(view, [constraints[layer.proto.name] for layer in layers])

    constrain_network(parsed.network, [constraints[n] for n in sorted(kept)], precision="fp16")

    for match in matches:
        expected = "FLOAT" if match.constraint.name in kept else "HALF"
        computing = [x.layer for x in match.layers if x.kind in COMPUTING]
        assert computing
        assert {x.get_output(0).dtype.name for x in computing} == {expected}
        assert {x.get_input(0).dtype.name for x in computing} == {expected}
    assert tensorrt.build(parsed) is not None


def layer_types(parsed):
    """Types of the tensors of each layer, by the layer's name."""
    found = {}
    for index in range(parsed.network.num_layers):
        layer = parsed.network.get_layer(index)
        tensors = [layer.get_input(i) for i in range(layer.num_inputs)]
        tensors += [layer.get_output(i) for i in range(layer.num_outputs)]
        types = {tensor.dtype.name for tensor in tensors if tensor is not None}
        found[layer.name] = types & {"FLOAT", "HALF"}
    return found


@pytest.mark.parametrize(
    ("name", "kept", "expected"),
    [
        ("a comparison", (), {"Greater_c": "HALF"}),
        ("a comparison", ("Mul_h",), {"Greater_c": "FLOAT"}),
        ("a comparison", ("Mul_h", "Mul_k"), {"Greater_c": "FLOAT"}),
        ("infinite only when rounded", ("Mul_h",), {"IsInf_c": "FLOAT"}),
        ("a weight that is computed", (), {"Mul_v": "FLOAT", "Transpose_t": "HALF"}),
        ("a weight that is computed", ("MatMul_h",), {"Mul_v": "FLOAT", "Transpose_t": "FLOAT"}),
        ("constants that count up", ("Add_h",), {"Mul_v": "FLOAT"}),
        ("a mask that is seen", (), {"Where_s": "FLOAT", "Softmax_y": "HALF"}),
    ],
)
def test_what_is_no_layer_has_the_precision_of_those_around_it(
    tensorrt, constraints_of, name, kept, expected
):
    parsed = tensorrt.parse(MODELS[name])
    constraints = [c for c in constraints_of(MODELS[name]) if c.name in kept]

    constrain_network(parsed.network, constraints, precision="fp16")

    types = layer_types(parsed)
    assert {layer: types[layer] for layer in expected} == {k: {v} for k, v in expected.items()}


@pytest.mark.parametrize(
    ("kept", "casts"),
    [
        ((), 2),  # the input, and the output
        (("MatMul_h", "Tanh_y"), 0),
        (("MatMul_h",), 2),  # behind it, and the output
    ],
)
def test_a_weight_is_dequantized_into_what_its_reader_takes(tensorrt, constraints_of, kept, casts):
    model = MODELS["a weight that is dequantized"]
    parsed = tensorrt.parse(model)
    constraints = [c for c in constraints_of(model) if c.name in kept]

    summary = constrain_network(parsed.network, constraints, precision="fp16")

    assert f"{casts} casts inserted" in summary


def test_a_constant_beyond_the_range_is_lowered_where_all_readers_are(tensorrt):
    model = make_model(
        """(float[2,4] x, bool[2,4] m) => (float[2,4] y) {
            h = Exp (x)
            s = Where (m, lowest, h)
            y = Softmax (s)
        }""",
        "",
        {"lowest": scalar(-1e9)},
    )
    parsed = tensorrt.parse(model)

    constrain_network(parsed.network, [], precision="fp16")
    _, summary = lower_model(model, ())

    assert layer_types(parsed)["Where_s"] == {"HALF"}
    assert (summary.lowered, summary.followed) == (3, 0)


@pytest.mark.parametrize(("io_precision", "expected"), [("fp32", "FLOAT"), ("low", "HALF")])
def test_an_output_is_not_rounded_for_the_sake_of_its_other_reader(
    tensorrt, constraints_of, io_precision, expected
):
    model = make_model(
        """(float[2,4] x) => (float[4,4] j, float[4,4] y) {
            a = Exp (x)
            b = Tanh (x)
            j = Concat <axis=0> (a, b)
            y = Sigmoid (j)
        }"""
    )
    parsed = tensorrt.parse(model)
    kept = [c for c in constraints_of(model) if c.name == "Exp_a"]

    constrain_network(parsed.network, kept, precision="fp16", io_precision=io_precision)

    assert layer_types(parsed)["Concat_j"] == {expected}
    assert tensorrt.build(parsed) is not None


def test_a_constant_beyond_the_range_is_limited_in_a_low_precision_output(tensorrt):
    model = make_model(
        "(float[2,4] x, bool[2,4] m) => (float[2,4] s) { h = Exp (x)  s = Where (m, lowest, h) }",
        "",
        {"lowest": scalar(-1e9)},
    )
    parsed = tensorrt.parse(model)

    constrain_network(parsed.network, [], precision="fp16", io_precision="low")
    _, summary = lower_model(model, (), io_precision="low")

    assert layer_types(parsed)["Where_s"] == {"HALF"}
    assert summary.lowered == 2


def test_an_empty_constant_is_cast_since_its_type_cannot_be_changed(tensorrt):
    model = make_model(
        """(float[2,4] x) => (float[2,4] y) {
            a = Exp (x)
            j = Concat <axis=0> (a, e)
            y = Tanh (j)
        }""",
        "",
        {"e": np.zeros((0, 4), np.float32)},
    )
    parsed = tensorrt.parse(model)

    summary = constrain_network(parsed.network, [], precision="fp16")

    assert "3 casts inserted" in summary
    assert tensorrt.build(parsed) is not None
