"""`rank --workers` and `rank --cluster`, as users call them."""

from __future__ import annotations

import signal
import time

import psutil
import pytest
from distributed import Security

from polygraphy_layerprec.execution.errors import WorkersError
from polygraphy_layerprec.files.ranking_file import load_ranking
from polygraphy_layerprec.files.verdict_file import load_verdict
from polygraphy_layerprec.tools.main import main
from tests.clusters import dask_scheduler, dask_worker
from tests.processes import LONGEST_SECONDS, interruptible_layerprec, run_layerprec
from tests.split_cases import assert_equal_rankings, assert_equal_records, write_transformer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    write_transformer(folder, samples=4)
    done = rank(folder, "--save-ranking", "alone.json")
    assert done.returncode == 0, done.stderr
    return folder


def rank(folder, *options):
    options = ("--load-inputs", "samples", "--threads", "1", *options)
    return run_layerprec("rank", "model.onnx", *options, folder=folder)


@pytest.mark.parametrize("door", ["polygraphy", "module"])
def test_workers_give_the_ranking_of_one_process(folder, door):
    done = run_layerprec(
        *("rank", "model.onnx", "--load-inputs", "samples", "--threads", "1", "--workers", "2"),
        *("--save-ranking", f"{door}.json"),
        door=door,
        folder=folder,
    )

    assert done.returncode == 0, done.stderr
    assert not done.stderr
    ranking = load_ranking(folder / f"{door}.json")
    assert_equal_rankings(ranking, load_ranking(folder / "alone.json"))


METRIC = """
import numpy as np

def metric(outputs, samples):
    pairs = list(zip(outputs, samples, strict=True))
    return float(np.mean([np.mean(np.sign(y)) for out, _ in pairs for y in out.values()]))
"""


@pytest.mark.parametrize("criterion", [["--tolerance", "1e-4"], ["--metric-script", "metric.py"]])
def test_verify_on_workers_gives_the_verdict_of_one_process(folder, criterion):
    (folder / "metric.py").write_text(METRIC, encoding="utf-8")
    samples = ("--load-inputs", "samples", "--threads", "1")
    verdicts = []
    for options in ((), ("--workers", "2")):
        done = run_layerprec(
            *("verify", "model.onnx", "--ranking", "alone.json", *criterion, *samples, *options),
            *("--save-verdict", "verdict.json"),
            folder=folder,
        )
        assert "Verdict: " in done.stdout, done.stderr
        verdicts.append((done.returncode, load_verdict(folder / "verdict.json")))

    assert verdicts[0][0] == verdicts[1][0]
    assert_equal_records(verdicts[1][1], verdicts[0][1])


def test_constrain_measures_on_workers(folder):
    options = ("--model", "model.onnx", "--load-inputs", "samples", "--threads", "1")
    for file, more in (("alone.v.json", ()), ("workers.v.json", ("--workers", "2"))):
        done = run_layerprec(
            *("constrain", "alone.json", *options, *more, "--tolerance", "1e-4"),
            *("--save-verdict", file),
            folder=folder,
        )
        assert done.returncode == 0, done.stderr

    assert_equal_records(
        load_verdict(folder / "workers.v.json"), load_verdict(folder / "alone.v.json")
    )


def test_a_lost_scheduler_is_no_reason_to_let_the_forecast_decide(folder, monkeypatch, capsys):
    def lost(*_, **__):
        raise WorkersError("The scheduler is gone.")

    monkeypatch.chdir(folder)
    monkeypatch.setattr("polygraphy_layerprec.pipeline.measured_model", lost)
    options = ["--model", "model.onnx", "--load-inputs", "samples", "--save-script", "lost.py"]

    status = main(["constrain", "alone.json", *options])

    assert status == 1
    assert "The scheduler is gone" in "".join(capsys.readouterr())
    assert not (folder / "lost.py").exists()


