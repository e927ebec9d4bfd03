"""How long reading a model takes, and how much memory, by its number of nodes.

python benchmarks/reading.py --nodes 10000 100000 1000000

Every measurement has a process of its own. One node in a hundred reads a weight of 64 KiB of its
own, in a data file beside the model, so a million nodes have 625 MiB of weights.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.isolated import measure
from polygraphy_layerprec.model import identify, load_graph

__all__ = ["FORMS", "main", "make_model", "read_model"]

FORMS: Final = ("chain", "functions", "branches")
"""Plain nodes one after the other; calls of a function of ten nodes; branches of five nodes."""

_COLUMNS: Final = 128
_ROWS: Final = 128
_NODES_PER_WEIGHT: Final = 100
_PART_NODES: Final = 10
_DOMAIN: Final = "bench"
_DATA: Final = "weights.data"
_OPERATORS: Final = ("Tanh", "Sigmoid", "Exp", "Neg", "Sqrt")
_MIB: Final = 1 << 20


def make_model(form: str, count: int) -> ModelProto:
    """Returns a model of up to `count` nodes, once calls are expanded; `If` nodes come on top.

    Args:
        form: One of `FORMS`.
        count: Number of nodes.
    """
    graph = onnx.GraphProto(name=form)
    graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, _COLUMNS]))
    graph.input.append(helper.make_tensor_value_info("go", TensorProto.BOOL, []))
    size = 1 if form == "chain" else _PART_NODES
    tensor = "x"
    # Those that read weights count too.
    for index in range(count * _NODES_PER_WEIGHT // (_NODES_PER_WEIGHT + 1) // size):
        if index * size % _NODES_PER_WEIGHT == 0:
            weight = f"w{index}"
            graph.initializer.append(_stored_weight(weight, len(graph.initializer)))
            graph.node.append(_node("MatMul", [tensor, weight], f"m{index}"))
            tensor = f"m{index}"
        graph.node.append(_part(form, index, tensor, f"t{index}"))
        tensor = f"t{index}"
    graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, [1, _COLUMNS]))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(_DOMAIN, 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    if form == "functions":
        body = _nodes("", "a", "b", _PART_NODES)
        made.functions.append(
            helper.make_function(_DOMAIN, "Block", ["a"], ["b"], body, opsets[:1])
        )
    assert isinstance(made, ModelProto)
    return made


def read_model(path: str) -> dict[str, int]:
    """Reads a model and its digest; returns the number of its nodes, layers and tensors."""
    graph = load_graph(path)
    identify(graph)
    return {"nodes": len(graph.nodes), "layers": len(graph.layers), "tensors": len(graph.types)}


def main(arguments: list[str] | None = None) -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    options = parser.parse_args(arguments)
    print(f"{platform.machine()}, Python {platform.python_version()}, onnx {onnx.__version__}")
    print("| form | nodes | weights | read in | of which computing | peak memory |")
    print("|---|---|---|---|---|---|")
    for form in options.forms:
        for count in options.nodes:
            _measure(form, count)


def _measure(form: str, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        made = make_model(form, count)
        path.write_bytes(made.SerializeToString())
        weight_bytes = len(made.graph.initializer) * _weight_bytes()
        with (Path(folder) / _DATA).open("wb") as data:
            data.truncate(weight_bytes)
        del made
        found = measure("benchmarks.reading:read_model", {"path": str(path)})
    print(
        f"| {form} | {found.result['nodes']:,} | {weight_bytes / _MIB:,.0f} MiB "
        f"| {found.seconds:.1f} s | {found.user_seconds:.1f} s "
        f"| {found.peak_bytes / _MIB:,.0f} MiB |",
        flush=True,
    )


def _weight_bytes() -> int:
    return _ROWS * _COLUMNS * np.dtype(np.float32).itemsize


def _stored_weight(name: str, position: int) -> TensorProto:
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[_ROWS, _COLUMNS])
    made.data_location = TensorProto.EXTERNAL
    places = (("location", _DATA), ("offset", position * _weight_bytes()))
    for key, value in (*places, ("length", _weight_bytes())):
        made.external_data.add(key=key, value=str(value))
    return made


def _part(form: str, index: int, source: str, target: str) -> onnx.NodeProto:
    if form == "chain":
        return _node(_OPERATORS[index % len(_OPERATORS)], [source], target)
    if form == "functions":
        made = _node("Block", [source], target)
        made.domain = _DOMAIN
        return made
    made = _node("If", ["go"], target)
    for side in ("then", "else"):
        body = made.attribute.add(name=f"{side}_branch", type=onnx.AttributeProto.GRAPH).g
        body.name = f"{target}/{side}"
        body.node.extend(_nodes(f"{side}/", source, f"{target}/{side}", _PART_NODES // 2))
        body.output.add(name=f"{target}/{side}")
    return made


def _nodes(prefix: str, source: str, target: str, count: int) -> list[onnx.NodeProto]:
    names = [source, *(f"{prefix}{target}_{i}" for i in range(count - 1)), target]
    return [_node(_OPERATORS[i % len(_OPERATORS)], [names[i]], names[i + 1]) for i in range(count)]


def _node(operator: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return onnx.NodeProto(op_type=operator, input=inputs, output=[output], name=f"/{output}/op")


if __name__ == "__main__":
    main()
