"""Polygraphy's comparison functions as judges: its verdict, and an excess that agrees with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polygraphy import comparator
from polygraphy.comparator import IterationResult

from polygraphy_layerprec.backend import polygraphy_functions
from polygraphy_layerprec.backend.polygraphy_functions import COMPARISONS
from polygraphy_layerprec.backend.polygraphy_judges import polygraphy_judges
from polygraphy_layerprec.backend.polygraphy_options import PolygraphyOptions
from polygraphy_layerprec.tools.args.comparison import COMPARISON_NAMES
from tests.merged_judging import judged_apart

EXACT = {"y": np.float32([3.0, 4.0]), "z": np.float32([[1.0, 2.0], [3.0, 4.0]])}
FOUND = {"y": np.float32([3.0, 4.5]), "z": np.float32([[1.0, 2.0], [3.0, 4.0]])}


def judge(*pairs, **options):
    """Returns the judgements of pairs of reference and candidate."""
    pairs = pairs or ((EXACT, FOUND),)
    judgements = []
    for one in polygraphy_judges(PolygraphyOptions(**options), pairs[0][0]):
        judging = one.start()
        for exact, found in pairs:
            judging.add(exact, found, {})
        assert judged_apart(one, [(*pair, {}) for pair in pairs]) == judging.judgements()
        judgements += judging.judgements()
    return judgements


def test_the_command_line_knows_the_functions():
    assert COMPARISON_NAMES == COMPARISONS


def test_a_threshold_selects_its_function():
    assert PolygraphyOptions(atol={"": 1.0}).functions == ("simple",)
    assert PolygraphyOptions(thresholds={"snr": {"": 1.0}, "l2": {}}).functions == ("snr",)
    assert PolygraphyOptions(postprocess={"": 1}).functions == ("indices",)
    assert PolygraphyOptions(compare=("l2",), postprocess={"": 1}).functions == ("l2",)
    both = PolygraphyOptions(compare=("quality_metrics", "snr"), rtol={"": 1.0})
    assert both.functions == ("psnr", "snr", "simple")
    assert PolygraphyOptions().functions == ()


@pytest.mark.parametrize(
    ("name", "limit", "value", "excess"),
    [
        ("l2", 0.25, 0.5, 2.0),
        # 1 - (9 + 18) / (5 * sqrt(29.25)) in each, an error that goes with its root.
        ("cosine_similarity", 0.99, 27 / (5 * math.sqrt(29.25)), None),
        ("psnr", 30.0, 20 * math.log10(4.0) - 10 * math.log10(0.125), None),
        ("snr", 30.0, 10 * math.log10(12.5 / 0.125), 10.0**0.5),
    ],
)
def test_each_metric_gives_its_number_and_how_far_it_is_off(name, limit, value, excess):
    (found,) = judge(thresholds={name: {"": limit}})

    assert found.value == pytest.approx(value, rel=1e-6)
    assert found.output == "y"
    expected = {
        "cosine_similarity": math.sqrt((1 - value) / (1 - limit)),
        "psnr": 10 ** ((limit - value) / 20),
    }.get(name, excess)
    assert found.excess == pytest.approx(expected, rel=1e-4)
    assert found.passed is (expected <= 1)


def test_what_the_default_judges_beside_a_named_output_is_named_too():
    judged = judge(atol={"y": 1.0})

    assert [found.criterion.outputs for found in judged] == [("z",), ("y",)]
    assert [found.passed for found in judged] == [True, True]
    assert judged[0].text.startswith("elemwise error over atol 1e-05 or rtol 1e-05 of z 0 ")
    assert [found.criterion.outputs for found in judge(atol={"y": 1.0, "z": 1.0})] == [
        ("y",),
        ("z",),
    ]
    assert [found.criterion.outputs for found in judge(atol={"": 1.0})] == [()]


def test_halving_the_error_halves_the_excess():
    half = {**FOUND, "y": np.float32([3.0, 4.25])}

    for name, limit in (("l2", 0.1), ("cosine_similarity", 0.9999), ("psnr", 50), ("snr", 50)):
        (whole,), (halved,) = (
            judge((EXACT, found), thresholds={name: {"": limit}}) for found in (FOUND, half)
        )
        assert halved.excess == pytest.approx(whole.excess / 2, rel=0.05)


@pytest.mark.parametrize("statistic", ["elemwise", "max", "mean", "median", "quantile"])
def test_tolerances_are_judged_by_any_statistic(statistic):
    options = {"check_error_stat": {"": statistic}, "rtol": {"": 0.0}}

    (passed,) = judge(atol={"": 0.51}, **options)
    (failed,) = judge(atol={"": 0.001}, **options)

    assert passed.passed
    assert not failed.passed or statistic == "median"
    assert failed.criterion.metric == f"{statistic} error over atol 0.001 or rtol 0"


def test_an_element_passes_by_either_tolerance():
    exact, found = {"y": np.float32([1.0, 100.0])}, {"y": np.float32([1.5, 101.0])}

    (judged,) = judge((exact, found), atol={"": 0.5}, rtol={"": 0.02})

    # The first by 0.5 / 0.5, the second by (1 / 101) / 0.02.
    assert judged.value == pytest.approx(1.0)
    assert judged.passed


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=2),
    st.sampled_from(["elemwise", "max", "mean", "median", "quantile"]),
    st.sampled_from([0.0, 1e-3, 0.1, 1.0]),
    st.sampled_from([0.0, 1e-3, 0.1]),
)
def test_the_verdict_is_that_of_polygraphy(values, statistic, atol, rtol):
    exact, found = {"y": np.float32([1.0, -2.0])}, {"y": np.float32(values)}
    simple = getattr(comparator, "SimpleCompareFunc", None) or comparator.CompareFunc.simple
    function = simple(atol=atol, rtol=rtol, check_error_stat=statistic)
    expected = function(IterationResult(exact), IterationResult(found))["y"]

    (judged,) = judge(
        (exact, found), atol={"": atol}, rtol={"": rtol}, check_error_stat={"": statistic}
    )

    assert judged.passed is bool(expected)


def test_outputs_have_their_own_thresholds_and_others_polygraphys_default():
    named, others = judge(thresholds={"l2": {"y": 1.0}})[::-1]

    assert (named.criterion.threshold, named.criterion.outputs) == (1.0, ("y",))
    assert (named.value, named.passed) == (pytest.approx(0.5), True)
    assert (others.criterion.threshold, others.output, others.value) == (1e-5, "z", 0.0)


def test_parts_of_outputs_are_judged_apart():
    found = {**EXACT, "z": np.float32([[1.0, 2.0], [3.0, 9.0]])}

    judged = judge((EXACT, found), thresholds={"l2": {"": 1.0, "z[:, 0]": 1e-6, "z[:, 1:]": 4.0}})

    by_part = {"".join(one.criterion.outputs): one for one in judged}
    assert by_part["z[:, 0]"].value == 0.0
    assert by_part["z[:, 1:]"].value == 5.0
    assert not by_part["z[:, 1:]"].passed
    (others,) = (one for one in judged if "y" in one.criterion.outputs)
    assert others.output == "y"


def test_the_worst_sample_counts():
    (found,) = judge((EXACT, EXACT), (EXACT, FOUND), (EXACT, EXACT), thresholds={"l2": {"": 0.1}})

    assert found.value == pytest.approx(0.5)


def test_the_indices_of_the_largest_values_are_compared():
    exact, near, far = ({"y": np.float32([a, 2.0, 1.0])} for a in (3.0, 2.5, 1.5))

    (same,) = judge((exact, near), postprocess={"": 1})
    (other,) = judge((exact, near), (exact, far), (exact, far), postprocess={"": 1})
    (second,) = judge((exact, far), postprocess={"": (2, -1)}, index_tolerance={"": 1})

    assert (same.value, same.passed) == (0.0, True)
    assert (other.value, other.excess) == (2.0, 3.0)
    assert second.passed


def test_a_script_decides_by_itself():
    def compare(exact, found):
        return {"y": bool((exact["y"] == found["y"]).all()), "z": True}

    (judged,) = judge(script=compare, atol={"": 1.0})

    assert (judged.value, judged.passed, judged.output) == (1.0, False, "y")


@pytest.mark.parametrize("lost", [{}, {"y": np.float32([3.0])}, {"y": np.float32([3.0, np.nan])}])
@pytest.mark.parametrize("options", [{"atol": {"": 9.0}}, {"thresholds": {"snr": {"": 0.0}}}])
def test_an_output_that_is_lost_fails(lost, options):
    (judged,) = judge(({"y": EXACT["y"], "z": EXACT["z"]}, {"z": EXACT["z"], **lost}), **options)

    assert (judged.passed, judged.excess, judged.output) == (False, math.inf, "y")


def test_nothing_is_logged(capsys):
    judge(atol={"": 1e-9}, thresholds={"snr": {"": 99.0}})

    assert "".join(capsys.readouterr()) == ""


def test_a_division_of_integers_by_nothing_warns_nobody():
    zeros = {"ids": np.zeros(3, np.int64)}

    assert all(found.passed for found in judge((zeros, zeros), atol={"": 1.0}))


def test_a_polygraphy_that_numpy_left_behind_is_told():
    def compare(*_):
        raise AttributeError("`np.unicode_` was removed in the NumPy 2.0 release.")

    with pytest.raises(ValueError, match=r"cannot compare outputs with numpy .*\nInstall a newer"):
        judge(script=compare)


class Earlier:
    """What versions before had: two metrics in one function."""

    @staticmethod
    def distance_metrics(l2_tolerance, cosine_similarity_threshold):
        def compare(exact, found):
            results = {}
            for name in exact:
                result = type("Result", (), {"__bool__": lambda self: self.passed})()
                result.l2_norm = float(np.linalg.norm(exact[name] - found[name]))
                result.passed = result.l2_norm <= l2_tolerance[""]
                assert cosine_similarity_threshold == -math.inf
                results[name] = result
            return results

        return compare


def test_earlier_versions_are_asked_for_what_they_have(monkeypatch):
    monkeypatch.setattr(
        polygraphy_functions,
        "comparator",
        type("Module", (), {"CompareFunc": Earlier}),
    )

    (found,) = judge(thresholds={"l2": {"": 0.25}})

    assert (found.value, found.excess) == (pytest.approx(0.5), pytest.approx(2.0))
    with pytest.raises(ValueError, match=r"This Polygraphy, .*, has no 'snr' to compare with"):
        judge(thresholds={"snr": {"": 1.0}})
