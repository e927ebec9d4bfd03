"""Tensors of engines and saved results, matched with the layers that make them."""

from __future__ import annotations

import pytest

from polygraphy_layerprec.matching.tensor_matching import (
    check_tensors_of_model,
    match_tensors,
    name_some,
)
from polygraphy_layerprec.model import load_graph
from tests.models import chain
from tests.rankings import make_layer, make_ranking


def layer(rank, **changes):
    """Returns layer `/a`, `/b`, ... which makes the tensor `ta`, `tb`, ..."""
    name = "_abcdef"[rank]
    return make_layer(rank, f"/{name}", **{"outputs": (f"t{name}",), **changes})


def test_layers_of_an_engine_are_found_by_what_the_network_tells_or_by_their_names():
    emulated = make_ranking(layer(1), layer(2), layer(3), layer(4), layer(5, node_name=""))
    names = ["(Unnamed Layer* 3) [Softmax]_output", "/b_output", "/c_7_output", "/c_9_output_1"]
    names += ["td", "/d_output", "/nobody_output", "unrelated", "_output"]

    matched = match_tensors(emulated, names, tensor_layers={names[0]: "/a", "unrelated": "/no"})

    assert matched == {
        "/a": (names[0],),
        "/b": ("/b_output",),
        "/c": ("/c_7_output", "/c_9_output_1"),
        "/d": ("td",),
    }


def test_a_name_that_layers_share_or_an_onnx_value_has_finds_no_layer():
    emulated = make_ranking(layer(1, node_name="same"), layer(2, node_name="same"), layer(3))

    assert match_tensors(emulated, ["same_output", "same_1_output"]) == {}
    assert match_tensors(emulated, ["/c_output"], model_tensors={"/c_output"}) == {}


def test_names_of_layers_may_hold_line_breaks():
    emulated = make_ranking(layer(1, node_name="one\ntwo"))

    assert match_tensors(emulated, ["one\ntwo_output"]) == {"/a": ("one\ntwo_output",)}
    assert match_tensors(emulated, ["one\ntwo_3_output"]) == {"/a": ("one\ntwo_3_output",)}


@pytest.mark.parametrize("name", ["t0", "t2", "node_1_output", "node_1_5_output_0"])
def test_one_tensor_of_the_model_is_enough(name):
    check_tensors_of_model(load_graph(chain(3)), ["strange", name])


@pytest.mark.parametrize("names", [[], ["strange", "node_1"], ["x"]])
def test_tensors_of_another_model_are_refused(names):
    with pytest.raises(ValueError, match="they come from another model") as caught:
        check_tensors_of_model(load_graph(chain(3)), names)

    assert f"None of the {len(names)} tensors" in str(caught.value)
    assert "'t0', 't1', 't2'" in str(caught.value)


def test_names_are_shown_in_ascii_and_the_rest_counted():
    assert name_some(["é", "b\n"]) == r"'\xe9', 'b\n'"
    assert name_some(list("abcde")) == "'a', 'b', 'c' and 2 more"
