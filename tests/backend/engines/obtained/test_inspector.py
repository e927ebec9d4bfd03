"""Engine inspectors' JSON in both layouts; the texts are made up after TensorRT's documentation."""

from __future__ import annotations

import json

import pytest

from polygraphy_layerprec.backend.engines.obtained.inspector import parse_layer_information
from polygraphy_layerprec.backend.engines.obtained.layers import (
    EngineLayer,
    EngineTensor,
    low_fraction,
    split_metadata,
)


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
        layer("b", "[ONNX Layer: b | graph]", [("ta", low)], [("tb", wide)]),
        layer(
            "c+d",
            "[ONNX Layer: c]\x1e[ONNX Layer: d[0]]",
            [("tb", wide), ("n", "Int32")],
            [("td", wide)],
        ),
    ]
    borders = {"Bindings": ["x"]} if layout == "old" else {"I/O Tensors": [{"Name": "x"}]}
    return json.dumps({"Layers": layers, **borders})


@pytest.mark.parametrize("layout", ["old", "new"])
def test_layers_and_float_tensors_are_read(layout):
    layers = parse_layer_information(information(layout))

    ta, tb = EngineTensor("ta", "FP16", (1, 8)), EngineTensor("tb", "FP32", (1, 8))
    td = EngineTensor("td", "FP32", (1, 8))
    assert layers == (
        EngineLayer("b", "kgen", ("b | graph",), (ta,), (tb,)),
        EngineLayer("c+d", "kgen", ("c", "d[0]"), (tb,), (td,)),
    )
    assert low_fraction(layers) == pytest.approx(1 / 3)


def test_weights_are_read_where_they_are_told():
    text = json.dumps({"Layers": [{"Constants": [{"Name": "w", "Datatype": "Float"}]}]})

    (layer,) = parse_layer_information(text)

    assert layer.constants == (EngineTensor("w", "FP32"),)
    assert not layer.constants[0].is_scalar  # as far as is known


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("FP32", "FP32"),
        ("Float", "FP32"),
        ("Half", "FP16"),
        ("BF16", "BF16"),
        ("BFloat16", "BF16"),
        ("FP8", "FP8"),
    ],
)
def test_every_float_type_is_known(kind, name):
    text = json.dumps({"Layers": [{"Outputs": [{"Name": "t", "Datatype": kind}]}]})

    (output,) = parse_layer_information(text)[0].outputs

    assert output == EngineTensor("t", name)
    assert output.is_low == (name != "FP32")


@pytest.mark.parametrize("separator", ["\x1e", "\x1f", ""])
def test_fused_nodes_are_told_apart(separator):
    text = separator.join(["[ONNX Layer: a]b | c]", "[ONNX Layer: d | then (then_branch)]"])

    assert split_metadata(text) == ("a]b | c", "d | then (then_branch)")


@pytest.mark.parametrize("text", ["", "made by hand", "[Torch Layer: a]"])
def test_other_metadata_name_no_nodes(text):
    assert split_metadata(text) == ()


def test_names_alone_tell_nothing():
    assert parse_layer_information('{"Layers": ["a", "b"], "Bindings": []}') == ()


def test_an_engine_without_float_tensors_has_no_share():
    assert low_fraction(parse_layer_information('{"Layers": [{"Name": "a"}]}')) is None


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"Layers": 3}'])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=r"Expecting|list of layers"):
        parse_layer_information(text)
