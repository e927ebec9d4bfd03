"""Engine inspectors' JSON in both layouts; the texts are made up after TensorRT's documentation."""

from __future__ import annotations

import json

import pytest

from polygraphy_layerprec.backend.engine_inspection import (
    EngineLayer,
    compare_precisions,
    parse_layer_information,
)
from polygraphy_layerprec.records import Constraint


def tensor(name: str, kind: str, *, layout: str) -> dict:
    entry = {"Name": name, "Location": "Device", "Dimensions": [1, 8]}
    if layout == "old":
        return {**entry, "Format/Datatype": f"Row major linear {kind} format"}
    return {**entry, "Format": "Row major linear", "Datatype": kind}


def information(layout: str) -> str:
    def layer(name, metadata, inputs, outputs):
        return {
            "Name": name,
            "LayerType": "kgen",
            "Inputs": [tensor(*pair, layout=layout) for pair in inputs],
            "Outputs": [tensor(*pair, layout=layout) for pair in outputs],
            "Metadata": metadata,
        }

    low = "FP16" if layout == "old" else "Half"
    wide = "FP32" if layout == "old" else "Float"
    layers = [
        layer("a", "[ONNX Layer: a]", [("x", wide)], [("ta", low)]),
        layer("b", "[ONNX Layer: b | graph]", [("ta", low)], [("tb", wide)]),
        layer(
            "c+d",
            "[ONNX Layer: c]\x1e[ONNX Layer: d[0]]",
            [("tb", wide), ("n", "Int32")],
            [("td", wide)],
        ),
        layer("e+f", "[ONNX Layer: e][ONNX Layer: f]", [("td", wide)], [("tf", low)]),
    ]
    borders = {"Bindings": ["x"]} if layout == "old" else {"I/O Tensors": [{"Name": "x"}]}
    return json.dumps({"Layers": layers, **borders})


def asked(name: str, *outputs: str) -> Constraint:
    return Constraint(name, "Add", (), outputs, "a test")


@pytest.mark.parametrize("layout", ["old", "new"])
def test_layers_and_float_tensors_are_read(layout):
    layers = parse_layer_information(information(layout))

    assert layers[1] == EngineLayer(("b",), (("ta", 16),), (("tb", 32),))
    assert layers[2] == EngineLayer(("c", "d[0]"), (("tb", 32),), (("td", 32),))


@pytest.mark.parametrize("layout", ["old", "new"])
def test_asked_is_compared_with_obtained(layout):
    constraints = [
        asked("a", "ta"),  # given in low precision
        asked("b", "tb"),
        asked("c", "tc"),  # fused into a layer all in FP32
        asked("e", "te"),  # fused into one that gives low precision: nobody knows
        asked("gone", "tg"),
        asked("", "td"),
    ]

    obtained = compare_precisions(parse_layer_information(information(layout)), constraints)

    assert obtained.asked_count == 6
    assert obtained.fp32_count == 3
    assert obtained.lowered == ("a",)
    assert obtained.unseen_count == 2
    assert obtained.low_tensor_fraction == pytest.approx(2 / 5)  # ta, tf of x, ta, tb, td, tf


def test_a_layer_without_a_name_goes_by_its_tensor():
    layers = parse_layer_information(information("old"))

    assert compare_precisions(layers, [asked("", "ta")]).lowered == ("ta",)


@pytest.mark.parametrize(
    ("kind", "bits"),
    [("FP32", 32), ("Float", 32), ("Half", 16), ("BF16", 16), ("BFloat16", 16), ("FP8", 8)],
)
def test_every_float_type_has_a_width(kind, bits):
    text = json.dumps({"Layers": [{"Outputs": [{"Name": "t", "Datatype": kind}]}]})

    assert parse_layer_information(text)[0].output_bits == (("t", bits),)


def test_names_alone_tell_nothing():
    assert parse_layer_information('{"Layers": ["a", "b"], "Bindings": []}') == ()


def test_an_engine_without_float_tensors_has_no_share():
    layers = parse_layer_information('{"Layers": [{"Name": "a"}]}')

    assert compare_precisions(layers, []).low_tensor_fraction is None


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"Layers": 3}'])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=r"Expecting|list of layers"):
        parse_layer_information(text)
