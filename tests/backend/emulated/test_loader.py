"""Loaders in Polygraphy's manner: lazy, chained, and clear about mistakes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from polygraphy.exception import PolygraphyException

from polygraphy_layerprec.backend.emulated import (
    Candidate,
    CandidateFromGraph,
    GraphFromOnnx,
    PrecisionsFromRanking,
    PrecisionsFromScript,
)
from polygraphy_layerprec.emit.network_script import render_network_script
from polygraphy_layerprec.files.ranking_file import save_ranking
from polygraphy_layerprec.model import Graph, identify, load_graph
from polygraphy_layerprec.pipeline import rank_model
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.records import Constraint, RequestedPrecisions
from tests.models import cancellation, random_numbers, save_with_external_data, small_cnn

pytestmark = pytest.mark.onnxrt

SAMPLE = {"x": np.linspace(0.001, 0.09, 32, dtype=np.float32).reshape(4, 8)}


def graph() -> Graph:
    return load_graph(cancellation())


@pytest.fixture
def script(tmp_path):
    """Returns the path of a script that keeps the two layers that cancel."""
    constraints = [Constraint(name, "", (), (name,), "") for name in ("shifted", "restored")]
    text = render_network_script(
        constraints, precision=FP16, model_name="m.onnx", model_digest=identify(graph()).digest
    )
    (tmp_path / "c.py").write_text(text)
    return str(tmp_path / "c.py")


@pytest.fixture
def ranking(tmp_path):
    """Returns the path of a ranking of the model that cancels."""
    save_ranking(rank_model(cancellation(), [SAMPLE]), tmp_path / "r.json")
    return str(tmp_path / "r.json")


@pytest.mark.parametrize("kind", ["path", "model", "callable"])
def test_a_graph_comes_from_a_path_a_model_or_what_makes_one(tmp_path, kind):
    onnx.save(cancellation(), tmp_path / "m.onnx")
    sources = {
        "path": str(tmp_path / "m.onnx"),
        "model": cancellation(),
        "callable": cancellation,
    }

    loaded = GraphFromOnnx(sources[kind])()

    assert [node.name for node in loaded.nodes] == ["shift_up", "shift_down", "scale"]


def test_nothing_happens_before_a_loader_is_called(tmp_path):
    load = CandidateFromGraph(GraphFromOnnx(str(tmp_path / "m.onnx")))

    onnx.save(cancellation(), tmp_path / "m.onnx")

    assert isinstance(load(), Candidate)


def test_external_data_may_be_elsewhere(tmp_path):
    elsewhere = tmp_path / "data"
    elsewhere.mkdir()
    save_with_external_data(cancellation(), tmp_path / "m.onnx")
    (tmp_path / "m.onnx.data").rename(elsewhere / "m.onnx.data")

    loaded = GraphFromOnnx(str(tmp_path / "m.onnx"), external_data_dir=str(elsewhere))()

    assert loaded.weights["offset"].read() == 400


@pytest.mark.parametrize(("precisions", "expected"), [(None, 0), ("script", 2), ("ranking", 3)])
def test_a_candidate_keeps_what_it_is_told_to(script, ranking, precisions, expected):
    asked = {
        None: None,
        "script": PrecisionsFromScript(script, graph),
        "ranking": PrecisionsFromRanking(ranking, graph, top_k=3),
    }

    candidate = CandidateFromGraph(graph, precisions=asked[precisions])()

    y = candidate.run(SAMPLE)["y"]
    bits_lost = {0: 1, 2: FP16.unit_roundoff, 3: 2.0**-15 / 0.001}[expected]
    assert np.max(np.abs(y - 2 * SAMPLE["x"]) / (2 * SAMPLE["x"])) <= bits_lost + 2.0**-15 / 0.001
    assert bool(y.any()) == (expected > 0)


def test_a_ranking_is_asked_for_a_number_or_a_tolerance(ranking):
    by_number = PrecisionsFromRanking(ranking, graph, top_k=1)()
    by_tolerance = PrecisionsFromRanking(ranking, graph, tolerance=1e-9)()
    by_default = PrecisionsFromRanking(ranking, graph)()

    assert len(by_number.constraints) == 1
    assert len(by_tolerance.constraints) == 3
    assert len(by_default.constraints) in {1, 2}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_precision_may_be_given_alone(precision):
    (shift,) = [weight.read() for weight in graph().weights.values() if weight.read() == 400]
    sample = {"x": np.full((4, 8), 1.3, np.float32)}

    y = CandidateFromGraph(graph, precision=precision)().run(sample)["y"]

    spacing = {"fp16": 0.25, "bf16": 2.0}[precision]
    assert set(y.flat) == {2 * (round((shift + 1.3) / spacing) * spacing - shift)}


def test_a_contradiction_of_precisions_is_told(script):
    load = CandidateFromGraph(
        graph, precision="bf16", precisions=PrecisionsFromScript(script, graph)
    )

    with pytest.raises(PolygraphyException, match=r"to be bf16, but the script .* is for fp16"):
        load()


def test_an_unknown_precision_is_told():
    with pytest.raises(PolygraphyException, match="fp16, bf16; not 'fp8'"):
        CandidateFromGraph(graph, precision="fp8")()


def other_graph() -> Graph:
    return load_graph(small_cnn())


@pytest.mark.parametrize("loader", [PrecisionsFromScript, PrecisionsFromRanking])
def test_what_is_about_another_model_is_refused(script, ranking, loader):
    path = script if loader is PrecisionsFromScript else ranking

    with pytest.raises(PolygraphyException, match="is about another model"):
        loader(path, other_graph)()


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (lambda folder: GraphFromOnnx(f"{folder}/none.onnx"), "There is no model file"),
        (lambda folder: PrecisionsFromScript(f"{folder}/none.py", graph), "none.py"),
        (lambda folder: PrecisionsFromRanking(f"{folder}/none.json", graph), "none.json"),
        (lambda folder: PrecisionsFromRanking(f"{folder}/c.py", graph), "is not a ranking"),
        (lambda folder: PrecisionsFromScript(f"{folder}/r.json", graph), "is not a script"),
        (
            lambda folder: PrecisionsFromRanking(
                f"{folder}/r.json", graph, top_k=1, tolerance=1e-3
            ),
            "one",
        ),
    ],
)
@pytest.mark.usefixtures("script", "ranking")
def test_mistakes_are_critical_errors_with_a_text(tmp_path, loader, message):
    with pytest.raises(PolygraphyException, match=message):
        loader(tmp_path)()


def test_stray_constraints_are_critical():
    asked = RequestedPrecisions("here", "fp16", (Constraint("z", "Op", (), ("z",), ""),), ())

    with pytest.raises(PolygraphyException, match="match no layer"):
        CandidateFromGraph(graph, precisions=asked)()


def test_the_log_says_what_stays_in_fp32_and_warns_of_random_numbers(script, capsys):
    CandidateFromGraph(graph, precisions=PrecisionsFromScript(script, graph))()
    CandidateFromGraph(load_graph(random_numbers()))()

    out = capsys.readouterr().out
    assert "Emulating: fp16 | 2 of 3 layers stay in FP32 | the script " in out
    assert "1 node, 'noise' the first, draws random numbers" in out


def test_calling_an_implementation_directly_is_warned_of(capsys):
    GraphFromOnnx(cancellation())()
    silent = capsys.readouterr().out
    GraphFromOnnx(cancellation()).call_impl()

    assert "not recommended" not in silent
    assert "not recommended" in capsys.readouterr().out
