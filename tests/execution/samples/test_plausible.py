from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from polygraphy_layerprec.execution.samples.given import SampleError
from polygraphy_layerprec.execution.samples.plausible import (
    DEFAULT_SEED,
    draw_samples,
    plan_inputs,
    plausible_samples,
)
from polygraphy_layerprec.model import load_graph


def graph_of(*inputs, nodes=(), weights=()):
    """Returns a graph with `inputs` as (name, type, shape), and an output that reads the first."""
    values = [helper.make_tensor_value_info(*given) for given in inputs]
    last = helper.make_node("Identity", [inputs[0][0]], ["out"], name="last")
    output = helper.make_tensor_value_info("out", inputs[0][1], None)
    graph = helper.make_graph([*nodes, last], "g", values, [output], list(weights))
    return load_graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def embedding(rows, ids="ids", *, axis=0, table="table"):
    """Returns nodes that look ids up after a reshape, and the table."""
    shape = (rows, 4) if axis == 0 else (4, rows)
    nodes = [
        helper.make_node("Cast", [ids], [f"{ids}_cast"], name="cast", to=TensorProto.INT64),
        helper.make_node("Unsqueeze", [f"{ids}_cast", "axes"], [f"{ids}_2"], name="unsqueeze"),
        helper.make_node("Gather", [table, f"{ids}_2"], ["rows"], name="gather", axis=axis),
    ]
    weights = [
        helper.make_tensor(table, TensorProto.FLOAT, shape, np.zeros(4 * rows, np.float32)),
        helper.make_tensor("axes", TensorProto.INT64, (1,), [0]),
    ]
    return {"nodes": nodes, "weights": weights}


def only_sample(graph, **options):
    (sample,) = plausible_samples(graph, **options)
    return sample


@pytest.mark.parametrize("axis", [0, 1])
def test_ids_stay_within_their_table_and_use_all_of_it(axis):
    graph = graph_of(("ids", TensorProto.INT32, (1, 2000)), **embedding(50, axis=axis))

    ids = only_sample(graph)["ids"]

    assert ids.dtype == np.int32
    assert (ids.min(), ids.max()) == (0, 49)


def test_a_table_behind_a_cast_is_found():
    parts = embedding(50, table="half")
    parts["weights"][0].name = "stored"
    cast = helper.make_node("Cast", ["stored"], ["half"], name="widen", to=TensorProto.FLOAT)
    parts["nodes"].insert(0, cast)
    graph = graph_of(("ids", TensorProto.INT64, (1, 2000)), **parts)

    assert only_sample(graph)["ids"].max() == 49


@pytest.mark.parametrize(
    ("name", "elem_type", "expected"),
    [
        ("attention_mask", TensorProto.INT64, 1),
        ("attention_mask", TensorProto.FLOAT, 1),
        ("keep", TensorProto.BOOL, True),
        ("token_type_ids", TensorProto.INT64, 0),
        ("segment_ids", TensorProto.INT32, 0),
        ("seq_lengths", TensorProto.INT32, 9),
    ],
)
def test_inputs_with_a_telling_name_or_type_are_constant(name, elem_type, expected):
    graph = graph_of((name, elem_type, (2, 9)))

    np.testing.assert_array_equal(only_sample(graph)[name], np.full((2, 9), expected))


def test_positions_count_from_zero_and_stay_in_their_table():
    graph = graph_of(
        ("position_ids", TensorProto.INT64, (2, 6)), **embedding(4, ids="position_ids")
    )

    positions = only_sample(graph)["position_ids"]

    np.testing.assert_array_equal(positions, [[0, 1, 2, 3, 3, 3]] * 2)


def test_positions_without_a_table_count_to_the_end_of_the_sequence():
    graph = graph_of(("position_ids", TensorProto.INT64, (1, 4)))

    np.testing.assert_array_equal(only_sample(graph)["position_ids"], [[0, 1, 2, 3]])


def test_integers_of_unknown_meaning_are_zero_or_one():
    graph = graph_of(("choice", TensorProto.INT64, (1, 100)))

    assert set(only_sample(graph)["choice"].ravel()) == {0, 1}


@pytest.mark.parametrize(
    ("op", "sources", "weight"),
    [
        ("OneHot", ["bytes", "classes", "values"], helper.make_tensor("classes", 7, (), [257])),
        ("Equal", ["bytes", "classes"], helper.make_tensor("classes", 6, (257, 1), range(257))),
    ],
)
def test_classes_of_a_one_hot_code_are_ids(op, sources, weight):
    code = helper.make_node(op, sources, ["code"], name="code")
    values = helper.make_tensor("values", TensorProto.FLOAT, (2,), [0, 1])
    graph = graph_of(("bytes", TensorProto.INT32, (5000,)), nodes=[code], weights=[weight, values])

    ids = only_sample(graph)["bytes"]

    assert (ids.min(), ids.max()) == (0, 256)


def test_a_comparison_with_some_numbers_says_nothing_of_ids():
    compare = helper.make_node("Equal", ["ids", "specials"], ["special"], name="compare")
    specials = helper.make_tensor("specials", TensorProto.INT32, (2,), [101, 102])
    graph = graph_of(("ids", TensorProto.INT32, (64, 1)), nodes=[compare], weights=[specials])

    assert set(only_sample(graph)["ids"].ravel()) == {0, 1}


