from __future__ import annotations

from dataclasses import replace

from polygraphy_layerprec.records import Constraint, NetworkScript, NetworkWidths
from polygraphy_layerprec.report.columns import display_width
from polygraphy_layerprec.report.inspection import format_ranking_origin, format_script
from tests.rankings import make_ranking

SCRIPT = NetworkScript(
    model_name="model.onnx",
    model_digest="ab" * 32,
    precision="bf16",
    io_precision="fp32",
    allow_unmatched=False,
    constraints=(
        Constraint("head", "Pow", (), ("t",), "overflow: |x| up to 8.1e5"),
        Constraint("", "Add", (), ("", "sum"), "31 % of the output error"),
    ),
    widths=NetworkWidths(),
    altered=False,
)


def test_a_script_says_what_it_keeps_and_why():
    precision = (
        "Precision: BF16 | inputs and outputs of the engine in FP32; a constraint that matches "
        "nothing stops the build"
    )

    lines = format_script(SCRIPT, "c.py", width=200)

    assert lines == [
        "Verdict: none, for a script says nothing of errors. Measure them:",
        "    polygraphy layerprec verify model.onnx --script c.py --load-inputs inputs.npz",
        "Model: model.onnx | digest abababababababab",
        precision,
        "Constraints: 2 layers stay in FP32",
        "  head (Pow) | overflow: |x| up to 8.1e5",
        "  sum (Add) | 31 % of the output error",
    ]


def test_low_outputs_lenience_and_a_missing_model_are_told():
    script = NetworkScript(
        model_name="",
        model_digest="",
        precision="fp16",
        io_precision="low",
        allow_unmatched=True,
        constraints=(),
        widths=NetworkWidths(),
        altered=True,
    )

    lines = format_script(script, "c.py", width=200)

    assert lines[2] == "Model: without a name | digest unknown"
    assert "in FP16; a constraint that matches nothing is a warning" in lines[3]


def test_hostile_names_stay_on_their_line():
    name = "層\n\x1b[31m" * 30
    constraints = (Constraint(name, name, (), (), name),)
    script = replace(SCRIPT, model_name=name, model_digest=name, constraints=constraints)

    lines = format_script(script, "c.py", width=80)

    assert max(map(display_width, lines)) <= 80
    assert all(line.isprintable() for line in lines)


def test_a_ranking_says_how_it_was_measured():
    text = " ".join(format_ranking_origin(make_ranking()))

    assert "model.onnx | digest abababababababab, 7 nodes, opset 17" in text
    assert "Precision: FP16" in text
    assert "onnxruntime-emulated, impact by adjoint; 2 samples, user" in text
    assert "numpy 2.0.0, onnxruntime 1.20.0" in text
