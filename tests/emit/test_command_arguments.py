"""Arguments for other tools: what a shell and their parsers make of them."""

from __future__ import annotations

import argparse
import math
import re
import shlex

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from polygraphy.tools.args import TrtConfigArgs, TrtLoadNetworkArgs
from polygraphy.tools.args import util as args_util

from polygraphy_layerprec.emit.command_arguments import (
    render_autocast_arguments,
    render_layer_precisions,
    unnamed_constraints,
)
from polygraphy_layerprec.records import Constraint

HOSTILE = [
    "/layer:0/Mat Mul",
    "a:b:float16",
    'it\'s "quoted" \\ and $(touch gone) `x`',
    "two\nlines\t*?[~]#",
    "层/正規化",
    ":",
    "{}|^$.+()",
    "long" * 2500,
]
any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
names = any_text | any_text.map("-{}".format)


def constraints(*given_names):
    return [Constraint(name, "Add", ("x",), (f"y{i}",), "") for i, name in enumerate(given_names)]


def precisions_read_by_polygraphy(text):
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision-constraints")
    parser.add_argument("--layer-precisions", nargs="+")
    arguments = parser.parse_args(shlex.split(text))
    assert arguments.precision_constraints == "obey"
    return args_util.parse_arglist_to_dict(arguments.layer_precisions, allow_empty_key=False)


def patterns_of(text):
    flag, largest, option, *patterns = shlex.split(text)
    assert (flag, option) == ("--data_max", "--nodes_to_exclude")
    assert math.isinf(float(largest))
    return patterns


def test_polygraphy_reads_every_name_back():
    read = precisions_read_by_polygraphy(render_layer_precisions(constraints(*HOSTILE)))

    assert read == dict.fromkeys(HOSTILE, "float32")
    assert list(read) == HOSTILE


def polygraphy_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output")
    parser.add_argument("-v", "--verbose", action="count")
    for args in (TrtConfigArgs(), TrtLoadNetworkArgs(allow_custom_outputs=False)):
        args.group = parser.add_argument_group(type(args).__name__)
        args.add_parser_args_impl()
    return parser


@pytest.mark.parametrize("name", ["-", "-x", "--fp16", "-1", "--layer-precisions", "-a b", "-x:y"])
def test_names_that_start_like_options_are_read_back(name):
    text = render_layer_precisions(constraints("first", name, "last"))

    arguments = polygraphy_parser().parse_args(shlex.split(text))

    read = args_util.parse_arglist_to_dict(arguments.layer_precisions, allow_empty_key=False)
    assert read == {"first": "float32", name: "float32", "last": "float32"}


@pytest.mark.parametrize("name", ["-v1", "-output", "--fp16=x", "-x=", "-h"])
@pytest.mark.parametrize("render", [render_layer_precisions, render_autocast_arguments])
def test_names_that_any_parser_takes_for_an_option_are_left_out(name, render):
    given_constraints = constraints("first", name, "last")

    assert render(given_constraints) == render(constraints("first", "last"))
    assert unnamed_constraints(given_constraints) == 1


@given(names)
def test_polygraphy_takes_no_name_for_an_option(name):
    text = render_layer_precisions(constraints("first", name))

    arguments = polygraphy_parser().parse_args(shlex.split(text))

    read = args_util.parse_arglist_to_dict(arguments.layer_precisions, allow_empty_key=False)
    told = {"first", name} if not unnamed_constraints(constraints(name)) else {"first"}
    assert read == dict.fromkeys(told, "float32")
    assert arguments.output is None
    assert arguments.verbose is None


def test_the_option_is_one_that_polygraphy_has():
    text = render_layer_precisions(constraints("a:b c"))

    arguments = polygraphy_parser().parse_args(shlex.split(text))

    assert arguments.precision_constraints == "obey"
    assert arguments.layer_precisions == ["a:b c:float32"]


@given(st.lists(names, min_size=1, unique=True))
def test_the_shell_takes_every_name_as_one_word(given_names):
    told = [name for name in given_names if not unnamed_constraints(constraints(name))]
    words = shlex.split(render_layer_precisions(constraints(*told)))

    assert words[:2] == ["--precision-constraints", "obey"]
    assert [word.rpartition(":")[0] for word in words[3:]] == told


@given(st.lists(names, min_size=1, unique=True), names)
def test_a_pattern_matches_its_own_name_and_no_other(given_names, other):
    told = [name for name in given_names if not unnamed_constraints(constraints(name))]
    assume(told)
    patterns = patterns_of(render_autocast_arguments(constraints(*told)))

    for pattern, name in zip(patterns, told, strict=True):
        assert re.match(pattern, name)
        for stranger in (name + "x", name + "\n", "x" + name):
            assert not re.match(pattern, stranger)
        assert bool(re.match(pattern, other)) == (other == name)


def test_patterns_are_anchored_and_escaped():
    (pattern,) = patterns_of(render_autocast_arguments(constraints("/layer.1/Add")))

    assert pattern == r"^/layer\.1/Add\Z"


@pytest.mark.parametrize("render", [render_layer_precisions, render_autocast_arguments])
def test_a_shared_name_is_said_once_and_nodes_without_are_left_out(render):
    given_constraints = constraints("", "twin", "", "twin", "other")

    assert render(given_constraints) == render(constraints("twin", "other"))
    assert unnamed_constraints(given_constraints) == 2


def test_without_a_name_no_option_stands_without_its_values():
    for given_constraints in ([], constraints("", "")):
        assert render_layer_precisions(given_constraints) == "--precision-constraints obey\n"
        assert render_autocast_arguments(given_constraints) == "--data_max inf\n"
