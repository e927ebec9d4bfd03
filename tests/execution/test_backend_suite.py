"""ONNX's backend suite: node by node as the whole model, and no exception but our own."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.execution.samples.given import SampleError
from polygraphy_layerprec.model import ModelError, load_graph
from polygraphy_layerprec.pipeline import rank_model
from tests.backend_suite import keep_every_tensor, suite_models, whole_model
from tests.planned_runs import emulated_executor

pytestmark = [
    pytest.mark.onnxrt,
    # Two models have outputs of -3.4e38, whose norm no FP32 can hold.
    pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning"),
]

OURS = (ModelError, ExecutionError)
SAMPLE_STRIDE = 13


def whole_model_or_none(model, sample):
    try:
        return whole_model(model, sample)
    except Exception:  # noqa: BLE001 - ONNX-Runtime's many kinds: it does not run the model
        return None


def differing(expected, found):
    """Returns the outputs that are missing or have other values."""
    return [name for name, values in expected.items() if not same(found.get(name), values)]


def same(found, expected):
    if found is None or found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    both_nan = np.not_equal(found, found) & np.not_equal(expected, expected)
    return bool(((found == expected) | both_nan).all())


def problem_of(model, sample):
    """Returns what is wrong with how a model is run node by node and ranked; None if nothing is."""
    expected = whole_model_or_none(model, sample)
    try:
        graph = load_graph(model)
        fed = {value.name: sample[value.name] for value in graph.inputs}
        result = emulated_executor(graph).compare(fed, lambda _: None)
        rank_model(graph, [fed])
    except SampleError:
        pass  # a sample with NaN or without elements is refused; its values are still compared
    except OURS as error:
        # What has no layer is no failure: its values are still to be compared.
        if not any(words in str(error) for words in ("nothing to rank", "No layer can be judged")):
            return None if expected is None else f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - which is what this looks for
        return f"{type(error).__name__}: {error}"
    if expected is None:
        return None
    names = differing(expected, result.reference)
    if names and any(expected[name].dtype == np.float16 for name in names):
        names = differing(whole_model(keep_every_tensor(model), sample), result.reference)
        names = [name for name in names if name in expected]
    return f"{names} differ; {list(result.failures.values())[:1]}" if names else None


def problems(models):
    found = {}
    for suite_model in models:
        if suite_model.sample is not None:
            problem = problem_of(suite_model.model, suite_model.sample)
        else:
            problem = loading_problem_of(suite_model.model)
        if problem is not None:
            found[suite_model.name] = problem
    return found


def loading_problem_of(model):
    """A sequence or an optional cannot be fed, which has to be said."""
    try:
        load_graph(model)
    except ModelError as error:
        return None if "cannot be fed" in str(error) else str(error)
    return "it was loaded, though nothing can be fed to it"


def test_models_of_the_backend_suite_run_node_by_node_as_a_whole():
    assert problems(suite_models()[::SAMPLE_STRIDE]) == {}


@pytest.mark.slow
def test_every_model_of_the_backend_suite_runs_node_by_node_as_a_whole():
    models = suite_models()
    assert len(models) > 1500

    assert problems(models) == {}


def test_every_element_type_is_among_the_models():
    types = {
        value.type.tensor_type.elem_type
        for suite_model in suite_models()
        for value in (*suite_model.model.graph.input, *suite_model.model.graph.output)
    }
    few_bits = ("INT4", "UINT4", "FLOAT8E4M3FN", "FLOAT8E5M2", "FLOAT4E2M1", "STRING")
    assert types >= {getattr(TensorProto, name) for name in few_bits}
