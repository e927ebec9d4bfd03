"""How a command ends when the machine turns against it: full disks, signals, readers who leave."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.files.ranking_file import save_ranking
from polygraphy_layerprec.tools.interrupts import Terminated, tidy_termination
from tests.models import chain, save_with_external_data
from tests.processes import DOORS
from tests.rankings import make_layer, make_ranking

pytestmark = pytest.mark.onnxrt

PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
WIDTH = 512
"""Extent of the models here: weights, pages and activations beyond the limit of a file's size."""


def start(door, *words, folder, **options):
    command = [sys.executable, *DOORS[door], *map(str, words)]
    return subprocess.Popen(command, cwd=folder, **{**PIPES, **options})


def unmeasured():
    """Returns an environment without coverage, whose own files need room as well."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COV")}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Returns a folder with a model with external data, its inputs, and rankings of it."""
    folder = tmp_path_factory.mktemp("given")
    save_with_external_data(chain(4), folder / "model.onnx")
    np.savez(folder / "inputs.npz", x=np.ones((2, 4), np.float32))
    with start("module", "rank", "model.onnx", "--load-inputs", "inputs.npz",
               "--save-ranking", "ranking.json", folder=folder) as process:  # fmt: skip
        said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    many = make_ranking(*(make_layer(rank, f"/layer.{rank}/Add") for rank in range(1, 400)))
    save_ranking(many, folder / "many.json")
    return folder


FILES = ("--save-script c.py", "--save-onnx m.onnx", "--save-layer-precisions p.txt",
         "--save-curve v.csv", "--save-curve v.png")  # fmt: skip


@pytest.mark.parametrize("files", FILES)
def test_a_full_disk_names_the_file(given, files):
    path = files.split()[1]
    before = sorted(os.listdir(given))

    def leave_no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))

    words = f"constrain ranking.json --model model.onnx --load-inputs inputs.npz --top-k 2 {files}"
    with start("polygraphy", *words.split(), folder=given, preexec_fn=leave_no_room,
               env={**unmeasured(), "PYTHONDONTWRITEBYTECODE": "1"}) as process:  # fmt: skip
        out, said = process.communicate(timeout=120)

    assert process.returncode == 1, out
    assert f"'{path}" in said
    assert "cannot be written: File too large" in said
    assert "Make room there" in said
    assert "Traceback" not in out + said
    assert sorted(os.listdir(given)) == before


@pytest.mark.parametrize("door", DOORS)
def test_a_spill_that_has_no_room_names_tmpdir_and_the_option(tmp_path, door):
    onnx.save(chain(20, WIDTH), tmp_path / "model.onnx")
    (tmp_path / "scratch").mkdir()

    def leave_no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    with start(door, "rank", "model.onnx", "--max-memory", "1K", folder=tmp_path,
               preexec_fn=leave_no_room,
               env={**unmeasured(), "TMPDIR": str(tmp_path / "scratch"),
                    "PYTHONDONTWRITEBYTECODE": "1"}) as process:  # fmt: skip
        out, said = process.communicate(timeout=120)

    assert process.returncode == 1, out
    assert str(tmp_path / "scratch") in said
    assert "TMPDIR" in said
    assert "--max-memory" in said
    assert "Traceback" not in out + said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("door", DOORS)
def test_an_output_on_a_full_disk_is_told_once(given, door, unbuffered):
    options = {"folder": given, "env": {**os.environ, "PYTHONUNBUFFERED": unbuffered}}
    with (
        open("/dev/full", "w") as full,
        start(door, "inspect", "many.json", stdout=full, **options) as process,
    ):
        _, said = process.communicate(timeout=120)

    assert process.returncode == 1
    assert said.count("No space left on device") == 1
    assert "standard output" in said
    assert "Traceback" not in said
    assert "Exception ignored" not in said


@pytest.mark.parametrize("words", [("--top", "1"), ("--top", "400"), ("-v",)])
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("door", DOORS)
def test_nothing_is_said_to_a_reader_who_never_listened(given, door, unbuffered, words):
    reading, writing = os.pipe()
    os.close(reading)
    options = {"folder": given, "env": {**os.environ, "PYTHONUNBUFFERED": unbuffered}}
    with start(door, "inspect", "many.json", *words, stdout=writing, **options) as process:
        os.close(writing)
        _, said = process.communicate(timeout=120)

    assert said == ""
    assert process.returncode == 141


def test_markdown_for_which_there_is_no_reader_ends_like_the_log(given):
    reading, writing = os.pipe()
    os.close(reading)
    words = ("inspect", "many.json", "--format", "markdown")
    with start("polygraphy", *words, stdout=writing, folder=given) as process:
        os.close(writing)
        _, said = process.communicate(timeout=120)

    assert process.returncode == 141
    assert "Traceback" not in said
    assert "Exception ignored" not in said


SLOW_FILE = """
import pathlib, signal, time
# What a parent ignores or blocks, as under `nohup`, its children do too.
signal.pthread_sigmask(signal.SIG_SETMASK, [])
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
import polygraphy_layerprec.files.atomic_file as atomic_file, sys
def slowly(ranking):
    pathlib.Path("halfway").touch()
    time.sleep(60)
fill = atomic_file.write_file
def write(path, function):
    def write_slowly(file):
        file.write(b"half"); file.flush(); slowly(None)
    fill(path, write_slowly)
atomic_file.write_file = write
from polygraphy_layerprec.tools.main import main
sys.exit(main(["constrain", "ranking.json", "--top-k", "1", "--save-script", "c.py"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_no_file_that_is_not_complete(given, tmp_path, number):
    (tmp_path / "ranking.json").write_bytes((given / "ranking.json").read_bytes())
    with subprocess.Popen([sys.executable, "-c", SLOW_FILE], cwd=tmp_path, **PIPES) as process:
        give_up = time.monotonic() + 60
        while not (tmp_path / "halfway").exists() and process.poll() is None:
            assert time.monotonic() < give_up
            time.sleep(0.05)
        assert [name for name in os.listdir(tmp_path) if name.endswith(".partial")]
        process.send_signal(number)
        out, said = process.communicate(timeout=60)

    assert process.returncode == 128 + number, said
    assert "Interrupted" in out
    assert "Traceback" not in out + said
    assert sorted(os.listdir(tmp_path)) == ["halfway", "ranking.json"]


def test_a_second_signal_does_not_disturb_the_tidying_up():
    tidied = []
    before = signal.getsignal(signal.SIGTERM)

    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            for number in (signal.SIGTERM, signal.SIGHUP):
                os.kill(os.getpid(), number)
                tidied.append(number)

    with pytest.raises(Terminated) as raised, tidy_termination():
        work()

    assert tidied == [signal.SIGTERM, signal.SIGHUP]
    assert raised.value.status == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_whoever_handles_a_signal_already_goes_on_to_do_so():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, before)
        with tidy_termination():
            os.kill(os.getpid(), signal.SIGTERM)

    assert heard == [signal.SIGTERM]
