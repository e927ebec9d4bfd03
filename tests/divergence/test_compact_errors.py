"""Errors in one or two bytes an element: how far they may be off, and what they take."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraphy_layerprec.divergence.coherence import weighted_powers
from polygraphy_layerprec.divergence.compact_errors import ErrorMemory, errors_of, size_of
from polygraphy_layerprec.rounding import CHUNK_ELEMENTS
from tests.divergence.kept import kept

LARGE = 1 << 14
SIZES = [0, 1, 1000, LARGE - 1, LARGE, LARGE + 1, CHUNK_ELEMENTS, CHUNK_ELEMENTS + 1, 200_001]


def errors(size, seed=0, spread=3.0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(size) * 10.0 ** (rng.standard_normal(size) * spread - 4)).astype(
        np.float32
    )


@pytest.mark.parametrize("size", SIZES)
def test_as_many_come_back_as_were_kept(size):
    exact = errors(size)

    found = errors_of(kept(exact))

    assert size_of(kept(exact)) == size
    assert found.shape == (size,)
    assert found.dtype == np.float32


def test_a_small_tensor_takes_two_bytes_an_element_and_a_large_one_takes_one():
    assert kept(errors(LARGE - 1)).nbytes == 2 * (LARGE - 1)
    assert kept(errors(CHUNK_ELEMENTS)).nbytes == CHUNK_ELEMENTS + 2
    assert kept(errors(CHUNK_ELEMENTS + 1)).nbytes == CHUNK_ELEMENTS + 1 + 4


@given(
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([0.1, 1.0, 5.0]),
    scale=st.sampled_from([1e-36, 1e-20, 1.0, 1e20]),
)
@settings(derandomize=True, deadline=None, max_examples=30)
def test_a_byte_is_within_an_eighth_unless_the_error_is_next_to_nothing(seed, spread, scale):
    exact = (errors(LARGE, seed, spread) * scale).clip(-1e38, 1e38).astype(np.float32)

    found = errors_of(kept(exact))

    least = np.abs(exact).max() * 2.0**-31
    normal = np.abs(exact) >= np.finfo(np.float32).tiny
    counts = (np.abs(exact) >= least) & normal
    assert (np.abs(found - exact) <= np.abs(exact) / 8)[counts].all()
    assert (np.abs(found) <= 1.25 * least)[~counts & normal].all()
    assert (np.signbit(found) == np.signbit(exact))[counts].all()


def test_a_chunk_does_not_lose_what_is_small_beside_another():
    exact = np.concatenate([np.full(CHUNK_ELEMENTS, 1e30), np.full(CHUNK_ELEMENTS, -1e-30)])

    found = errors_of(kept(exact))

    np.testing.assert_allclose(found, exact, rtol=1 / 8)


def test_no_error_stays_none_beside_large_ones():
    exact = errors(LARGE)
    exact[::3] = 0.0

    assert (errors_of(kept(exact))[::3] == 0.0).all()
    assert not errors_of(kept(np.zeros(LARGE))).any()


@pytest.mark.parametrize("axes", [(), (0,)])
def test_sums_of_many_squares_are_those_of_exact_errors(axes):
    rng = np.random.default_rng(0)
    exact = (errors(256 * 256, spread=0.3)).reshape(256, 256)
    gradient = rng.standard_normal((256, 256)).astype(np.float32)

    found = weighted_powers(gradient, kept(exact), axes)

    product = gradient.astype(np.float64) * exact
    sums = product.sum(axis=axes) if axes else product
    assert found.independent == pytest.approx(np.sum(product**2), rel=0.01)
    assert found.coherent == pytest.approx(np.sum(sums**2), rel=0.02)


def test_two_bytes_are_spent_until_they_take_much():
    memory = ErrorMemory(3 * LARGE)
    like = np.empty(2 * LARGE, np.float32)

    assert [memory.take(like).dtype for _ in range(3)] == [np.uint16, np.uint8, np.uint8]
    assert memory.take(like[:LARGE]).dtype == np.uint16
    assert memory.take(like[:100]).dtype == np.uint16
    assert kept(like, most_in_halves=like.size).dtype == np.uint16


@pytest.mark.parametrize("most_in_halves", [0, 3 << 24])
def test_tensors_do_not_share_memory(most_in_halves):
    memory = ErrorMemory(most_in_halves)
    shapes = [(3, 4), (5,), (1 << 21,), (), (100, 200), (1 << 22, 2), (7,)]
    taken = [memory.take(np.empty(shape, np.float32)) for shape in shapes]
    for number, part in enumerate(taken):
        part[...] = number
    for number, part in enumerate(taken):
        assert (part == number).all()
    assert [size_of(part) for part in taken] == [np.prod(s, dtype=int) for s in shapes]
