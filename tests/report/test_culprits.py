from __future__ import annotations

import pytest

from polygraphy_layerprec.report.culprits import find_culprits, scope_of
from tests.rankings import make_layer, make_ranking

NORM = ("ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div")


def named(rank, name, op, **changes):
    return make_layer(rank, name, op=op, block="", share=0.0, **changes)


def overflowing(rank, name, op, **changes):
    content = {"overflow": True, "overflow_count": 3, "kind": "overflow", "max_abs": 8.46e5}
    return named(rank, name, op, **{**content, **changes})


def norm_layers(ops, broken):
    return [
        (overflowing if op in broken else named)(rank, f"/blocks.0/norm/{op}_{rank}", op)
        for rank, op in enumerate(ops, start=1)
    ]


def texts(*layers, kept=()):
    return [group.text for group in find_culprits(make_ranking(*layers), kept)]


@pytest.mark.parametrize(
    ("ops", "name"),
    [
        (NORM, "LayerNorm written out"),
        (("Pow", "ReduceMean", "Sqrt", "Div"), "RMSNorm written out"),
    ],
)
def test_the_pieces_of_a_norm_are_called_one(ops, name):
    layers = norm_layers(ops, broken=("Pow", "Sqrt"))

    assert texts(*layers) == [f"blocks.0/norm: {name}, 2 layers overflow, |x| up to 8.46e+05"]


def test_those_that_only_read_an_overflow_are_told_apart():
    reading = overflowing(
        3, "/norm/Sqrt", "Sqrt", overflow_count=0, max_abs=410.0, max_abs_input=1.68e5
    )
    layers = [overflowing(1, "/norm/Pow", "Pow"), overflowing(2, "/norm/Add", "Add"), reading]

    assert texts(*layers) == [
        "norm: Pow, Add, Sqrt, 2 layers overflow, 1 layer reads an overflow, |x| up to 8.46e+05"
    ]


def test_a_whole_model_without_modules_is_no_norm():
    layers = [named(rank, f"n{rank}", op) for rank, op in enumerate(NORM, start=1)]
    layers[2] = overflowing(3, "n3", "Pow")

    assert texts(*layers) == ["n3: Pow, 1 layer overflows, |x| up to 8.46e+05"]


def test_shares_are_added_up_and_terms_that_cancel_are_named():
    layers = [
        make_layer(1, "/shift/Add", op="Add", share=0.9),
        make_layer(2, "/shift/Sub", op="Sub", share=1e-9, kind="cancellation"),
        make_layer(3, "/else/Mul", op="Mul", share=1e-3),
    ]

    assert texts(*layers, kept={"/shift/Sub"}) == [
        "shift: Add, Sub, cancellation, 90 % of the error"
    ]
    assert texts(*layers) == ["/shift/Add: Add, 90 % of the error"]


def test_what_loses_values_comes_first_then_the_part_with_the_largest_share():
    reading = {"overflow": True, "max_abs_input": 7e5, "max_abs": 1.0}
    layers = [
        make_layer(1, "/late/Sqrt", op="Sqrt", share=0.0, **reading),
        overflowing(2, "/norm/Pow", "Pow"),
        make_layer(3, "/stem/Conv", op="Conv", share=0.4),
        make_layer(4, "/many/Mul", op="Mul", share=0.35),
        make_layer(5, "/many/Add", op="Add", share=0.25),
    ]

    found = find_culprits(make_ranking(*layers))

    assert [group.place for group in found] == ["/norm/Pow", "/late/Sqrt", "many", "/stem/Conv"]


def test_guards_keep_outputs_finite():
    guard = named(1, "/norm/Clip", "Clip", keeps_finite=True, kind="guard")

    (group,) = find_culprits(make_ranking(guard))

    assert group.text == "/norm/Clip: Clip, 1 layer keeps outputs finite"
    assert group.is_broken


def test_where_nothing_stands_out_the_largest_impacts_are_shown():
    layers = [make_layer(rank, f"/a.{rank}/Add", share=1e-3) for rank in range(1, 9)]

    assert [group.place for group in find_culprits(make_ranking(*layers))] == [
        "/a.1/Add",
        "/a.2/Add",
        "/a.3/Add",
    ]


@pytest.mark.parametrize(
    ("changes", "scope"),
    [
        ({"node_name": "/a/b/Add"}, "a/b"),
        ({"node_name": "", "outputs": ("/a/Add_output_0",)}, "a"),
        ({"node_name": "add", "block": "/top"}, "top"),
        ({"node_name": "add", "block": ""}, ""),
    ],
)
def test_the_module_of_a_layer_is_in_its_name(changes, scope):
    assert scope_of(make_layer(**changes)) == scope
