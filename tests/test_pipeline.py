"""From a model and samples to a ranking."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.pipeline import measure_exact_impacts, measure_output_error
from polygraphy_layerprec.precision import BF16
from polygraphy_layerprec.ranking.correlation import rank_correlation
from tests import models
from tests.models import build_model, node, normal, sample_inputs, scalar, tensor

BUILDERS = {
    "cnn": models.small_cnn,
    "transformer": models.small_transformer,
}


def samples_of(model, count=2):
    # Twenty images make the estimate sharp: one image is one row of the output.
    return [sample_inputs(model, seed=seed, dynamic=20) for seed in range(count)]


def ranked(model, **options):
    return rank_model(model, [sample_inputs(model)], **options)


def names(ranking):
    return [layer.name for layer in ranking.layers]


# Of the CNN's five layers two are near each other: one swap of neighbours makes 0.9.
@pytest.mark.parametrize(
    ("name", "impact", "least"),
    [
        ("transformer", "adjoint", 0.95),
        ("transformer", "gain", 0.7),
        ("cnn", "adjoint", 0.89),
        ("cnn", "gain", 0.7),
    ],
)
def test_impacts_order_layers_as_the_truth_does(name, impact, least):
    model = BUILDERS[name]()
    samples = samples_of(model)
    ranking = rank_model(model, samples, impact=impact)
    truth = measure_exact_impacts(model, samples)
    assert {layer.outputs[0] for layer in ranking.layers} == set(truth)
    found = [layer.impact for layer in ranking.layers]
    true = [truth[layer.outputs[0]] for layer in ranking.layers]
    assert rank_correlation(found, true) >= least


@pytest.mark.parametrize("name", BUILDERS)
def test_the_forecast_is_near_what_is_measured(name):
    model = BUILDERS[name]()
    error = rank_model(model, samples_of(model)).output_error
    assert error.forecast == pytest.approx(error.measured, rel=0.25)


def test_a_pair_that_cancels_ranks_first_in_a_larger_model():
    nodes = [
        node("MatMul", ["x", "w0"], "a", name="in"),
        node("Tanh", ["a"], "b", name="tanh"),
        node("Mul", ["b", "small"], "c", name="shrink"),
        node("Add", ["c", "offset"], "up", name="up"),
        node("Sub", ["up", "offset"], "down", name="down"),
        node("MatMul", ["down", "w1"], "y", name="out"),
    ]
    weights = {
        "w0": normal(0, 8, 8),
        "w1": normal(1, 8, 8),
        "small": scalar(0.05),
        "offset": scalar(400.0),
    }
    model = build_model(nodes, [tensor("x", [16, 8])], [tensor("y", [16, 8])], weights)
    ranking = ranked(model)
    assert ranking.layers[0].name == "up"
    assert ranking.layers[0].share > 0.99
    down = next(layer for layer in ranking.layers if layer.name == "down")
    assert down.kind == "cancellation"
    assert ranking.output_error.measured > 0.5


def test_the_overflow_in_a_decomposed_layer_norm_ranks_first():
    ranking = ranked(models.decomposed_layer_norm())
    first = ranking.layers[0]
    assert (first.name, first.kind, first.overflow, first.rank) == ("norm/Pow", "overflow", True, 1)
    assert first.max_abs > 65504
    assert "|x| up to" in first.reason
    assert any("overflow" in warning for warning in ranking.warnings)
    kept = [layer.outputs[0] for layer in ranking.layers if layer.overflow]
    model = models.decomposed_layer_norm()
    sample = [sample_inputs(model)]
    assert measure_output_error(model, sample) > 0.5
    assert "deviation" in kept  # the root takes what is beyond the range: it would be cast
    assert measure_output_error(model, sample, fp32_outputs=kept) < 1e-2
    kept.remove("deviation")
    assert measure_output_error(model, sample, fp32_outputs=kept) > 0.5


def test_an_attention_mask_is_no_overflow():
    for fill in (models.MASK_FILL, -np.inf):
        model = models.additive_mask(fill)
        sample = sample_inputs(model)
        sample["mask"][:, 5:] = False
        ranking = rank_model(model, [sample])
        assert not any(layer.overflow for layer in ranking.layers)
        assert ranking.output_error.measured < 1e-2
        assert ranking.output_error.forecast < 1e-2
        assert not ranking.nonfinite_origins


def test_what_leaves_the_range_and_comes_back_is_flagged():
    ranking = ranked(models.overflow_then_recovery())
    assert ranking.layers[0].name == "blow_up"
    assert ranking.layers[0].overflow


def test_infinity_minus_infinity_is_traced_from_its_start_to_the_output():
    ranking = ranked(models.infinity_minus_infinity())
    flagged = {layer.name for layer in ranking.layers if layer.overflow}
    assert {"overflow_left", "overflow_right"} <= flagged
    (origin,) = ranking.nonfinite_origins
    assert origin.name in {"overflow_left", "overflow_right"}
    assert origin.value == "inf"
    assert not origin.in_reference
    assert origin.path[0] == origin.name
    assert "difference" in origin.path
    assert origin.path[-1] == "last"


def test_an_infinity_that_is_moved_to_an_output_is_traced():
    nodes = [
        node("Mul", ["x", "w"], "big", name="origin"),
        node("Transpose", ["big"], "y", name="move"),
    ]
    model = build_model(nodes, [tensor("x", [2, 3])], [tensor("y", [3, 2])], {"w": scalar(6e4)})
    sample = {"x": np.array([[1, 2, 3], [1, 1, 1]], np.float32)}
    ranking = rank_model(model, [sample])
    assert [origin.path for origin in ranking.nonfinite_origins] == [("origin",)]
    assert ranking.layers[0].overflow
    assert ranking.output_error.outputs[0].nonfinite_count == 2


def test_an_infinity_of_the_reference_itself_is_not_blamed_on_the_precision():
    nodes = [node("Log", ["x"], "y", name="log")]
    model = build_model(nodes, [tensor("x", [3])], [tensor("y", [3])])
    ranking = rank_model(model, [{"x": np.array([0, 1, 2], np.float32)}])
    assert [(o.name, o.in_reference) for o in ranking.nonfinite_origins] == [("log", True)]
    assert ranking.layers[0].reference_nonfinite_count == 1


def test_large_values_within_the_range_are_not_flagged():
    ranking = ranked(models.harmless_large_values())
    assert not any(layer.overflow for layer in ranking.layers)


def test_a_long_reduction_is_told_by_its_terms():
    ranking = ranked(models.long_reduction(signs="opposite"))
    (reduce,) = (layer for layer in ranking.layers if layer.name == "reduce")
    assert reduce.kind == "long reduction"
    assert not reduce.overflow


def test_a_mean_over_one_axis_adds_up_that_axis_alone():
    nodes = [node("ReduceMean", ["x"], "y", name="mean", axes=[-1])]
    model = build_model(nodes, [tensor("x", [64, 8])], [tensor("y", [64, 1])])
    ranking = rank_model(model, [{"x": np.full((64, 8), 200.3, np.float32)}])
    assert ranking.layers[0].kind == "rounding"
    ranking = rank_model(model, [{"x": np.full((64, 8), 9000.3, np.float32)}])
    assert ranking.layers[0].kind == "long reduction"
    assert "7.2e+04" in ranking.layers[0].reason


@pytest.mark.parametrize("impact", ["adjoint", "gain"])
def test_errors_reach_outputs_through_control_flow_and_sequences(impact):
    for build, name in [
        (models.loop_with_capture, "outer/Sigmoid"),
        (models.scan_with_capture, "outer/Sigmoid"),
        (models.if_with_capture, "outer/Tanh"),
        (models.sequences, "before"),
    ]:
        model = build()
        sample = sample_inputs(model)
        ranking = rank_model(model, [sample], impact=impact)
        layer = next(layer for layer in ranking.layers if layer.name == name)
        truth = measure_exact_impacts(model, [sample], layers=layer.outputs)[layer.outputs[0]]
        assert truth / 5 < layer.impact < truth * 5, build.__name__
        has_rule = build is models.if_with_capture and impact == "adjoint"
        assert layer.impact_method == ("adjoint" if has_rule else "gain")
        told = any("without a rule" in warning for warning in ranking.warnings)
        assert told == (impact == "adjoint" and not has_rule)


def test_random_numbers_do_not_count_as_error():
    model = models.random_numbers()
    ranking = ranked(model)
    assert ranking.output_error.forecast < 1e-2
    assert ranking.output_error.measured < 1e-2
    assert measure_output_error(model, [sample_inputs(model)]) < 1e-2


def test_shares_add_up_and_readers_take_at_most_all():
    ranking = ranked(models.small_transformer())
    assert sum(layer.share for layer in ranking.layers) == pytest.approx(1.0)
    known = set(names(ranking))
    for layer in ranking.layers:
        assert sum(share for _, share in layer.readers) <= 1 + 1e-9
        assert {name for name, _ in layer.readers} <= known
        assert 0.0 <= layer.weight_share <= 1.0
        assert layer.flops > 0


def test_activations_on_disk_give_the_same_ranking():
    model = models.small_transformer()
    assert ranked(model, max_memory_bytes=1000) == ranked(model)


def test_a_file_and_memory_give_the_same_ranking(tmp_path):
    model = models.small_transformer(width=64)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    models.save_with_external_data(model, tmp_path / "external.onnx")
    sample = [sample_inputs(model)]
    first = rank_model(model, sample)
    for name in ("m.onnx", "external.onnx"):
        other = rank_model(tmp_path / name, sample)
        assert other.model.name == name
        assert other.layers == first.layers
        assert other.output_error == first.output_error


SCRIPT = """
import dataclasses, json, sys
from polygraphy_layerprec import rank_model
from tests.models import small_transformer, sample_inputs
model = small_transformer()
ranking = rank_model(model, [sample_inputs(model, seed=s) for s in range(2)])
json.dump(dataclasses.asdict(ranking), sys.stdout)
"""


def test_two_processes_give_the_same_ranking():
    runs = [
        subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert json.loads(runs[0])["layers"][0]["rank"] == 1


def test_several_samples_accumulate():
    model = models.small_cnn()
    samples = samples_of(model, 3)
    whole = rank_model(model, samples)
    parts = [rank_model(model, [sample]) for sample in samples]
    assert whole.conditions.sample_count == 3
    for layer in whole.layers:
        same = [next(o for o in part.layers if o.name == layer.name) for part in parts]
        assert layer.element_count == sum(other.element_count for other in same)
        assert layer.max_abs == max(other.max_abs for other in same)
        assert min(o.impact for o in same) * 0.5 < layer.impact < max(o.impact for o in same) * 2
    errors = [part.output_error.measured for part in parts]
    assert whole.output_error.measured == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    tables = [{layer.name: layer.impact for layer in part.layers} for part in parts]
    names = [layer.name for layer in whole.layers if layer.impact]
    columns = [[table[name] for name in names] for table in tables]
    pairs = [rank_correlation(columns[i], columns[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert whole.stability == pytest.approx(np.mean(pairs), abs=0.1)  # probes differ with the place
    assert parts[0].stability is None
    assert {layer.impact_uncertainty for layer in parts[0].layers} == {None}
    assert all(layer.impact_uncertainty > 0 for layer in whole.layers if layer.impact)


def test_samples_that_do_not_agree_are_warned_of():
    # A layer for each input, and samples in which the inputs' sizes are in opposite order.
    count = 12
    nodes = [node("Mul", [f"x{i}", f"w{i}"], f"y{i}", name=f"n{i}") for i in range(count)]
    nodes.append(node("Concat", [f"y{i}" for i in range(count)], "y", name="all", axis=0))
    weights = {f"w{i}": np.float32([1.1]) for i in range(count)}
    inputs = [tensor(f"x{i}", [256]) for i in range(count)]
    model = build_model(nodes, inputs, [tensor("y", [256 * count])], weights)
    draws = np.random.default_rng(0).random((count, 256), np.float32) + np.float32(0.5)
    rising = {f"x{i}": draws[i] * np.float32(1.5**i) for i in range(count)}
    falling = {f"x{i}": draws[i] * np.float32(1.5**-i) for i in range(count)}

    ranking = rank_model(model, [rising, falling])

    assert ranking.stability < -0.9
    assert any("do not agree on the order" in warning for warning in ranking.warnings)


def test_what_the_forecast_cannot_see_is_named():
    # Either path takes the wrong rows; that both take the same ones, no impact can know.
    nodes = [
        node("Mul", ["x", "one"], "id", name="carry"),
        node("Cast", ["id"], "index", name="to_index", to=7),
        node("Gather", ["table", "index"], "row", name="look_up"),
        node("Mul", ["x", "ones"], "id_2", name="carry_2"),
        node("Cast", ["id_2"], "index_2", name="to_index_2", to=7),
        node("Gather", ["table", "index_2"], "row_2", name="look_up_2"),
        node("Sub", ["row", "row_2"], "nothing", name="cancel"),
        node("Add", ["nothing", "base"], "y", name="add"),
    ]
    draws = np.random.default_rng(0).standard_normal((4097, 8)).astype(np.float32)
    weights = {
        "one": np.float32([1.0]),
        "ones": np.float32([1.0, 1.0, 1.0, 1.0]),
        "base": draws[4096],
        "table": draws[:4096],
    }
    model = build_model(nodes, [tensor("x", [4])], [tensor("y", [4, 8])], weights)
    ids = {"x": np.float32([3, 2049, 2051, 4001])}  # odd numbers beyond 2048 are not in FP16

    ranking = rank_model(model, [ids])

    told = next(warning for warning in ranking.warnings if "refuted" in warning)
    assert ranking.output_error.measured < 1e-3
    assert ranking.output_error.forecast > 0.5
    assert "3 decisions flip in 'to_index'" in told


def test_samples_may_differ_in_shape():
    model = models.small_cnn()
    samples = [sample_inputs(model, dynamic=size) for size in (1, 4)]
    ranking = rank_model(model, samples)
    gemm = next(layer for layer in ranking.layers if layer.op == "Gemm")
    assert gemm.element_count == 50


def test_a_layer_that_fails_for_one_sample_does_not_lose_the_run():
    nodes = [
        node("Reshape", ["x", "shape"], "r", name="reshape"),
        node("Exp", ["r"], "e", name="sometimes"),
        node("ReduceSum", ["e"], "s", name="sum", keepdims=0),
        node("Tanh", ["x"], "z", name="always"),
    ]
    inputs = [tensor("x", ["n"]), tensor("shape", [2], 7)]
    model = build_model(nodes, inputs, [tensor("s", []), tensor("z", ["n"])])
    shape = np.array([2, -1], np.int64)
    samples = [{"x": normal(0, n), "shape": shape} for n in (3, 4, 6, 5)]
    ranking = rank_model(model, samples)
    assert {"sometimes", "always"} <= set(names(ranking))
    assert {layer.name for layer in ranking.unmeasured} == {"reshape", "sometimes", "sum"}
    assert ranking.conditions.sample_count == 4


def test_only_the_outputs_that_are_named_count():
    model = models.custom_domain()
    del model.graph.node[1:3]
    model.graph.node.append(node("Exp", ["h"], "y", name="exp"))
    both, one = ranked(model), ranked(model, outputs=["z"])
    assert next(layer.impact for layer in both.layers if layer.name == "exp") > 0
    assert next(layer.impact for layer in one.layers if layer.name == "exp") == 0
    y, z = one.output_error.outputs
    assert (y.error, z.error == one.output_error.measured) == (None, True)
    with pytest.raises(ExecutionError, match="no output named 'nothing'"):
        ranked(model, outputs=["nothing"])


def test_an_integer_output_is_told_by_its_mismatches():
    ranking = ranked(models.integer_output())
    logits, label = ranking.output_error.outputs
    assert logits.error < 1e-2
    assert logits.error == ranking.output_error.measured
    assert (label.error, label.mismatch_fraction) == (None, 0.0)


def test_layers_without_a_kernel_are_listed_and_the_rest_ranked():
    ranking = ranked(models.custom_domain())
    assert names(ranking) == ["before"]
    assert [layer.name for layer in ranking.unmeasured] == ["plugin", "after"]
    assert "vendor.plugins" in ranking.unmeasured[0].reason


def test_where_there_is_nothing_to_rank_it_says_why():
    with pytest.raises(ExecutionError, match="no layer that computes in FP32"):
        ranked(models.no_float_layer())
    nodes = [node("Nothing", ["x"], "y", name="n")]
    nodes[0].domain = "vendor"
    shapes = [tensor("x", [2])], [tensor("y", [2])]
    with pytest.raises(ExecutionError, match="first to fail is 'n'"):
        ranked(build_model(nodes, *shapes, domains=["vendor"]))
    with pytest.raises(ExecutionError, match="no input sample"):
        rank_model(models.small_cnn(), [])


def test_parts_in_fp16_are_named_and_made_up_inputs_are_told():
    ranking = ranked(models.float16_part(), generated_inputs=True)
    assert ranking.conditions.inputs == "generated"
    made_up, lowered = ranking.warnings
    assert "made up" in made_up
    assert "'to_half' the first" in lowered
    assert set(names(ranking)) == {"before", "after"}


def test_fp64_layers_are_not_lowered_and_told():
    ranking = ranked(models.float64_part())

    assert "exact" not in names(ranking)
    assert "In DOUBLE, which TensorRT turns into FP32: 1 node, 'exact'" in ranking.warnings[0]


def test_bf16_errs_more_than_fp16():
    model = models.small_cnn()
    low = ranked(model, precision=BF16)
    assert low.precision == "bf16"
    ratio = low.output_error.measured / ranked(model).output_error.measured
    assert 4 < ratio < 16


def test_progress_is_told_after_every_node():
    told = []
    model = models.small_cnn()
    ranked(model, progress=lambda *args: told.append(args))
    assert [done for done, _, _ in told[:8]] == list(range(1, 9))
    assert {total for _, total, _ in told} == {8}


def test_keeping_everything_in_fp32_leaves_no_error():
    model = models.small_cnn()
    sample = [sample_inputs(model)]
    everything = [n.output[0] for n in model.graph.node]
    assert measure_output_error(model, sample, fp32_outputs=everything) == 0.0
    assert measure_output_error(model, sample) == pytest.approx(
        ranked(model).output_error.measured, rel=0.02
    )


def test_all_figures_are_finite():
    for build in (models.infinity_minus_infinity, models.long_reduction, models.underflow):
        ranking = ranked(build())
        for layer in ranking.layers:
            figures = [v for v in dataclasses.astuple(layer) if isinstance(v, float)]
            assert np.isfinite(figures).all()
        assert np.isfinite(ranking.output_error.forecast)
        is_lost = any(output.nonfinite_count for output in ranking.output_error.outputs)
        assert np.isfinite(ranking.output_error.measured) == (not is_lost)


def test_the_version_of_onnxruntime_is_that_which_ran_whatever_package_brought_it(monkeypatch):
    import onnxruntime

    from polygraphy_layerprec.ranking import assembly

    def find(name):
        raise assembly.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(assembly.metadata, "version", find)
    assembly._installed_version.cache_clear()
    found = dict(assembly.installed_versions())
    assembly._installed_version.cache_clear()

    assert found == {"onnxruntime": onnxruntime.__version__}
