"""Groups of layers that are kept at once."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.selection import SelectionRequest, SetForecast, select_layers
from polygraphy_layerprec.selection.groups import group_masks
from tests.decisions import FakeMeasure
from tests.layer_graphs import layer_of
from tests.rankings import make_ranking

LAYERS = [
    layer_of("a/Add", 2.0, block="a", op="Add"),
    layer_of("b/Pow", 1.5, block="b", op="Pow"),
    layer_of("b/Add", 1.5, block="b", op="Add"),
    layer_of("c/Mul", 0.5, block="c", op="Mul"),
]


def select(error_of, layers=LAYERS, tolerance=1.0, **request):
    selection = select_layers(
        make_ranking(*layers),
        SelectionRequest(**request),
        measure=FakeMeasure(error_of, tolerance),
    )
    return [layer.name for layer in selection.layers]


def forecast_error(layers=LAYERS):
    return SetForecast(layers).error


def test_groups_are_ordered_by_the_sum_of_squared_impacts():
    every = np.ones(4, bool)

    blocks = group_masks(SetForecast(LAYERS), "block", every)
    operators = group_masks(SetForecast(LAYERS), "operator", np.array([True, True, False, True]))

    assert [mask.nonzero()[0].tolist() for mask in blocks] == [[1, 2], [0], [3]]
    assert [mask.nonzero()[0].tolist() for mask in operators] == [[0], [1], [3]]


@pytest.mark.parametrize(
    ("by", "kept"),
    [("block", ["a/Add", "b/Pow", "b/Add"]), ("operator", ["a/Add", "b/Pow", "b/Add"])],
)
def test_whole_groups_are_kept_until_the_criterion_is_met(by, kept):
    assert select(forecast_error(), by=by, tolerance=0.6) == kept


def test_groups_that_turn_out_not_to_be_needed_are_dropped():
    def only_c_matters(kept):
        return 0.0 if kept[3] else 2.0

    assert select(only_c_matters, by="block") == ["c/Mul"]


def test_what_overflows_brings_its_group_and_may_be_dropped_in_the_end():
    layers = [layer_of("x/Pow", 0.0, block="x", op="Pow", overflow=True), *LAYERS]

    assert select(forecast_error(layers), layers, by="block", tolerance=2.2) == ["b/Pow", "b/Add"]
    broken = select(
        lambda kept: forecast_error(layers)(kept) if kept[0] else np.inf,
        layers,
        by="block",
        tolerance=2.2,
    )
    assert broken == ["x/Pow", "b/Pow", "b/Add"]


def test_what_is_named_stays_with_its_group():
    kept = select(forecast_error(), by="block", tolerance=2.2, keep=("b/Pow",))

    assert kept == ["b/Pow", "b/Add"]


def test_where_no_groups_meet_the_criterion_the_best_are_kept():
    assert select(lambda kept: 9.0 - kept.sum(), by="operator") == [one.name for one in LAYERS]


@pytest.mark.parametrize(
    ("request_", "measure", "message"),
    [
        ({}, None, "`--by block` measures sets, and so needs the model"),
        ({"top_k": 1}, FakeMeasure(len), "`--by block` and --top-k cannot go together"),
    ],
)
def test_groups_need_sets_to_be_looked_for_and_measured(request_, measure, message):
    with pytest.raises(ValueError, match=message):
        select_layers(
            make_ranking(*LAYERS), SelectionRequest(by="block", **request_), measure=measure
        )
