from __future__ import annotations

import argparse
import importlib.metadata
import shlex
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from polygraphy.tools.args import ModelArgs, OnnxLoadArgs, TrtConfigArgs, TrtLoadNetworkArgs
from polygraphy.tools.args import util as args_util

from polygraphy_layerprec.report.next_steps import (
    format_build_commands,
    format_script_command,
    installed_tensorrt,
)

printable_text = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="\n"), min_size=1
)


def versions(**installed):
    def version_of(distribution):
        if distribution not in installed:
            raise importlib.metadata.PackageNotFoundError(distribution)
        return installed[distribution]

    return version_of


def commands(lines):
    return [shlex.split(line) for line in lines if "polygraphy" in line]


@pytest.mark.parametrize(
    ("installed", "kinds"),
    [
        ({}, ()),
        ({"tensorrt": "8.6.1"}, ("weakly typed",)),
        ({"tensorrt": "10.13.3.9"}, ("weakly typed", "strongly typed")),
        ({"tensorrt": "11.4.0"}, ("inherently typed",)),
        ({"tensorrt_rtx": "1.7.1.116"}, ("rtx",)),
        ({"tensorrt": "10.0.1", "tensorrt_rtx": "1.0"}, ("weakly typed", "strongly typed", "rtx")),
        ({"tensorrt": "unknown"}, ()),
    ],
)
def test_the_kind_of_tensorrt_follows_from_its_version(installed, kinds):
    assert installed_tensorrt(versions(**installed)) == kinds


def test_looking_for_tensorrt_does_not_import_it():
    before = set(sys.modules)

    installed_tensorrt()

    assert not [name for name in set(sys.modules) - before if name.startswith("tensorrt")]


@pytest.mark.parametrize(
    ("kind", "prefix", "flags", "config"),
    [
        ("weakly typed", "", "--fp16 --precision-constraints obey ", ""),
        ("strongly typed", "", "--strongly-typed ", ""),
        ("inherently typed", "", "", ""),
        ("rtx", "POLYGRAPHY_USE_TENSORRT_RTX=1 ", "", " --trt-cpps c.py"),
    ],
)
def test_each_kind_of_tensorrt_has_its_own_command(kind, prefix, flags, config):
    lines = format_build_commands("m.onnx", "c.py", precision="fp16", installed=[kind])

    command = f"{prefix}polygraphy convert m.onnx -o m.engine {flags}--trt-npps c.py{config}"
    assert [line.strip() for line in lines if "polygraphy" in line] == [command]


@pytest.mark.parametrize(
    ("kept", "built"),
    [
        (None, "an engine that keeps the chosen layers in FP32"),
        ((2, 9), "an engine that keeps the chosen layers in FP32"),
        ((0, 9), "an engine in FP16: no layer has to stay in FP32"),
        ((9, 9), "an FP32 engine: every layer stays in FP32"),
    ],
)
def test_what_is_built_is_said(kept, built):
    first, *_ = format_build_commands(
        "m.onnx", "c.py", precision="fp16", installed=["rtx"], kept=kept
    )

    assert first == f"Next: build {built}"


@pytest.mark.parametrize(
    ("installed", "is_said"),
    [(["rtx"], True), (["inherently typed"], True), ([], True), (["weakly typed"], False)],
)
def test_that_a_flag_alone_does_nothing_is_said_where_it_is_so(installed, is_said):
    lines = format_build_commands("m.onnx", "c.py", precision="bf16", installed=installed)

    assert any("`--bf16` builds an FP32 engine without a word" in line for line in lines) == is_said


def test_an_engine_for_dynamic_shapes_gets_the_shapes_that_were_seen():
    ranges = {"ids": ((1, 4), (8, 19)), "odd name": ((1,), (2,))}

    lines = format_build_commands(
        "m.onnx", "c.py", precision="fp16", installed=["rtx"], shape_ranges=ranges
    )

    (words,) = commands(lines)
    at = words.index("--trt-min-shapes")
    assert words[at : at + 9] == [
        *("--trt-min-shapes", "ids:[1,4]", "odd name:[1]"),
        *("--trt-opt-shapes", "ids:[8,19]", "odd name:[2]"),
        *("--trt-max-shapes", "ids:[8,19]", "odd name:[2]"),
    ]


