"""What is fuzzed: each reader of files, with files to begin from and all that it is allowed to do.

A new reader is one more entry of `TARGETS`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from polygraphy.comparator import IterationResult, RunResults
from polygraphy.json import to_json
from polygraphy.logger import G_LOGGER

from polygraphy_layerprec.backend.sample_files import read_samples
from polygraphy_layerprec.backend.saved_results import compare_saved_results
from polygraphy_layerprec.emit.mixed_onnx import save_mixed_onnx
from polygraphy_layerprec.emit.mixed_onnx.pruning import prune_pairs
from polygraphy_layerprec.emit.mixed_onnx.reading import read_mixed_onnx
from polygraphy_layerprec.emit.network_script import render_network_script
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.execution.samples.given import SampleError, check_sample
from polygraphy_layerprec.execution.samples.plausible import draw_samples, plan_inputs
from polygraphy_layerprec.files.ranking_file import save_ranking
from polygraphy_layerprec.model import ModelError, identify, load_graph
from polygraphy_layerprec.model.quantized import pass_pairs_by
from polygraphy_layerprec.pipeline import rank_model
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.records import Constraint
from polygraphy_layerprec.tools.main import main
from tests.fuzz.mutations import (
    mutate_json,
    mutate_model,
    mutate_npz,
    mutate_partial,
    mutate_script,
)
from tests.models import (
    chain,
    if_with_capture,
    local_function,
    quantize_dequantize,
    sample_inputs,
    save_with_external_data,
    small_cnn,
)
from tests.pair_models import cnn, cnn_inputs, in_fp16, mlp, mlp_inputs, quantised
from tests.rankings import troubled_ranking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from polygraphy_layerprec.model import Graph

__all__ = ["TARGETS", "Target", "prepare"]


@dataclass(frozen=True, slots=True)
class Target:
    """One reader of files."""

    suffix: str
    """Ending of its files."""

    seeds: Callable[[], Sequence[bytes]]
    """Returns files that it takes."""

    mutate: Callable[[bytes, Random], bytes]
    """Returns another file."""

    read: Callable[[str], None]
    """Reads the file at a path within the folder that `prepare` made the current one; raises what
    no reader should."""


def prepare() -> None:
    """Writes valid files, for commands that take several, to the current folder."""
    model = chain(4)
    save_with_external_data(model, Path("model.onnx"))
    np.savez("inputs.npz", **sample_inputs(model))
    save_ranking(rank_model("model.onnx", [sample_inputs(model)]), "ranking.json")
    with open("outputs.json", "wb") as file:
        file.write(_saved_outputs()[0])


def _models() -> Sequence[bytes]:
    models = [chain(4), small_cnn(), if_with_capture(), local_function(), quantize_dequantize()]
    models += [
        quantised(cnn(), cnn_inputs()),
        quantised(mlp(), mlp_inputs(), ops={"MatMul"}, granularity="block"),
        in_fp16(quantised(mlp(), mlp_inputs(), ops={"MatMul"})),
    ]
    with open("model.onnx", "rb") as file:
        return [file.read(), *(model.SerializeToString() for model in models)]


def _read_model(path: str) -> None:
    with contextlib.suppress(ModelError, SampleError):
        graph = load_graph(path)
        identify(graph)
        for weight in graph.weights.values():
            weight.read()
        with contextlib.suppress(ValueError):  # no pairs, or none that can be meant
            _read_pairs(graph)
        with contextlib.suppress(MemoryError):  # here it is less than what the machine has
            list(draw_samples(plan_inputs(graph, shapes={}, val_range={})))
        with contextlib.suppress(ValueError):  # a model that cannot be lowered
            save_mixed_onnx(path, "mixed.onnx", [])
    with contextlib.suppress(ValueError):
        read_mixed_onnx(path, load_graph("model.onnx"))


def _read_pairs(graph: Graph) -> None:
    """As a quantised model, and as its own reference."""
    for reference in (None, graph):
        quantised = pass_pairs_by(graph, reference)
        prune_pairs(quantised, [name for unit in quantised.units for name in unit])


def _rankings() -> Sequence[bytes]:
    save_ranking(troubled_ranking(), "troubled.json")
    contents = []
    for name in ("ranking.json", "troubled.json"):
        with open(name, "rb") as file:
            contents.append(file.read())
    return contents


def _read_ranking(path: str) -> None:
    _run("inspect", path, "--top", "3")
    _run("inspect", path, "--format", "markdown", "--model", "model.onnx")
    _run("compare", path, "ranking.json", "--save-agreement", "a.json")
    _run("compare", "ranking.json", path, "--save-report", "a.md")
    _run("constrain", path, "--tolerance", "1e-3", "--cost", "casts", "--save-script", "c.py")
    _run("constrain", path, "--top-k", "2", "--save-layer-precisions", "p", "--save-curve", "v.csv")
    _run("constrain", path, "--model", "model.onnx", "--load-inputs", "inputs.npz",
         "--save-onnx", "m.onnx", "--save-autocast-args", "p")  # fmt: skip
    _run("report", path, "-o", "r.html")
    _run("verify", "model.onnx", "--ranking", path)


def _verdicts() -> Sequence[bytes]:
    _run("rank", "model.onnx", "--load-inputs", "inputs.npz", "--save-verdict", "verdict.json")
    return [Path("verdict.json").read_bytes()]


def _read_verdict(path: str) -> None:
    _run("compare", path, path)
    _run("compare", path, path, "--format", "markdown", "--save-report", "a.md")


def _scripts() -> Sequence[bytes]:
    graph = load_graph("model.onnx")
    constraints = [
        Constraint(node.name, node.op_type, node.inputs, node.outputs, "a reason")
        for node in graph.nodes
    ]
    digest = identify(graph).digest
    text = render_network_script(
        constraints, precision=FP16, model_name="model.onnx", model_digest=digest
    )
    return [text.encode()]


def _read_script(path: str) -> None:
    _run("inspect", path, "--model", "model.onnx")
    _run("inspect", path, "--format", "markdown")
    _run("verify", "model.onnx", "--script", path)


def _npz_files() -> Sequence[bytes]:
    content = io.BytesIO()
    np.savez(content, **sample_inputs(chain(4)))
    return [content.getvalue()]


def _json_samples() -> Sequence[bytes]:
    sample = sample_inputs(chain(4))
    return [to_json(sample).encode(), to_json([sample, sample]).encode()]


def _read_samples(path: str) -> None:
    graph = load_graph("model.onnx")
    with contextlib.suppress(SampleError):
        for where, sample in read_samples(path, graph.inputs):
            check_sample(sample, graph.inputs, where=where)


def _saved_outputs() -> Sequence[bytes]:
    results = RunResults()
    for name in ("onnxrt", "trt"):
        results.lst.append(
            (name, [IterationResult({"t3": np.ones((2, 4), np.float32)}, runner_name=name)] * 2)
        )
    return [to_json(results).encode()]


def _read_saved_outputs(path: str) -> None:
    for paths in ([path], [path, "outputs.json"]):
        with contextlib.suppress(ExecutionError):
            compare_saved_results(paths, FP16)


def _partial_files() -> Sequence[bytes]:
    contents = []
    for number in (1, 2):
        _run("rank", "model.onnx", "--iterations", "3", "--threads", "1",
             "--shard", f"{number}/2", "--save-partial", f"part-{number}.npz")  # fmt: skip
        contents.append(Path(f"part-{number}.npz").read_bytes())
    return contents


def _read_partial(path: str) -> None:
    for other in ("part-1.npz", "part-2.npz"):
        _run("merge", path, other, "--model", "model.onnx", "--save-ranking", "m.json")


def _run(*words: str) -> None:
    """Runs a command: it may refuse the file, in words that a terminal can show."""
    out, severity = io.StringIO(), G_LOGGER.module_severity
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = main(words)
    G_LOGGER.module_severity = severity
    said = out.getvalue()
    assert status in (0, 1), status
    assert "Traceback" not in said, said
    unfit = {character for character in said if not character.isprintable()} - {"\n"}
    assert not unfit, unfit
    for name in ("a.json", "agreement.json"):
        if os.path.exists(name):
            with open(name, encoding="utf-8") as file:
                json.load(file)


TARGETS = {
    "model": Target(".onnx", _models, mutate_model, _read_model),
    "ranking": Target(".json", _rankings, mutate_json, _read_ranking),
    "verdict": Target(".json", _verdicts, mutate_json, _read_verdict),
    "script": Target(".py", _scripts, mutate_script, _read_script),
    "inputs": Target(".npz", _npz_files, mutate_npz, _read_samples),
    "inputs-json": Target(".json", _json_samples, mutate_json, _read_samples),
    "partial": Target(".npz", _partial_files, mutate_partial, _read_partial),
    "outputs": Target(".json", _saved_outputs, mutate_json, _read_saved_outputs),
}
"""All of them, by name."""