def test_a_cluster_with_tls_wants_a_certificate(folder, tmp_path):
    security = Security.temporary()
    texts = {
        "ca": security.tls_ca_file,
        "cert": security.tls_client_cert,
        "key": security.tls_client_key,
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.pem").write_text(text)
    files = {name: str(tmp_path / f"{name}.pem") for name in texts}
    of_dask = ["--tls-ca-file", files["ca"], "--tls-cert", files["cert"], "--tls-key", files["key"]]
    ours = [word for name, path in files.items() for word in (f"--cluster-tls-{name}", path)]
    place = ["--cluster", str(tmp_path / "scheduler.json")]
    with (
        dask_scheduler(tmp_path, "--protocol", "tls", *of_dask),
        dask_worker(tmp_path, *of_dask),
    ):
        done = rank(folder, *place, *ours, "--save-ranking", "tls.json")
        stranger = rank(folder, *place, "--save-ranking", "stranger.json")

    assert done.returncode == 0, done.stderr
    assert_equal_rankings(load_ranking(folder / "tls.json"), load_ranking(folder / "alone.json"))
    assert stranger.returncode == 1
    assert "No scheduler answers" in stranger.stderr
    assert "--cluster-tls-cert" in stranger.stderr
    assert not (folder / "stranger.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_was_started(folder, number):
    with interruptible_layerprec(
        *("rank", "model.onnx", "--iterations", "1000000", "--workers", "2"),
        *("--save-ranking", "never.json"),
        folder=folder,
    ) as process:
        workers = _wait_for_workers(process)
        # As a terminal does: Ctrl-C reaches all of them.
        for one in (*workers, psutil.Process(process.pid)) if number == signal.SIGINT else ():
            one.send_signal(number)
        if number == signal.SIGTERM:
            process.terminate()
        said = process.communicate(timeout=LONGEST_SECONDS)[0]

    assert process.returncode == 128 + number, said
    assert "Traceback" not in said, said
    assert not [worker for worker in workers if _lives(worker)]
    assert not (folder / "never.json").exists()


def test_ctrl_c_while_workers_are_started_is_not_lost(folder):
    with interruptible_layerprec(
        *("rank", "model.onnx", "--iterations", "100", "--workers", "2"),
        *("--save-ranking", "never.json"),
        folder=folder,
    ) as process:
        started = _wait_for_workers(process, seconds=0.0)
        for one in (*started, psutil.Process(process.pid)):
            one.send_signal(signal.SIGINT)
        said = process.communicate(timeout=LONGEST_SECONDS)[0]

    assert process.returncode == 128 + signal.SIGINT, said
    assert "Traceback" not in said, said
    _, left = psutil.wait_procs(started, timeout=LONGEST_SECONDS)  # some end behind us
    assert not left
    assert not (folder / "never.json").exists()


def _wait_for_workers(process, seconds=1.5):
    """Returns the processes that were started, once they have worked for so long."""
    end = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < end and process.poll() is None:
        busy = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if sum(child.cpu_times()[:2]) >= seconds
        ]
        if len(busy) >= 2:
            return busy
        time.sleep(0.1)
    raise AssertionError(process.stdout.read())


def _lives(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--workers", "0"], "`--workers` must be at least 1"),
        (["--workers", "1", "--exact", "2"], "`--exact`, which is done in one process"),
        (["--workers", "1", "--impact", "exact"], "`--impact exact`, which is done"),
        (["--workers", "1", "--save-partial", "x.npz"], "`--save-partial`, which is done"),
        (["--workers", "1", "--cluster-tls-ca", "x"], "belong together"),
        (["--cluster", "tls://x:1", "--cluster-tls-ca", "x"], "belong together"),
        (["--threads", "0", "--workers", "1"], "`--threads` must be at least 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(folder, options, told):
    done = rank(folder, *options)

    assert done.returncode == 1
    assert told in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["constrain", "alone.json"], "measure sets of layers, and no model was given"),
        (["verify", "model.onnx", "--backend", "tensorrt"], "cannot be combined with `--backend"),
    ],
)
def test_what_measures_no_samples_has_no_workers(folder, command, told):
    done = run_layerprec(*command, "--workers", "2", folder=folder)

    assert done.returncode == 1
    assert told in " ".join(done.stderr.split())
