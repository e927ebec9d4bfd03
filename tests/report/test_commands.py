from __future__ import annotations

import shlex

from polygraphy_layerprec.report.commands import commands_to_run, without_options

RANK = (
    "rank",
    "my model.onnx",
    "--save-report",
    "r.html",
    "--tolerance",
    "1e-3",
    "--save-plot=p.svg",
)


def test_without_a_script_the_same_command_saves_one():
    first, second = commands_to_run(
        RANK, "my model.onnx", script_path=None, precision="fp16", installed=["rtx"]
    )

    assert shlex.split(first.line) == [
        *("polygraphy", "layerprec", "rank", "my model.onnx", "--tolerance", "1e-3"),
        *("--save-script", "constraints.py"),
    ]
    assert second.purpose == "Build an engine with it, TensorRT-RTX:"
    assert shlex.split(second.line)[-4:] == [
        *("--trt-npps", "constraints.py", "--trt-cpps", "constraints.py")
    ]


def test_with_a_script_an_engine_is_built_with_it():
    (command,) = commands_to_run(
        RANK, "m.onnx", script_path="c d.py", precision="fp16", installed=["weakly typed"]
    )

    assert shlex.split(command.line) == [
        *("polygraphy", "convert", "m.onnx", "-o", "m.engine"),
        *("--fp16", "--precision-constraints", "obey", "--trt-npps", "c d.py"),
    ]


def test_data_files_elsewhere_are_named():
    (command,) = commands_to_run(
        RANK,
        "m.onnx",
        script_path="c.py",
        precision="fp16",
        installed=["rtx"],
        external_data_dir="my weights",
    )

    assert "--external-data-dir 'my weights'" in command.line


def test_every_kind_of_tensorrt_is_told_where_none_is_installed():
    commands = commands_to_run(RANK, "m.onnx", script_path="c.py", precision="fp16", installed=[])

    assert len({command.purpose for command in commands}) == 4


def test_options_go_with_their_values_in_either_form():
    words = ["a", "-o", "b", "--output=c", "--format", "markdown", "-or", "d"]

    assert without_options(words, ("-o", "--output", "--format")) == ["a", "-or", "d"]


def test_where_no_layer_is_chosen_the_commands_say_what_is_built():
    options = {"script_path": None, "installed": ["rtx"], "keeps_any": False}

    script, _ = commands_to_run(RANK, "m.onnx", precision="bf16", **options)
    (engine,) = commands_to_run(RANK, "m.onnx", precision="qdq", **options)

    assert script.purpose == "Save a script that has TensorRT run every layer in BF16:"
    assert engine.line == "polygraphy convert m.onnx -o m.engine"
