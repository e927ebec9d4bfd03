"""The runner, as Polygraphy's `Comparator` and users of the Python interface drive it."""

from __future__ import annotations

import inspect

import numpy as np
import polygraphy.config
import pytest
from polygraphy.backend.base import BaseRunner
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.comparator import Comparator
from polygraphy.exception import PolygraphyException

from polygraphy_layerprec.backend import emulated
from polygraphy_layerprec.backend.emulated import (
    CandidateFromGraph,
    GraphFromOnnx,
    LayerprecRunner,
)
from tests.models import (
    cancellation,
    custom_domain,
    dynamic_shapes,
    integer_output,
    sample_inputs,
    small_transformer,
)

pytestmark = pytest.mark.onnxrt

SAMPLE = {"x": np.full((4, 8), 0.05, np.float32)}


def runner_of(model) -> LayerprecRunner:
    return LayerprecRunner(CandidateFromGraph(GraphFromOnnx(model)))


@pytest.fixture(autouse=True)
def _correctness_checks(monkeypatch):
    """Lets Polygraphy raise where it would only grumble, as about state that is left behind."""
    monkeypatch.setattr(polygraphy.config, "INTERNAL_CORRECTNESS_CHECKS", True)


def test_it_infers_in_low_precision():
    with runner_of(cancellation()) as runner:
        outputs = runner.infer(SAMPLE)

        assert runner.last_inference_time() > 0

    assert list(outputs) == ["y"]
    assert not outputs["y"].any()


@pytest.mark.parametrize("build", [cancellation, small_transformer, dynamic_shapes, integer_output])
def test_inputs_are_described_as_polygraphys_own_runner_describes_them(build):
    with runner_of(build()) as runner:
        found = runner.get_input_metadata(use_numpy_dtypes=False)
    with OnnxrtRunner(SessionFromOnnx(build().SerializeToString())) as runner:
        expected = runner.get_input_metadata(use_numpy_dtypes=False)

    assert list(found) == list(expected)
    for name, meta in found.items():
        assert meta.dtype == expected[name].dtype
        assert tuple(meta.shape) == tuple(expected[name].shape)


def test_a_runner_can_be_activated_again():
    runner = runner_of(cancellation())

    for _ in range(2):
        with runner:
            assert not runner.infer(SAMPLE)["y"].any()

    assert not hasattr(runner, "candidate")


def test_a_candidate_may_be_given_instead_of_a_loader():
    candidate = CandidateFromGraph(GraphFromOnnx(cancellation()))()

    with LayerprecRunner(candidate, name="low") as runner:
        assert runner.name == "low"
        assert list(runner.infer(SAMPLE)) == ["y"]


def test_runners_have_names_of_their_own():
    names = {runner_of(cancellation()).name for _ in range(3)}

    assert len(names) == 3
    assert all(name.startswith("layerprec-runner-N") for name in names)


def test_the_comparator_runs_it_beside_polygraphys_own():
    runners = [
        OnnxrtRunner(SessionFromOnnx(integer_output().SerializeToString())),
        runner_of(integer_output()),
    ]
    samples = [sample_inputs(integer_output(), seed=seed) for seed in range(3)]

    results = Comparator.run(runners, data_loader=samples)

    (_, reference), (_, candidate) = results
    assert len(candidate) == 3
    for exact, low in zip(reference, candidate, strict=True):
        assert list(low) == ["logits", "label"]
        assert low["label"].dtype == np.int64
        error = np.abs(low["logits"] - exact["logits"]).max()
        assert 0 < error <= 2.0**-10 * 8 * np.abs(exact["logits"]).max()


def test_tensors_of_pytorch_give_tensors_of_pytorch():
    torch = pytest.importorskip("torch")

    with runner_of(cancellation()) as runner:
        outputs = runner.infer({"x": torch.full((4, 8), 0.05)})

    assert isinstance(outputs["y"], torch.Tensor)
    assert not outputs["y"].any()


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({}, "x"),
        ({"x": np.zeros((4, 8), np.float64)}, "unexpected dtype"),
        ({"x": np.zeros((4, 9), np.float32)}, "incompatible shape"),
    ],
)
def test_wrong_inputs_are_refused_as_by_any_runner(sample, message):
    with runner_of(cancellation()) as runner, pytest.raises(PolygraphyException, match=message):
        runner.infer(sample)


def test_a_node_that_cannot_run_is_a_critical_error():
    model = custom_domain()

    with runner_of(model) as runner, pytest.raises(PolygraphyException, match="fails: "):
        runner.infer(sample_inputs(model))


def test_the_interface_is_that_of_polygraphys_runners():
    assert issubclass(LayerprecRunner, BaseRunner)
    assert list(inspect.signature(OnnxrtRunner).parameters)[1:] == ["name"]
    assert list(inspect.signature(LayerprecRunner).parameters)[1:] == ["name"]
    assert "LayerprecRunner" in emulated.__all__
