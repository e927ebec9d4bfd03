"""What the backward sweeps read of one entry, fetched once."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from polygraphy_layerprec.divergence.activation_store import ActivationStore
from polygraphy_layerprec.divergence.adjoint import Tape, TapeEntry
from polygraphy_layerprec.divergence.recorded_values import RecordedValues, error_key

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
    halves = np.zeros((3, 2), np.uint16)
    values = np.ones((3, 2), np.float32)
    tape.record(matmul(0, "x", "a"), {"x": values, "a": values}, {"a": halves})
    tape.record(matmul(1, "a", "y"), {"a": values, "y": values}, {"y": halves})

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
    assert recorded.error_halves("a") is not None

    recorded.forget(["a", error_key("a")])

    assert store.resident_bytes == 0
    assert recorded.error_halves("a") is None


def test_memory_falls_while_the_sweep_goes_back():
    held = []

    def read(_):
        held.append(tape._store.resident_bytes)
        return {}

    tape = Tape(read)
    values = np.ones((3, 2), np.float32)
    halves = np.zeros((3, 2), np.uint16)
    for index, (source, output) in enumerate([("x", "a"), ("a", "b"), ("b", "c")]):
        entry = matmul(index, source, output)
        kept = {source: values.copy(), output: values.copy(), f"w{index}": WEIGHT}
        tape.record(entry, kept, {output: halves.copy()})

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
