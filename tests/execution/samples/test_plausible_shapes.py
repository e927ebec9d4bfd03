"""Shapes of inputs as exporters write them, and models that refuse the first shapes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from polygraphy_layerprec.execution.samples.given import SampleError
from polygraphy_layerprec.execution.samples.plausible import plan_inputs
from polygraphy_layerprec.model import load_graph
from tests.execution.samples.test_plausible import graph_of

FLOAT, INT64, INT32, BOOL, UINT8 = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.INT32,
    TensorProto.BOOL,
    TensorProto.UINT8,
)


def shapes_of(graph, **given):
    return {p.name: p.shape for p in plan_inputs(graph, shapes=given, val_range={})}


def model_of(inputs, nodes, weights):
    """Returns a graph whose nodes end in `out`."""
    output = helper.make_tensor_value_info("out", FLOAT, None)
    values = [helper.make_tensor_value_info(*given) for given in inputs]
    initializers = [numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items()]
    graph = helper.make_graph(nodes, "g", values, [output], initializers)
    return load_graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        pytest.param(
            [("ids", INT64, ("batch", "sequence")), ("types", INT64, ("batch", "sequence"))],
            [(1, 128), (1, 128)],
            id="transformer",
        ),
        pytest.param(
            [("ids", INT32, (None, None)), ("mask", INT32, (None, None))],
            [(1, 128), (1, 128)],
            id="unnamed",
        ),
        pytest.param(
            [("ids", INT64, ("unk__10", "unk__11"))], [(1, 128)], id="tensorflow converter"
        ),
        pytest.param([("ids", INT64, ("s0", "s1"))], [(1, 128)], id="torch with symbols"),
        pytest.param(
            [("ids", INT64, ("ids_dynamic_axes_1", "ids_dynamic_axes_2"))],
            [(1, 128)],
            id="torch with generated names",
        ),
        pytest.param(
            [
                ("input_ids", INT64, ("batch_size", "sequence_length")),
                ("attention_mask", INT64, ("batch_size", "past_sequence_length + sequence_length")),
                ("past_key_values.0.key", FLOAT, ("batch_size", 4, "past_sequence_length", 8)),
            ],
            [(1, 128), (1, 144), (1, 4, 16, 8)],
            id="decoder with past",
        ),
        pytest.param(
            [
                ("input_ids", INT64, ("batch_size", 1)),
                ("attention_mask", INT64, ("batch_size", "past_sequence_length + 1")),
            ],
            [(1, 1), (1, 17)],
            id="a symbol that stands in a sum alone",
        ),
        pytest.param(
            [
                ("encoder_hidden_states", FLOAT, ("batch_size", "encoder_sequence_length", 8)),
                ("decoder_input_ids", INT64, ("batch_size", "decoder_sequence_length")),
            ],
            [(1, 128, 8), (1, 128)],
            id="encoder and decoder",
        ),
        pytest.param(
            [("x", FLOAT, (None, 3, "DynamicDimension.0", "DynamicDimension.1"))],
            [(1, 3, 224, 224)],
            id="detector",
        ),
        pytest.param([("x", FLOAT, (None, 3, "?", "?"))], [(1, 3, 224, 224)], id="question marks"),
        pytest.param(
            [("x", FLOAT, ("DynamicDimension.0", 3, 48, "DynamicDimension.1"))],
            [(1, 3, 48, 224)],
            id="line of text",
        ),
        pytest.param(
            [("input", FLOAT, ("N", "height", "width", 3))], [(1, 224, 224, 3)], id="NHWC"
        ),
        pytest.param([("image", UINT8, ("h", "w", 3))], [(224, 224, 3)], id="a picture in bytes"),
        pytest.param(
            [("pixel_values", FLOAT, ("batch", "num_channels", "height", "width"))],
            [(1, 3, 224, 224)],
            id="open channels",
        ),
        pytest.param(
            [("video", FLOAT, ("batch", 3, "frames", "height", "width"))],
            [(1, 3, 16, 224, 224)],
            id="video",
        ),
        pytest.param(
            [("waveform", FLOAT, ("batch", "samples"))], [(1, 16000)], id="a second of sound"
        ),
        pytest.param(
            [
                ("input", FLOAT, (None, None)),
                ("state", FLOAT, (2, None, 128)),
                ("sr", INT64, ()),
            ],
            [(1, 16000), (2, 1, 128), ()],
            id="voice detector",
        ),
        pytest.param(
            [("h0", FLOAT, (2, "n", 16)), ("x", FLOAT, ("n", "T", 16))],
            [(2, 1, 16), (1, 128, 16)],
            id="recurrent state",
        ),
        pytest.param(
            [("picture", FLOAT, ("pictures", 3, "tall", "wide"))],
            [(1, 3, 224, 224)],
            id="an image whatever its axes are called",
        ),
        pytest.param(
            [("y", FLOAT, (4, "D.0")), ("x", FLOAT, ("D.0", 8)), ("z", FLOAT, (5, "D.0"))],
            [(4, 1), (1, 8), (5, 1)],
            id="a batch in one place is one everywhere",
        ),
        pytest.param(
            [("boxes", FLOAT, ("batch", "num_boxes", 4))], [(1, 4, 4)], id="other symbols"
        ),
        pytest.param(
            [("flags", BOOL, ("batch", 1, "q", "k"))], [(1, 1, 4, 4)], id="a mask of four"
        ),
        pytest.param([("use_cache_branch", BOOL, (1,))], [(1,)], id="nothing open"),
    ],
)
def test_axes_get_plausible_extents(inputs, expected):
    assert list(shapes_of(graph_of(*inputs)).values()) == expected


def test_given_shapes_win_and_hold_in_sums():
    graph = graph_of(
        ("ids", INT64, ("batch", "seq")),
        ("mask", INT64, ("batch", "past + seq")),
        ("past_key", FLOAT, ("batch", 2, "past", 8)),
    )

    shapes = shapes_of(graph, ids=(3, 5), mask=(3, 12))

    assert shapes == {"ids": (3, 5), "mask": (3, 12), "past_key": (3, 2, 7, 8)}


def test_axes_that_follow_from_given_ones_are_not_assumed():
    graph = graph_of(("ids", INT64, ("batch", "seq")), ("mask", INT64, ("batch", "2*seq")))

    plan = plan_inputs(graph, shapes={"ids": (1, 4)}, val_range={})

    assert [planned.shape for planned in plan] == [(1, 4), (1, 8)]
    assert [planned.assumed_axes for planned in plan] == [(), ()]


def test_axes_that_follow_from_given_ones_in_part_are_assumed():
    graph = graph_of(("ids", INT64, ("batch", "seq")), ("mask", INT64, ("batch", "past + seq")))

    plan = plan_inputs(graph, shapes={"ids": (1, 4)}, val_range={})

    assert [planned.assumed_axes for planned in plan] == [(), (1,)]


@pytest.mark.parametrize(
    ("op", "weight", "shape", "attributes", "expected"),
    [
        ("Conv", (8, 40, 3), (None, None, None), {}, (1, 40, 128)),
        ("Conv", (8, 5, 3, 3), ("b", "c", "h", "w"), {"group": 2}, (1, 10, 224, 224)),
        ("MatMul", (6, 4), ("batch", "any"), {}, (1, 6)),
        ("MatMul", (6, 4), ("batch", "steps", None), {}, (1, 128, 6)),
        ("Gemm", (4, 9), ("batch", None), {"transB": 1}, (1, 9)),
        ("Sub", (7,), (None, None), {}, (1, 7)),
        ("Sub turned", (7,), (None, None), {}, (1, 7)),
    ],
)
def test_weights_say_how_many_features_they_take(op, weight, shape, attributes, expected):
    op, _, turned = op.partition(" ")
    inputs = ["w", "x"] if turned else ["x", "w"]
    node = helper.make_node(op, inputs, ["out"], name="layer", **attributes)
    graph = model_of([("x", FLOAT, shape)], [node], {"w": np.ones(weight, np.float32)})

    assert shapes_of(graph)["x"] == expected


def test_a_weight_behind_its_scale_says_as_much():
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"], name="scale"),
        helper.make_node("MatMul", ["x", "w"], ["out"], name="layer"),
    ]
    weights = {"q": np.ones((6, 4), np.int8), "scale": np.float32(0.5)}

    graph = model_of([("x", FLOAT, ("batch", "any"))], nodes, weights)

    assert shapes_of(graph)["x"] == (1, 6)


def test_weights_are_found_behind_what_keeps_or_permutes_the_axes():
    nodes = [
        helper.make_node("Div", ["x", "std"], ["scaled"], name="normalise"),
        helper.make_node("Transpose", ["scaled"], ["moved"], name="move", perm=[0, 2, 1]),
        helper.make_node("Conv", ["moved", "w"], ["out"], name="conv"),
    ]
    weights = {"std": np.float32(2), "w": np.ones((4, 20, 3), np.float32)}
    graph = model_of([("x", FLOAT, (None, None, None))], nodes, weights)

    assert shapes_of(graph)["x"] == (1, 128, 20)


def test_a_recurrent_layer_says_how_many_features_it_takes():
    nodes = [helper.make_node("GRU", ["x", "w", "r"], ["out"], name="gru", hidden_size=2)]
    weights = {"w": np.ones((1, 6, 5), np.float32), "r": np.ones((1, 6, 2), np.float32)}
    graph = model_of([("x", FLOAT, ("T", "batch", "features"))], nodes, weights)

    assert shapes_of(graph)["x"] == (128, 1, 5)


def positions(length):
    """Returns a speech encoder with positions for `length` pairs of frames, and no other number."""
    nodes = [
        helper.make_node(
            "Conv", ["features", "w"], ["steps"], name="conv", strides=[2], pads=[1, 1]
        ),
        helper.make_node("Add", ["steps", "positions"], ["out"], name="add"),
    ]
    weights = {
        "w": np.ones((4, 80, 3), np.float32),
        "positions": np.ones((4, length), np.float32),
    }
    return model_of([("features", FLOAT, ("batch", "feature_size", "time"))], nodes, weights)


def test_a_shape_that_the_model_refuses_is_replaced_by_another():
    assert shapes_of(positions(1500))["features"] == (1, 80, 3000)


def test_one_axis_gives_way_while_others_of_its_kind_stay():
    nodes = [
        helper.make_node("Reshape", ["a", "chunk"], ["chunks"], name="chunk"),
        helper.make_node("ReduceMean", ["chunks"], ["mean"], name="mean", keepdims=0),
        helper.make_node("Gather", ["b", "last"], ["end"], name="last", axis=1),
        helper.make_node("Add", ["end", "mean"], ["out"], name="add"),
    ]
    weights = {"chunk": np.array([1, 256], np.int64), "last": np.array([100], np.int64)}
    inputs = [("a", FLOAT, ("batch", "len_a")), ("b", FLOAT, ("batch", "len_b"))]

    # `a` takes 256 alone, `b` at least 101.
    assert shapes_of(model_of(inputs, nodes, weights)) in (
        {"a": (1, 256), "b": (1, 128)},
        {"a": (1, 256), "b": (1, 256)},
    )


@pytest.mark.parametrize("side", [224, 320, 640, 256, 512, 384])
def test_a_side_that_image_models_take_is_found(side):
    nodes = [
        helper.make_node(
            "AveragePool", ["x"], ["cells"], name="pool", kernel_shape=[32, 32], strides=[32, 32]
        ),
        helper.make_node("Reshape", ["cells", "shape"], ["out"], name="cells"),
    ]
    weights = {"shape": np.array([3 * (side // 32) ** 2], np.int64)}
    graph = model_of([("x", FLOAT, (1, 3, "height", "width"))], nodes, weights)

    assert shapes_of(graph)["x"] == (1, 3, side, side)


@pytest.mark.parametrize("batch", [1, 2, 4, 8])
def test_a_batch_that_the_model_takes_is_found(batch):
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["out"], name="flat")]
    weights = {"shape": np.array([batch, 2, 4], np.int64)}
    graph = model_of([("x", FLOAT, ("batch", 8))], nodes, weights)

    assert shapes_of(graph)["x"] == (batch, 8)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("past_key", ("b", 2, "past", 8), (1, 2, 16, 8)),
        ("past_state", ("b", "n", 8), (1, 1, 8)),
    ],
)
def test_states_have_a_past_where_they_have_steps(name, shape, expected):
    graph = graph_of((name, FLOAT, shape))

    assert shapes_of(graph)[name] == expected


def test_an_input_of_unknown_rank_gets_the_rank_of_its_weight():
    node = helper.make_node("Conv", ["x", "w"], ["out"], name="conv")
    graph = model_of([("x", FLOAT, None)], [node], {"w": np.ones((4, 3, 3, 3), np.float32)})

    assert shapes_of(graph)["x"] == (1, 3, 224, 224)


def test_a_rank_that_the_model_refuses_is_replaced_by_another():
    nodes = [helper.make_node("GlobalAveragePool", ["moved"], ["out"], name="pool")]
    nodes.insert(0, helper.make_node("Transpose", ["x"], ["moved"], name="t", perm=[0, 3, 1, 2]))

    assert len(shapes_of(model_of([("x", FLOAT, None)], nodes, {}))["x"]) == 4


def test_an_operator_without_a_kernel_is_no_refusal():
    unknown = helper.make_node("Unknown", ["x"], ["y"], name="plugin", domain="maker")
    graph = graph_of(("x", FLOAT, ("batch", 3, "h", "w")), nodes=[unknown])

    assert shapes_of(graph)["x"] == (1, 3, 224, 224)


def refusing():
    """Returns a model that takes 77 steps, which nobody guesses."""
    node = helper.make_node("Reshape", ["x", "shape"], ["out"], name="fixed")
    return model_of(
        [("x", FLOAT, ("batch", "steps")), ("y", FLOAT, (3,))],
        [node],
        {"shape": np.array([7, 11], np.int64)},
    )


def test_where_every_shape_is_refused_the_error_names_the_node_and_proposes_none():
    with pytest.raises(SampleError) as caught:
        shapes_of(refusing())

    said = str(caught.value)
    assert "'fixed' (Reshape) fails" in said
    assert "x: [1, 128]" in said
    assert "`--input-shapes x:[batch,steps]`" in said
    assert "--load-inputs" in said


def test_a_given_shape_is_not_tried():
    assert shapes_of(refusing(), x=(7, 2))["x"] == (7, 2)


def test_no_shape_is_tried_where_none_is_open():
    graph = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[y] out) <int64[1] shape = {3}> { out = Reshape(x, shape) }
    """)

    assert shapes_of(load_graph(graph)) == {"x": (2,)}


