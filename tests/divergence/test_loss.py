"""Gradients of a user's loss, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraphy_layerprec.divergence.loss import LossJudge, loss_seeds
from polygraphy_layerprec.errors import UserError
from tests.merged_judging import judged_apart


def outputs_of(*shape, seed=0, dtype=np.float32):
    return {"y": np.random.default_rng(seed).standard_normal(shape).astype(dtype)}


def test_the_gradient_is_divided_by_the_loss():
    outputs = outputs_of(2, 3)
    y = outputs["y"].astype(np.float64)

    seeds = loss_seeds(lambda o: (o["y"] ** 2).sum(), outputs)

    assert seeds["y"].dtype == np.float32
    np.testing.assert_allclose(seeds["y"], 2 * y / (y**2).sum(), rtol=1e-5, atol=1e-8)


def test_the_sign_of_the_loss_does_not_turn_the_gradient():
    seeds = loss_seeds(lambda o: -2.0 * o["y"].sum(), {"y": np.array([3.0, 1.0], np.float32)})

    np.testing.assert_allclose(seeds["y"], [-2.0 / 8.0] * 2, rtol=1e-6)


def test_a_cross_entropy_has_its_gradient():
    outputs = outputs_of(1, 5, seed=1)

    def loss(named):
        logits = named["y"][0]
        return np.log(np.exp(logits).sum()) - logits[2]

    y = outputs["y"][0].astype(np.float64)
    probabilities = np.exp(y) / np.exp(y).sum()
    expected = (probabilities - np.eye(5)[2]) / -np.log(probabilities[2])
    np.testing.assert_allclose(loss_seeds(loss, outputs)["y"][0], expected, rtol=1e-5)


@given(st.floats(-12.0, 12.0), st.integers(0, 100))
def test_the_scale_of_the_outputs_is_no_obstacle(exponent, seed):
    outputs = outputs_of(6, seed=seed, dtype=np.float64)
    outputs["y"] *= 10.0**exponent
    y = outputs["y"]

    seeds = loss_seeds(lambda o: np.linalg.norm(o["y"]), outputs)

    expected = y / (y @ y)
    np.testing.assert_allclose(seeds["y"], expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_outputs_of_nothing_but_zeros_have_a_gradient():
    seeds = loss_seeds(lambda o: 1.0 + 3.0 * o["y"].sum(), {"y": np.zeros((2, 2), np.float32)})

    np.testing.assert_allclose(seeds["y"], np.full((2, 2), 3.0), rtol=1e-5)


def test_a_loss_that_is_zero_and_stays_so_is_not_divided_by():
    seeds = loss_seeds(lambda o: max(0.0, o["y"].sum() - 9.0), outputs_of(2))

    np.testing.assert_array_equal(seeds["y"], [0.0, 0.0])


@pytest.mark.parametrize("distance", [0.0, 1e-8])
def test_a_loss_that_is_noise_in_fp32_is_refused(distance):
    outputs = {"y": np.array([1.0, 2.0])}

    with pytest.raises(ValueError, match=r"The loss is .* which is noise.*\n.*not its distance"):
        loss_seeds(lambda o: distance + o["y"].sum() - 3.0, outputs)
    assert loss_seeds(lambda o: 1e-3 + o["y"].sum() - 3.0, outputs)


def judged(loss, reference, candidate, tolerance=0.1):
    arrays = {n: np.float32(y) for n, y in candidate.items()}
    (found,) = judged_apart(
        LossJudge(loss, tolerance), [({"y": np.float32(reference)}, arrays, {})]
    )
    return found


def test_the_relative_change_of_a_loss_is_judged():
    found = judged(lambda o: 2.0 * o["y"].sum(), [1.0, 3.0], {"y": [1.0, 2.0]})

    assert found.text == "relative change of the loss 0.25 (at most 0.1)"
    assert found.excess == pytest.approx(2.5)
    assert judged(lambda o: o["y"].sum(), [1.0], {"y": [1.0]}).passed


def test_the_worst_sample_counts():
    one = LossJudge(lambda o: o["y"].sum(), 0.1)
    judging, exact = one.start(), {"y": np.float32([1.0])}
    samples = [(exact, {"y": np.float32([value])}, {}) for value in (1.1, 1.5, 1.0)]
    for sample in samples:
        judging.add(*sample)

    assert judging.judgements()[0].value == pytest.approx(0.5)
    assert judged_apart(one, samples) == judging.judgements()


@pytest.mark.parametrize("candidate", [{}, {"y": [np.nan]}])
def test_a_loss_of_what_was_lost_has_changed_infinitely(candidate):
    assert judged(lambda o: o["y"].sum(), [1.0], candidate).excess == np.inf


def test_any_change_of_a_loss_that_is_zero_is_infinite():
    assert judged(lambda o: o["y"].sum(), [0.0], {"y": [1e-3]}).excess == np.inf
    assert judged(lambda o: o["y"].sum(), [0.0], {"y": [0.0]}).passed


def test_scalars_and_empty_outputs_and_integers_are_taken():
    outputs = {
        "scalar": np.array(2.0, np.float32),
        "none": np.zeros((0, 3), np.float32),
        "label": np.array([4], np.int64),
    }

    seeds = loss_seeds(lambda o: o["scalar"] * float(o["label"][0]), outputs)

    assert set(seeds) == {"scalar", "none"}
    assert (seeds["scalar"].shape, seeds["none"].shape) == ((), (0, 3))
    assert seeds["scalar"] == pytest.approx(4.0 / 8.0)


def test_the_loss_gets_float64_and_cannot_spoil_the_outputs():
    outputs = outputs_of(3)
    before = outputs["y"].copy()
    kinds = set()

    def loss(named):
        kinds.add(named["y"].dtype)
        value = float((named["y"] * [1.0, 2.0, 3.0]).sum())
        named["y"][:] = np.nan
        return 1.0 + value * 0.0 + value

    seeds = loss_seeds(loss, outputs)

    assert kinds == {np.dtype(np.float64)}
    np.testing.assert_array_equal(outputs["y"], before)
    np.testing.assert_allclose(seeds["y"] / seeds["y"][0], [1.0, 2.0, 3.0], rtol=1e-5)


@pytest.mark.parametrize("gradient", [[2.0, 4.0], np.array([2, 4]), np.array([2.0, 4.0])])
def test_gradients_that_are_given_are_used_as_they_are(gradient):
    calls = []

    def loss(named):
        calls.append(named)
        return np.float64(4.0), {"y": gradient}

    outputs = {"y": np.ones(2, np.float32), "z": np.ones(9999, np.float32)}
    seeds = loss_seeds(loss, outputs)

    assert len(calls) == 1
    assert set(seeds) == {"y"}
    assert seeds["y"].dtype == np.float32
    assert seeds["y"].tolist() == [0.5, 1.0]


def test_a_value_without_its_gradients_is_differentiated():
    seeds = loss_seeds(lambda o: (o["y"].sum(), None), {"y": np.array([1.0, 3.0], np.float32)})

    np.testing.assert_allclose(seeds["y"], [0.25, 0.25], rtol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "much", None, np.ones(2), (1, 2, 3)])
def test_a_loss_that_is_no_finite_number_is_refused(value):
    with pytest.raises(ValueError, match="must return a finite number"):
        loss_seeds(lambda _: value, outputs_of(2))


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        ({"y": np.ones(3)}, r"shape \(3,\) for 'y', but the outputs are: \{'y': \(2,\)\}"),
        ({"nobody": np.ones(2)}, "for 'nobody'"),
        ({"label": np.ones(2)}, "for 'label'"),
        ({"y": [1.0, float("nan")]}, "for 'y' that is not finite"),
        ([1.0, 1.0], "by the name of the output, got <class 'list'>"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(gradients, message):
    outputs = {**outputs_of(2), "label": np.zeros(2, np.int64)}

    with pytest.raises(ValueError, match=message):
        loss_seeds(lambda _: (1.0, gradients), outputs)


def test_outputs_too_large_for_differences_need_gradients():
    outputs = {"y": np.ones(4000, np.float32), "z": np.ones(97, np.float32)}

    with pytest.raises(ValueError, match=r"4097 elements, too many .*at most 4096"):
        loss_seeds(lambda o: o["y"].sum(), outputs)
    del outputs["z"]
    assert loss_seeds(lambda o: o["y"].mean(), outputs)["y"].shape == (4000,)


def test_a_loss_that_draws_numbers_is_refused():
    draws = iter([0.5, 0.25])
    judging = LossJudge(lambda _: next(draws), 0.1).start()
    outputs = {"y": np.ones(2, np.float32)}

    with pytest.raises(UserError, match=r"(?s)another number for the same outputs .*Seed"):
        judging.add(outputs, outputs, {})
