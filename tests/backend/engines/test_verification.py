"""Verification on engines, with the engines replaced: what is compared, and when it stops."""

from __future__ import annotations

import json
from contextlib import contextmanager

import numpy as np
import pytest

from polygraphy_layerprec.backend.engines.session import EngineStack
from polygraphy_layerprec.backend.engines.store import open_store
from polygraphy_layerprec.backend.engines.verification import AGREEMENT_LIMIT, verify_on_engines
from polygraphy_layerprec.engine_pipeline import EngineRequest, rank_on_engines
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.execution.kernels.plain_session import PlainSession
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.records import Constraint, RequestedPrecisions
from polygraphy_layerprec.verify import verify_model
from tests.backend.engines.stand_in import NamedEngines, Running, StandIn
from tests.models import build_model, chain, node, sample_inputs, small_transformer, tensor

pytest.importorskip("polygraphy.backend.trt")

ASKED = RequestedPrecisions(
    "a test", "fp16", (Constraint("exp", "Exp", ("x",), ("y",), "a test"),), ()
)


class FakeEngines(NamedEngines):
    """Gives `1 + error` on every engine, and notes what was built."""

    def __init__(self, information="", **errors: float) -> None:
        super().__init__()
        self.errors = {"reference": 0.0, "lowered": 0.1, "constrained": 0.025, **errors}
        self.information = information
        self.run_count = 0

    @property
    def kinds(self) -> list[str]:
        return [spec.kind for spec in self.built]

    def outputs(self, kind: str) -> dict:
        return {"y": np.full(2, 1 + self.errors[kind], np.float32)}

    @contextmanager
    def open(self, spec, plan):
        assert plan == spec.describe().encode()
        self.run_count += 1
        yield Running(lambda _: self.outputs(spec.kind), information=self.information)


@pytest.fixture
def verify():
    model = build_model(
        [node("Exp", ["x"], "y", name="exp")], [tensor("x", [2])], [tensor("y", [2])]
    )

    def run(engines, asked=ASKED, folder=None, **options):
        ones = {"y": np.ones(2, np.float32)}
        with open_store(folder and str(folder)) as store:
            return verify_on_engines(
                load_graph(model),
                [{"x": np.ones(2, np.float32)}] * 2,
                asked,
                stack=EngineStack(engines, store, lambda _: ones),
                **options,
            )

    return run


def test_the_three_engines_are_compared(verify):
    found = verify(FakeEngines(), tolerance=0.03)

    assert found.backend == "tensorrt"
    assert found.lowered_error == pytest.approx(0.1, rel=1e-5)
    assert found.constrained_error == pytest.approx(0.025, rel=1e-5)
    assert found.recovered == pytest.approx(0.75, rel=1e-4)
    assert found.passed is True
    assert [(e.name, e.size_bytes) for e in found.engines] == [
        ("fp32", len("reference engine")),
        ("lowered", len("lowered engine")),
        ("constrained", len("constrained engine")),
    ]
    assert found.engines[2].latency_seconds == pytest.approx(0.02)


def test_the_tolerance_decides(verify):
    assert verify(FakeEngines(), tolerance=0.02).passed is False


@pytest.mark.parametrize("error", [1.1 * AGREEMENT_LIMIT, np.nan, np.inf])
def test_where_fp32_differs_precision_is_not_to_blame(verify, error):
    engines = FakeEngines(reference=error)

    found = verify(engines)

    assert engines.kinds == ["reference"]
    assert found.passed is False
    assert "precision is not to blame" in found.failures[0]
    assert found.outputs[0].lowered is None
    assert len(found.engines) == 1


def test_a_small_difference_in_fp32_is_agreement(verify):
    engines = FakeEngines(reference=0.9 * AGREEMENT_LIMIT)

    assert verify(engines, tolerance=1.0).passed
    assert engines.kinds == ["reference", "lowered", "constrained"]


def test_an_output_that_the_engine_lacks_stops(verify):
    engines = FakeEngines()
    engines.outputs = lambda _: {}

    assert "gives no 'y'" in verify(engines).failures[0]


def test_outputs_in_low_precision_are_compared_as_they_are(verify):
    engines = FakeEngines()
    engines.outputs = lambda kind: {
        "y": np.full(2, 1.5, np.float16) if kind == "constrained" else np.ones(2, np.float32)
    }

    assert verify(engines).constrained_error == pytest.approx(0.5)


