"""The page on the command line is what the parsers say, in this version."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path

import polygraphy
import pytest
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec.tools import args
from tests.processes import run_layerprec

# How Polygraphy looks for its plugins.
pytestmark = pytest.mark.filterwarnings("ignore:SelectableGroups:DeprecationWarning")

GENERATOR = Path(__file__).parents[2] / "docs" / "generate_cli.py"
REGENERATE = "run `python docs/generate_cli.py`"


@pytest.fixture(scope="module")
def generator():
    specification = importlib.util.spec_from_file_location("generate_cli", GENERATOR)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(generator):
    return generator.PAGE.read_text(encoding="utf-8")


@pytest.fixture
def same_polygraphy(page):
    if f"Polygraphy {polygraphy.__version__};" not in page:
        pytest.skip(f"the page was made with another Polygraphy than {polygraphy.__version__}")


def own_sections(text):
    """Returns the verbs, and the groups of options that no other version of Polygraphy changes."""
    titles = {
        inspect.getdoc(group).partition(":")[0]
        for group in vars(args).values()
        if inspect.isclass(group) and group.__bases__ == (BaseArgs,)
    }
    sections = re.split(r"^(?=##)", text, flags=re.MULTILINE)[1:]
    heads = [section.partition("\n")[0] for section in sections]
    return [
        section
        for head, section in zip(heads, sections, strict=True)
        if head.startswith("## ") or head.removeprefix("### ") in titles
    ]


def test_the_page_is_not_stale(generator, page):
    assert len(own_sections(page)) > 15
    assert own_sections(page) == own_sections(generator.render_page()), REGENERATE


@pytest.mark.usefixtures("same_polygraphy")
def test_the_page_is_that_of_this_polygraphy(generator, page):
    assert page == generator.render_page(), REGENERATE


def test_the_page_has_every_verb(page, tmp_path):
    shown = run_layerprec("-h", folder=tmp_path).stdout
    verbs = re.search(r"\{([\w,]+)\}\s+\.\.\.", shown)[1].split(",")

    assert len(verbs) >= 4
    assert [verb for verb in verbs if f"\n## {verb}\n" not in page] == []


@pytest.mark.usefixtures("same_polygraphy")
@pytest.mark.parametrize("verb", ["rank", "verify"])
def test_the_page_has_every_option_that_the_command_shows(verb, page, tmp_path):
    shown = "".join(
        run_layerprec(verb, page_option, folder=tmp_path).stdout
        for page_option in ("-h", "--help-engines")
    )
    options = set(re.findall(r"^  (?:-\w, )?(--[a-z][\w-]*)", shown, flags=re.MULTILINE))

    assert len(options) > 60
    assert {o for o in options - {"--help"} if f"`{o}`" not in page} == set(), REGENERATE


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a <name>:[1,3]", r"a \<name\>:\[1,3\]"),
        ("`<name>` and *", r"`<name>` and \*"),
        ("plain", "plain"),
    ],
)
def test_markup_in_help_texts_is_shown_and_not_obeyed(generator, text, shown):
    assert generator._escape(text) == shown
