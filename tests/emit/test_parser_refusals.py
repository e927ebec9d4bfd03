"""What the installed parser refuses is what is on file."""

from __future__ import annotations

import importlib.metadata

import pytest

from polygraphy_layerprec.plan import parser_refusals
from polygraphy_layerprec.plan.parser_refusals import (
    NOT_BUILT,
    REFUSED,
    REFUSED_IN_SOME_FORMS,
)
from tests.emit.conftest import Tensorrt
from tests.emit.parser_survey import REFUSALS_PATH, Survey, render_refusals, survey_parser

LEAST_PARSED = 130
"""Operators that TensorRT-RTX 1.7.1 parses in FP32; fewer would make an empty table look right."""


@pytest.mark.trt
def test_the_table_is_what_the_installed_parser_says(tensorrt: Tensorrt):
    survey = survey_parser(tensorrt.module)

    assert len(survey.operators) >= LEAST_PARSED
    assert {"Conv", "Gemm", "MatMul", "LayerNormalization", "Einsum"} <= survey.operators
    assert survey.refused - survey.taken == REFUSED
    assert survey.refused & survey.taken == REFUSED_IN_SOME_FORMS


@pytest.mark.trt
def test_what_is_parsed_and_not_built_is_on_file(tensorrt: Tensorrt):
    operators = {op for op, _ in NOT_BUILT}

    # Two beside those on file, so that a builder that builds nothing is found out.
    survey = survey_parser(tensorrt.module, builds=True, only={*operators, "Conv", "Tanh"})

    assert survey.not_built == NOT_BUILT
    assert {("Conv", "bf16"), ("Tanh", "fp16")} <= survey.taken


def test_the_module_is_what_the_survey_writes():
    survey = Survey(
        taken=set(REFUSED_IN_SOME_FORMS),
        refused=set(REFUSED | REFUSED_IN_SOME_FORMS),
        not_built=set(NOT_BUILT),
    )
    versions = (parser_refusals.__doc__ or "").split("Measured with ")[1].split(". Generated")[0]

    text = render_refusals(survey, versions=versions)

    assert text == REFUSALS_PATH.read_text(encoding="utf-8")


@pytest.mark.trt
def test_the_table_is_that_of_the_installed_version():
    installed = importlib.metadata.version("tensorrt-rtx").split(".")[:2]

    assert f"TensorRT-RTX {'.'.join(installed)}." in (parser_refusals.__doc__ or "")
