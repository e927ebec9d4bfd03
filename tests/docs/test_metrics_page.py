"""Every worked number of the page on metrics is what the tool computes."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

from polygraphy_layerprec.divergence.adjoint import Tape, TapeEntry, output_seeds
from polygraphy_layerprec.execution.comparison.output_divergence import OutputDivergences
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.rounding import round_to_precision
from polygraphy_layerprec.selection import SetForecast
from tests.layer_graphs import chain_of, mask_of

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def worked():
    """Runs the examples, and returns the names that they define."""
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    examples = parser.get_doctest(TEXT, {}, PAGE.name, str(PAGE), 0)
    complaints = []
    runner.run(examples, out=complaints.append, clear_globs=False)
    assert runner.summarize(verbose=False).failed == 0, "".join(complaints)
    return examples.globs


def test_every_section_has_an_example():
    sections = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]

    assert len(sections) >= 7
    assert [s.partition("\n")[0] for s in sections if "```{doctest}\n>>> " not in s] == []


def test_what_the_examples_print_is_what_the_page_says(worked):
    assert "output_error" in worked


def test_the_output_error_is_that_of_two_samples(worked):
    divergences = OutputDivergences(["y"], FP16)
    reference = np.array([3.0, 4.0])
    for error in (0.03, 0.04):
        divergences.add({"y": reference}, {"y": reference * (1.0 + error)})

    assert divergences.error == pytest.approx(worked["output_error"])


def test_the_typical_error_is_that_of_rounding_random_numbers(worked):
    values = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    error = round_to_precision(values, FP16) - values

    measured = np.linalg.norm(error) / np.linalg.norm(values)

    assert measured == pytest.approx(worked["typical"], rel=0.03)


def test_the_adjoint_impact_is_that_of_the_backward_sweep(worked):
    x, weight = np.ones((1, 2)), np.diag(worked["slopes"])
    y = x @ weight
    entries = [
        _entry(0, "Identity", ("u",), "x", is_layer=True),
        _entry(1, "MatMul", ("x", "w"), "y", is_layer=False),
    ]
    halves = (worked["e"].astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    tape = Tape(lambda names: {name: {"w": weight}[name] for name in names})
    tape.record(entries[0], {"u": x, "x": x}, {"x": halves})
    tape.record(entries[1], {"x": x, "y": y}, {})

    powers = tape.sweep(output_seeds({"y": y}, rng=np.random.default_rng(0))).powers

    # Errors wait for the sweep in the upper half of FP32: 8 bits.
    assert powers[0] == pytest.approx(worked["adjoint_power"], rel=2**-6)


def _entry(index, op_type, inputs, output, *, is_layer):
    return TapeEntry(
        index=index,
        op_type=op_type,
        domain="",
        opset=17,
        attributes={},
        inputs=inputs,
        captures=(),
        captured_shapes=(),
        outputs=(output,),
        input_shapes=tuple((2, 2) if name == "w" else (1, 2) for name in inputs),
        output_shapes=((1, 2),),
        wanted=frozenset({0}) if index else frozenset(),
        wanted_captures=frozenset(),
        is_layer=is_layer,
        gains={},
    )


def test_the_forecasts_are_those_of_the_selection(worked):
    layers = chain_of(*worked["impacts"])
    sets = {"none": "", "last": "c", "middle": "b", "middle and last": "bc"}

    forecast = {
        title: SetForecast(layers).error(mask_of(layers, kept)) for title, kept in sets.items()
    }

    assert forecast == pytest.approx(worked["forecast"])
