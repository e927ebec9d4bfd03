"""The emitted script, unchanged, in every tool of Polygraphy that makes a TensorRT network."""

from __future__ import annotations

import importlib.util
import re
import sys

import onnx
import pytest

from polygraphy_layerprec.emit.network_script import render_network_script
from polygraphy_layerprec.model import identify, load_graph
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.records import Constraint
from tests.models import cancellation
from tests.processes import POLYGRAPHY_DOOR, run_command

pytestmark = [
    pytest.mark.trt,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed"
    ),
]

DONE = re.compile(r"\[layerprec\] .*?(\d+) of (\d+) constraints matched")

ALIAS = "from tensorrt_rtx import *\nfrom tensorrt_rtx import __version__\n"
"""`inspect model` of Polygraphy up to 0.53 imports `tensorrt` by name, whatever is in use."""


@pytest.fixture
def folder(tmp_path):
    """Returns a folder with a model, and two scripts for it."""
    onnx.save(cancellation(), tmp_path / "model.onnx")
    digest = identify(load_graph(cancellation())).digest
    constraints = [Constraint(name, "", (), (name,), "") for name in ("shifted", "restored")]
    for name, lenient in (("constraints.py", False), ("lenient.py", True)):
        text = render_network_script(
            constraints,
            precision=FP16,
            model_name="model.onnx",
            model_digest=digest,
            allow_unmatched=lenient,
        )
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def polygraphy(folder):
    """Runs Polygraphy with TensorRT-RTX and no GPU, and returns the finished process."""

    def polygraphy(*words, **environment):
        variables = {"POLYGRAPHY_USE_TENSORRT_RTX": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
        return run_command([sys.executable, *POLYGRAPHY_DOOR[:2], *words], folder, variables)

    return polygraphy


def matched(text: str) -> list[tuple[int, int]]:
    """Returns how many constraints matched of how many, for each network that was rewritten."""
    return [(int(found), int(asked)) for found, asked in DONE.findall(text)]


def test_run_builds_with_it_before_it_needs_a_gpu(polygraphy):
    done = polygraphy(
        *("run", "model.onnx", "--trt", "--onnxrt", "--trt-npps", "constraints.py"),
        *("--save-engine", "saved.engine"),
    )

    assert matched(done.stdout) == [(2, 2)], done.stdout + done.stderr
    assert "Finished engine building" in done.stdout
    # Without a GPU, or on one that TensorRT-RTX does not serve, loading the engine fails next.
    assert done.returncode == 0 or "Could not deserialize engine" in done.stderr


def test_convert_builds_an_engine_with_it(polygraphy, folder):
    done = polygraphy("convert", "model.onnx", "-o", "model.engine", "--trt-npps", "constraints.py")

    assert done.returncode == 0, done.stdout + done.stderr
    assert matched(done.stdout) == [(2, 2)]
    assert (folder / "model.engine").stat().st_size > 0


def test_debug_build_builds_as_often_as_it_is_told(polygraphy):
    done = polygraphy(
        *("debug", "build", "model.onnx", "--trt-npps", "constraints.py", "--until", "2"),
        *("--check", sys.executable, "-c", "open('polygraphy_debug.engine', 'rb').read(1)"),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert set(matched(done.stdout)) == {(2, 2)}
    assert "Passed: 2/2" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("onnx_graphsurgeon") is None,
    reason="`debug reduce` needs onnx_graphsurgeon, which is not installed",
)
def test_debug_reduce_checks_smaller_models_with_a_lenient_script(polygraphy):
    done = polygraphy(
        *("debug", "reduce", "model.onnx", "-o", "reduced.onnx", "--mode", "linear"),
        *("--show-output", "--check", sys.executable, *POLYGRAPHY_DOOR[:2], "convert"),
        *("polygraphy_debug.onnx", "-o", "reduced.engine", "--trt-npps", "lenient.py"),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert {asked for _, asked in matched(done.stdout)} == {2}
    assert min(found for found, _ in matched(done.stdout)) < 2


def test_inspect_model_shows_the_rewritten_network(polygraphy, folder):
    (folder / "tensorrt.py").write_text(ALIAS)

    done = polygraphy(
        *("inspect", "model", "model.onnx", "--convert-to", "trt", "--show", "layers"),
        *("--trt-npps", "constraints.py"),
        PYTHONPATH=str(folder),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert matched(done.stdout) == [(2, 2)]
    layers = re.findall(r"Layer \d+ +\| (\S+) \[Op: LayerType\.(\w+)\]", done.stdout)
    assert [name for name, kind in layers if kind == "CAST"] != []
    assert re.search(r"shift_up \[Op: [^]]*\]\n.*\n.*\n *-> \{shifted \[dtype=float32", done.stdout)
    assert re.search(r"scale \[Op: [^]]*\]\n.*\n.*\n *-> \{\S+ \[dtype=float16", done.stdout)


def test_a_script_of_another_model_stops_the_build(polygraphy, folder):
    digest = identify(load_graph(cancellation())).digest
    stray = [Constraint("nothing", "", (), ("nothing",), "")]
    (folder / "stray.py").write_text(
        render_network_script(stray, precision=FP16, model_name="m", model_digest=digest)
    )

    done = polygraphy("convert", "model.onnx", "-o", "model.engine", "--trt-npps", "stray.py")

    assert done.returncode != 0
    assert "1 of 1 constraints match" in done.stdout + done.stderr
    assert not (folder / "model.engine").exists()
