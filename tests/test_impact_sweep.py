"""A sample of `benchmarks/impact_sweep.py`: an impact is near the exact one, or says why not."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest

from benchmarks.impact_sweep import Comparison, compare, corpus_models, suite_models
from tests.rankings import make_layer


def assert_explained(models):
    found = [comparison for model in models for comparison in compare(*model)]
    assert len(found) > 50
    unsaid = [each for each in found if not each.agrees and not each.is_explained]
    assert [f"{c.model} {c.layer.name}: {c.layer.impact}, {c.exact}" for c in unsaid] == []


@pytest.mark.filterwarnings("ignore")
def test_every_twentieth_model_of_the_backend_suite():
    assert_explained(islice(suite_models(), 3, None, 20))


@pytest.mark.filterwarnings("ignore")
def test_attention_written_out_by_the_backend_suite():
    assert_explained(islice(suite_models("attention_4d"), 1, None, 6))


def test_the_models_of_the_tests():
    assert_explained(corpus_models())


@pytest.mark.parametrize(
    ("impact", "exact", "agrees"),
    [
        (1e-3, 2.9e-3, True),
        (1e-3, 3.1e-3, False),
        (1e-3, 0.0, False),
        (9e-7, 0.0, True),
        (0.0, 1e-2, False),
    ],
)
def test_what_is_called_near(impact, exact, agrees):
    layer = replace(make_layer(), impact=impact, overflow=False)

    comparison = Comparison("model", layer, exact)

    assert comparison.agrees is agrees
    assert not comparison.is_explained
    assert replace(comparison, layer=replace(layer, caveat="from few numbers")).is_explained
