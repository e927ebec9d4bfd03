"""Every verb of Python refuses the samples that the command line refuses."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.execution.samples.given import SampleError
from polygraphy_layerprec.matching.requested_precisions import all_lowered
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import (
    measure_curve,
    measure_exact_impacts,
    measure_output_error,
    rank_model,
    select_constraints,
)
from polygraphy_layerprec.selection import SelectionRequest
from polygraphy_layerprec.verify import verify_model
from tests.models import build_model, node, tensor

pytestmark = pytest.mark.onnxrt

MODEL = build_model(
    [node("Exp", ["x"], "y", name="exp")], [tensor("x", ["n"])], [tensor("y", None)]
)
GOOD = {"x": np.ones(3, np.float32)}

BAD = {
    "empty": ({"x": np.ones(0, np.float32)}, "has no elements"),
    "wrong name": ({"y": np.ones(3, np.float32)}, "Wrong input name"),
    "one too many": ({**GOOD, "z": GOOD["x"]}, "Wrong input name"),
    "wrong dtype": ({"x": np.ones(3)}, "Wrong dtype"),
    "wrong shape": ({"x": np.ones((3, 1), np.float32)}, "Wrong shape"),
    "NaN": ({"x": np.array([1, np.nan], np.float32)}, "NaN in input"),
    "no names": ([1.0], "not arrays by name"),
}

VERBS = {
    "rank_model": rank_model,
    "measure_exact_impacts": measure_exact_impacts,
    "measure_output_error": measure_output_error,
    "select_constraints": lambda model, samples: select_constraints(
        rank_model(model, [GOOD]), SelectionRequest(top_k=1), model=model, samples=samples
    ),
    "measure_curve": lambda model, samples: measure_curve(
        rank_model(model, [GOOD]), model=model, samples=samples
    ),
    "verify_model": lambda model, samples: verify_model(
        load_graph(model), samples, all_lowered("fp16")
    ),
}


@pytest.mark.parametrize("sample", BAD)
@pytest.mark.parametrize("verb", VERBS)
def test_a_sample_that_does_not_fit_is_refused(verb, sample):
    values, message = BAD[sample]

    with pytest.raises(SampleError, match=message) as raised:
        VERBS[verb](MODEL, [GOOD, values])

    assert "sample 1" in str(raised.value).lower()


@pytest.mark.parametrize("verb", VERBS)
def test_samples_that_fit_are_taken(verb):
    assert VERBS[verb](MODEL, [GOOD, {"x": np.ones(1, np.float32)}]) is not None
