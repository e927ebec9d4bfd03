"""`verify --build` in real processes, with the real TensorRT-RTX and without any TensorRT."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.emit.mixed_onnx import save_mixed_onnx
from polygraphy_layerprec.emit.network_script import render_network_script
from polygraphy_layerprec.model import identify, load_graph
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.records import Constraint
from tests.emit.networks import make_model
from tests.processes import run_layerprec

pytestmark = pytest.mark.onnxrt
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="needs TensorRT-RTX"
)


def drop_fences(path):
    """Takes the additions of -0.0 out of a model, without which TensorRT-RTX demotes products."""
    model = onnx.load(path)
    fences = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Add"}
    assert fences
    nodes = [n for n in model.graph.node if n.op_type != "Add"]
    for node in nodes:
        node.input[:] = [fences.get(name, name) for name in node.input]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with a model of dynamic batch, scripts and mixed models, good and bad."""
    folder = tmp_path_factory.mktemp("build")
    model = make_model(
        """(float[n,64] x) => (float[n,64] y) {
            a = Tanh(x)
            m = MatMul(a, w)
            s = Softmax(m)
            p = MatMul(s, v)
            y = Tanh(p)
        }""",
        "w[64,64] v[64,64]",
    )
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "inputs.npz", x=np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64))
    graph = load_graph(folder / "model.onnx")
    for name, kept in (("good", ("m", "s")), ("bad", ("m", "p"))):
        constraints = [
            Constraint(n.proto.name, n.op_type, n.inputs, n.outputs, "a test")
            for n in graph.nodes
            if n.outputs[0] in kept
        ]
        script = render_network_script(
            constraints, precision=FP16, model_digest=identify(graph).digest
        )
        (folder / f"{name}.py").write_text(script)
        save_mixed_onnx(folder / "model.onnx", folder / f"{name}.onnx", kept)
    drop_fences(folder / "bad.onnx")
    return folder


@pytest.fixture
def verify(folder):
    def run(*arguments, rtx="1"):
        words = ["verify", "model.onnx", "--load-inputs", "inputs.npz", "--build", *arguments]
        done = run_layerprec(
            *words, folder=folder, environment={"POLYGRAPHY_USE_TENSORRT_RTX": rtx}
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run


@needs_rtx
@pytest.mark.trt
@pytest.mark.parametrize("source", [("--script", "good.py"), ("--mixed-onnx", "good.onnx")])
def test_layers_that_are_obtained_pass(verify, source):
    done = verify(*source, "--tolerance", "0.1")

    text = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Engines: built, not run" in text
    assert "Obtained: 2 of 2 layers asked for are in FP32 " in text
    assert "PASSED: relative L2 error" in text


@needs_rtx
@pytest.mark.trt
def test_a_layer_that_is_not_obtained_fails_and_is_shown(verify, folder):
    done = verify("--mixed-onnx", "bad.onnx", "--tolerance", "0.1", "--save-report", "report.html")

    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1
    assert "FAILED: 2 of 2 layers that were to stay in FP32 are in FP16 in the engine" in text
    assert "MatMul_p MatMul FP32 FP16 FP16 -> FP32 __myl_FcTanhCast" in text
    assert "MatMul_p" in (folder / "report.html").read_text(encoding="utf-8")


@needs_rtx
@pytest.mark.trt
def test_every_layer_is_listed_on_demand(verify):
    short, full = verify("--script", "good.py"), verify("--script", "good.py", "-v")

    assert "Tanh_a" not in short.stdout
    assert "Tanh_a" in full.stdout
    assert full.returncode == 0


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is there")
def test_without_tensorrt_it_says_what_to_install(verify):
    done = verify("--script", "good.py", rtx="0")

    text = done.stdout + done.stderr
    assert done.returncode == 1
    assert "pip install tensorrt-rtx" in text
    assert "POLYGRAPHY_USE_TENSORRT_RTX=1" in text
    assert "Verification:" not in text  # it is found out before anything is measured


def test_engines_that_run_need_no_build_beside_them(verify):
    done = verify("--script", "good.py", "--backend", "tensorrt")

    assert done.returncode == 1
    assert "`--build` is for machines without a GPU" in done.stdout + done.stderr
