"""The rankings that reports are timed with."""

from __future__ import annotations

import pytest

from benchmarks.report_load import make_ranking


def test_made_up_rankings_are_like_real_ones():
    layers = make_ranking(200).layers
    impacts = [layer.impact for layer in layers]

    assert [layer.rank for layer in layers] == list(range(1, 201))
    assert impacts == sorted(impacts, reverse=True)
    assert sum(layer.share for layer in layers) == pytest.approx(1.0)
    assert len({layer.name for layer in layers}) == 200
    assert sorted(layer.graph_index for layer in layers) == list(range(200))
