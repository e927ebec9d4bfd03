"""The flow of a ranking on engines: real ONNX-Runtime stands in for the GPU, nothing is built."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from polygraphy_layerprec.backend.engines.session import EngineStack
from polygraphy_layerprec.backend.engines.specs import EngineError, EngineSpec
from polygraphy_layerprec.backend.engines.store import open_store
from polygraphy_layerprec.engine_pipeline import EngineRequest, rank_on_engines
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.execution.kernels.plain_session import PlainSession
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.observing import RankRequest
from polygraphy_layerprec.pipeline import rank_model
from polygraphy_layerprec.verify import run_plainly
from tests.backend.engines.stand_in import NamedEngines, Running, StandIn
from tests.models import chain, sample_inputs, small_transformer

pytestmark = pytest.mark.onnxrt

FP32_NOISE = 1e-4
"""How much the order of summation may move an FP16 error, relative to it."""


def engine_request(*, choices=(), uses_debug_tensors=False, **options) -> EngineRequest:
    """Returns a request that bounds all of its memory alike."""
    request = EngineRequest(RankRequest(**options), choices, uses_debug_tensors)
    if "max_memory_bytes" not in options:
        return request
    return replace(request, max_marked_bytes=options["max_memory_bytes"])


class Case:
    """One model with two samples."""

    def __init__(self, model) -> None:
        self.model = model
        self.graph = load_graph(model)
        self.samples = [sample_inputs(model, seed=seed) for seed in range(2)]
        self.runtime = StandIn(model, self.graph)

    def rank(self, *, engines=None, folder=None, run_fp32=None, runtime=None, **request):
        self.engines = engines or NamedEngines()
        self.engines.runtime = runtime or self.runtime
        with open_store(folder and str(folder)) as store:
            stack = EngineStack(self.engines, store, run_fp32 or PlainSession(self.model).run)
            asked = engine_request(**request)
            return rank_on_engines(self.graph, self.samples, asked, stack=stack)

    def emulated(self, **options):
        return rank_model(self.graph, self.samples, **options)


@pytest.fixture(scope="module")
def transformer():
    return Case(small_transformer())


def marked_sets(engines) -> list[tuple[str, ...]]:
    return [spec.marked for spec in engines.built if spec.kind == "lowered" and spec.marked]


@pytest.mark.parametrize("limit", [10**9, 2_000])
def test_engines_that_round_like_the_emulation_give_its_ranking(transformer, limit):
    ranking = transformer.rank(max_memory_bytes=limit)
    emulated = transformer.emulated()

    assert [layer.name for layer in ranking.layers] == [layer.name for layer in emulated.layers]
    for found, expected in zip(ranking.layers, emulated.layers, strict=True):
        assert found.cumulative_error == pytest.approx(expected.cumulative_error, rel=FP32_NOISE)
        assert found.impact == expected.impact
        assert found.candidate_nonfinite_count == expected.candidate_nonfinite_count
    assert ranking.output_error.measured == pytest.approx(
        emulated.output_error.measured, rel=FP32_NOISE
    )
    assert ranking.warnings == emulated.warnings


def test_the_ranking_says_what_measured_it(transformer):
    conditions = transformer.rank(exact_count=0).conditions

    assert conditions.backend == "tensorrt"
    assert dict(conditions.versions)["tensorrt"] == "99.1"
    assert "polygraphy" in dict(conditions.versions)
    assert conditions.sample_count == 2


def test_every_layer_is_marked_once_within_the_memory(transformer):
    transformer.rank(max_memory_bytes=2_000)
    found = [name for marked in marked_sets(transformer.engines) for name in marked]
    layers = transformer.emulated().layers
    expected = {name for layer in layers for name in layer.outputs} - {"hidden"}

    assert len(marked_sets(transformer.engines)) > 1
    assert sorted(found) == sorted(expected)


def test_no_more_than_a_pair_of_engines_is_open_at_a_time(transformer):
    most = 0

    class Counting:
        @contextmanager
        def open(self, spec, plan):
            nonlocal most
            with transformer.runtime.open(spec, plan) as engine:
                most = max(most, transformer.runtime.open_now)
                yield engine

    transformer.rank(runtime=Counting(), max_memory_bytes=2_000, exact_count=2)

    assert most == 2
    assert transformer.runtime.open_now == 0


def test_only_the_chosen_layers_are_marked(transformer):
    ranking = transformer.rank(choices=("op:Softmax", "regex:/mlp/up"))

    assert marked_sets(transformer.engines) == [("probabilities", "up")]
    measured = {layer.name for layer in ranking.layers if layer.cumulative_error is not None}
    assert measured == {"/attention/self/Softmax", "/mlp/up/MatMul", "/mlp/norm"}


def test_what_cannot_be_marked_is_told(transformer):
    reason = "it is a shape tensor in the network"

    ranking = transformer.rank(engines=NamedEngines(reasons={"up": reason}))

    (layer,) = [layer for layer in ranking.layers if layer.name == "/mlp/up/MatMul"]
    assert layer.cumulative_error is None
    assert any("'/mlp/up/MatMul'" in text and reason in text for text in ranking.warnings)


def test_a_tensor_that_breaks_the_build_is_found_and_skipped(transformer):
    engines = NamedEngines(refuse=lambda spec: "up" in spec.marked)

    ranking = transformer.rank(engines=engines)

    missing = [layer.name for layer in ranking.layers if layer.cumulative_error is None]
    assert missing == ["/mlp/up/MatMul"]
    assert any("A test cannot build" in text for text in ranking.warnings)


def test_a_chunk_that_does_not_fit_the_gpu_is_halved(transformer):
    class Small:
        @contextmanager
        def open(self, spec, plan):
            if len(spec.marked) > 4:
                raise EngineError("The GPU has not enough memory.")
            with transformer.runtime.open(spec, plan) as engine:
                yield engine

    ranking = transformer.rank(runtime=Small())

    assert all(layer.cumulative_error is not None for layer in ranking.layers)


@pytest.mark.parametrize("kind", ["reference", "lowered"])
def test_without_the_engines_that_are_deployed_there_is_no_ranking(transformer, kind, tmp_path):
    engines = NamedEngines(refuse=lambda spec: spec == EngineSpec(kind))

    with pytest.raises(ExecutionError, match=r"A test cannot build[\s\S]*is kept in") as caught:
        transformer.rank(engines=engines, folder=tmp_path / "work")

    assert repr(str(tmp_path / "work")) in str(caught.value)


def test_impacts_of_the_worst_layers_come_from_engines(transformer):
    ranking = transformer.rank(exact_count=2)
    emulated = transformer.emulated()

    worst = {layer.name for layer in emulated.layers[:2]}
    built = [spec.layer for spec in transformer.engines.built if spec.kind == "one layer"]
    assert built == [layer.outputs[0] for layer in emulated.layers[:2]]
    assert {la.name for la in ranking.layers if la.impact_method == "exact"} == worst
    for layer in ranking.layers:
        expected = next(la for la in emulated.layers if la.name == layer.name)
        if layer.name in worst:  # its inputs are rounded too
            assert 0.5 * expected.impact < layer.impact < 3 * expected.impact
        else:
            assert layer.impact == expected.impact
    assert sum(layer.share for layer in ranking.layers) == pytest.approx(1)


def test_an_impact_that_no_engine_gives_stays_the_emulated_one(transformer):
    engines = NamedEngines(refuse=lambda spec: spec.kind == "one layer")

    ranking = transformer.rank(engines=engines, exact_count=1)

    assert {layer.impact_method for layer in ranking.layers} == {"adjoint"}
    assert any("is the emulated one" in text for text in ranking.warnings)


def test_every_impact_can_come_from_an_engine():
    case = Case(chain(3))

    ranking = case.rank(impact="exact")

    assert {layer.impact_method for layer in ranking.layers} == {"exact"}


def test_debug_tensors_leave_fusion_alone(transformer):
    ranking = transformer.rank(uses_debug_tensors=True)
    emulated = {layer.name: layer.cumulative_error for layer in transformer.emulated().layers}

    assert [spec.marked for spec in transformer.engines.built] == [()] * 4
    assert sum(spec.with_debug_tensors for spec in transformer.engines.built) == 2
    assert ranking.conditions.sample_count == 2
    found = [layer for layer in ranking.layers if layer.cumulative_error is not None]
    assert 0 < len(found) < len(ranking.layers)
    for layer in found:
        assert layer.cumulative_error == pytest.approx(emulated[layer.name], rel=FP32_NOISE)
    assert any("no tensor that was measured" in text for text in ranking.warnings)


def test_debug_tensors_that_only_move_values_are_no_strangers(transformer, monkeypatch):
    monkeypatch.setattr(StandIn, "_unfused", lambda _: ("key_t", "active", "scores"))

    ranking = transformer.rank(uses_debug_tensors=True)

    found = {layer.outputs[0] for layer in ranking.layers if layer.cumulative_error is not None}
    assert found == {"scores", "hidden"}
    assert not any("match no layer" in text for text in ranking.warnings)


def test_an_engine_without_debug_tensors_says_what_to_do(transformer):
    engines = NamedEngines(refuse=lambda spec: spec.with_debug_tensors)

    with pytest.raises(ExecutionError, match="Leave out `--mark-unfused-tensors"):
        transformer.rank(engines=engines, uses_debug_tensors=True)


def test_agreement_with_fp32_elsewhere_is_checked(transformer, tmp_path):
    import onnx

    onnx.save(transformer.model, tmp_path / "model.onnx")

    def off(sample):
        return {name: 1.01 * array for name, array in fp32(sample).items()}

    fp32 = run_plainly(str(tmp_path / "model.onnx"))
    assert not transformer.rank(run_fp32=fp32).warnings
    (warning,) = transformer.rank(run_fp32=off).warnings
    assert "FP32 on TensorRT does not agree with FP32 on ONNX-Runtime" in warning
    assert "differ by 0.0099" in warning


class Distorting:
    """Scales the outputs of engines with marks."""

    def __init__(self, case, kind, factor) -> None:
        self._case, self._kind, self._factor = case, kind, factor

    @contextmanager
    def open(self, spec, plan):
        with self._case.runtime.open(spec, plan) as engine:
            if spec.marked and spec.kind == self._kind:
                yield Running(lambda s: {n: self._factor * v for n, v in engine.infer(s).items()})
            else:
                yield engine


@pytest.mark.parametrize(("kind", "text"), [("reference", "reference"), ("lowered", "lowered")])
def test_engines_that_change_with_marks_are_told(transformer, kind, text):
    ranking = transformer.rank(runtime=Distorting(transformer, kind, np.float32(1.1)))

    assert any(f"Marking tensors changes the {text} engine" in w for w in ranking.warnings)


def test_noise_is_no_change_by_marks(transformer):
    ranking = transformer.rank(runtime=Distorting(transformer, "lowered", np.float32(1.0002)))

    assert not ranking.warnings


def test_a_second_run_builds_and_runs_nothing(transformer, tmp_path):
    first = transformer.rank(folder=tmp_path, exact_count=2, max_memory_bytes=2_000)
    built, opened = len(transformer.engines.built), len(transformer.runtime.opened)

    second = transformer.rank(folder=tmp_path, exact_count=2, max_memory_bytes=2_000)

    assert built > 4
    assert transformer.engines.built == []
    assert len(transformer.runtime.opened) == opened
    assert second == first


def test_other_samples_run_the_engines_that_are_there_again(transformer, tmp_path):
    transformer.rank(folder=tmp_path)
    other = Case(transformer.model)
    other.samples = other.samples[:1]

    ranking = other.rank(folder=tmp_path)

    assert other.engines.built == []
    assert len(other.runtime.opened) == 4
    assert ranking.conditions.sample_count == 1


def test_what_was_finished_before_an_error_is_kept(transformer, tmp_path):
    broken = NamedEngines(refuse=lambda spec: spec == EngineSpec("lowered"))
    with pytest.raises(ExecutionError):
        transformer.rank(engines=broken, folder=tmp_path)

    transformer.rank(folder=tmp_path)

    assert EngineSpec("reference") not in transformer.engines.built


def test_outputs_that_do_not_count_are_measured_and_left_out_of_the_error():
    case = Case(small_transformer())
    output = case.model.graph.output.add()
    output.name = "up"
    output.type.CopyFrom(case.model.graph.output[0].type)
    output.type.tensor_type.ClearField("shape")
    case = Case(case.model)

    ranking = case.rank(outputs=("hidden",), exact_count=1)

    assert ranking.conditions.outputs == ("hidden",)
    assert "up" not in {name for marked in marked_sets(case.engines) for name in marked}
    assert all(layer.cumulative_error is not None for layer in ranking.layers)
    alone = Case(small_transformer()).rank(exact_count=1)
    assert ranking.layers[0].impact_method == "exact"
    assert ranking.layers[0].impact == pytest.approx(alone.layers[0].impact, rel=FP32_NOISE)
    assert ranking.output_error.measured == pytest.approx(
        alone.output_error.measured, rel=FP32_NOISE
    )


def test_progress_is_told_to_its_end(transformer):
    seen = []
    with open_store(None) as store:
        rank_on_engines(
            transformer.graph,
            transformer.samples,
            engine_request(exact_count=1),
            stack=EngineStack(
                NamedEngines(transformer.runtime), store, PlainSession(transformer.model).run
            ),
            progress=lambda *step: seen.append(step),
        )

    assert (2, 2, "pairs of engines") in seen
    assert seen[-1] == (1, 1, "engines with one layer lowered")


def test_the_stand_in_knows_what_it_is_asked():
    case = Case(chain(2))
    with case.runtime.open(EngineSpec("reference", ("t0",)), b"plan") as engine:
        found = engine.infer(case.samples[0])

    plain = PlainSession(case.model).run(case.samples[0])
    assert list(found) == ["t1", "t0"]
    np.testing.assert_array_equal(found["t1"], plain["t1"])
    assert replace(EngineSpec("lowered"), marked=("x",)).describe() == (
        "lowered engine with 1 marked tensors"
    )
