"""Sets and verifications on workers, in real processes: what one process finds."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal

import numpy as np
import onnx
import pytest
from distributed import Client, LocalCluster

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.backend.engines.tensorrt_module import count_gpus
from polygraphy_layerprec.backend.polygraphy_judges import polygraphy_judges
from polygraphy_layerprec.backend.polygraphy_options import PolygraphyOptions
from polygraphy_layerprec.distribution.clients import ClusterAddress
from polygraphy_layerprec.distribution.distributed_sets import SetsInPool, measure_in_pool
from polygraphy_layerprec.distribution.distributed_verification import verify_in_pool
from polygraphy_layerprec.distribution.own_cluster import own_cluster
from polygraphy_layerprec.distribution.worker_models import WorkerFacts
from polygraphy_layerprec.distribution.worker_pool import worker_pool
from polygraphy_layerprec.divergence.judges import judges_for, tolerance_judges
from polygraphy_layerprec.divergence.metric_judge import MetricJudge
from polygraphy_layerprec.execution.comparison.set_measurement import SetMeasurement
from polygraphy_layerprec.execution.errors import ExecutionError, WorkersError
from polygraphy_layerprec.execution.kernels.sessions import threads_per_session
from polygraphy_layerprec.matching.requested_precisions import all_lowered
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import measure_curve, measured_model, select_constraints
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.selection import SelectionRequest
from polygraphy_layerprec.verify import run_plainly, verify_model
from tests.clusters import dask_scheduler, dask_worker
from tests.models import build_model, node, small_transformer, tensor
from tests.split_cases import assert_equal_records, many_samples

MODEL = small_transformer()
SAMPLES = many_samples(MODEL, 9)


def mean_of_signs(outputs, samples):
    """Returns a number that needs all outputs, and the samples."""
    pairs = list(zip(outputs, samples, strict=True))
    assert [sample["ids"].tobytes() for _, sample in pairs]
    return float(np.mean([np.mean(np.sign(y)) for out, _ in pairs for y in out.values()]))


def all_equal(exact, found):
    """Returns for each output whether no bit differs."""
    return {name: bool((exact[name] == found[name]).all()) for name in exact}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(MODEL, path)
    return str(path)


@pytest.fixture(scope="module")
def graph(saved):
    return load_graph(saved)


@pytest.fixture(scope="module")
def ranking(graph):
    return rank_model(graph, SAMPLES[:2], threads=1)


@pytest.fixture(scope="module", params=[1, 3])
def pool(request, saved, graph):
    with worker_pool(request.param, saved, graph, threads=1) as pool:
        yield pool


def criteria(graph, name):
    """Returns judges: errors, Polygraphy's functions, or what calls the user's functions."""
    options = {
        "polygraphy": {"atol": {"": 1e-3}, "thresholds": {"snr": {"": 60.0}}},
        "script": {
            "script": lambda exact, found: {n: bool((exact[n] == found[n]).all()) for n in exact}
        },
    }
    if name in options:
        return polygraphy_judges(PolygraphyOptions(**options[name]), graph.outputs)
    if name == "metric":
        return (MetricJudge(mean_of_signs, "signs", 0.001), *tolerance_judges(FP16))
    return ()


@pytest.mark.parametrize("name", ["errors", "polygraphy", "script", "metric"])
def test_any_number_of_workers_chooses_what_one_process_does(pool, graph, ranking, name):
    given = {"judges": criteria(graph, name)}
    request = SelectionRequest(tolerance=2e-4)
    if name == "errors":
        given["tolerance"] = request.tolerance
    told = []
    measured = measure_in_pool(pool, ranking, graph, SAMPLES, **given)
    choice = select_constraints(
        ranking, request, model=measured, progress=lambda *what: told.append(what)
    )
    curve = measure_curve(ranking, model=measured)

    with threads_per_session(1):
        here = measured_model(ranking, graph, SAMPLES, **given)
        expected = select_constraints(ranking, request, model=here)
        assert_equal_records(curve, measure_curve(ranking, model=here))
    assert_equal_records(choice, expected)
    assert choice.decision.held_out.sample_count == 2
    assert told[:7] == [(done, 7, "set 1, 0 layers") for done in range(1, 8)]


@pytest.mark.parametrize("name", ["errors", "metric"])
def test_any_number_of_workers_verifies_as_one_process_does(pool, saved, graph, name):
    asked, judges, told = all_lowered("fp16"), criteria(graph, name), []

    found = verify_in_pool(
        pool, graph, iter(SAMPLES), asked, judges=judges, sample_count=9,
        progress=lambda *what: told.append(what),
    )  # fmt: skip

    with threads_per_session(1):
        run = run_plainly(saved)
        expected = verify_model(graph, SAMPLES, asked, judges=judges, run_fp32=run)
    assert found.fp32_error is not None
    assert_equal_records(found, expected)
    assert told == [(done, 9, "samples") for done in range(1, 10)]


def kept_half(graph):
    return KeptLayers.of_nodes(graph.layers[::2])


def outcome_here(graph, kept, judges):
    with threads_per_session(1):
        sets = SetMeasurement(graph, SAMPLES, precision=FP16, outputs=graph.outputs)
        return sets.outcome(kept, judges)


def test_a_worker_that_is_killed_in_the_midst_of_a_set_changes_nothing(saved, graph):
    judges = judges_for(FP16)
    killed = []

    def kill_once(done):
        if done == 3 and not killed:
            killed.append(multiprocessing.active_children()[0])
            os.kill(killed[0].pid, signal.SIGKILL)

    with worker_pool(2, saved, graph, threads=1) as pool:
        sets = SetsInPool(pool, graph, SAMPLES, precision=FP16, outputs=None)
        sets.findings(KeptLayers(), judges)  # from now on, workers remember samples
        found = sets.findings(kept_half(graph), judges, tell=kill_once).outcome()
        again = sets.findings(kept_half(graph), judges).outcome()

    assert killed
    assert found == again
    assert_equal_records(found, outcome_here(graph, kept_half(graph), judges))


def test_samples_that_no_worker_has_room_for_are_sent_again(saved, graph):
    judges = judges_for(FP16)
    with worker_pool(1, saved, graph, threads=1, max_memory_bytes=1) as pool:
        sets = SetsInPool(pool, graph, SAMPLES, precision=FP16, outputs=None)
        found = [sets.findings(kept_half(graph), judges).outcome() for _ in range(2)]

    assert found[0] == found[1]
    assert_equal_records(found[0], outcome_here(graph, kept_half(graph), judges))


def test_a_scheduler_that_is_lost_in_the_midst_of_a_set_is_told(tmp_path, saved, graph):
    address = ClusterAddress(str(tmp_path / "scheduler.json"))
    with contextlib.ExitStack() as stack:
        scheduler = stack.enter_context(dask_scheduler(tmp_path))
        stack.enter_context(dask_worker(tmp_path))
        pool = stack.enter_context(worker_pool(address, saved, graph, threads=1))
        sets = SetsInPool(pool, graph, SAMPLES, precision=FP16, outputs=None)

        def kill(done):
            if done == 2:
                scheduler.kill()
                scheduler.wait()

        with pytest.raises(WorkersError, match=r"The scheduler .* is gone"):
            sets.findings(KeptLayers(), tell=kill)


def test_what_cannot_be_measured_is_told_as_in_one_process(tmp_path):
    nodes = [node("NotThere", ["x"], "y", domain="of.nobody")]
    model = build_model(nodes, [tensor("x", [4])], [tensor("y", [4])], domains=["of.nobody"])
    onnx.save(model, tmp_path / "model.onnx")
    graph, samples = load_graph(model), [{"x": np.ones(4, np.float32)}]
    with worker_pool(1, tmp_path / "model.onnx", graph, threads=1) as pool:
        sets = SetsInPool(pool, graph, samples, precision=FP16, outputs=None)

        with pytest.raises(ExecutionError, match="can be computed") as told:
            sets.findings(KeptLayers())

    assert not isinstance(told.value, WorkersError)


def test_no_more_workers_than_gpus(saved, graph, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("polygraphy_layerprec.distribution.worker_pool.connected", None)

    with pytest.raises(WorkersError, match=r"3 workers need a GPU each, and there are 2"):
        worker_pool(3, saved, graph, gpus=2).__enter__()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    with pytest.raises(WorkersError, match=r"need a GPU each, and there is 1\.\nUse `--workers 1`"):
        worker_pool(2, saved, graph, gpus=2).__enter__()


def test_each_worker_sees_a_gpu_of_its_own():
    with own_cluster(2, ("3", "GPU-7")) as cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2)
        seen = client.run(lambda: __import__("os").environ["CUDA_VISIBLE_DEVICES"])

    assert sorted(seen.values()) == ["3", "GPU-7"]


def test_workers_that_share_a_gpu_are_told(saved, graph, monkeypatch):
    facts = {f"tcp://{i}": WorkerFacts("node7", 4, "0000:3B:00.0", "") for i in range(2)}
    monkeypatch.setattr(Client, "run", lambda *_, **__: facts)
    options = {"processes": False, "dashboard_address": None, "threads_per_worker": 1}
    with LocalCluster(n_workers=1, protocol="tcp://", **options) as cluster:
        address = ClusterAddress(cluster.scheduler_address)

        with pytest.raises(WorkersError, match=r"tcp://0 and tcp://1 share the GPU 0000:3B:00\.0"):
            worker_pool(address, saved, graph, gpus=1).__enter__()


@pytest.mark.skipif(count_gpus() > 0, reason="there is a GPU")
def test_a_worker_without_a_gpu_says_so(saved, graph):
    options = {"processes": False, "dashboard_address": None, "threads_per_worker": 1}
    with LocalCluster(n_workers=1, protocol="tcp://", **options) as cluster:
        address = ClusterAddress(cluster.scheduler_address)

        with pytest.raises(WorkersError, match=r"(?i)onnxruntime|CuPy|GPU"):
            worker_pool(address, saved, graph, gpus=1).__enter__()


def test_a_sample_is_sent_once(saved, graph, monkeypatch):
    sent = []
    with worker_pool(2, saved, graph, threads=1) as pool:
        submit = pool.client.submit

        def noted(measure, task, index, sample, **options):
            sent.append(None if sample is None else index)
            return submit(measure, task, index, sample, **options)

        monkeypatch.setattr(pool.client, "submit", noted)
        sets = SetsInPool(pool, graph, SAMPLES, precision=FP16, outputs=None)
        for kept in (KeptLayers(), kept_half(graph)):
            sets.findings(kept)

    # Where one worker takes over from the other, it asks for the sample.
    assert sent[:9] == list(range(9))
    assert sent[9:].count(None) == 9
