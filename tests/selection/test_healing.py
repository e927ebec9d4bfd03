"""The search for the layers that keep outputs finite, against brute force and hostile oracles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraphy_layerprec.selection.healing import find_guards, linked_groups
from tests.layer_graphs import all_sets, chain_of, layer_graphs, layer_of, mask_of


def names_of(layers, mask):
    return "".join(sorted(layer.name for layer, kept in zip(layers, mask, strict=True) if kept))


def needs(layers, *sets):
    """An oracle that is content with any set that holds one of these."""
    wanted = [mask_of(layers, names) for names in sets]
    return lambda kept: any((kept & mask).sum() == mask.sum() for mask in wanted)


def find(layers, is_finite, *, required="", allowed=None, starts=""):
    every = "".join(layer.name for layer in layers)
    return find_guards(
        layers,
        is_finite,
        required=mask_of(layers, required),
        allowed=mask_of(layers, every if allowed is None else allowed),
        starts=set(starts),
    )


def chain(count):
    return chain_of(*[1.0] * count, underflow_count=0)


def test_a_guard_and_its_reader_are_found_and_no_layer_more():
    layers = chain(8)

    found = find(layers, needs(layers, "cd"), starts="d")

    assert names_of(layers, found) == "cd"


def test_nothing_is_found_where_what_is_required_is_enough():
    layers = chain(3)

    assert not find(layers, needs(layers, "b"), required="b").any()


@pytest.mark.parametrize("allowed", ["a", "abde"])
def test_nothing_helps_without_what_may_not_be_kept(allowed):
    layers = chain(5)

    assert find(layers, needs(layers, "bc"), allowed=allowed) is None


def test_what_is_required_is_not_found_again():
    layers = chain(5)

    found = find(layers, needs(layers, "bcd"), required="c", starts="d")

    assert names_of(layers, found) == "bd"


@pytest.mark.parametrize("starts", ["", "c", "h", "nobody"])
def test_guards_far_from_where_it_starts_are_found_too(starts):
    layers = chain(26)

    assert names_of(layers, find(layers, needs(layers, "cx"), starts=starts)) == "cx"


def test_of_two_sets_that_help_the_nearer_is_taken():
    layers = chain(9)

    assert names_of(layers, find(layers, needs(layers, "b", "g"), starts="h")) == "g"


def test_of_two_that_are_as_near_one_where_values_vanish_is_taken_and_then_the_cheaper():
    layers = chain(3)
    layers[0] = layer_of("a", 1.0, readers=(("b", 1.0),), underflow_count=0, flops=9.0)
    layers[2] = layer_of("c", 1.0, underflow_count=5, flops=99.0)
    assert names_of(layers, find(layers, needs(layers, "a", "c"), starts="b")) == "c"

    layers[2] = layer_of("c", 1.0, underflow_count=0, flops=99.0)
    assert names_of(layers, find(layers, needs(layers, "a", "c"), starts="b")) == "a"


def test_layers_are_linked_by_their_tensors_where_no_error_is_passed_on():
    layers = [
        layer_of("a", 0.0, outputs=("t",), readers=()),
        layer_of("b", 0.0, inputs=("t", "w"), outputs=("", "u")),
        *(layer_of(name, 0.0) for name in "cdefghij"),
    ]
    asked = []

    def is_finite(kept):
        asked.append(kept)
        return needs(layers, "ab")(kept)

    assert names_of(layers, find(layers, is_finite, starts="b")) == "ab"
    assert all(kept.sum() in (0, 1, 2, 10) for kept in asked)


def test_few_sets_are_measured_and_none_twice():
    layers = [
        layer_of(f"n{i}", 1.0, readers=((f"n{i + 1}", 1.0),), underflow_count=0)
        for i in range(1000)
    ]
    asked = []

    def is_finite(kept):
        asked.append(kept.tobytes())
        return bool(kept[400] and kept[401])

    found = find_guards(
        layers,
        is_finite,
        required=np.zeros(1000, bool),
        allowed=np.ones(1000, bool),
        starts={"n401"},
    )

    assert np.flatnonzero(found).tolist() == [400, 401]
    assert len(asked) == len(set(asked)) <= 8


def test_guards_that_a_nan_hides_are_looked_for_where_values_vanish():
    guards = set(range(50, 1000, 100))
    layers = [
        layer_of(f"n{i}", 1.0, readers=((f"n{i + 1}", 1.0),), underflow_count=int(i in guards))
        for i in range(1000)
    ]
    asked = []

    def is_finite(kept):
        asked.append(kept)
        return all(kept[i] and kept[i + 1] for i in guards)

    found = find_guards(
        layers,
        is_finite,
        required=np.zeros(1000, bool),
        allowed=np.ones(1000, bool),
        starts={"n51"},
    )

    assert np.flatnonzero(found).tolist() == sorted(guards | {i + 1 for i in guards})
    assert len(asked) <= 80


@given(layer_graphs(), st.data())
def test_none_that_is_found_can_be_left_out(layers, data):
    count = len(layers)
    subsets = list(all_sets(count))
    minimal = data.draw(st.lists(st.sampled_from(subsets), min_size=1, max_size=3))
    starts = data.draw(st.sets(st.sampled_from([layer.name for layer in layers])))
    required = data.draw(st.sampled_from(subsets))

    def is_finite(kept):
        return any(not (wanted & ~kept).any() for wanted in minimal)

    found = find_guards(
        layers, is_finite, required=required, allowed=np.ones(count, bool), starts=starts
    )

    assert is_finite(required | found)
    assert not (found & required).any()
    for member in np.flatnonzero(found):
        fewer = required | found
        fewer[member] = False
        assert not is_finite(fewer)


@given(layer_graphs(), st.integers(0, 1000))
def test_whatever_is_measured_a_set_that_was_measured_to_be_finite_is_returned(layers, seed):
    rng = np.random.default_rng(seed)
    answers = {}

    def is_finite(kept):
        return answers.setdefault(kept.tobytes(), bool(rng.integers(2)))

    nothing, every = np.zeros(len(layers), bool), np.ones(len(layers), bool)
    found = find_guards(layers, is_finite, required=nothing, allowed=every)

    if found is None:
        assert not answers[every.tobytes()]
    else:
        assert answers[found.tobytes()]


def test_groups_are_of_layers_that_read_one_another_in_execution_order():
    layers = [
        layer_of("b", 1.0, graph_index=2),
        layer_of("a", 1.0, graph_index=1, readers=(("b", 1.0),)),
        layer_of("e", 1.0, graph_index=3),
        layer_of("d", 1.0, graph_index=5),
        layer_of("c", 1.0, graph_index=4, readers=(("d", 1.0), ("e", 1.0))),
    ]

    assert linked_groups(layers, mask_of(layers, "abcd")) == [(1, 0), (4, 3)]
    assert linked_groups(layers, mask_of(layers, "abcde")) == [(1, 0), (2, 4, 3)]
    assert linked_groups(layers, mask_of(layers, "")) == []