@pytest.mark.parametrize(
    ("name", "elem_type", "shape", "expected"),
    [
        ("sr", TensorProto.INT64, (), 16000),
        ("sampling_rate", TensorProto.FLOAT, (1,), 16000),
        ("timestep", TensorProto.INT64, (1,), 500),
        ("im_shape", TensorProto.FLOAT, (1, 2), 64),
        ("orig_target_sizes", TensorProto.INT64, (1, 2), 64),
        ("scale_factor", TensorProto.FLOAT, (1, 2), 1),
        ("length_scale", TensorProto.FLOAT, (), 1),
    ],
)
def test_settings_get_a_value_that_makes_sense(name, elem_type, shape, expected):
    graph = graph_of(("x", TensorProto.FLOAT, (1, 3, 64, 64)), (name, elem_type, shape))

    np.testing.assert_array_equal(only_sample(graph)[name], np.full(shape, expected))


def test_images_in_bytes_use_all_values():
    values = only_sample(graph_of(("x", TensorProto.UINT8, (64, 64, 3))))["x"]

    assert (values.min(), values.max()) == (0, 255)


def test_a_table_that_is_computed_from_inputs_says_nothing_of_ids():
    gather = helper.make_node("Gather", ["table", "ids"], ["rows"], name="gather")
    graph = graph_of(
        ("ids", TensorProto.INT64, (100,)), ("table", TensorProto.FLOAT, (9, 4)), nodes=[gather]
    )

    assert set(only_sample(graph)["ids"]) == {0, 1}


def test_images_lie_between_zero_and_one():
    values = only_sample(graph_of(("x", TensorProto.FLOAT, (1, 3, 32, 32))))["x"]

    assert values.min() >= 0
    assert values.max() <= 1
    assert abs(values.mean() - 0.5) < 0.02  # 3072 uniform values: standard error 0.005


def test_other_floats_are_normally_distributed():
    values = only_sample(graph_of(("x", TensorProto.FLOAT, (1, 4096))))["x"]

    assert abs(values.mean()) < 0.1
    assert abs(values.std() - 1) < 0.1
    assert values.dtype == np.float32


def test_a_range_that_was_asked_for_is_kept():
    graph = graph_of(("a", TensorProto.FLOAT, (1000,)), ("b", TensorProto.INT64, (1000,)))

    sample = only_sample(graph, val_range={"": (-3.0, -2.0), "b": (5, 7)})

    assert -3 <= sample["a"].min() <= sample["a"].max() <= -2
    assert set(sample["b"]) == {5, 6, 7}


def test_a_batch_of_unknown_size_is_one_and_said_so():
    graph = graph_of(("x", TensorProto.FLOAT, ("batch_size", 8)), ("y", TensorProto.FLOAT, (3,)))

    plan = plan_inputs(graph, shapes={}, val_range={})

    assert [planned.shape for planned in plan] == [(1, 8), (3,)]
    assert [planned.assumed_axes for planned in plan] == [(0,), ()]


def test_an_extent_given_for_one_input_holds_for_axes_of_the_same_name():
    graph = graph_of(
        ("ids", TensorProto.INT64, ("b", "s")), ("mask", TensorProto.INT64, ("b", "s"))
    )

    sample = only_sample(graph, shapes={"ids": (2, 5)})

    assert sample["mask"].shape == (2, 5)


@pytest.mark.parametrize("shape", [("b", "sequence"), (1, None), None])
def test_shapes_that_nobody_knows_are_made_up(shape):
    graph = graph_of(("ids", TensorProto.INT64, shape))

    assert only_sample(graph)["ids"].shape == (1, 128)


@pytest.mark.parametrize("shape", [(2,), (2, 9), (0, 8), (-1, 8)])
def test_a_shape_that_does_not_fit_is_refused(shape):
    graph = graph_of(("x", TensorProto.FLOAT, ("b", 8)))

    with pytest.raises(SampleError, match="Wrong shape for the input 'x'"):
        plausible_samples(graph, shapes={"x": shape})


def test_more_axes_than_arrays_may_have_are_refused():
    graph = graph_of(("x", TensorProto.FLOAT, (1,) * 70))

    with pytest.raises(SampleError, match="'x' has 70 axes, which is too many"):
        plausible_samples(graph)


@pytest.mark.parametrize("option", ["shapes", "val_range"])
def test_an_unknown_name_is_refused(option):
    graph = graph_of(("x", TensorProto.FLOAT, (8,)))

    with pytest.raises(SampleError, match="names 'y', which is no input of the model"):
        plausible_samples(graph, **{option: {"y": (1, 2)}})


def test_text_cannot_be_made_up():
    graph = graph_of(("x", TensorProto.STRING, (8,)))

    with pytest.raises(SampleError, match="cannot be made up"):
        plausible_samples(graph)


def test_the_same_seed_gives_the_same_samples_and_another_gives_others():
    plan = plan_inputs(graph_of(("x", TensorProto.FLOAT, (8,))), shapes={}, val_range={})

    first = [sample["x"] for sample in draw_samples(plan, iterations=3)]
    again = [sample["x"] for sample in draw_samples(plan, seed=DEFAULT_SEED, iterations=3)]
    shifted = [sample["x"] for sample in draw_samples(plan, seed=DEFAULT_SEED + 1, iterations=2)]

    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[1:], shifted)
    assert not np.array_equal(first[0], first[1])
