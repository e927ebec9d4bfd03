"""Engines for a verification, built by the real TensorRT-RTX; running them needs a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import sys

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.backend.tensorrt_module import count_gpus
from polygraphy_layerprec.emit.mixed_onnx import save_mixed_onnx
from tests.models import build_model, node, normal, tensor
from tests.processes import MODULE_DOOR, run_command

pytestmark = [
    pytest.mark.trt,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None, reason="needs TensorRT-RTX"
    ),
]


def two_layers() -> onnx.ModelProto:
    """Returns two matrix products, whose weights TensorRT stores in their own order."""
    nodes = [
        node("MatMul", ["x", "w1"], "up", name="up"),
        node("Relu", ["up"], "active", name="relu"),
        node("MatMul", ["active", "w2"], "y", name="down"),
    ]
    weights = {"w1": normal(1, 32, 32), "w2": normal(2, 32, 32)}
    shape = ["batch", 32]
    return build_model(nodes, [tensor("x", shape)], [tensor("y", shape)], weights)


# Polygraphy reads the environment when it is imported, so this runs in a process of its own.
BUILD = """
import json, sys
import numpy as np
from polygraphy_layerprec.backend.engines import TensorrtEngines
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.records import AskedPrecisions, Constraint
import polygraphy.backend.trt as backend

flags = []
original = backend.CreateConfig.call_impl
def note(self, builder, network):
    config = original(self, builder, network)
    import tensorrt_rtx as trt
    flags.append(config.get_flag(trt.BuilderFlag.TF32))
    return config
backend.CreateConfig.call_impl = note

kept = Constraint("down", "MatMul", ("active", "w2"), ("y",), "a test")
asked = AskedPrecisions("a test", "fp16", (kept,), ())
ranges = {"x": ((1, 32), (4, 32))}
engines = TensorrtEngines("model.onnx", asked, shape_ranges=ranges)
plans = {name: engines.build(name) for name in ("fp32", "lowered", "constrained")}
mixed = TensorrtEngines("model.onnx", asked, mixed_path="mixed.onnx", shape_ranges=ranges)
plans["mixed"] = mixed.build("constrained")
weights = {name: np.load(f"{name}.npy") for name in ("w1", "w2")}
found = {
    name: {
        weight + kind: array.astype(dtype).tobytes() in plan
        for weight, array in weights.items()
        for kind, dtype in (("_fp32", np.float32), ("_fp16", np.float16))
    }
    for name, plan in plans.items()
}
stray = AskedPrecisions("a test", "fp16", (Constraint("up?", "MatMul", (), ("nope",), ""),), ())
try:
    TensorrtEngines("model.onnx", stray, shape_ranges=ranges).build("constrained")
except ExecutionError as error:
    refused = str(error)
print(json.dumps({"found": found, "tf32": flags, "refused": refused}))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    model = two_layers()
    onnx.save(model, folder / "model.onnx")
    save_mixed_onnx(folder / "model.onnx", folder / "mixed.onnx", ["y"])
    for weight in model.graph.initializer:
        np.save(folder / f"{weight.name}.npy", onnx.numpy_helper.to_array(weight).ravel())
    done = run_command(
        [sys.executable, "-c", BUILD],
        folder,
        {
            "POLYGRAPHY_USE_TENSORRT_RTX": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def kinds(built, engine: str, weight: str) -> set[str]:
    found = built["found"][engine]
    return {kind for kind in ("fp32", "fp16") if found[f"{weight}_{kind}"]}


def test_each_engine_holds_its_weights_in_the_type_asked_for(built):
    assert kinds(built, "fp32", "w1") == {"fp32"}
    assert kinds(built, "lowered", "w1") == kinds(built, "lowered", "w2") == {"fp16"}
    assert kinds(built, "constrained", "w1") == {"fp16"}
    assert kinds(built, "constrained", "w2") == {"fp32"}


def test_a_mixed_model_is_built_as_it_is(built):
    assert kinds(built, "mixed", "w1") == {"fp16"}
    assert kinds(built, "mixed", "w2") == {"fp32"}


def test_tf32_is_off_in_every_engine(built):
    assert built["tf32"] == [False] * 4


def test_a_network_that_cannot_be_constrained_is_an_error(built):
    assert "match no layer of this network" in built["refused"]


@pytest.mark.gpu
@pytest.mark.skipif(count_gpus() == 0, reason="needs a GPU")
def test_engines_run_and_are_compared(tmp_path):
    onnx.save(two_layers(), tmp_path / "model.onnx")
    save_mixed_onnx(tmp_path / "model.onnx", tmp_path / "mixed.onnx", ["y"])
    np.savez(tmp_path / "inputs.npz", x=normal(3, 1, 32))

    command = (
        "verify model.onnx --load-inputs inputs.npz --mixed-onnx mixed.onnx --backend tensorrt "
        "--tolerance 0.01"
    )
    done = run_command(
        [sys.executable, *MODULE_DOOR, *command.split()],
        tmp_path,
        {"POLYGRAPHY_USE_TENSORRT_RTX": "1"},
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "on TensorRT engines" in done.stdout
    assert "PASSED: relative L2 error" in done.stdout