def test_what_the_engine_says_of_its_layers_is_reported(verify):
    layers = [{"Name": "exp", "Outputs": [{"Name": "y", "Datatype": "Half"}]}]

    found = verify(FakeEngines(json.dumps({"Layers": layers})))

    assert [layer.name for layer in found.engines[2].obtained.failures] == ["exp"]
    assert found.engines[1].obtained.layers == ()
    assert found.engines[1].obtained.low_tensor_fraction == 1.0


@pytest.mark.parametrize("information", ["", "no JSON", '{"Layers": ["exp"]}'])
def test_an_engine_that_says_nothing_is_no_error(verify, information):
    assert verify(FakeEngines(information)).engines[2].obtained is None


def test_a_second_run_builds_and_runs_nothing(verify, tmp_path):
    first = verify(FakeEngines('{"Layers": [{"Name": "exp"}]}'), folder=tmp_path, tolerance=0.03)
    again = FakeEngines()

    second = verify(again, folder=tmp_path, tolerance=0.03)

    assert second == first
    assert (again.kinds, again.run_count) == ([], 0)


def test_other_timing_runs_run_the_engines_that_are_there_again(verify, tmp_path):
    verify(FakeEngines(), folder=tmp_path)
    again = FakeEngines()

    found = verify(again, folder=tmp_path, timing_runs=5)

    assert found.engines[0].latency_seconds == pytest.approx(0.005)
    assert (again.kinds, again.run_count) == ([], 3)


def test_what_was_finished_before_an_error_is_kept(verify, tmp_path):
    broken = FakeEngines()
    broken._refuse = lambda spec: spec.kind == "constrained"
    with pytest.raises(ExecutionError, match=r"cannot build the constrained[\s\S]*is kept in"):
        verify(broken, folder=tmp_path)
    again = FakeEngines()

    verify(again, folder=tmp_path)

    assert (again.kinds, again.run_count) == (["constrained"], 1)


def test_where_nothing_is_kept_the_lowered_engine_is_not_built_twice(verify):
    engines = FakeEngines()

    found = verify(engines, asked=RequestedPrecisions("", "fp16", (), ()))

    assert engines.kinds == ["reference", "lowered"]
    assert found.constrained_error == found.lowered_error
    assert [engine.name for engine in found.engines] == ["fp32", "lowered", "constrained"]


@pytest.mark.onnxrt
def test_engines_that_round_like_the_emulation_are_verified_like_it(tmp_path):
    model = small_transformer()
    graph, samples = load_graph(model), [sample_inputs(model, seed=seed) for seed in range(2)]
    kept = tuple(
        Constraint(n.proto.name, n.op_type, n.inputs, n.outputs, "a test") for n in graph.layers[:3]
    )
    asked = RequestedPrecisions("a test", "fp16", kept, ())
    stand_in = StandIn(model, graph)
    fp32 = PlainSession(model).run

    with open_store(str(tmp_path)) as store:
        stack = EngineStack(NamedEngines(stand_in), store, fp32)
        found = verify_on_engines(graph, samples, asked, stack=stack)
    emulated = verify_model(graph, samples, asked, run_fp32=fp32)

    assert found.fp32_error == 0.0
    assert found.lowered_error == pytest.approx(emulated.lowered_error, rel=1e-4)
    assert found.constrained_error == pytest.approx(emulated.constrained_error, rel=1e-4)
    assert 0 < found.constrained_error < found.lowered_error


@pytest.mark.onnxrt
def test_what_is_verified_is_what_was_ranked(tmp_path):
    model = chain(3)
    graph, samples = load_graph(model), [sample_inputs(model)]
    fp32 = PlainSession(model).run
    engines = NamedEngines(StandIn(model, graph))

    with open_store(str(tmp_path)) as store:
        stack = EngineStack(engines, store, fp32)
        ranking = rank_on_engines(graph, samples, EngineRequest(), stack=stack)
        engines.built.clear()
        first = ranking.layers[0]
        kept = (Constraint(first.name, first.op, first.inputs, first.outputs, "a test"),)
        asked = RequestedPrecisions("a test", "fp16", kept, ())
        found = verify_on_engines(graph, samples, asked, stack=stack)

    assert [spec.kind for spec in engines.built] == ["constrained"]
    assert found.lowered_error == pytest.approx(ranking.output_error.measured, rel=1e-4)
