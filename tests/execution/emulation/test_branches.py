"""Errors pass through an `If` on the branch that is taken."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.pipeline import rank_model
from tests.models import if_with_capture, sample_inputs

pytestmark = pytest.mark.onnxrt


def test_layers_in_a_branch_have_the_impact_that_an_experiment_finds():
    model = if_with_capture()
    sample = {**sample_inputs(model), "condition": np.True_}

    by_gradients, by_experiment = (
        {layer.name: layer for layer in rank_model(model, [sample], impact=impact).layers}
        for impact in ("adjoint", "exact")
    )

    for name in ("then/MatMul", "outer/Tanh"):
        assert by_gradients[name].impact == pytest.approx(by_experiment[name].impact, rel=0.5)
    assert dict(by_gradients["then/MatMul"].readers) == {"outer/Mul": pytest.approx(1.0)}
