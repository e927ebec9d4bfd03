"""Every argument group keeps to the docstring format that Polygraphy parses."""

from __future__ import annotations

import argparse
import inspect
import re

import pytest
from polygraphy.tools.args import ModelArgs

from polygraphy_layerprec.files.ranking_file import RANKING_SUFFIXES
from polygraphy_layerprec.report.table import SORT_KEYS
from polygraphy_layerprec.tools import args
from polygraphy_layerprec.tools.args.report import RankingReportArgs
from polygraphy_layerprec.tools.layerprec import Layerprec
from polygraphy_layerprec.tools.run_arguments import LayerprecRunnerArgs

GROUPS = [LayerprecRunnerArgs, *(getattr(args, name) for name in args.__all__)]


@pytest.fixture
def parsers() -> dict[str, argparse.ArgumentParser]:
    """Returns the parser of each subtool."""
    parser = argparse.ArgumentParser()
    Layerprec().setup_parser(parser.add_subparsers())
    (tools,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    (subtools,) = [
        action
        for action in tools.choices["layerprec"]._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    return subtools.choices


@pytest.mark.parametrize("group", GROUPS)
def test_docstrings_begin_with_a_title_and_what_options_are_about(group):
    lines = inspect.getdoc(group).splitlines()

    assert re.fullmatch(r"[A-Z][\w -]+: [a-z].*\.", lines[0])
    if len(lines) > 1:
        assert lines[2] == "Depends on:"
        dependencies = [line.strip() for line in lines[3:] if line.strip()]
        assert all(re.fullmatch(r"- \w+Args(: .+)?", line) for line in dependencies)


@pytest.mark.parametrize("group", GROUPS)
def test_attributes_are_documented_where_they_are_set(group):
    if "parse_impl" not in vars(group):
        pytest.skip("sets none")
    source = inspect.getsource(group.parse_impl)
    documented = set(re.findall(r"^\s+(\w+) \(", inspect.getdoc(group.parse_impl), re.MULTILINE))

    assert documented == set(re.findall(r"self\.(\w+)(?:: [^=]+)? = ", source))


def test_every_option_has_a_help_text_that_ends_as_a_sentence(parsers):
    own_titles = {inspect.getdoc(group).split(":")[0] for group in GROUPS} - {"Data Loader"}
    for parser in parsers.values():
        for group in parser._action_groups:
            for action in group._group_actions if group.title in own_titles else ():
                assert action.help.rstrip().endswith("."), action.option_strings
                parser.format_help()  # stray per cent signs would raise


def test_the_help_teaches_with_two_examples(parsers):
    for parser in parsers.values():
        assert parser.format_help().count("polygraphy layerprec") >= 2


def test_choices_are_those_of_the_library(parsers):
    choices = {
        option: action.choices
        for action in parsers["rank"]._actions
        for option in action.option_strings
    }

    assert tuple(choices["--sort-by"]) == SORT_KEYS
    assert "--save-ranking" in choices
    assert RANKING_SUFFIXES == (".json", ".csv")


def test_no_option_is_declared_twice(parsers):
    for parser in parsers.values():
        options = [text for action in parser._actions for text in action.option_strings]
        assert len(options) == len(set(options))


def test_groups_are_polygraphys_own_where_there_is_one():
    groups = [type(group) for group in Layerprec().get_subtools()[1][0].get_subscriptions()]

    assert ModelArgs in groups
    assert RankingReportArgs in groups
