"""The parts of the benchmarks that figures in the documentation rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from benchmarks.cast_pairs import with_cast_pairs
from benchmarks.isolated import measure
from benchmarks.models import MODELS, write_mlp, write_resnet, write_small_ops
from benchmarks.orders import shortest_prefix, spearman
from benchmarks.peer_choice import fp32_layers
from benchmarks.transformer import EncoderShape, encoder_inputs, write_encoder
from tests import models
from tests.models import node, scalar, tensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

TINY_ENCODER = EncoderShape(2, 32, 4, 64, 100, seq=8, batch=2)


@pytest.mark.parametrize("storage", ["embedded", "external"])
def test_the_encoder_runs_with_its_weights_inside_and_outside_the_file(
    tmp_path: Path, storage: str
) -> None:
    path = tmp_path / "encoder.onnx"

    write_encoder(path, TINY_ENCODER, external=storage == "external")

    hidden, pooled = run_file(path, encoder_inputs(TINY_ENCODER, 0))
    onnx.checker.check_model(str(path), full_check=True)
    assert hidden.shape == (2, 8, 32)
    assert pooled.shape == (2, 32)
    assert np.isfinite(hidden).all()
    assert (tmp_path / "encoder.onnx.data").exists() is (storage == "external")


def test_weights_are_the_same_inside_and_outside_the_file(tmp_path: Path) -> None:
    outputs = []
    for external in (False, True):
        path = tmp_path / f"{external}.onnx"
        write_encoder(path, TINY_ENCODER, external=external)
        outputs.append(run_file(path, encoder_inputs(TINY_ENCODER, 0))[0])

    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_the_encoder_is_written_as_exporters_write_it(tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"

    write_encoder(path, TINY_ENCODER, external=False)

    nodes = onnx.load(path).graph.node
    operators = [node.op_type for node in nodes]
    assert operators.count("MatMul") == TINY_ENCODER.layers * 8
    assert operators.count("Erf") == operators.count("Softmax") == TINY_ENCODER.layers
    assert operators.count("LayerNormalization") == 2 * TINY_ENCODER.layers + 1
    names = {node.name for node in nodes}
    assert len(names) == len(nodes)
    assert "/encoder/layer.1/attention/self/query/MatMul" in names


def test_encoder_inputs_stay_within_the_embedding_table() -> None:
    inputs = encoder_inputs(TINY_ENCODER, 3)

    assert 0 <= inputs["input_ids"].min() <= inputs["input_ids"].max() < TINY_ENCODER.vocab
    assert set(np.unique(inputs["attention_mask"])) <= {0, 1}


def test_the_resnet_has_the_layers_of_a_resnet_50_and_moderate_values(tmp_path: Path) -> None:
    path = tmp_path / "resnet.onnx"

    write_resnet(path, external=False, width=8)

    operators = [node.op_type for node in onnx.load(path).graph.node]
    (logits,) = run_file(path, MODELS["resnet50"].sample(0))
    assert operators.count("Conv") == 53
    assert operators.count("Add") == 16
    assert 0.01 < np.abs(logits).max() < 100.0


def test_the_large_perceptron_passes_2_gib_with_weights_of_64_mib_at_most(tmp_path: Path) -> None:
    write_mlp(tmp_path / "mlp.onnx", external=True, width=64, layers=35, rows=2)
    model = onnx.load(tmp_path / "mlp.onnx", load_external_data=False)
    large = [weight for weight in model.graph.initializer if len(weight.dims) == 2]

    scale = (4096 // 64) ** 2
    sizes = [4 * scale * weight.dims[0] * weight.dims[1] for weight in large]
    (output,) = run_file(tmp_path / "mlp.onnx", {"input": np.ones((2, 64), np.float32)})

    assert max(sizes) <= 64 * 2**20
    assert sum(sizes) > 2 * 2**30
    assert np.isfinite(output).all()


def test_the_graph_of_small_nodes_has_the_asked_count_and_stays_finite(tmp_path: Path) -> None:
    write_small_ops(tmp_path / "small.onnx", external=False, count=600)

    (output,) = run_file(tmp_path / "small.onnx", MODELS["small-ops"].sample(0))

    assert len(onnx.load(tmp_path / "small.onnx").graph.node) == 600
    assert np.abs(output).max() < 100.0


def test_cast_pairs_round_what_is_not_named_exact() -> None:
    model = models.cancellation()
    inputs = models.sample_inputs(model, scale=0.03)

    def restored(*exact: str) -> npt.NDArray[np.float32]:
        watched = with_cast_pairs(model, exact)
        watched.graph.output.append(onnx.ValueInfoProto(name="restored"))
        session = ort.InferenceSession(watched.SerializeToString())
        result: npt.NDArray[np.float32] = session.run(["restored"], inputs)[0]
        return result

    assert np.abs(restored()).max() == 0.0
    assert np.abs(restored("shifted")).max() > 0.0


def test_spearman_is_one_for_any_increasing_map_and_shares_ranks_between_ties() -> None:
    values = [0.1, 3.0, 2.0, 8.0]

    assert spearman(values, list(np.exp(values))) == pytest.approx(1.0)
    assert spearman(values, [-value for value in values]) == pytest.approx(-1.0)
    assert spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(np.sqrt(3) / 2)


@pytest.mark.parametrize("needed", [0, 1, 5, 10])
def test_the_shortest_prefix_is_found_where_the_error_falls_steadily(needed: int) -> None:
    order = [f"t{index}" for index in range(10)]

    found = shortest_prefix(order, lambda kept: 10.0 - len(kept), 10.0 - needed)

    assert found == needed


def test_the_shortest_prefix_sees_a_dip_just_before_the_bisected_length() -> None:
    errors = [9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 0.5, 2.0, 0.5, 0.5, 0.5]

    found = shortest_prefix([str(i) for i in range(10)], lambda kept: errors[len(kept)], 1.0)

    assert found == 6


def test_a_fresh_process_shows_the_memory_of_the_call_and_not_that_of_its_parent() -> None:
    parent = np.ones(300 * 2**17)

    measured = measure("tests.test_benchmarks:allocate", {"mebibytes": 100})

    assert measured.result == 100 * 2**20 < parent.nbytes
    assert 95 * 2**20 < measured.peak_bytes < 130 * 2**20
    assert measured.seconds > 0.0


def test_what_a_failing_process_said_is_in_the_error() -> None:
    with pytest.raises(RuntimeError, match="no attribute 'nothing'"):
        measure("os:nothing", {})


def test_a_function_that_takes_too_long_is_ended() -> None:
    with pytest.raises(RuntimeError, match="took more than"):
        measure("tests.test_benchmarks:allocate", {"mebibytes": 1}, timeout_seconds=0.01)


def test_layers_of_a_converted_model_are_found_by_name_by_output_and_through_fusions() -> None:
    original = models.build_model(
        [
            node("Mul", ["x", "w"], "a", name="named"),
            node("Exp", ["a"], "b", name="renamed"),
            node("Mul", ["b", "w"], "c", name="inside_fusion"),
            node("Tanh", ["c"], "d", name="fused_end"),
            node("Neg", ["d"], "y", name="low"),
        ],
        [tensor("x", [4])],
        [tensor("y", [4])],
        {"w": scalar(2.0)},
    )
    half = TensorProto.FLOAT16
    converted = models.build_model(
        [
            node("Mul", ["x", "w"], "a_new", name="named"),
            node("Exp", ["a_new"], "b", name="other"),
            node("Sigmoid", ["b"], "d", name="fusion"),
            node("Cast", ["d"], "d_half", name="cast", to=half),
            node("Neg", ["d_half"], "y_half", name="low"),
            node("Cast", ["y_half"], "y", name="cast_back", to=TensorProto.FLOAT),
        ],
        [tensor("x", [4])],
        [tensor("y", [4])],
        {"w": scalar(2.0)},
    )
    layers = [(n.name, n.output[0]) for n in original.graph.node]

    assert fp32_layers(original, converted, layers) == {"a", "b", "c", "d"}


def allocate(mebibytes: int) -> int:
    """Returns the size of an array that was filled, in bytes."""
    return np.ones(mebibytes * 2**17).nbytes


def run_file(
    path: Path, inputs: Mapping[str, npt.NDArray[np.generic]]
) -> list[npt.NDArray[np.float32]]:
    """Returns the outputs of a model on disk."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs: list[npt.NDArray[np.float32]] = session.run(None, dict(inputs))
    return outputs
