"""Models have tens of thousands of layers: listing them all takes about a second."""

from __future__ import annotations

import sys
import time

import pytest

from polygraphy_layerprec.files.ranking_file import load_ranking, save_ranking
from polygraphy_layerprec.ranking.agreement import compare_rankings
from polygraphy_layerprec.report.agreement import format_agreement
from polygraphy_layerprec.report.inspection import format_constraints
from polygraphy_layerprec.report.markdown import format_ranking_markdown
from polygraphy_layerprec.report.table import format_ranking
from polygraphy_layerprec.selection import SelectionRequest, constraints_of, select_layers
from tests.rankings import make_layer, make_ranking

COUNT = 30_000
MOST_SECONDS = 2.5 if sys.gettrace() is None else 15.0
"""Of processor time; a second where nobody competes for caches, and coverage slows it down."""


def ranking_of(block):
    layers = (
        make_layer(rank, f"/{block}.{rank // 20}/attention/self/query/MatMul_{rank}")
        for rank in range(1, COUNT + 1)
    )
    return make_ranking(*layers)


@pytest.fixture(scope="module", params=["encoder/layer", "層/正規化"])
def large(request):
    return ranking_of(request.param)


def constraint_lines(ranking):
    selection = select_layers(ranking, SelectionRequest(top_k=COUNT))
    return format_constraints(constraints_of(selection), width=80)


def agreement_lines(ranking):
    agreement = compare_rankings(ranking, ranking, first_label="a", second_label="b")
    return format_agreement(agreement, top=COUNT, width=80)


WAYS = {
    "narrow": lambda ranking: format_ranking(ranking, top=COUNT, width=80),
    "wide": lambda ranking: format_ranking(ranking, top=COUNT, width=200),
    "markdown": lambda ranking: format_ranking_markdown(ranking, top=COUNT),
    "constraints": constraint_lines,
    "agreement": agreement_lines,
}


@pytest.mark.parametrize("way", WAYS)
def test_listing_is_quick(large, way):
    start = time.process_time()
    lines = WAYS[way](large)
    spent = time.process_time() - start

    assert lines
    assert spent < MOST_SECONDS


def test_reading_is_quick(large, tmp_path):
    save_ranking(large, tmp_path / "ranking.json")

    start = time.process_time()
    found = load_ranking(tmp_path / "ranking.json")
    spent = time.process_time() - start

    assert found == large
    assert spent < MOST_SECONDS
