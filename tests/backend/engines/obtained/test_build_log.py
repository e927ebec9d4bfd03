"""Listings of the builder: those on file, made by TensorRT-RTX 1.7.1, and TensorRT 9's layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from polygraphy_layerprec.backend.engines.obtained.build_log import is_listing, parse_listing
from polygraphy_layerprec.backend.engines.obtained.layers import EngineLayer, EngineTensor
from tests.backend.engines.proven_models import HOSTILE

LISTINGS = sorted((Path(__file__).parent / "listings").glob("*.txt"))


def listing(name: str) -> str:
    return (Path(__file__).parent / "listings" / f"{name}.txt").read_bytes().decode()


@pytest.mark.parametrize("path", LISTINGS, ids=lambda path: path.stem)
def test_every_line_is_a_layer_with_floats_only(path):
    text = path.read_bytes().decode()

    layers = parse_listing(text)

    assert is_listing(text)
    assert len(layers) == sum(line.startswith("Name: ") for line in text.splitlines()) - (
        "Name: d, LayerType: e]" in text  # part of a node's name
    )
    assert all(layer.inputs and layer.outputs for layer in layers)
    assert {t.type for layer in layers for t in (*layer.inputs, *layer.outputs)} <= {
        "FP16",
        "FP32",
    }


def test_a_layer_is_read_with_its_weights():
    _, product = parse_listing(listing("product_unfenced"))

    (given,), (read,) = product.outputs, product.inputs
    assert product.name.startswith("__myl_FcTanhCast_myl0_")
    assert product.kind == "runtime_fusion"
    assert product.nodes == ("MatMul_m", "Tanh_y")
    assert (read.type, read.shape) == ("FP16", (16, 64))
    assert given == EngineTensor("y", "FP32", (16, 64))
    assert [(w.type, w.shape, w.is_scalar) for w in product.constants] == [
        ("FP16", (64, 64), False)
    ]


def test_the_factors_of_a_product_are_scalars():
    product = parse_listing(listing("product_and_reader"))[1]

    assert [w.is_scalar for w in product.constants] == [False, True, True]


def test_names_that_look_like_the_text_around_them_are_read():
    nodes = [node for layer in parse_listing(listing("hostile_names")) for node in layer.nodes]

    assert sorted(nodes) == ["MatMul_y", "Metadata: }], Outputs: [", HOSTILE]


def test_the_layout_up_to_tensorrt_10_is_read():
    text = (
        "Layers:\n"
        "Name: conv + relu, LayerType: CaskConvolution, Inputs: [ { Name: x, Location: Device, "
        "Dimensions: [6,64,120,184], Format/Datatype: Channel major FP16 format where channel % 8 "
        "== 0 }, { Name: n, Location: Host, Dimensions: [2], Format/Datatype: Row major Int32 "
        "format }], Outputs: [ { Name: t, Location: Device, Dimensions: [6,-1], Format/Datatype: "
        'Row major linear FP32 format }], ParameterType: Convolution, Weights: {"Type": "Half", '
        '"Count": 36864}, TacticName: sm80, StreamId: 0, Metadata: [ONNX Layer: conv]\x1e[ONNX '
        "Layer: relu]\n"
        "Name: shape, LayerType: NoOp, Inputs: [], Outputs: []\n"
        "\n"
        "Bindings:\n"
        "x\n"
    )

    assert parse_listing(text) == (
        EngineLayer(
            "conv + relu",
            "CaskConvolution",
            ("conv", "relu"),
            (EngineTensor("x", "FP16", (6, 64, 120, 184)),),
            (EngineTensor("t", "FP32", (6, -1)),),
        ),
        EngineLayer("shape", "NoOp", (), (), ()),
    )


@pytest.mark.parametrize("text", ["Layers:\n", "Layers:\na\nb\n\nBindings:\n", "Layers:\nName: a"])
def test_names_alone_tell_nothing(text):
    assert parse_listing(text) == ()


@pytest.mark.parametrize("text", ["Layers: 3", "Timing:\nLayers:\n"])
def test_other_messages_are_no_listing(text):
    assert not is_listing(text)
