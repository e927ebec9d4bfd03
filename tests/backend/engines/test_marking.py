from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraphy_layerprec.backend.engines.marking import (
    MarkedLayer,
    check_choices,
    choose_layers,
    halve,
    plan_marking,
)
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.files.ranking_file import load_ranking
from tests.rankings import make_layer, make_ranking

LAYERS = (
    make_layer(1, "/b/norm/Pow", op="Pow", graph_index=2, outputs=("pow",)),
    make_layer(2, "/b/Add", op="Add", graph_index=3, outputs=("sum",)),
    make_layer(3, "/a/MatMul", op="MatMul", graph_index=0, outputs=("product",)),
    make_layer(4, "/a/norm/Sub", op="Sub", graph_index=1, outputs=("difference",)),
)
RANKING = make_ranking(*LAYERS)


def chosen(*choices: str, files=None) -> list[str]:
    layers = choose_layers(RANKING, choices, lambda path: (files or {})[path])
    return [layer.name for layer in layers]


def test_without_choices_every_layer_is_measured_in_execution_order():
    assert chosen() == ["/a/MatMul", "/a/norm/Sub", "/b/norm/Pow", "/b/Add"]


@pytest.mark.parametrize(
    ("choices", "names"),
    [
        (["regex:norm"], ["/a/norm/Sub", "/b/norm/Pow"]),
        (["regex:^/b/"], ["/b/norm/Pow", "/b/Add"]),
        (["op:matmul"], ["/a/MatMul"]),
        (["top:2"], ["/b/norm/Pow", "/b/Add"]),
        (["top:1", "op:Sub"], ["/a/norm/Sub", "/b/norm/Pow"]),
        (["regex:a:b|Pow"], ["/b/norm/Pow"]),
    ],
)
def test_layers_are_chosen_by_name_operator_and_rank(choices, names):
    assert chosen(*choices) == names


def test_the_top_of_an_earlier_ranking_decides():
    earlier = make_ranking(*reversed(LAYERS))

    assert chosen("top:1:earlier: v1.json", files={"earlier: v1.json": earlier}) == ["/a/norm/Sub"]


@pytest.mark.parametrize(
    "find",
    [
        lambda choice: choose_layers(RANKING, [choice], load_ranking),
        lambda choice: check_choices([choice], load_ranking),
    ],
    ids=["with the layers", "without"],
)
def test_a_file_that_is_no_ranking_is_refused(tmp_path, find):
    path = tmp_path / "notes.json"
    path.write_text("[]")

    with pytest.raises(ExecutionError, match="is not a ranking that can be read") as caught:
        find(f"top:1:{path}")

    assert "Cannot use `--outputs-from top:1:" in str(caught.value)


@pytest.mark.parametrize("choice", ["norm", "top:0", "regex:("])
def test_what_no_model_can_fix_is_refused_without_one(choice):
    with pytest.raises(ExecutionError, match="Cannot use `--outputs-from"):
        check_choices(["op:Add", choice], load_ranking)


def test_what_a_model_may_have_is_left_to_it():
    check_choices(["op:Add", "regex:norm", "top:3"], load_ranking)


def test_a_ranking_of_another_model_is_refused():
    model = make_ranking().model
    other = make_ranking(model=type(model)("other.onnx", "cd" * 32, 3, 17))

    with pytest.raises(ExecutionError, match=r"about another model, 'other\.onnx'"):
        chosen("top:1:other.json", files={"other.json": other})


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("norm", "none of these forms"),
        ("top:0", "none of these forms"),
        ("top:x", "none of these forms"),
        ("regex:", "none of these forms"),
        ("regex:(", "no regular expression"),
        ("regex:gone", "names no layer"),
        ("op:Gone", "names no layer"),
    ],
)
def test_a_choice_that_says_nothing_is_refused(choice, message):
    with pytest.raises(ExecutionError, match=message):
        chosen(choice)


def plan(layers, *, limit=10**9, reasons=None, outputs=(), samples=2, spread=1.0):
    found = {name: "" for layer in layers for name in layer.outputs}
    return plan_marking(
        layers,
        {**found, **(reasons or {})},
        model_outputs=outputs,
        sample_count=samples,
        spread=spread,
        max_memory_bytes=limit,
    )


def names(marking) -> list[list[str]]:
    return [[layer.name for layer in chunk] for chunk in marking.chunks]


def test_all_layers_are_marked_at_once_if_memory_allows():
    assert names(plan(LAYERS)) == [[layer.name for layer in LAYERS]]


def test_a_layer_takes_its_elements_in_fp32_for_reference_and_candidate():
    # 128 elements over two samples: 64 of four bytes, twice.
    assert plan(LAYERS[:1]).chunks[0][0].nbytes == 64 * 4 * 2


def test_samples_of_different_size_are_planned_by_the_largest():
    assert plan(LAYERS[:1], spread=1.5).chunks[0][0].nbytes == 1.5 * 64 * 4 * 2


def test_chunks_end_where_the_memory_does():
    assert [len(chunk) for chunk in plan(LAYERS, limit=2 * 512).chunks] == [2, 2]
    assert [len(chunk) for chunk in plan(LAYERS, limit=3 * 512 - 1).chunks] == [2, 2]
    assert [len(chunk) for chunk in plan(LAYERS, limit=3 * 512).chunks] == [3, 1]


def test_a_layer_beyond_the_memory_is_marked_by_itself():
    assert names(plan(LAYERS[:2], limit=1)) == [["/b/norm/Pow"], ["/b/Add"]]


@given(st.lists(st.integers(1, 10**6), max_size=20), st.integers(1, 10**7))
def test_no_chunk_of_several_layers_exceeds_the_memory(counts, limit):
    layers = [
        make_layer(1, f"layer{i}", outputs=(f"t{i}",), element_count=count)
        for i, count in enumerate(counts)
    ]

    marking = plan(layers, limit=limit)

    assert [name for chunk in names(marking) for name in chunk] == [la.name for la in layers]
    assert all(sum(la.nbytes for la in c) <= limit for c in marking.chunks if len(c) > 1)


def test_what_cannot_be_marked_is_listed_with_the_reason():
    marking = plan(LAYERS[:2], reasons={"pow": "it is a shape tensor in the network"})

    assert names(marking) == [["/b/Add"]]
    assert marking.skipped == (("/b/norm/Pow", "it is a shape tensor in the network"),)


def test_an_output_of_the_model_is_neither_marked_nor_missed():
    marking = plan(LAYERS[:2], outputs=("pow",))

    assert names(marking) == [["/b/Add"]]
    assert marking.skipped == ()


def test_halves_hold_every_layer_once():
    chunk = tuple(MarkedLayer(str(i), (str(i),), 1) for i in range(5))

    first, second = halve(chunk)

    assert first + second == chunk
    assert first
    assert len(second) == 3
