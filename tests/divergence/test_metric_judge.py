"""A metric of the user's over the whole data set."""

from __future__ import annotations

import math
from types import MappingProxyType

import numpy as np
import pytest

from polygraphy_layerprec.divergence.metric_judge import MetricJudge
from polygraphy_layerprec.errors import UserError
from tests.merged_judging import judged_apart


def share_of_right(outputs, samples):
    """Top-1: the share of samples whose largest output is their label."""
    pairs = zip(outputs, samples, strict=True)
    return np.mean([y["y"].argmax() == sample["label"] for y, sample in pairs])


class Sample(dict):
    labels = MappingProxyType({"label": 1})


SAMPLE = Sample(x=np.zeros(1))
RIGHT, WRONG = {"y": np.float32([0, 1])}, {"y": np.float32([1, 0])}


def judge(*candidates, reference=RIGHT, metric=share_of_right, max_drop=0.0, is_percent=False):
    one = MetricJudge(metric, "top1", max_drop, is_percent)
    judging = one.start()
    for candidate in candidates:
        judging.add(reference, candidate, SAMPLE)
    (found,) = judging.judgements()
    apart = [(reference, candidate, SAMPLE) for candidate in candidates]
    assert judged_apart(one, apart) == (found,)
    return found


def test_the_drop_from_fp32_over_all_samples_counts():
    found = judge(RIGHT, WRONG, RIGHT, RIGHT, max_drop=0.1)

    assert found.value == pytest.approx(0.25)
    assert found.excess == pytest.approx(2.5)
    assert found.text == "drop of top1 0.25 (at most 0.1; 1 in FP32, now 0.75)"
    assert judge(RIGHT, RIGHT, max_drop=0.1).passed


def test_no_drop_passes_only_without_one():
    assert judge(RIGHT).passed
    failed = judge(RIGHT, WRONG)
    assert (failed.passed, failed.excess) == (False, 1.5)
    assert judge(RIGHT, reference=WRONG).value == 0.0  # better than FP32


def test_a_drop_may_be_in_percent_of_what_fp32_has():
    def halves(outputs, _):
        return sum(float(y["y"][0]) for y in outputs)

    lower, higher = {"y": np.float32([3.0])}, {"y": np.float32([4.0])}

    found = judge(lower, reference=higher, metric=halves, max_drop=50.0, is_percent=True)

    assert found.text == "drop of top1 25 % (at most 50 %; 4 in FP32, now 3)"
    assert found.excess == pytest.approx(0.5)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_a_percentage_of_nothing_is_refused(value):
    def first(outputs, _):
        return next(outputs)["y"][0]

    candidate, reference = {"y": np.float32([value])}, {"y": np.float32([0.0])}

    with pytest.raises(ValueError, match="`top1` is 0 in FP32, of which there is no percentage"):
        judge(candidate, reference=reference, metric=first, max_drop=1.0, is_percent=True)


@pytest.mark.parametrize(("value", "is_blind"), [(-1.0, False), (0.0, True), (1.0, False)])
def test_a_metric_that_stays_at_nothing_says_nothing(value, is_blind):
    def first(outputs, _):
        return next(outputs)["y"][0]

    found = judge(
        {"y": np.float32([value])}, reference={"y": np.float32([0.0])}, metric=first, max_drop=9.0
    )

    assert found.is_blind is is_blind


@pytest.mark.parametrize("candidate", [{}, {"y": np.float32([0])}, {"y": np.float32([0, np.nan])}])
def test_a_metric_is_not_asked_about_what_was_lost(candidate):
    asked = []

    def metric(outputs, _):
        asked.append(list(outputs))
        return 0.5

    found = judge(RIGHT, candidate, metric=metric)

    assert asked == [[RIGHT, RIGHT]] * 2  # of all samples at once, and apart
    assert (found.value, found.excess) == (None, math.inf)
    assert found.text == "drop of top1 unknown (at most 0; 0.5 in FP32)"


def test_integers_are_never_lost():
    found = judge({"y": np.array([0, 7])}, reference={"y": np.array([0, 1])})

    assert found.passed


@pytest.mark.parametrize("returned", ["many", None, float("nan"), np.zeros(2)])
def test_a_metric_that_is_no_number_is_refused(returned):
    with pytest.raises(ValueError, match="The metric `top1` must return a finite number, got"):
        judge(RIGHT, metric=lambda _, __: returned)


def test_a_metric_that_draws_numbers_is_refused():
    draws = iter([0.5, 0.25])

    with pytest.raises(UserError, match=r"(?s)another number for the same outputs .*Seed"):
        judge(RIGHT, metric=lambda _, __: next(draws))
