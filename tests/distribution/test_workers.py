"""Samples on workers, in real processes: the same ranking, whatever happens to the workers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys

import numpy as np
import onnx
import psutil
import pytest
from distributed import Client, LocalCluster, Security

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.distribution import worker_pool
from polygraphy_layerprec.distribution.clients import ClusterAddress, connected
from polygraphy_layerprec.distribution.distributed_ranking import rank_on_workers
from polygraphy_layerprec.distribution.own_cluster import own_cluster
from polygraphy_layerprec.distribution.streaming import stream, wait_for_worker
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.observing import RankRequest
from tests.clusters import dask_scheduler, dask_worker
from tests.models import chain, small_transformer
from tests.split_cases import CASES, assert_equal_rankings, many_samples
from tests.worker_functions import doubled, ended_by_two, failing_at_two, slowly_doubled


@pytest.fixture(scope="module")
def two_workers():
    with connected(2) as client:
        yield client


@pytest.fixture
def saved(tmp_path):
    onnx.save(small_transformer(), tmp_path / "model.onnx")
    return str(tmp_path / "model.onnx")


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_ranking_of_one_process(saved, workers):
    samples = many_samples(small_transformer(), 7)

    ranking = rank_on_workers(saved, samples, workers, threads=1)

    expected = rank_model(saved, samples, threads=1)
    assert_equal_rankings(ranking, expected)
    assert ranking.conditions.threads == 1


@pytest.mark.parametrize("case", ["branches", "inexact ids", "lost outputs", "guards"])
def test_what_samples_leave_behind_comes_back(tmp_path, case):
    model, samples = CASES[case]()
    onnx.save(model, tmp_path / "model.onnx")
    path = str(tmp_path / "model.onnx")

    ranking = rank_on_workers(path, samples, 2, RankRequest(impact="gain"), threads=1)

    assert_equal_rankings(ranking, rank_model(path, samples, threads=1, impact="gain"))


def test_a_worker_that_is_killed_changes_nothing(saved):
    samples = many_samples(small_transformer(), 12)
    killed = []

    def kill_once(done, *_):
        if done == 3 and not killed:
            killed.append(multiprocessing.active_children()[0])
            os.kill(killed[0].pid, signal.SIGKILL)

    ranking = rank_on_workers(saved, samples, 2, threads=1, sample_count=12, progress=kill_once)

    assert killed
    assert_equal_rankings(ranking, rank_model(saved, samples, threads=1))


def test_progress_counts_samples(saved):
    told = []

    rank_on_workers(
        saved,
        many_samples(small_transformer(), 3),
        1,
        sample_count=3,
        progress=lambda *what: told.append(what),
    )

    assert told == [(done, 3, "samples") for done in range(4)]


def test_results_come_in_the_order_of_the_samples(two_workers):
    found = list(stream(two_workers, slowly_doubled, "request", ((i, i) for i in range(20))))

    assert found == [(i, i, ("request", i, 2 * i)) for i in range(20)]


def test_samples_are_read_as_workers_get_free(two_workers):
    read = []

    def samples():
        for index in range(200):
            read.append(index)
            yield index, np.zeros(1000)

    streamed = stream(two_workers, doubled, None, samples())
    next(streamed)

    assert len(read) < 50
    streamed.close()


def test_samples_of_many_megabytes_are_no_warning(two_workers):
    large = np.zeros(2_000_000)

    ((_, _, (_, _, result)),) = stream(two_workers, doubled, None, [(0, large)])

    assert result.nbytes == large.nbytes


def test_a_sample_that_ends_every_worker_is_told_by_its_index():
    with connected(1) as client, pytest.raises(ExecutionError, match="Sample 2 ended 4 workers"):
        list(stream(client, ended_by_two, None, ((i, i) for i in range(4))))


def test_what_fails_on_a_worker_is_told(two_workers):
    with pytest.raises(ExecutionError, match="failed on sample 2: KeyError: 'no such thing'"):
        list(stream(two_workers, failing_at_two, None, ((i, i) for i in range(4))))


@pytest.mark.parametrize(
    ("request_of", "what"),
    [
        (RankRequest(impact="exact"), "Exact impacts run all samples"),
        (RankRequest(exact_count=3), "Exact impacts run all samples"),
        (RankRequest(loss=np.sum), "A loss is a function of this process"),
    ],
)
def test_what_needs_one_process_is_refused_before_any_worker_starts(request_of, what, monkeypatch):
    monkeypatch.setattr(worker_pool, "connected", None)

    with pytest.raises(ExecutionError, match=what):
        rank_on_workers("model.onnx", [], 2, request_of)


def test_another_model_on_the_worker_is_refused(saved):
    with pytest.raises(ExecutionError, match="is another model for the worker"):
        rank_on_workers(saved, many_samples(chain(4), 1), 1, graph=load_graph(chain(4)))


def test_another_version_on_the_worker_is_refused(saved, monkeypatch):
    monkeypatch.setattr(worker_pool, "installed_versions", lambda: (("onnx", "0.1"),))

    with pytest.raises(ExecutionError, match=r"(?s)another version of .*Install the same versions"):
        rank_on_workers(saved, many_samples(small_transformer(), 1), 1)


def test_a_model_that_the_worker_does_not_find_is_refused(tmp_path):
    graph = load_graph(small_transformer())

    with pytest.raises(ExecutionError, match=r"(?s)There is no .*the same path"):
        rank_on_workers(
            tmp_path / "none.onnx", many_samples(small_transformer(), 1), 1, graph=graph
        )


def test_a_worker_with_several_threads_is_refused(saved):
    options = {"processes": False, "dashboard_address": None, "threads_per_worker": 2}
    with LocalCluster(n_workers=1, protocol="tcp://", **options) as cluster:
        address = ClusterAddress(cluster.scheduler_address)

        with pytest.raises(ExecutionError, match="--nthreads 1"):
            rank_on_workers(saved, many_samples(small_transformer(), 1), address)


def test_no_sample_is_an_error(saved):
    with pytest.raises(ExecutionError, match="no input sample"):
        rank_on_workers(saved, [], 1)


def test_a_wrong_sample_is_told_as_in_one_process(saved):
    with pytest.raises(ValueError, match="sample 0"):
        rank_on_workers(saved, [{"nothing": np.zeros(1)}], 1)


def test_a_cluster_of_the_user_gives_the_same_ranking(tmp_path, saved):
    samples = many_samples(small_transformer(), 5)
    address = ClusterAddress(str(tmp_path / "scheduler.json"))
    with dask_scheduler(tmp_path), dask_worker(tmp_path), dask_worker(tmp_path):
        ranking = rank_on_workers(saved, samples, address, threads=1)

    assert_equal_rankings(ranking, rank_model(saved, samples, threads=1))


def test_a_scheduler_that_is_lost_is_told(tmp_path, saved):
    address = ClusterAddress(str(tmp_path / "scheduler.json"))
    with dask_scheduler(tmp_path) as scheduler, dask_worker(tmp_path):

        def kill(done, *_):
            if done == 2:
                scheduler.kill()
                scheduler.wait()

        with pytest.raises(ExecutionError, match=r"The scheduler .* is gone"):
            rank_on_workers(saved, many_samples(small_transformer(), 50), address, progress=kill)


def test_a_scheduler_without_workers_is_told(tmp_path, saved):
    address = ClusterAddress(str(tmp_path / "scheduler.json"))
    with (
        dask_scheduler(tmp_path),
        pytest.raises(ExecutionError, match=r"(?s)has had no worker for 1 seconds.*dask worker"),
    ):
        rank_on_workers(saved, many_samples(small_transformer(), 1), address, no_worker_seconds=1.0)


def test_workers_that_all_leave_are_told(tmp_path, saved):
    address = ClusterAddress(str(tmp_path / "scheduler.json"))
    with dask_scheduler(tmp_path), dask_worker(tmp_path) as worker:

        def kill(done, *_):
            if done == 2:
                worker.kill()

        with pytest.raises(ExecutionError, match="has had no worker"):
            rank_on_workers(
                saved,
                many_samples(small_transformer(), 50),
                address,
                no_worker_seconds=2.0,
                progress=kill,
            )


def test_nobody_at_the_address_is_told(saved, monkeypatch):
    monkeypatch.setattr("polygraphy_layerprec.distribution.clients._CONNECTING_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    with pytest.raises(ExecutionError, match="No scheduler answers"):
        rank_on_workers(
            saved, many_samples(small_transformer(), 1), ClusterAddress(f"tcp://127.0.0.1:{port}")
        )


@pytest.mark.parametrize("security", [None, Security.temporary()], ids=["plain", "other key"])
def test_a_stranger_gets_no_answer(security):
    with own_cluster(1) as cluster:
        address = cluster.scheduler_address
        plain = address.replace("tls://", "tcp://")

        with pytest.raises((OSError, TypeError)):
            Client(address if security else plain, security=security, timeout=3)
        with Client(cluster) as own:
            assert wait_for_worker(own)


def test_what_listens_is_on_loopback_and_speaks_tls_alone():
    others = _listening()
    with own_cluster(2):
        listening = _listening() - others

        assert {address.ip for address in listening} == {"127.0.0.1"}
        assert len(listening) == 5  # the scheduler, two workers and who looks after each
        assert not any(_answers_plainly(address) for address in listening)


def _listening():
    """Returns where this process and what it started listen."""
    return {
        connection.laddr
        for process in (psutil.Process(), *psutil.Process().children(recursive=True))
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


def _answers_plainly(address):
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            return b"HTTP" in connection.recv(100)
    return False


@pytest.mark.parametrize("package", ["dask", "distributed"])
def test_without_dask_the_extra_is_named(saved, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ExecutionError, match=r"polygraphy-layerprec\[dask\]"):
        rank_on_workers(saved, many_samples(small_transformer(), 1), 1)


def test_nothing_is_left_behind(saved):
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    rank_on_workers(saved, many_samples(small_transformer(), 1), 2)

    left = [
        process
        for process in psutil.Process().children(recursive=True)
        if process.pid not in before and "resource_tracker" not in " ".join(process.cmdline())
    ]
    assert not left
