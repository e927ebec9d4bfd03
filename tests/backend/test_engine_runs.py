"""How engines are configured and run, with TensorRT and its runner replaced."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from polygraphy.logger import G_LOGGER

from polygraphy_layerprec.backend import engines
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.records import AskedPrecisions, Constraint

ASKED = AskedPrecisions("a test", "bf16", (Constraint("n", "Add", (), ("y",), "a test"),), ())


class FakeRunner:
    """Adds 1 to its input, in memory that it uses again, and gets faster with every call."""

    calls = 0

    def __init__(self, _) -> None:
        self.engine = SimpleNamespace(create_engine_inspector=lambda: FakeRunner.inspector)
        self.context = "a context"
        self._memory = np.zeros(2, np.float32)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def get_input_metadata(self):
        return {"x": SimpleNamespace(dtype=np.dtype(np.int32))}

    def infer(self, feed):
        assert feed["x"].dtype == np.int32
        assert feed.keys() == {"x"}
        FakeRunner.calls += 1
        np.add(feed["x"], 1, out=self._memory, casting="unsafe")
        return {"y": self._memory}

    def last_inference_time(self):
        return 1.0 / FakeRunner.calls

    inspector = SimpleNamespace(get_engine_information=lambda layout: f"layers as {layout}")


@pytest.fixture
def trt(monkeypatch):
    """A weakly typed TensorRT, of which `built` notes the networks and options."""
    module = SimpleNamespace(
        __name__="tensorrt",
        __version__="10.0",
        ILayer=type("ILayer", (), {"precision": None}),
        BuilderFlag=SimpleNamespace(FP16=0, BF16=1),
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
        LayerInformationFormat=SimpleNamespace(JSON="json"),
        built=[],
    )

    def build(network, config):
        module.built.append((network, config))
        return lambda: b"plan"

    monkeypatch.setattr(engines, "load_tensorrt", lambda: module)
    monkeypatch.setattr(engines, "NetworkFromOnnxPath", lambda path, **flags: (path, flags))
    monkeypatch.setattr(engines, "PostprocessNetwork", lambda network, _: network)
    monkeypatch.setattr(engines, "CreateConfig", lambda **options: options)
    monkeypatch.setattr(engines, "EngineBytesFromNetwork", build)
    monkeypatch.setattr(engines, "EngineFromBytes", lambda plan: plan)
    monkeypatch.setattr(engines, "TrtRunner", FakeRunner)
    monkeypatch.setattr(FakeRunner, "calls", 0)
    return module


def options_of(built) -> dict:
    return {key: built[1][key] for key in built[1].keys() - {"profiles", "profiling_verbosity"}}


def test_a_weakly_typed_tensorrt_gets_flags(trt):
    maker = engines.TensorrtEngines("m.onnx", ASKED)

    for name in ("fp32", "lowered", "constrained"):
        assert maker.build(name) == b"plan"

    assert [options_of(built) for built in trt.built] == [
        {},
        {"bf16": True},
        {"bf16": True, "precision_constraints": "obey"},
    ]
    assert trt.built[0][1]["profiling_verbosity"] == "detailed"


def test_a_strongly_typed_tensorrt_gets_none(trt):
    del trt.BuilderFlag.FP16
    maker = engines.TensorrtEngines("m.onnx", ASKED, mixed_path="mixed.onnx")

    for name in ("lowered", "constrained"):
        maker.build(name)

    assert [options_of(built) for built in trt.built] == [{}, {}]
    assert [built[0] for built in trt.built] == [("m.onnx", {}), ("mixed.onnx", {})]


def test_a_mixed_model_asks_a_weakly_typed_tensorrt_for_strong_types(trt):
    engines.TensorrtEngines("m.onnx", ASKED, mixed_path="mixed.onnx").build("constrained")

    assert trt.built[0][0] == ("mixed.onnx", {"strongly_typed": True})
    assert options_of(trt.built[0]) == {}


def test_a_mixed_model_needs_strong_types(trt):
    del trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED

    with pytest.raises(ExecutionError, match="mere hints"):
        engines.TensorrtEngines("m.onnx", ASKED, mixed_path="mixed.onnx").build("constrained")


def test_the_profile_spans_the_shapes_of_the_samples(trt):
    ranges = {"x": ((1, 3), (4, 3))}

    engines.TensorrtEngines("m.onnx", ASKED, shape_ranges=ranges).build("fp32")

    shapes = trt.built[0][1]["profiles"][0]["x"]
    assert (shapes.min, shapes.opt, shapes.max) == ((1, 3), (4, 3), (4, 3))


@pytest.mark.usefixtures("trt")
def test_outputs_latency_and_layers_come_back():
    maker = engines.TensorrtEngines("m.onnx", ASKED, timing_runs=5)
    samples = [{"x": np.array([i, i], np.int64), "unread": np.zeros(1)} for i in range(2)]

    run = maker.run(b"plan", samples)

    assert [list(outputs["y"]) for outputs in run.outputs] == [[1, 1], [2, 2]]
    # Two samples and three runs to warm up come first; the median of the 6th to 10th is the 8th.
    assert run.latency_seconds == 1 / 8
    assert run.layer_information == "layers as json"


@pytest.mark.usefixtures("trt")
def test_an_engine_without_an_inspector_is_no_error(monkeypatch):
    monkeypatch.setattr(FakeRunner, "inspector", SimpleNamespace())

    run = engines.TensorrtEngines("m.onnx", ASKED).run(b"plan", [{"x": np.zeros(2, np.int64)}])

    assert run.layer_information == ""


@pytest.mark.usefixtures("trt")
def test_an_engine_that_this_gpu_does_not_run_says_why(monkeypatch):
    def fail(_):
        G_LOGGER.error("GPU, which has compute capability 9.0. Supported compute capabilities: 8.9")
        G_LOGGER.critical("Could not deserialize engine. See log for details.")

    monkeypatch.setattr(engines, "EngineFromBytes", fail)

    with pytest.raises(ExecutionError, match=r"capability 9\.0, and this TensorRT runs on: 8\.9"):
        engines.TensorrtEngines("m.onnx", ASKED).run(b"plan", [{"x": np.zeros(2, np.int64)}])


@pytest.mark.usefixtures("trt")
def test_a_failed_build_says_why(monkeypatch):
    def build(*_):
        def fail():
            G_LOGGER.critical("Invalid Engine. Please ensure the engine was built correctly")

        return fail

    monkeypatch.setattr(engines, "EngineBytesFromNetwork", build)

    with pytest.raises(ExecutionError, match=r"cannot build an engine[\s\S]*Invalid Engine"):
        engines.TensorrtEngines("m.onnx", ASKED).build("fp32")
