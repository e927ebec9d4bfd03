"""`-h` shows what a verb is for, and leaves the building of engines to a page of its own."""

from __future__ import annotations

import re

import pytest

from tests.processes import DOORS, run_layerprec

OWN = {
    "rank": ("--load-inputs", "--tolerance", "--save-script", "--backend", "--save-partial"),
    "verify": ("--script", "--tolerance", "--backend", "--tf32", "--build"),
    "constrain": ("--choose", "--save-script"),
}
OF_BUILDS = ("--trt-min-shapes", "--tactic-sources", "--plugins", "--save-timing-cache")


def options_of(text):
    """Returns the options that a help text explains."""
    return set(re.findall(r"^ +(--[\w-]+)", text, flags=re.MULTILINE)) | set(
        re.findall(r", (--[\w-]+)", text)
    )


@pytest.mark.parametrize("verb", OWN)
def test_help_shows_options_of_the_verb_and_none_of_builds(tmp_path, verb):
    done = run_layerprec(verb, "-h", folder=tmp_path, environment={"COLUMNS": "80"})

    assert done.returncode == 0
    found = options_of(done.stdout)
    assert found.issuperset(OWN[verb])
    assert found.isdisjoint(OF_BUILDS)
    assert re.match(rf"usage: polygraphy layerprec {verb} \[options\] \w+\n\n", done.stdout)
    titles = re.findall(r"^([A-Z][\w -]+):$", done.stdout, flags=re.MULTILINE)
    assert titles[-1] == "Logging"


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("verb", ["rank", "verify"])
def test_options_of_builds_have_a_page_of_their_own(tmp_path, verb, door):
    done = run_layerprec(verb, "--help-engines", door=door, folder=tmp_path)

    assert done.returncode == 0
    found = options_of(done.stdout)
    assert found.issuperset(OF_BUILDS)
    assert found.isdisjoint(OWN[verb])


def test_verbs_that_build_nothing_have_no_such_page(tmp_path):
    done = run_layerprec("constrain", "ranking.json", "--help-engines", folder=tmp_path)

    assert done.returncode != 0
    assert "--trt-min-shapes" not in done.stdout
