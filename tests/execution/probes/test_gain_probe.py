"""Measured gains against derivatives in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.execution.kernels.node_session import tensor_of, value_of
from polygraphy_layerprec.execution.probes.gain_probe import probe_gains
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.precision import FP16
from tests.models import build_model, node, tensor

X = np.linspace(0.5, 2.0, 64, dtype=np.float32)


def gain_of(function, error, x=X):
    """The gain of an elementwise function at `x`, when `error` arrives; and what was run."""
    model = build_model([node("Exp", ["x"], "y")], [tensor("x", [64])], [tensor("y", [64])])
    layer = load_graph(model).nodes[0]
    calls = []

    def run(feeds):
        calls.append(feeds)
        return [tensor_of(function(value_of(feeds["x"])).astype(np.float32))]

    exact, arriving = tensor_of(x), tensor_of((x + error).astype(np.float32))
    gains = probe_gains(
        run,
        layer,
        {"x": exact},
        {"x": arriving},
        [tensor_of(function(x).astype(np.float32))],
        ["x"],
        FP16,
        None,
    )
    return gains["x"], calls


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0, 100.0])
def test_the_gain_of_a_product_is_its_factor(factor):
    gain, _ = gain_of(lambda x: x * np.float32(factor), np.float32(1e-3) * X)

    assert gain == pytest.approx(factor, rel=1e-3)


def test_the_gain_of_a_square_is_the_weighted_derivative():
    error = np.float32(2.0**-12) * np.cos(40 * X)

    gain, _ = gain_of(np.square, error)

    expected = np.linalg.norm(2 * X * error) / np.linalg.norm(error)
    assert gain == pytest.approx(expected, rel=5e-3)


def test_an_error_too_large_to_say_what_a_small_one_does_is_replaced_by_rounding():
    """At 1/16 of the input a square bends, at the rounding of FP16 it does not."""
    noisy = X + np.float32(1e-4) * np.cos(40 * X)
    gain, (feeds,) = gain_of(np.square, noisy / 16, noisy)

    moved = np.abs(value_of(feeds["x"]) - noisy)
    assert moved.max() <= 2.0**-11 * noisy.max()
    change = value_of(feeds["x"]) - noisy
    expected = np.linalg.norm(2 * noisy * change) / np.linalg.norm(change)
    assert gain == pytest.approx(expected, rel=1e-2)


def test_an_error_as_large_as_a_probe_may_be_is_the_probe():
    _, (feeds,) = gain_of(np.square, X * np.float32(2.0**-5.1))

    assert np.array_equal(value_of(feeds["x"]), (X + X * np.float32(2.0**-5.1)).astype(np.float32))


def test_where_nothing_arrives_and_nothing_is_rounded_the_gain_is_zero():
    gain, calls = gain_of(np.square, np.float32(0.0), np.full(64, 0.5, np.float32))

    assert (gain, calls) == (0.0, [])
