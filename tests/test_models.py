"""The models that other tests and the benchmarks build on run, and are what they claim to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from benchmarks.cast_pairs import with_cast_pairs
from examples import make_demo_model
from tests import models

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    import numpy.typing as npt

FP16_MAX = 65504.0

HAZARDS = [
    models.cancellation,
    models.overflow_then_recovery,
    models.decomposed_layer_norm,
    models.long_reduction,
    models.underflow,
]

RUNNABLE = [*models.RUNNABLE, models.random_numbers]


@pytest.mark.parametrize("build", RUNNABLE, ids=lambda build: build.__name__)
def test_every_model_is_valid_and_runs_to_finite_outputs(
    build: Callable[[], onnx.ModelProto],
) -> None:
    model = build()

    outputs = run(model)

    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.output] == list(outputs)
    assert all(np.isfinite(array).all() for array in outputs.values())


@pytest.mark.parametrize("build", RUNNABLE, ids=lambda build: build.__name__)
def test_building_a_model_twice_gives_the_same_bytes(build: Callable[[], onnx.ModelProto]) -> None:
    assert build().SerializeToString() == build().SerializeToString()


def test_cancellation_loses_everything_in_fp16() -> None:
    model = models.cancellation()

    error = fp16_error(model, models.sample_inputs(model, scale=0.03))

    assert error == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("build", HAZARDS[1:], ids=lambda build: build.__name__)
def test_planted_hazards_ruin_the_fp16_output(build: Callable[[], onnx.ModelProto]) -> None:
    assert fp16_error(build()) > 0.5


@pytest.mark.parametrize(
    ("build", "tensor"),
    [
        (models.overflow_then_recovery, "large"),
        (models.decomposed_layer_norm, "squared"),
        (models.long_reduction, "total"),
        (models.infinity_minus_infinity, "left"),
        (models.infinity_minus_infinity, "right"),
    ],
)
def test_overflows_are_at_the_named_tensor_and_the_output_is_in_range(
    build: Callable[[], onnx.ModelProto], tensor: str
) -> None:
    tensors = run(build(), every_tensor=True)

    assert np.abs(tensors[tensor]).max() > FP16_MAX
    assert np.abs(tensors["y"]).max() < 100.0


def test_opposite_signs_keep_the_sum_small_while_its_terms_pass_the_fp16_range() -> None:
    model = models.long_reduction(signs="opposite")

    tensors = run(model, every_tensor=True)

    assert np.abs(tensors["total"]).max() < 0.2 * FP16_MAX
    assert 32.0 * tensors["magnitude"].sum(axis=-1).min() > 2 * FP16_MAX


def test_tiny_products_are_below_the_smallest_fp16_number() -> None:
    tensors = run(models.underflow(), every_tensor=True)

    assert 0.0 < np.abs(tensors["tiny"]).max() < 2.0**-25


@pytest.mark.parametrize("fill", [models.MASK_FILL, -np.inf])
def test_additive_masks_are_benign(fill: float) -> None:
    model = models.additive_mask(fill)
    inputs = models.sample_inputs(model)
    inputs["mask"][0, 5:] = False

    assert fp16_error(model, inputs) < 2.0**-9


def test_nan_appears_in_fp16_alone_and_reaches_the_output() -> None:
    model = models.infinity_minus_infinity()

    candidate = run(with_cast_pairs(model), every_tensor=True)

    assert np.isinf(candidate["left"]).any()
    assert np.isnan(candidate["apart"]).any()
    assert np.isnan(candidate["y"]).any()


def test_harmless_large_values_stay_accurate_in_fp16() -> None:
    model = models.harmless_large_values()

    tensors = run(model, every_tensor=True)

    assert 500.0 < np.abs(tensors["doubled"]).max() < 3000.0
    assert fp16_error(model) < 2.0**-9


@pytest.mark.parametrize("length", [1, 2, 100])
def test_a_chain_has_the_asked_number_of_nodes(length: int) -> None:
    model = models.chain(length)

    assert len(model.graph.node) == length
    assert np.isfinite(run(model)[f"t{length - 1}"]).all()


def test_the_custom_op_has_no_kernel() -> None:
    with pytest.raises(Exception, match="FusedMagic"):
        run(models.custom_domain())


def test_duplicate_names_are_what_a_session_refuses_in_the_oddly_named_model() -> None:
    model = models.odd_names()
    with pytest.raises(Exception, match="same node name"):
        run(model)

    for node in model.graph.node:
        node.name = ""

    assert np.isfinite(run(model)["y"]).all()


def test_unsorted_nodes_are_refused_by_the_checker() -> None:
    with pytest.raises(onnx.checker.ValidationError, match="topologically sorted"):
        onnx.checker.check_model(models.unsorted_nodes())


def test_control_flow_bodies_capture_a_float_of_the_outer_graph() -> None:
    for build, captured in (
        (models.if_with_capture, "h"),
        (models.loop_with_capture, "h"),
        (models.scan_with_capture, "gate"),
    ):
        bodies = [
            attribute.g
            for node in build().graph.node
            for attribute in node.attribute
            if attribute.type == onnx.AttributeProto.GRAPH
        ]
        assert bodies
        assert all(
            any(captured in node.input for node in body.node)
            and captured not in {value.name for value in body.input}
            for body in bodies
        )


def test_external_data_leaves_no_weight_in_the_model_file(tmp_path: Path) -> None:
    model = models.small_cnn()
    path = tmp_path / "cnn.onnx"

    models.save_with_external_data(model, path)

    stored = onnx.load(path, load_external_data=False)
    assert all(not weight.raw_data for weight in stored.graph.initializer)
    assert onnx.load(path).graph.initializer[0].raw_data == model.graph.initializer[0].raw_data
    assert (tmp_path / "cnn.onnx.data").stat().st_size > 0


def test_sample_inputs_fill_masks_with_ones_and_dynamic_dimensions_with_a_size() -> None:
    samples = models.sample_inputs(models.small_transformer(), dynamic=5)

    assert samples["ids"].shape == (5, 5)
    assert (samples["mask"] == 1).all()


def test_the_hazards_of_the_demo_model_are_the_only_ones() -> None:
    model, inputs = make_demo_model.build_model(), make_demo_model.build_inputs()
    planted = {name: kind for kind, name, _ in make_demo_model.PLANTED}
    outputs = {node.name: node.output[0] for node in model.graph.node}
    overflows = [outputs[name] for name, kind in planted.items() if kind == "overflow"]
    cancelled = [outputs[name] for name, kind in planted.items() if kind == "cancellation"]

    assert fp16_error(model, inputs) > 0.5
    assert fp16_error(model, inputs, overflows) > 0.5
    assert fp16_error(model, inputs, cancelled) > 0.5
    assert fp16_error(model, inputs, [*overflows, *cancelled]) < 0.005
    assert model.ByteSize() < 2 * 2**20


def test_the_demo_writes_the_same_bytes_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        monkeypatch.setattr("sys.argv", ["make_demo_model.py", str(folder)])
        make_demo_model.main()
        written.append([path.read_bytes() for path in sorted(folder.iterdir())])

    assert written[0] == written[1]
    assert len(written[0]) == 2
    shown = capsys.readouterr().out
    assert all(name in shown for _, name, _ in make_demo_model.PLANTED)


def run(
    model: onnx.ModelProto,
    inputs: Mapping[str, npt.NDArray[Any]] | None = None,
    *,
    every_tensor: bool = False,
) -> dict[str, npt.NDArray[Any]]:
    """Returns the outputs of `model` by name, or with `every_tensor` what its nodes produce."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    if every_tensor:
        kept = {value.name for value in watched.graph.output}
        produced = [name for node in watched.graph.node for name in node.output]
        watched.graph.output.extend(onnx.ValueInfoProto(name=n) for n in produced if n not in kept)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(watched.SerializeToString(), options)
    feed = dict(inputs) if inputs else models.sample_inputs(model)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def fp16_error(
    model: onnx.ModelProto,
    inputs: Mapping[str, npt.NDArray[Any]] | None = None,
    exact: Collection[str] = (),
) -> float:
    """Returns the relative L2 error of the FP16 outputs; non-finite elements count as 100 %."""
    reference = np.concatenate([array.ravel() for array in run(model, inputs).values()])
    rounded = run(with_cast_pairs(model, exact), inputs)
    candidate = np.concatenate([array.ravel() for array in rounded.values()])
    candidate = np.where(np.isfinite(candidate), candidate, 0.0).astype(np.float64)
    return float(np.linalg.norm(candidate - reference) / np.linalg.norm(reference))
