"""The models of ONNX's own backend tests, each with one sample, and ONNX-Runtime's answers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from polygraphy_layerprec.execution.kernels.ort_tensors import tensor_of, value_of

__all__ = ["SuiteModel", "keep_every_tensor", "suite_models", "whole_model"]

_KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")


@dataclass(frozen=True)
class SuiteModel:
    """One model."""

    name: str
    """Kind and name of the test."""

    model: onnx.ModelProto
    """The model."""

    sample: dict[str, np.ndarray[Any, Any]] | None
    """An array for each of its inputs; None if one is no tensor, or none is given for it."""


@cache
def suite_models() -> tuple[SuiteModel, ...]:
    """Returns all models: about 2,000."""
    from onnx.backend.test.loader import load_model_tests  # makes all of the data

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # casts that overflow, which the suite is about
        cases = [case for kind in _KINDS for case in load_model_tests(kind=kind)]
        return tuple(_read(case) for case in cases)


def _read(case: Any) -> SuiteModel:
    model = case.model
    if model is not None:
        values = case.data_sets[0][0]
    else:
        folder = Path(case.model_dir)
        model = onnx.load(folder / "model.onnx")
        files = sorted(folder.glob("test_data_set_0/input_*.pb"), key=lambda path: len(path.name))
        values = [file.read_bytes() for file in files]
    weights = {weight.name for weight in model.graph.initializer}
    fed = [value for value in model.graph.input if value.name not in weights]
    inputs = [_array(value, given) for value, given in zip(fed, values, strict=False)]
    names = [value.name for value in fed]
    usable = len(inputs) == len(names) and all(array is not None for array in inputs)
    sample = dict(zip(names, inputs, strict=True)) if usable else None
    return SuiteModel(f"{case.kind}/{case.name}", model, sample)


def _array(declared: onnx.ValueInfoProto, given: Any) -> np.ndarray[Any, Any] | None:
    if not declared.type.HasField("tensor_type") or given is None:
        return None
    if isinstance(given, bytes):
        given = TensorProto.FromString(given)
    return np.asarray(numpy_helper.to_array(given) if isinstance(given, TensorProto) else given)


def whole_model(
    model: onnx.ModelProto, sample: dict[str, np.ndarray[Any, Any]]
) -> dict[str, np.ndarray[Any, Any]]:
    """Returns the tensors among the outputs of ONNX-Runtime without its optimisations.

    Raises:
        Exception: Of many kinds, if ONNX-Runtime does not run the model.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    feeds = {name: tensor_of(values) for name, values in sample.items()}
    results = session.run_with_ort_values(names, feeds)
    return {
        name: value_of(result)
        for name, result in zip(names, results, strict=True)
        if result.data_type().startswith("tensor")
    }


def keep_every_tensor(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with every tensor among its outputs, made by an Identity.

    ONNX-Runtime has few FP16 kernels on the CPU. It computes such nodes in FP32 and leaves out the
    casts between two of them, but not where the tensor between them is wanted.
    """
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    del kept.graph.node[:]
    outputs = {output.name for output in model.graph.output}
    for node in model.graph.node:
        made = kept.graph.node.add()
        made.CopyFrom(node)
        for index, name in enumerate(node.output):
            if name:
                made.output[index] = f"{name} before"
                kept.graph.node.append(helper.make_node("Identity", [f"{name} before"], [name]))
            if name and name not in outputs:
                kept.graph.output.append(onnx.ValueInfoProto(name=name))
    return kept
