"""Models with samples that say different things, and rankings compared number by number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from polygraphy_layerprec.files.record_codec import to_json_value
from tests.guarded_models import normalised_rows
from tests.models import (
    if_with_capture,
    infinity_minus_infinity,
    quantize_dequantize,
    sample_inputs,
    small_cnn,
    small_transformer,
)
from tests.test_inexact_ids import GATHER, SHIFTED, id_model

if TYPE_CHECKING:
    from pathlib import Path

    from polygraphy_layerprec.records import Ranking

__all__ = [
    "CASES",
    "assert_equal_rankings",
    "assert_equal_records",
    "many_samples",
    "write_transformer",
]

TOLERANCE = 1e-12


def many_samples(model: onnx.ModelProto, count: int) -> list[dict[str, np.ndarray]]:
    """Returns samples, floats of which are scaled so that no two are alike."""
    return [
        {
            name: values * values.dtype.type(1 + index % 3) if values.dtype.kind == "f" else values
            for name, values in sample_inputs(model, seed=index).items()
        }
        for index in range(count)
    ]


def write_transformer(folder: Path, *, samples: int) -> None:
    """Writes `model.onnx`, and a folder `samples` with a file for each."""
    model = small_transformer()
    onnx.save(model, folder / "model.onnx")
    (folder / "samples").mkdir()
    for index, sample in enumerate(many_samples(model, samples)):
        np.savez(folder / "samples" / f"{index}.npz", **sample)


def _branches() -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    model = if_with_capture()
    samples = many_samples(model, 6)
    for index, sample in enumerate(samples):
        for name, values in sample.items():
            if values.dtype == np.bool_:
                sample[name] = np.full_like(values, index in (2, 3))
    return model, samples


def _ids() -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    exact = np.arange(16).reshape(16, 1) + 1
    first, second = (np.random.default_rng(i).integers(2100, 6000, (16, 1)) for i in range(2))
    samples = [{"ids": x.astype(np.float32)} for x in (exact, first, exact, second, exact)]
    return id_model(SHIFTED, take=GATHER), samples


def _guarded() -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    model, sample = normalised_rows("Add")
    fewer = {name: values[::-1].copy() for name, values in sample.items()}
    return model, [sample, fewer, sample, fewer]


CASES = {
    "transformer": lambda: (small_transformer(), many_samples(small_transformer(), 7)),
    "cnn": lambda: (small_cnn(), many_samples(small_cnn(), 5)),
    "branches": _branches,
    "quantized": lambda: (quantize_dequantize(), many_samples(quantize_dequantize(), 4)),
    "inexact ids": _ids,
    "lost outputs": lambda: (
        infinity_minus_infinity(),
        many_samples(infinity_minus_infinity(), 5),
    ),
    "guards": _guarded,
}
"""Functions that return a model and its samples, by name."""


def assert_equal_rankings(ranking: Ranking, expected: Ranking) -> None:
    """Checks that two rankings say the same, numbers up to 1e-12 of their size.

    Or up to 1e-15: shares are what is left of 1.
    """
    assert_equal_records(ranking, expected)


def assert_equal_records(found: Any, expected: Any) -> None:
    """Checks the same of any two records."""
    _assert_equal(to_json_value(found), to_json_value(expected), type(expected).__name__)


def _assert_equal(value: Any, expected: Any, where: str) -> None:
    if isinstance(expected, dict):
        assert value.keys() == expected.keys(), where
        for name in expected:
            _assert_equal(value[name], expected[name], f"{where}.{name}")
    elif isinstance(expected, (list, tuple)):
        assert len(value) == len(expected), where
        for index, (item, wanted) in enumerate(zip(value, expected, strict=True)):
            _assert_equal(item, wanted, f"{where}[{index}]")
    elif isinstance(expected, float):
        assert math.isclose(value, expected, rel_tol=TOLERANCE, abs_tol=1e-15), (
            where,
            value,
            expected,
        )
    else:
        assert value == expected, where