@pytest.mark.parametrize(
    ("ranges", "is_told"),
    [
        ({"ids": ((8, 19), (8, 19))}, True),
        ({"ids": ((8, 19), (8, 19)), "mask": ((1, 19), (8, 19))}, False),
        ({}, False),
    ],
)
def test_a_profile_of_a_single_shape_is_told(ranges, is_told):
    lines = format_build_commands(
        "m.onnx", "c.py", precision="fp16", installed=["rtx"], shape_ranges=ranges
    )

    assert any("one shape of your samples" in line for line in lines) is is_told


@pytest.mark.parametrize(("ranges", "is_told"), [(None, True), ({}, False)])
def test_where_no_sample_gave_shapes_a_profile_is_asked_for(ranges, is_told):
    lines = format_build_commands(
        "m.onnx", "c.py", precision="fp16", installed=["rtx"], shape_ranges=ranges
    )

    assert any("need a profile: add `--trt-min-shapes`" in line for line in lines) is is_told


def test_all_kinds_are_shown_where_none_is_installed():
    lines = format_build_commands("m.onnx", "c.py", precision="bf16", installed=[])

    assert len(commands(lines)) == 4
    assert "--bf16" in commands(lines)[0]


@given(model=printable_text, script=printable_text)
def test_any_path_survives_the_shell(model, script):
    lines = format_build_commands(model, script, precision="fp16", installed=["rtx"])

    (words,) = commands(lines)

    assert words[3] == (f"./{model}" if model.startswith("-") else model)
    assert words[-1] == (f"./{script}" if script.startswith("-") else script)


def test_the_command_finds_external_data_where_the_ranking_found_them():
    lines = format_build_commands(
        "m.onnx", "c.py", precision="fp16", installed=["rtx"], external_data_dir="my data"
    )

    (words,) = commands(lines)
    assert words[4:8] == ["-o", "m.engine", "--external-data-dir", "my data"]


def test_names_that_start_like_options_reach_polygraphy_as_values():
    lines = format_build_commands(
        "-m.onnx",
        "-c.py",
        precision="fp16",
        installed=["inherently typed"],
        shape_ranges={"-ids": ((1, 4), (8, 19)), "--x": ((1,), (2,))},
        external_data_dir="-data",
    )
    parser = argparse.ArgumentParser()
    groups = (
        ModelArgs(model_opt_required=True),
        OnnxLoadArgs(allow_saving=False, allow_shape_inference=False),
        TrtConfigArgs(),
        TrtLoadNetworkArgs(),
    )
    for group in groups:
        group.group = parser.add_argument_group(type(group).__name__)
        group.add_parser_args_impl()
    parser.add_argument("-o", "--output")
    (words,) = commands(lines)

    arguments = parser.parse_args(words[2:])

    assert (arguments.model_file, arguments.output) == ("./-m.onnx", "./-m.engine")
    assert arguments.external_data_dir == "./-data"
    assert arguments.trt_network_postprocess_script == ["./-c.py"]
    (largest,) = arguments.trt_max_shapes
    shapes = args_util.parse_meta(largest, includes_dtype=False)
    assert {name: tuple(meta.shape) for name, meta in shapes.items()} == {
        "-ids": (8, 19),
        "--x": (2,),
    }


def test_the_script_command_repeats_what_was_asked_for():
    lines = format_script_command(["rank", "my model.onnx", "--load-inputs", "x.npz"])

    assert [shlex.join(words) for words in commands(lines)] == [
        "polygraphy layerprec rank 'my model.onnx' --load-inputs x.npz --save-script constraints.py"
    ]
