from __future__ import annotations

from dataclasses import replace

import pytest

from polygraphy_layerprec.records import (
    EngineMeasurement,
    LayerPrecision,
    ModelIdentity,
    OutputDivergence,
    Verification,
    VerifiedOutput,
)
from polygraphy_layerprec.report.columns import display_width
from polygraphy_layerprec.report.obtained_precisions import format_all_layers, summarize_obtained
from polygraphy_layerprec.report.verification import format_verdict, format_verification
from tests.decisions import make_outcome
from tests.report_models import make_obtained


def divergence(error, *, nonfinite=0, unequal=1.0):
    return OutputDivergence("logits", error, error, nonfinite, unequal)


def make_verification(**changes) -> Verification:
    output = VerifiedOutput(
        "logits", divergence(1e-7), divergence(0.01), divergence(0.002, nonfinite=3), 0.8
    )
    verification = Verification(
        model=ModelIdentity("model.onnx", "ab" * 32, 7, 17),
        precision="fp16",
        backend="onnxruntime-emulated",
        sample_count=2,
        inputs="user",
        source="the script 'constraints.py'",
        kept_count=5,
        layer_count=169,
        fp32_error=1e-7,
        lowered_error=0.01,
        constrained_error=0.002,
        recovered=0.8,
        outputs=(output,),
        failures=(),
        engines=(),
        warnings=(),
        outcome=make_outcome(0.002),
    )
    return replace(verification, **changes)


def with_engines(*lowered: str) -> Verification:
    obtained = make_obtained("fp32", "fp32", "fp32", "fused", "absent", low=lowered)
    engines = (
        EngineMeasurement("fp32", 102 * 2**20, 0.00321, None),
        EngineMeasurement("constrained", 52 * 2**20, 0.00123, obtained),
    )
    return make_verification(backend="tensorrt", engines=engines)


def test_each_output_has_a_row_and_all_have_one():
    lines = format_verification(make_verification())

    assert lines[0] == "Verification: model.onnx | FP16 emulated with ONNX-Runtime; 2 samples"
    assert lines[1] == "Asked: 5 of 169 layers stay in FP32 | the script 'constraints.py'"
    assert lines[2] == "RMS relative L2 error of each output, over all samples"
    assert lines[3].split() == (
        "Output FP32 on ORT All FP16 Constrained Recovered NaN/Inf Unequal".split()
    )
    assert lines[4].split() == ["logits", "1.0e-07", "1.0e-02", "2.0e-03", "80.0%", "3", "100.0%"]
    assert lines[5].split() == ["(all)", "1.0e-07", "1.0e-02", "2.0e-03", "80.0%", "3"]


def test_what_was_not_measured_is_a_dash():
    output = VerifiedOutput("y", None, None, None, None)

    lines = format_verification(
        make_verification(outputs=(output,), fp32_error=None, lowered_error=None, recovered=None)
    )

    assert lines[4].split() == ["y", *"------"]
    assert lines[5].split() == ["(all)", "-", "-", "2.0e-03", "-", "-"]


def test_errors_of_infinities_read_inf_and_absurd_shares_worse():
    output = VerifiedOutput("y", None, divergence(1e-9), divergence(1e38), -1e47)

    row = format_verification(make_verification(outputs=(output,)))[4].split()

    assert row[3:5] == ["inf", "worse"]


def test_no_constraints_are_told():
    assert "every layer is lowered" in format_verification(make_verification(source=""))[1]


@pytest.mark.parametrize("width", [72, 80, 120])
def test_lines_fit_and_hostile_names_stay_on_them(width):
    name = "層\n\x1b[31m" * 30
    output = replace(make_verification().outputs[0], name=name)
    model = ModelIdentity(name, "ab" * 32, 7, 17)
    verification = replace(
        with_engines(*[name] * 9),
        outputs=(output,),
        model=model,
        source=name,
        failures=(name, name),
    )

    lines = format_verification(verification, width=width) + format_verdict(
        verification, width=width
    )

    assert max(map(display_width, lines)) <= width
    assert all(line.isprintable() for line in lines)


def test_engines_are_shown_with_what_was_obtained():
    lines = format_verification(with_engines("/attention/Softmax"))

    text = "\n".join(lines)
    assert lines[0] == "Verification: model.onnx | FP16 on TensorRT engines; 2 samples"
    assert "FP32 on TRT" in lines[3]
    assert [line.split() for line in lines if "MiB" in line] == [
        ["fp32", "102.0", "MiB", "3.210", "ms", "-"],
        ["constrained", "52.0", "MiB", "1.230", "ms", "50.0%"],
    ]
    assert (
        "Obtained: 3 of 6 layers asked for are in FP32, 1 in FP16, 1 inside fused kernels, which "
        "do not tell, 1 folded or not to be seen"
    ) in " ".join(text.split())
    assert lines[-1].split() == [
        *("/attention/Softmax", "MatMul", "FP32", "FP16", "FP16", "->", "FP16", "a_kernel")
    ]


def test_a_long_list_of_lowered_layers_is_cut():
    lines = format_verification(with_engines(*(f"layer{i}" for i in range(9))))

    assert lines[-1] == "  and 4 more"


def test_an_engine_that_was_not_run_has_no_latency():
    engine = EngineMeasurement("constrained", 2**20, None, make_obtained("fp32"))

    lines = format_verification(make_verification(engines=(engine,)))

    assert lines[-4:] == [
        "Engines: built, not run",
        "  Engine          Size  Latency  Low tensors",
        "  constrained  1.0 MiB        -        50.0%",
        "Obtained: 1 of 1 layer asked for is in FP32",
    ]


def test_layers_that_were_not_lowered_are_counted():
    low = LayerPrecision("d", "Add", "low", "fp32", ("kernel",), "FP32 -> FP32")
    obtained = replace(make_obtained("fp32"), layers=(*make_obtained("fp32").layers, low))

    assert summarize_obtained(obtained, "BF16") == (
        "1 of 1 layer asked for is in FP32; 1 of 1 to be lowered are in FP32"
    )


def test_all_layers_are_listed_worst_first():
    lines = format_all_layers(with_engines("bad", "worse"), width=100)

    assert [line.split()[0] for line in lines] == [
        *("Layer", "bad", "worse", "kept4", "kept3", "kept0", "kept1", "kept2")
    ]
    assert "inside a fused kernel" in lines[4]
    assert format_all_layers(make_verification(), width=80) == []


def test_an_engine_that_tells_nothing_is_told():
    engine = EngineMeasurement("constrained", 1, 0.1, None)

    assert "does not tell" in format_verification(make_verification(engines=(engine,)))[-1]


def test_a_verdict_names_the_metric_its_value_and_the_threshold():
    passed = format_verdict(make_verification())
    failed = format_verdict(make_verification(failures=("too large", "NaN")))

    assert passed == ["PASSED: relative L2 error 0.002 (at most 0.005)"]
    assert failed == ["FAILED: too large", "  and NaN"]


def test_a_disagreement_fails_whatever_the_criteria_say():
    assert format_verdict(make_verification(failures=("other",))) == ["FAILED: other"]


def test_what_nobody_judged_passes_as_equal():
    assert format_verdict(make_verification(outcome=None)) == ["PASSED: the outputs are equal"]
