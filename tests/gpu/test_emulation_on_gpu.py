"""A real GPU against the CPU: rounding of every pattern, and the same ranking of every model."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.execution.emulation.planned import PlannedExecutor
from polygraphy_layerprec.execution.kernels.cuda_setup import open_gpu
from polygraphy_layerprec.execution.kernels.device import on_device
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import measure_output_error, rank_model
from polygraphy_layerprec.precision import BF16, FP16
from polygraphy_layerprec.rounding import round_to_precision
from tests.device_cases import (
    CASES,
    PAIRS,
    RANDOM_SEEDS,
    assert_agrees,
    random_case,
    ranked_pairs,
)
from tests.model_parts import build_model, node, normal, tensor

TOLERANCE = 0.05
"""Kernels add up in another order, so that other values round up."""


@pytest.mark.parametrize("precision", [FP16, BF16], ids=["fp16", "bf16"])
def test_rounding_is_exact_for_every_pattern_of_fp32(cuda, cupy, precision):
    step = 1 << 28
    with on_device(cuda):
        for start in range(0, 1 << 32, step):
            bits = cupy.arange(start, start + step, dtype=cupy.uint32)
            values = bits.view(cupy.float32)
            found = round_to_precision(values, precision)
            if precision is FP16:  # the hardware's own conversion
                expected = values.astype(cupy.float16).astype(cupy.float32)
            else:
                tie = cupy.uint32(0x7FFF) + ((bits >> 16) & 1)
                expected = ((bits + tie) & cupy.uint32(0xFFFF0000)).view(cupy.float32)
            is_nan = cupy.isnan(values)
            same = found.view(cupy.uint32) == expected.view(cupy.uint32)
            assert bool((same | is_nan).all()), hex(start)
            assert bool((cupy.isnan(found) == is_nan).all()), hex(start)


@pytest.mark.parametrize("saturate", [False, True])
@pytest.mark.parametrize("precision", [FP16, BF16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_is_that_of_the_cpu(cuda, cupy, precision, saturate, dtype):
    bits = np.uint32 if dtype is np.float32 else np.uint64
    random = np.random.default_rng(0).integers(0, np.iinfo(bits).max, 1 << 20, dtype=bits)
    values = random.view(dtype)

    with on_device(cuda):
        found = cupy.asnumpy(round_to_precision(cupy.asarray(values), precision, saturate=saturate))

    expected = round_to_precision(values, precision, saturate=saturate)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


@pytest.mark.parametrize("impact", ["adjoint", "gain"])
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_agrees_with_the_cpu(cuda, name, impact):
    model, sample = CASES[name]()

    with on_device(cuda):
        found = rank_model(model, [sample], impact=impact)

    expected = rank_model(model, [sample], impact=impact)
    assert_agrees(found, expected, tolerance=TOLERANCE)
    assert found.conditions.device == cuda.name


@pytest.mark.parametrize("seed", RANDOM_SEEDS)
def test_a_gpu_agrees_with_the_cpu_on_random_models(cuda, seed):
    model, sample = random_case(seed)

    with on_device(cuda):
        found = rank_model(model, [sample])

    assert_agrees(found, rank_model(model, [sample]), tolerance=TOLERANCE)


@pytest.mark.parametrize(("kind", "granularity", "build"), PAIRS)
def test_a_gpu_agrees_with_the_cpu_on_quantised_models(cuda, kind, granularity, build):
    with on_device(cuda):
        found = ranked_pairs(kind, granularity, build)

    assert_agrees(found, ranked_pairs(kind, granularity, build), tolerance=TOLERANCE)


def test_sets_of_layers_are_measured_on_a_gpu(cuda):
    model, sample = CASES["small_transformer"]()

    with on_device(cuda):
        found = measure_output_error(model, [sample])

    assert found == pytest.approx(measure_output_error(model, [sample]), rel=TOLERANCE)


def test_tf32_is_off(cuda):
    first, second = normal(0, 256, 256), normal(1, 256, 256)
    ends = [tensor(name, [256, 256]) for name in "aby"]
    graph = load_graph(build_model([node("MatMul", ["a", "b"], "y")], ends[:2], ends[2:]))

    with on_device(cuda):
        found = PlannedExecutor(graph, FP16).run({"a": first, "b": second})["y"]

    exact = first.astype(np.float64) @ second.astype(np.float64)
    assert np.linalg.norm(found - exact) < 1e-6 * np.linalg.norm(exact)  # TF32: some 3e-4


@pytest.mark.usefixtures("cupy")
def test_little_memory_spills_and_changes_nothing():
    model, sample = CASES["small_transformer"]()
    little = open_gpu(memory_bytes=1 << 10)

    with on_device(little):
        found = rank_model(model, [sample])

    assert_agrees(found, rank_model(model, [sample]), tolerance=TOLERANCE)
