"""How engines are run, with Polygraphy's runner replaced: it needs a GPU."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from polygraphy.exception import PolygraphyException
from polygraphy.logger import G_LOGGER

from polygraphy_layerprec.backend.engines import running
from polygraphy_layerprec.backend.engines.running import feeds_of, open_engine
from polygraphy_layerprec.backend.engines.specs import EngineError, EngineSpec
from polygraphy_layerprec.execution import ExecutionError

PROFILES = [{"x": ((1,), (1,), (2,))}, {"x": ((3,), (3,), (4,))}]


class FakeRunner:
    """Doubles its input, and notes what happens to it."""

    def __init__(self, plan) -> None:
        self.events = [plan]
        self.calls = 0
        self.context = "a context"
        self.engine = SimpleNamespace(create_engine_inspector=lambda: FakeRunner.inspector)
        FakeRunner.last = self

    def activate(self):
        if self.events[0] == b"of another GPU":
            G_LOGGER.error(
                "GPU, which has compute capability 9.0. Supported compute capabilities: 8.0"
            )
            raise PolygraphyException("Could not deserialize engine.")
        self.events.append("activate")

    def deactivate(self):
        self.events.append("deactivate")

    def set_profile(self, index):
        self.events.append(index)

    def get_input_metadata(self):
        return {"x": SimpleNamespace(dtype=np.dtype(np.float32))}

    def infer(self, feed):
        self.calls += 1
        if feed["x"][0] < 0:
            raise PolygraphyException("`execute_async_v3()` failed: out of memory")
        return {"y": 2 * feed["x"]}

    def last_inference_time(self):
        return 1.0 / self.calls

    inspector = SimpleNamespace(
        get_engine_information=lambda layout: f"{layout} of {_inspector().execution_context}"
    )


def _inspector():
    return FakeRunner.inspector


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    trt = SimpleNamespace(
        __name__="tensorrt",
        __version__="99.1",
        LayerInformationFormat=SimpleNamespace(JSON="json"),
    )
    monkeypatch.setattr(running, "load_tensorrt", lambda: trt)
    monkeypatch.setattr(running, "EngineFromBytes", lambda plan: plan)
    monkeypatch.setattr(running, "TrtRunner", FakeRunner)


def sample(*values: float) -> dict:
    return {"x": np.float32(values), "unread": np.zeros(1)}


def test_an_engine_runs_and_is_closed():
    with open_engine(EngineSpec("reference"), b"plan") as engine:
        np.testing.assert_array_equal(engine.infer(sample(1, 2))["y"], [2, 4])

    assert FakeRunner.last.events == [b"plan", "activate", "deactivate"]


def test_each_sample_takes_the_profile_of_its_shape():
    with open_engine(EngineSpec("reference"), b"plan", PROFILES) as engine:
        for count in (1, 3, 2):
            engine.infer(sample(*[1.0] * count))

    assert FakeRunner.last.events[2:-1] == [0, 1, 0]


def test_a_single_profile_is_not_set():
    with open_engine(EngineSpec("reference"), b"plan", PROFILES[:1]) as engine:
        engine.infer(sample(1))
        with pytest.raises(ExecutionError, match="No optimization profile"):
            engine.infer(sample(1, 2, 3))

    assert FakeRunner.last.events == [b"plan", "activate", "deactivate"]


def test_an_engine_that_cannot_be_loaded_says_why():
    with (
        pytest.raises(EngineError, match=r"load the lowered engine[\s\S]*capability 9\.0"),
        open_engine(EngineSpec("lowered"), b"of another GPU"),
    ):
        pass


def test_an_engine_that_runs_out_of_memory_says_what_to_do():
    spec = EngineSpec("reference", ("y",))

    with (
        open_engine(spec, b"plan") as engine,
        pytest.raises(EngineError, match=r"with 1 marked tensors[\s\S]*--max-memory"),
    ):
        engine.infer(sample(-1))

    assert FakeRunner.last.events[-1] == "deactivate"


def test_an_engine_without_a_marked_output_is_an_error():
    spec = EngineSpec("reference", ("y", "gone"))

    with (
        open_engine(spec, b"plan") as engine,
        pytest.raises(EngineError, match="gives no 'gone': building it changed"),
    ):
        engine.infer(sample(1))


def test_the_latency_is_the_median_once_the_engine_is_warm():
    with open_engine(EngineSpec("reference"), b"plan") as engine:
        seconds = engine.latency_seconds(sample(1), runs=5)

    # Three runs to warm up come first; the median of the 4th to 8th is the 6th.
    assert seconds == 1 / 6


def test_the_layers_are_those_of_the_context():
    with open_engine(EngineSpec("reference"), b"plan") as engine:
        assert engine.layer_information() == "json of a context"


def test_an_engine_without_an_inspector_is_no_error(monkeypatch):
    monkeypatch.setattr(FakeRunner, "inspector", SimpleNamespace())

    with open_engine(EngineSpec("reference"), b"plan") as engine:
        assert engine.layer_information() == ""


def test_integers_are_fed_in_the_width_of_the_engine():
    metadata = {
        "ids": SimpleNamespace(dtype=np.dtype(np.int32)),
        "x": SimpleNamespace(dtype=SimpleNamespace(numpy=lambda: np.float32)),
    }

    feeds = feeds_of({"ids": np.int64([3]), "x": np.float32([1]), "unread": np.zeros(1)}, metadata)

    assert {name: values.dtype.name for name, values in feeds.items()} == {
        "ids": "int32",
        "x": "float32",
    }