def test_a_decoder_with_a_cache_runs_with_consistent_lengths():
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["hidden"], name="embed"),
        helper.make_node("Concat", ["past_key", "hidden"], ["keys"], name="cache", axis=1),
        helper.make_node("Transpose", ["keys"], ["keys_t"], name="turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["hidden", "keys_t"], ["scores"], name="scores"),
        helper.make_node("Cast", ["attention_mask"], ["mask"], name="cast", to=FLOAT),
        helper.make_node("Unsqueeze", ["mask", "one"], ["mask_3d"], name="unsqueeze"),
        helper.make_node("Add", ["scores", "mask_3d"], ["masked"], name="mask"),
        helper.make_node("Gather", ["places", "position_ids"], ["place"], name="place"),
        helper.make_node("MatMul", ["masked", "keys"], ["mixed"], name="mix"),
        helper.make_node("Add", ["mixed", "place"], ["out"], name="add"),
    ]
    weights = {
        "table": np.ones((100, 8), np.float32),
        "places": np.ones((512, 8), np.float32),
        "one": np.array([1], np.int64),
    }
    inputs = [
        ("input_ids", INT64, ("batch_size", "sequence_length")),
        ("attention_mask", INT64, ("batch_size", "past_sequence_length + sequence_length")),
        ("position_ids", INT64, ("batch_size", "sequence_length")),
        ("past_key", FLOAT, ("batch_size", "past_sequence_length", 8)),
    ]
    graph = model_of(inputs, nodes, weights)

    assert shapes_of(graph) == {
        "input_ids": (1, 128),
        "attention_mask": (1, 144),
        "position_ids": (1, 128),
        "past_key": (1, 16, 8),
    }
    given = shapes_of(graph, attention_mask=(2, 9), input_ids=(2, 1))
    assert given["past_key"] == (2, 8, 8)


