"""Real builds in a process of their own: Polygraphy reads the environment when it is imported.

Run as a script in a folder of its own, it proves every job and writes what it found as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import sys

import onnx
from polygraphy.backend.trt import CreateConfig, NetworkFromOnnxPath

from polygraphy_layerprec.backend.engines import networks, proof
from polygraphy_layerprec.backend.engines.building import TensorrtEngines
from polygraphy_layerprec.backend.engines.options import EngineOptions
from polygraphy_layerprec.backend.engines.session import EngineStack
from polygraphy_layerprec.backend.engines.store import open_store
from polygraphy_layerprec.emit import strong_typing
from polygraphy_layerprec.emit.mixed_onnx import save_mixed_onnx
from polygraphy_layerprec.emit.network_rewriter import constrain_network
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.records import Constraint, RequestedPrecisions
from tests.backend.engines.proven_models import PROVEN_MODELS

__all__ = ["JOBS", "prove"]

_find_fenced = strong_typing._find_fenced

JOBS = {
    **{name: {"model": name} for name in PROVEN_MODELS},
    "product_unfenced": {"model": "product_unfenced", "unfenced": True},
    "product_alone as mixed model": {"model": "product_alone", "mixed": True},
    "product_and_reader as mixed model": {"model": "product_and_reader", "mixed": True},
    "product_alone in bf16": {"model": "product_alone", "precision": "bf16"},
    "product_and_reader in bf16": {"model": "product_and_reader", "precision": "bf16"},
    "product_and_reader with nothing kept": {"model": "product_and_reader", "forgets": True},
}
"""What is built, by name."""


def prove(
    name: str, *, model: str, mixed=False, precision="fp16", forgets=False, unfenced=False
) -> dict:
    """Returns the log's listing and what the layers obtained."""
    path = f"{name}.onnx"
    onnx.save(PROVEN_MODELS[model].model, path)
    graph = load_graph(path)
    constraints = tuple(
        Constraint(n.proto.name, n.op_type, n.inputs, n.outputs, "a test")
        for n in graph.nodes
        if n.proto.name in PROVEN_MODELS[model].kept
    )
    asked = RequestedPrecisions("a test", precision, constraints, ())
    mixed_path = f"{name} mixed.onnx" if mixed else None
    if mixed_path:
        kept = [output for constraint in constraints for output in constraint.outputs]
        save_mixed_onnx(path, mixed_path, kept)
    networks.constrain_network = _forgetful if forgets else constrain_network
    strong_typing._find_fenced = (lambda *_: set()) if unfenced else _find_fenced
    listings: list[str] = []
    proof.parse_listing = lambda text: listings.append(text) or _parse(text)
    options = EngineOptions(
        path, lambda path, **_: NetworkFromOnnxPath(path)(), lambda _: CreateConfig()
    )
    engines = _Noting(graph, options, precision=precision)
    with open_store(None) as store:
        stack = EngineStack(engines, store, None)
        found = proof.prove_precisions(graph, asked, stack=stack, mixed_path=mixed_path)
    return {
        "listing": listings[0],
        "products_of_fp32_weights": _products_of_fp32_weights(path, engines.plans[0]),
        **dataclasses.asdict(found),
    }


class _Noting(TensorrtEngines):
    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.plans = []

    def build(self, spec, **options):
        self.plans.append(super().build(spec, **options))
        return self.plans[-1]


def _products_of_fp32_weights(path: str, plan: bytes) -> list[str]:
    """Names of the matrix products whose weights an engine holds as they are, in either order."""
    model = onnx.load(path)
    arrays = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in arrays
        for weight in [arrays[node.input[1]]]
        if weight.tobytes() in plan or weight.T.tobytes() in plan
    ]


_parse = proof.parse_listing


def _forgetful(network, _, **options):
    return constrain_network(network, (), **options)


if __name__ == "__main__":
    found = {name: prove(name, **job) for name, job in JOBS.items()}
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(found, file)
