from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from polygraphy_layerprec.files.record_codec import from_json_value
from polygraphy_layerprec.files.verdict_file import (
    SCHEMA_VERSION,
    is_verdict_file,
    load_verdict,
    save_verdict,
    verdict_on_choice,
    verdict_on_verification,
)
from polygraphy_layerprec.records import SavedVerdict
from polygraphy_layerprec.selection import SelectionRequest, select_layers
from tests.decisions import make_decision
from tests.layer_graphs import layer_of
from tests.rankings import make_ranking
from tests.report_models import make_verification

DOCUMENT = Path(__file__).parents[2] / "docs" / "verdict-file.md"


def chosen(error):
    ranking = dataclasses.replace(make_ranking(layer_of("a", 1e-2)), decision=make_decision(error))
    return ranking, select_layers(ranking, SelectionRequest())


def test_what_is_saved_is_read_again(tmp_path):
    verdict = verdict_on_choice("rank", *chosen(1e-3))

    save_verdict(verdict, tmp_path / "v.json")

    content = json.loads((tmp_path / "v.json").read_text())
    assert content.pop("schema_version") == SCHEMA_VERSION == 1
    assert from_json_value(SavedVerdict, content) == load_verdict(tmp_path / "v.json") == verdict
    assert (verdict.verb, verdict.passed, verdict.verdict) == ("rank", True, "inaccurate")
    assert (verdict.chosen_count, verdict.layer_count, verdict.failures) == (1, 1, ())


def test_a_criterion_that_is_not_met_is_a_failure():
    verdict = verdict_on_choice("constrain", *chosen(0.01))

    assert not verdict.passed
    assert verdict.failures == ("relative L2 error 0.01 (at most 0.005)",)


def test_a_verification_is_saved_alike(tmp_path):
    verification = make_verification(verdict="inaccurate", failures=("a layer is in FP16",))

    verdict = verdict_on_verification(verification)
    save_verdict(verdict, tmp_path / "v.json")

    assert (verdict.verb, verdict.passed) == ("verify", False)
    assert json.loads((tmp_path / "v.json").read_text())["failures"] == ["a layer is in FP16"]
    assert verdict.outcome == verification.outcome


def test_what_was_not_measured_has_no_verdict():
    ranking = make_ranking(layer_of("a", 1e-2))

    with pytest.raises(ValueError, match=r"no verdict to save: nothing was measured"):
        verdict_on_choice("constrain", ranking, select_layers(ranking, SelectionRequest()))
    with pytest.raises(ValueError, match="engines do not agree in FP32"):
        verdict_on_verification(make_verification(outcome=None))


def test_the_document_lists_the_fields_in_their_order():
    documented = re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)

    assert documented == [
        "schema_version",
        *(field.name for field in dataclasses.fields(SavedVerdict)),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"verb": "rank"}', "its schema_version is None"),
        ('{"verb": "rank", "schema_version": 1}', "passed is missing"),
        ("[" * 9999, "nested|recursion"),
        ("{", "Expecting"),
    ],
)
def test_what_is_no_verdict_is_refused(tmp_path, content, said):
    (tmp_path / "v.json").write_text(content)

    with pytest.raises(ValueError, match=rf"(?s)v.json' is not a verdict.*({said})"):
        load_verdict(tmp_path / "v.json")


@pytest.mark.parametrize(
    ("content", "expected"),
    [('{"verb": "rank"}', True), ('{"layers": []}', False), ("[]", False), ("{", False)],
)
def test_a_verdict_is_known_by_its_verb(tmp_path, content, expected):
    (tmp_path / "v.json").write_text(content)

    assert is_verdict_file(tmp_path / "v.json") is expected