def voice_detector(axes):
    """Returns a model that takes chunks of 512 values at 16 kHz, as silero's does."""
    nodes = [
        helper.make_node("Reshape", ["input", "chunk"], ["frames"], name="chunk"),
        helper.make_node("MatMul", ["frames", "w"], ["features"], name="fc"),
        helper.make_node("Split", ["state", "halves"], ["h", "c"], name="split", axis=0),
        helper.make_node("Squeeze", ["h", "zero"], ["h_2d"], name="squeeze"),
        helper.make_node("Add", ["features", "h_2d"], ["sum"], name="add"),
        helper.make_node("Cast", ["sr"], ["rate"], name="rate", to=FLOAT),
        helper.make_node("Div", ["sum", "rate"], ["out"], name="scale"),
    ]
    weights = {
        "chunk": np.array([1, 512], np.int64),
        "w": np.ones((512, 128), np.float32),
        "halves": np.array([1, 1], np.int64),
        "zero": np.array([0], np.int64),
    }
    inputs = [
        ("input", FLOAT, axes),
        ("state", FLOAT, (2, None, 128)),
        ("sr", INT64, ()),
    ]
    return model_of(inputs, nodes, weights)


@pytest.mark.parametrize("axes", [(None, None), ("batch", "sequence")])
def test_a_voice_detector_gets_a_chunk_that_it_takes(axes):
    assert shapes_of(voice_detector(axes)) == {"input": (1, 512), "state": (2, 1, 128), "sr": ()}
