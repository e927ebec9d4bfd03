"""Verification on engines, with the engines replaced: what is compared, and when it stops."""

from __future__ import annotations

import json

import numpy as np
import pytest

from polygraphy_layerprec.backend.engine_verification import AGREEMENT_LIMIT, verify_engines
from polygraphy_layerprec.backend.engines import EngineRun
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.records import AskedPrecisions, Constraint
from tests.models import build_model, node, tensor

pytest.importorskip("polygraphy.backend.trt")

ASKED = AskedPrecisions("a test", "fp16", (Constraint("exp", "Exp", ("x",), ("y",), "a test"),), ())


class FakeEngines:
    """Gives `1 + error` on every engine, and notes what was built."""

    def __init__(self, information="", **errors: float) -> None:
        self.errors = {"fp32": 0.0, "lowered": 0.1, "constrained": 0.025, **errors}
        self.information = information
        self.built = []

    def build(self, name) -> bytes:
        self.built.append(name)
        return name.encode()

    def run(self, plan, samples):
        value = 1 + self.errors[plan.decode()]
        outputs = tuple({"y": np.full(2, value, np.float32)} for _ in samples)
        return EngineRun(outputs, 0.001 * len(plan), self.information)


@pytest.fixture
def verify():
    model = build_model(
        [node("Exp", ["x"], "y", name="exp")], [tensor("x", [2])], [tensor("y", [2])]
    )

    def run(engines, asked=ASKED, **options):
        ones = {"y": np.ones(2, np.float32)}
        return verify_engines(
            load_graph(model),
            [{"x": np.ones(2, np.float32)}] * 2,
            asked,
            engines=engines,
            run_reference=lambda _: ones,
            **options,
        )

    return run


def test_the_three_engines_are_compared(verify):
    found = verify(FakeEngines(), tolerance=0.03)

    assert found.backend == "tensorrt"
    assert found.lowered_error == pytest.approx(0.1, rel=1e-5)
    assert found.constrained_error == pytest.approx(0.025, rel=1e-5)
    assert found.recovered == pytest.approx(0.75, rel=1e-4)
    assert found.passed is True
    assert [(e.name, e.size_bytes) for e in found.engines] == [
        ("fp32", 4),
        ("lowered", 7),
        ("constrained", 11),
    ]
    assert found.engines[2].latency_seconds == pytest.approx(0.011)


def test_the_tolerance_decides(verify):
    assert verify(FakeEngines(), tolerance=0.02).passed is False


@pytest.mark.parametrize("error", [1.1 * AGREEMENT_LIMIT, np.nan, np.inf])
def test_where_fp32_differs_precision_is_not_to_blame(verify, error):
    engines = FakeEngines(fp32=error)

    found = verify(engines)

    assert engines.built == ["fp32"]
    assert found.passed is False
    assert "precision is not to blame" in found.failures[0]
    assert found.outputs[0].lowered is None
    assert len(found.engines) == 1


def test_a_small_difference_in_fp32_is_agreement(verify):
    engines = FakeEngines(fp32=0.9 * AGREEMENT_LIMIT)

    assert verify(engines, tolerance=1.0).passed
    assert engines.built == ["fp32", "lowered", "constrained"]


def test_an_output_that_the_engine_lacks_stops(verify):
    engines = FakeEngines()
    engines.run = lambda _, samples: EngineRun(tuple({} for _ in samples), 0.1, "")

    assert "gives no 'y'" in verify(engines).failures[0]


def test_outputs_in_low_precision_are_compared_as_they_are(verify):
    engines = FakeEngines()
    values = ({"y": np.full(2, 1.5, np.float16)},) * 2
    engines.run = lambda plan, samples: (
        EngineRun(values, 0.1, "")
        if plan == b"constrained"
        else FakeEngines.run(engines, plan, samples)
    )

    assert verify(engines).constrained_error == pytest.approx(0.5)


def test_what_the_engine_says_of_its_layers_is_reported(verify):
    layers = [{"Name": "exp", "Outputs": [{"Name": "y", "Datatype": "Half"}]}]

    found = verify(FakeEngines(json.dumps({"Layers": layers})))

    assert [layer.name for layer in found.engines[2].obtained.failures] == ["exp"]
    assert found.engines[1].obtained.layers == ()
    assert found.engines[1].obtained.low_tensor_fraction == 1.0


@pytest.mark.parametrize("information", ["", "no JSON", '{"Layers": ["exp"]}'])
def test_an_engine_that_says_nothing_is_no_error(verify, information):
    assert verify(FakeEngines(information)).engines[2].obtained is None
