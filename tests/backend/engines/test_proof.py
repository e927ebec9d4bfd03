"""Engines that are built, and what they tell of their layers; TensorRT-RTX needs no GPU for it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import onnx
import pytest

from polygraphy_layerprec.backend.engines import proof as proving
from polygraphy_layerprec.backend.engines.obtained.build_log import parse_listing
from polygraphy_layerprec.backend.engines.proof import (
    asked_layers,
    prove_precisions,
    with_proof,
)
from polygraphy_layerprec.backend.engines.session import EngineStack
from polygraphy_layerprec.backend.engines.specs import constrained_engine
from polygraphy_layerprec.backend.engines.store import open_store
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.records import Constraint, RequestedPrecisions
from tests.backend.engines import proof_driver
from tests.backend.engines.proven_models import PROVEN_MODELS
from tests.backend.engines.stand_in import NamedEngines, Running
from tests.processes import run_command
from tests.report_models import make_verification

pytest.importorskip("polygraphy.backend.trt")

LISTINGS = Path(__file__).parent / "obtained" / "listings"
VERSION = "1.7."
"""The TensorRT-RTX that wrote the listings on file; others may fuse otherwise."""


def keep(graph, *names, precision="fp16"):
    constraints = tuple(
        Constraint(n.proto.name, n.op_type, n.inputs, n.outputs, "a test")
        for n in graph.nodes
        if n.proto.name in names
    )
    return RequestedPrecisions("a test", precision, constraints, ())


@pytest.fixture(scope="module")
def proofs(tmp_path_factory):
    """What the real TensorRT-RTX builds and logs, by the name of the job."""
    pytest.importorskip("tensorrt_rtx", reason="needs the TensorRT-RTX builder")
    folder = tmp_path_factory.mktemp("proofs")
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = run_command(
        [sys.executable, proof_driver.__file__, "proofs.json"],
        folder,
        {"POLYGRAPHY_USE_TENSORRT_RTX": "1", "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "proofs.json").read_text(encoding="utf-8"))


def obtained_in(proof) -> dict[str, str]:
    return {layer["name"]: layer["obtained"] for layer in proof["obtained"]["layers"]}


def shape_of(layers) -> list[tuple]:
    """What the listings of two builds have in common: not the numbers in names."""
    return [
        (x.kind, x.nodes, [t.type for t in x.inputs], [t.type for t in x.outputs]) for x in layers
    ]


@pytest.mark.trt
@pytest.mark.parametrize("name", sorted(PROVEN_MODELS))
def test_the_builder_lists_what_is_on_file(name, proofs, request):
    path, proof = LISTINGS / f"{name}.txt", proofs[name]
    if request.config.getoption("--update-golden"):
        path.write_text(proof["listing"], encoding="utf-8", newline="")

    found = parse_listing(proof["listing"])

    if not importlib.metadata.version("tensorrt-rtx").startswith(VERSION):
        pytest.skip(f"the listings are those of {VERSION}")
    assert shape_of(found) == shape_of(parse_listing(path.read_bytes().decode()))
    assert PROVEN_MODELS[name].obtained.items() <= obtained_in(proof).items()
    assert proof["obtained"]["kernel_count"] == len(found)
    assert proof["latency_seconds"] is None
    assert proof["size_bytes"] > 1000


@pytest.mark.trt
@pytest.mark.parametrize("how", ["as mixed model", "in bf16"])
@pytest.mark.parametrize("name", ["product_alone", "product_and_reader"])
def test_a_mixed_model_and_bf16_obtain_the_same_as_the_script(name, how, proofs):
    assert obtained_in(proofs[f"{name} {how}"]) == obtained_in(proofs[name])


@pytest.mark.trt
@pytest.mark.parametrize("name", sorted(proof_driver.JOBS))
def test_a_product_is_in_fp32_where_the_engine_holds_its_weights_so(name, proofs):
    products = [x for x in proofs[name]["obtained"]["layers"] if x["op"] == "MatMul"]
    in_fp32 = [layer["name"] for layer in products if layer["obtained"] == "fp32"]

    assert all(layer["obtained"] in {"fp32", "low"} for layer in products)
    assert in_fp32 == proofs[name]["products_of_fp32_weights"]


@pytest.mark.trt
def test_what_was_not_kept_is_found_out(proofs):
    obtained = obtained_in(proofs["product_and_reader with nothing kept"])

    # The kernel of the softmax has a cast and would leave it open: the network tells.
    assert obtained["MatMul_m"] == obtained["Softmax_s"] == "low"


class Logging(NamedEngines):
    """Logs and tells what it is given."""

    def __init__(self, logged: str, inspected: str = "") -> None:
        super().__init__()
        self._logged = logged
        self._inspected = inspected

    def build(self, spec, *, observe=None) -> bytes:
        from polygraphy.logger import G_LOGGER

        assert observe is not None
        self.built.append(spec)
        G_LOGGER.extra_verbose("Layers that are not meant:")
        G_LOGGER.extra_verbose(self._logged)
        return b"plan"

    @contextmanager
    def open(self, spec, plan):
        assert (spec, plan) == (self.built[-1], b"plan")
        yield Running(None, information=self._inspected)


@pytest.fixture
def product(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(PROVEN_MODELS["product_unfenced"].model, path)
    return load_graph(path)


def prove(graph, asked, engines, folder=None):
    with open_store(folder) as store:
        return prove_precisions(graph, asked, stack=EngineStack(engines, store, None))


def test_the_log_is_read_whatever_is_shown_of_it(product):
    listing = (LISTINGS / "product_unfenced.txt").read_bytes().decode()

    proof = prove(product, keep(product, "MatMul_m"), Logging(listing))

    assert {x.name: x.obtained for x in proof.obtained.layers}["MatMul_m"] == "low"
    assert proof.size_bytes == 4


def test_what_the_log_said_is_kept_and_an_engine_without_its_log_is_built_again(product, tmp_path):
    listing = (LISTINGS / "product_unfenced.txt").read_bytes().decode()
    asked = keep(product, "MatMul_m")
    spec = constrained_engine(asked)
    engines = Logging(listing)
    with open_store(str(tmp_path)) as store:
        store.engine(engines.identity(spec), lambda: b"from a run")

    first = prove(product, asked, engines, str(tmp_path))
    second = prove(product, asked, engines, str(tmp_path))

    assert first == second
    assert engines.built == [spec]


def test_where_the_log_tells_nothing_a_gpu_lets_the_engine_be_read(product, monkeypatch):
    layer = {"Name": "MatMul_m", "Metadata": "[ONNX Layer: MatMul_m]"}
    layer |= {"Outputs": [{"Name": "t", "Datatype": "Float"}]}
    layer |= {"Inputs": [{"Name": "s", "Datatype": "Float"}]}
    monkeypatch.setattr(proving, "count_gpus", lambda: 1)
    text = str({"Layers": [layer]}).replace("'", '"')

    proof = prove(product, keep(product, "MatMul_m"), Logging("", text))

    assert {x.name: x.obtained for x in proof.obtained.layers}["MatMul_m"] == "fp32"


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_build_that_names_no_nodes_is_an_error_that_says_what_to_install(
    product, monkeypatch, gpus
):
    monkeypatch.setattr(proving, "count_gpus", lambda: gpus)

    with pytest.raises(ExecutionError, match=r"pip install tensorrt-rtx[\s\S]*USE_TENSORRT_RTX=1"):
        prove(product, keep(product), Logging("Layers:\nMatMul_m"))


def test_all_layers_are_asked_for_and_what_rounds_nothing_is_not(tmp_path):
    from tests.emit.networks import make_model

    model = make_model(
        """(float[2,4] x) => (float[2,4] y) {
            k = Exp(w)
            t = Transpose(k)
            m = MatMul(x, t)
            r = Relu(m)
            c = Shape(r)
            y = Expand(r, c)
        }""",
        "w[4,4]",
    )
    onnx.save(model, tmp_path / "model.onnx")
    graph = load_graph(tmp_path / "model.onnx")

    kept = keep(graph, "Exp_k", "Relu_r").constraints
    layers = asked_layers(graph, kept)

    assert [(layer.node.name, layer.in_fp32) for layer in layers] == [
        ("Exp_k", True),
        ("MatMul_m", False),
    ]
    assert not layers[1].has_weights  # `t` is computed, which the builder folds
    assert asked_layers(graph, ())[0].node.name == "MatMul_m"


def test_a_layer_that_was_not_kept_fails_a_verification_that_passed():
    proof = make_verification().engines[0]

    found = with_proof(make_verification(engines=()), proof)

    assert found.passed is False
    assert found.engines == (proof,)
    (failure,) = found.failures
    assert failure == (
        "1 of 3 layers that were to stay in FP32 are in FP16 in the engine, 'kept_in_vain' the "
        "first"
    )
