"""How two rankings agree, against closed forms; the other way round says the same."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraphy_layerprec.ranking.agreement import compare_rankings
from polygraphy_layerprec.records import (
    ConditionDifference,
    OutputDivergence,
    OutputErrorPair,
    TopOverlap,
    UnmeasuredLayer,
)
from tests.rankings import make_layer, make_ranking


def ranking_of(*names, **changes):
    """Returns a ranking of layers in this order, each as much worse than the next."""
    layers = [
        make_layer(
            rank,
            name,
            outputs=(f"{name}_value",),
            impact=1.0 / rank,
            introduced_error=1.0 / rank,
            cumulative_error=1.0 / rank,
        )
        for rank, name in enumerate(names, start=1)
    ]
    return replace(make_ranking(), layers=tuple(layers), **changes)


orders = st.permutations(list("abcdefgh")).map(lambda names: names[:6])


@given(orders)
def test_a_ranking_agrees_with_itself(names):
    agreement = compare_rankings(ranking_of(*names), ranking_of(*names))

    assert agreement.rank_correlation == 1.0
    assert agreement.impact_correlation == 1.0
    assert agreement.introduced_correlation == 1.0
    assert agreement.cumulative_correlation == 1.0
    assert agreement.same_model
    assert agreement.shared_count == 6
    assert not any(move.shift for move in agreement.layers)
    assert all(overlap.shared_count == overlap.count for overlap in agreement.overlaps)
    assert not agreement.only_first
    assert not agreement.only_second
    assert not agreement.differences
    assert not agreement.warnings


@given(orders, orders)
def test_the_other_way_round_says_the_same(first_names, second_names):
    first = ranking_of(*first_names)
    second = ranking_of(*second_names, precision="bf16")

    found = compare_rankings(first, second, first_label="f", second_label="s")
    mirrored = compare_rankings(second, first, first_label="s", second_label="f")

    assert (found.first, found.second) == (mirrored.second, mirrored.first)
    assert (found.only_first, found.only_second) == (mirrored.only_second, mirrored.only_first)
    for name in ("shared_count", "overlaps", "same_model", "cumulative_correlation"):
        assert getattr(found, name) == getattr(mirrored, name)
    for name in ("rank_correlation", "impact_correlation", "introduced_correlation"):
        assert getattr(found, name) == getattr(mirrored, name)
    assert {(d.name, d.first, d.second) for d in found.differences} == {
        (d.name, d.second, d.first) for d in mirrored.differences
    }
    assert {moved(move) for move in found.layers} == {
        moved(move, mirror=True) for move in mirrored.layers
    }


def moved(move, *, mirror=False):
    """Returns what a move says but its words, maybe with first and second exchanged."""
    figures = {field.name: getattr(move, field.name) for field in fields(move)}
    del figures["reason"]
    if mirror:
        figures = {
            name.replace("first", "*").replace("second", "first").replace("*", "second"): value
            for name, value in figures.items()
        }
        figures["shift"] = -figures["shift"]
    return tuple(sorted(figures.items(), key=lambda item: item[0]))


@given(orders, orders)
def test_shifts_add_up_to_nothing_and_layers_are_in_one_place(first_names, second_names):
    agreement = compare_rankings(ranking_of(*first_names), ranking_of(*second_names))

    names = [move.name for move in agreement.layers]
    assert sum(move.shift for move in agreement.layers) == 0
    assert set(names) == {*first_names} & {*second_names}
    assert {layer.name for layer in agreement.only_first} == {*first_names} - {*second_names}
    assert {layer.name for layer in agreement.only_second} == {*second_names} - {*first_names}
    assert len(names) == len(set(names)) == agreement.shared_count


def test_rank_correlation_is_the_textbook_formula():
    first, second = "abcde", "badce"

    agreement = compare_rankings(ranking_of(*first), ranking_of(*second))

    squares = sum((first.index(name) - second.index(name)) ** 2 for name in first)
    assert agreement.rank_correlation == pytest.approx(1 - 6 * squares / (5 * 24))


def test_the_reverse_order_is_the_opposite():
    agreement = compare_rankings(ranking_of(*"abcd"), ranking_of(*"dcba"))

    assert agreement.rank_correlation == -1.0
    assert agreement.cumulative_correlation == -1.0


def test_each_figure_has_a_correlation_of_its_own():
    first = ranking_of(*"abc")
    worse = dict(zip("abc", [1.0, 2.0, 3.0], strict=True))
    layers = tuple(replace(x, introduced_error=worse[x.name]) for x in first.layers)
    unknown = (*layers[:-1], replace(layers[-1], cumulative_error=None))

    agreement = compare_rankings(first, replace(first, layers=unknown))

    assert agreement.impact_correlation == 1.0
    assert agreement.introduced_correlation == -1.0
    assert agreement.cumulative_correlation == 1.0
    assert agreement.layers[-1].second_cumulative_error is None


@pytest.mark.parametrize("names", ["", "a"])
def test_where_there_is_no_order_there_is_no_correlation(names):
    agreement = compare_rankings(ranking_of(*names), ranking_of(*names))

    assert agreement.rank_correlation is None
    assert agreement.cumulative_correlation is None


def test_a_layer_says_where_it_moved_and_those_that_moved_most_come_first():
    agreement = compare_rankings(ranking_of(*"abcde"), ranking_of(*"badec"))

    assert [(m.name, m.first_rank, m.second_rank, m.shift) for m in agreement.layers] == [
        ("c", 3, 5, 2),
        ("a", 1, 2, 1),
        ("b", 2, 1, -1),
        ("d", 4, 3, -1),
        ("e", 5, 4, -1),
    ]


def test_a_layer_that_rose_far_comes_before_those_that_fell_a_little():
    agreement = compare_rankings(ranking_of(*"abcde"), ranking_of(*"eabcd"))

    assert [(move.name, move.shift) for move in agreement.layers][:2] == [("e", -4), ("a", 1)]


def test_layers_of_one_ranking_alone_do_not_move_the_others():
    agreement = compare_rankings(ranking_of(*"ab"), ranking_of(*"xyab"))

    assert [(move.second_rank, move.shift) for move in agreement.layers] == [(3, 0), (4, 0)]
    assert [(layer.name, layer.rank) for layer in agreement.only_second] == [("x", 1), ("y", 2)]


def test_layers_are_found_by_their_tensors_where_names_changed():
    second = ranking_of(*"ab")
    renamed = tuple(replace(layer, name=f"new/{layer.name}") for layer in second.layers)

    agreement = compare_rankings(ranking_of(*"ab"), replace(second, layers=renamed))

    assert [move.name for move in agreement.layers] == ["a", "b"]
    assert not agreement.only_first
    assert not agreement.only_second


def test_the_overlap_counts_the_worst_of_both():
    agreement = compare_rankings(ranking_of(*"abcdef"), ranking_of(*"afcdeb"))

    assert agreement.overlaps == (TopOverlap(1, 1), TopOverlap(5, 4))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "overflow"}, "rounding -> overflow"),
        ({"impact": 0.5}, "rounding, impact 1.0e+00 -> 5.0e-01"),
        ({"cumulative_error": None}, "rounding, cumulative error 1.0e+00 -> unknown"),
        ({}, "rounding"),
    ],
)
def test_what_sets_two_layers_apart_is_told(changes, reason):
    first = ranking_of("a")
    second = replace(first, layers=(replace(first.layers[0], **changes),))

    assert compare_rankings(first, second).layers[0].reason == reason


def test_output_errors_stand_side_by_side():
    first, second = ranking_of("a"), ranking_of("a")
    outputs = (OutputDivergence("logits", 0.5, 1.0, 0, 1.0), OutputDivergence("z", 1, 1, 0, 1.0))
    second = replace(second, output_error=replace(second.output_error, outputs=outputs))

    assert compare_rankings(first, second).outputs == (
        OutputErrorPair("logits", 0.0123, 0.5),
        OutputErrorPair("label", None, None),
        OutputErrorPair("z", None, 1.0),
    )


def test_what_was_not_measured_alike_is_listed():
    first = ranking_of("a")
    conditions = replace(
        first.conditions,
        backend="tensorrt",
        versions=(("numpy", "2.0.0"), ("tensorrt", "10.1")),
        sample_count=3,
        inputs="generated",
        impact="gain",
        outputs=("logits",),
    )

    differences = compare_rankings(first, replace(first, conditions=conditions)).differences

    assert differences == (
        ConditionDifference("backend", "onnxruntime-emulated", "tensorrt"),
        ConditionDifference("impact", "adjoint", "gain"),
        ConditionDifference("inputs", "user", "generated"),
        ConditionDifference("samples", "2", "3"),
        ConditionDifference("outputs that count", "all", "logits"),
        ConditionDifference("version of onnxruntime", "1.20.0", "none"),
        ConditionDifference("version of tensorrt", "none", "10.1"),
    )


def test_another_model_another_precision_and_failed_layers_are_warned_of():
    first = ranking_of("a")
    second = ranking_of(
        "b",
        precision="bf16",
        model=replace(first.model, digest="cd" * 32),
        unmeasured=(UnmeasuredLayer("z", "Custom", ("z",), "no kernel"),),
    )

    agreement = compare_rankings(first, second)

    assert not agreement.same_model
    told = " ".join(agreement.warnings)
    assert "different models" in told
    assert "no layer in common" in told
    assert "fp16, bf16" in told
    assert "The second ranking is without 1 layer that failed" in told


def test_the_sides_say_what_the_rankings_are():
    agreement = compare_rankings(ranking_of("a"), ranking_of("a"), first_label="a.json")

    assert agreement.first.label == "a.json"
    assert agreement.first.layer_count == 1
    assert agreement.first.measured_error == 0.0123
    assert agreement.first.forecast_error == 0.0119
    assert np.isfinite(agreement.second.measured_error)
