"""What the backward sweeps read of one entry, fetched once."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from polygraphy_layerprec.divergence.activation_store import ActivationStore
from polygraphy_layerprec.divergence.adjoint import Tape, TapeEntry
from polygraphy_layerprec.divergence.backward_sweep import names_read
from polygraphy_layerprec.divergence.recorded_values import RecordedValues, error_key
from tests.divergence.kept import kept

WEIGHT = np.full((2, 2), 2.0, np.float32)


def matmul(index, source, output):
    return TapeEntry(
        index=index,
        op_type="MatMul",
        domain="",
        opset=17,
        attributes={},
        inputs=(source, f"w{index}"),
        captures=(),
        captured_shapes=(),
        outputs=(output,),
        input_shapes=((3, 2), (2, 2)),
        output_shapes=((3, 2),),
        wanted=frozenset({0}),
        wanted_captures=frozenset(),
        is_layer=True,
        gains={},
    )


def test_a_weight_is_read_once_however_many_probes_there_are():
    asked = []

    def read(names):
        asked.append(tuple(names))
        return dict.fromkeys(names, WEIGHT)

    tape = Tape(read)
    errors = kept(np.zeros((3, 2)))
    values = np.ones((3, 2), np.float32)
    tape.record(matmul(0, "x", "a"), {"x": values, "a": values}, {"a": errors})
    tape.record(matmul(1, "a", "y"), {"a": values, "y": values}, {"y": errors})

    tape.sweep(*[{"y": np.full((3, 2), scale, np.float32)} for scale in (1, 2, 3)])

    assert [names for names in asked if names] == [("w1",), ("w0",)]


def test_values_are_read_again_for_another_node():
    store = ActivationStore()
    store.put("a", np.ones(1))
    calls = []
    recorded = RecordedValues(store, lambda names: calls.append(names) or {})

    first = recorded.values(0, ["a"])
    again = recorded.values(0, ["a"])
    other = recorded.values(1, ["a"])

    assert first is again
    assert other is not again
    assert len(calls) == 2


def test_what_is_forgotten_is_not_in_memory_any_more():
    store = ActivationStore()
    store.put("a", np.ones(4))
    store.put(error_key("a"), np.ones(4, np.uint16))
    recorded = RecordedValues(store, lambda _: {})
    assert recorded.errors("a") is not None

    recorded.forget(["a", error_key("a")])

    assert store.resident_bytes == 0
    assert recorded.errors("a") is None


def test_memory_falls_while_the_sweep_goes_back():
    held = []

    def read(_):
        held.append(tape._recorded._store.resident_bytes)
        return {}

    tape = Tape(read)
    values = np.ones((3, 2), np.float32)
    errors = kept(np.zeros((3, 2)))
    for index, (source, output) in enumerate([("x", "a"), ("a", "b"), ("b", "c")]):
        entry = matmul(index, source, output)
        recorded = {source: values.copy(), output: values.copy(), f"w{index}": WEIGHT}
        tape.record(entry, recorded, {output: errors.copy()})

    tape.sweep({"c": values})

    assert held == sorted(held, reverse=True)
    assert held[0] > held[-1] > 0


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_rules_compute_with_halves_in_fp32(kind):
    """The square of 300, of which a derivative is made, leaves the range of FP16."""
    store = ActivationStore()
    store.put("x", np.full(2, 300.0).astype(kind))
    recorded = RecordedValues(store, lambda _: {})

    values = recorded.values(0, ["x"])["x"]

    assert values.dtype == np.float32
    assert values.tolist() == [300.0, 300.0]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int8, ml_dtypes.float8_e4m3fn])
def test_values_of_other_types_stay_what_they_are(kind):
    store = ActivationStore()
    store.put("x", np.ones(2).astype(kind))

    assert RecordedValues(store, lambda _: {}).values(0, ["x"])["x"].dtype == kind


def recording(size):
    """Values, and where they are recorded."""
    values = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    store = ActivationStore()
    return values, store, RecordedValues(store, lambda _: {})


def test_what_may_be_coarse_is_kept_in_half_of_its_size():
    values, store, recorded = recording(1 << 14)

    assert recorded.keep("x", values, may_be_coarse=True)

    assert store.resident_bytes == values.nbytes // 2
    found = recorded.values(0, ["x"])["x"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, values, rtol=2**-8)


@pytest.mark.parametrize(
    ("size", "kind", "may_be_coarse"),
    [(100, np.float32, True), (1 << 14, np.float64, True), (1 << 14, np.float32, False)],
    ids=["small", "wide", "not coarse"],
)
def test_all_others_are_kept_as_they_are(size, kind, may_be_coarse):
    values, _, recorded = recording(size)

    recorded.keep("x", values.astype(kind), may_be_coarse=may_be_coarse)

    assert (recorded.values(0, ["x"])["x"] == values.astype(kind)).all()


@pytest.mark.parametrize("first", [True, False], ids=["coarse first", "coarse last"])
def test_who_looks_closer_finds_exact_values_whoever_came_first(first):
    values, store, recorded = recording(1 << 14)

    kept_by = [recorded.keep("x", values, may_be_coarse=each) for each in (first, not first)]

    assert kept_by == [True, False]
    assert (recorded.values(0, ["x"])["x"] == values).all()
    recorded.forget(["x"])
    assert store.resident_bytes == 0
    assert recorded.keep("x", values, may_be_coarse=True)
    assert store.resident_bytes == values.nbytes // 2


def test_after_it_was_closed_a_recording_begins_anew():
    values, store, recorded = recording(1 << 14)
    recorded.keep("x", values, may_be_coarse=True)

    recorded.close()

    assert store.resident_bytes == 0
    assert recorded.keep("x", values, may_be_coarse=False)
    assert (recorded.values(0, ["x"])["x"] == values).all()


@pytest.mark.parametrize(
    ("op_type", "is_coarse"),
    [("Mul", True), ("MatMul", True), ("Erf", True), ("Sin", False), ("Max", False)],
)
def test_the_rule_says_what_may_be_coarse(op_type, is_coarse):
    values = np.random.default_rng(0).standard_normal((128, 128)).astype(np.float32)
    tape = Tape(lambda _: {})
    operands = ("a",) if op_type in {"Erf", "Sin"} else ("a", "b")
    entry = replace(
        matmul(0, "a", "y"),
        op_type=op_type,
        inputs=operands,
        input_shapes=(values.shape,) * len(operands),
        output_shapes=(values.shape,),
        wanted=frozenset(range(len(operands))),
    )

    tape.record(entry, dict.fromkeys((*operands, "y"), values), {})

    kept_type = tape._recorded._store.get("a").dtype
    assert kept_type == (np.uint16 if is_coarse else np.float32)


@pytest.mark.parametrize(
    ("wanted", "expected"), [({0}, ["b"]), ({1}, ["a", "b"]), ({0, 1}, ["a", "b"])]
)
def test_of_a_quotient_the_numerator_is_recorded_only_for_the_denominator(wanted, expected):
    entry = replace(matmul(0, "a", "y"), op_type="Div", inputs=("a", "b"), wanted=frozenset(wanted))

    assert names_read(entry) == expected
