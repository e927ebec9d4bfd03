"""A device against the host, on a stand-in whose arrays numpy may neither convert nor mix."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.execution.kernels.ort_tensors import placed_tensor, value_of
from polygraphy_layerprec.pipeline import measure_output_error, rank_model
from tests.device_cases import (
    CASES,
    PAIRS,
    RANDOM_SEEDS,
    assert_agrees,
    random_case,
    ranked_pairs,
)
from tests.standin_device import StandInDevice, on_standin_device

TOLERANCE = 1e-5
"""The same kernels and sums, in another order."""


def ranked_on(device, model, sample, **options):
    with on_standin_device(device):
        return rank_model(model, [sample], **options)


@pytest.mark.parametrize("impact", ["adjoint", "gain"])
@pytest.mark.parametrize("name", CASES)
def test_a_device_agrees_with_the_host(name, impact):
    model, sample = CASES[name]()
    device = StandInDevice()

    found = ranked_on(device, model, sample, impact=impact)

    assert device.runs
    assert_agrees(found, rank_model(model, [sample], impact=impact), tolerance=TOLERANCE)


@pytest.mark.parametrize("seed", RANDOM_SEEDS)
def test_a_device_agrees_with_the_host_on_random_models(seed):
    model, sample = random_case(seed)

    found = ranked_on(StandInDevice(), model, sample)

    assert_agrees(found, rank_model(model, [sample]), tolerance=TOLERANCE)


@pytest.mark.parametrize(("kind", "granularity", "build"), PAIRS)
def test_a_device_agrees_with_the_host_on_quantised_models(kind, granularity, build):
    device = StandInDevice()

    with on_standin_device(device):
        found = ranked_pairs(kind, granularity, build)

    assert device.runs
    assert not device.host_nodes
    assert_agrees(found, ranked_pairs(kind, granularity, build), tolerance=TOLERANCE)


def test_pairs_that_a_device_lacks_run_on_the_host_and_are_told():
    device = StandInDevice(lacks=("QuantizeLinear", "DequantizeLinear"))

    with on_standin_device(device):
        found = ranked_pairs(*PAIRS[0])

    assert device.host_nodes
    assert_agrees(found, ranked_pairs(*PAIRS[0]), tolerance=TOLERANCE)


def test_sets_of_layers_are_measured_on_a_device_as_well():
    model, sample = CASES["small_transformer"]()
    device = StandInDevice()

    with on_standin_device(device):
        found = measure_output_error(model, [sample])

    assert device.runs
    assert found == pytest.approx(measure_output_error(model, [sample]), rel=TOLERANCE)


def test_what_a_device_lacks_runs_on_the_host_and_is_told():
    model, sample = CASES["small_cnn"]()
    device = StandInDevice(lacks=("Conv",))

    found = ranked_on(device, model, sample)

    assert_agrees(found, rank_model(model, [sample]), tolerance=TOLERANCE)
    convolutions = {layer.name for layer in found.layers if layer.op == "Conv"}
    assert device.host_nodes.keys() == convolutions
    assert device.host_nodes[min(convolutions)] == "no kernel for Conv"


def test_little_memory_on_a_device_changes_nothing():
    model, sample = CASES["small_transformer"]()

    found = ranked_on(StandInDevice(free_bytes=100), model, sample, max_memory_bytes=1)

    assert_agrees(found, rank_model(model, [sample]), tolerance=TOLERANCE)


def test_weights_are_read_once_where_they_fit(monkeypatch):
    from polygraphy_layerprec.execution.kernels.weights_in_use import WeightsInUse

    model, sample = CASES["small_cnn"]()
    assert model.graph.initializer
    reads = []
    plain = WeightsInUse.load
    monkeypatch.setattr(
        WeightsInUse, "load", lambda self, node: (reads.append(node.index), plain(self, node))[1]
    )

    with on_standin_device(StandInDevice()):
        rank_model(model, [sample, sample])
    once = len(reads)
    with on_standin_device(StandInDevice(free_bytes=0)):
        rank_model(model, [sample, sample])

    assert len(reads) - once > once


def test_floats_lie_on_a_device_and_integers_where_they_were_made():
    device = StandInDevice()

    with on_standin_device(device):
        there = placed_tensor(np.zeros(3, np.float32))
        here = placed_tensor(np.zeros(3, np.int64))

        assert device.holds(there)
        assert not device.holds(here)
        assert value_of(there).values.shape == value_of(here).shape == (3,)
