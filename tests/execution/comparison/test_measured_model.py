"""What choice, held-out samples and curve share: nothing is run twice."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.divergence.metric_judge import MetricJudge
from polygraphy_layerprec.execution.emulation.planned import PlannedExecutor
from polygraphy_layerprec.pipeline import measure_curve, measured_model, select_constraints
from polygraphy_layerprec.selection import SelectionRequest
from tests.models import build_model, node, normal, scalar, tensor

pytestmark = pytest.mark.onnxrt


@pytest.fixture
def refuted():
    """Returns a ranking, a model, and samples of which the last two refute what the others say."""
    nodes = [
        node("Mul", ["x", "w"], "large", name="beyond"),
        node("Sin", ["x"], "small", name="sin"),
        node("Add", ["large", "small"], "y", name="sum"),
    ]
    model = build_model(nodes, [tensor("x", [4])], [tensor("y", [4])], {"w": scalar(1e4)})
    samples = [{"x": np.abs(normal(seed, 4)) + np.float32(0.5)} for seed in range(6)]
    samples += [{"x": np.full(4, value, np.float32)} for value in (9.0, 10.0)]
    return rank_model(model, samples[:1]), model, samples


@pytest.fixture
def runs(monkeypatch):
    """Notes what is run: the sample, and what is kept in FP32, None for the reference."""
    runs = []
    plain = PlannedExecutor.run

    def noted(self, sample, plan=None, **options):
        kept = None if plan is None else plan.kept
        runs.append((sample["x"].tobytes(), kept))
        return plain(self, sample, plan, **options)

    monkeypatch.setattr(PlannedExecutor, "run", noted)
    return runs


def test_no_set_and_no_reference_is_run_twice(refuted, runs):
    ranking, model, samples = refuted
    measured = measured_model(ranking, model, samples)

    selection = select_constraints(ranking, SelectionRequest(), model=measured)
    points = measure_curve(ranking, model=measured)

    assert "so all of them chose" in selection.decision.sentence
    assert len(runs) == len(set(runs)) > len(samples) * len(points)
    assert sum(kept is None for _, kept in runs) == len(samples)


def test_what_is_remembered_is_what_is_measured_anew(refuted):
    ranking, model, samples = refuted
    measured = measured_model(ranking, model, samples)
    select_constraints(ranking, SelectionRequest(), model=measured)

    fresh = measured_model(ranking, model, samples)

    for size in range(len(ranking.layers) + 1):
        kept = np.arange(len(ranking.layers)) < size
        assert measured.on_all().outcome(kept) == fresh.on_all().outcome(kept)
        assert measured.held_out().outcome(kept) == fresh.held_out().outcome(kept)
    assert measure_curve(ranking, model=measured) == measure_curve(ranking, model=fresh)


def test_a_metric_of_each_part_is_not_taken_for_that_of_all(refuted):
    ranking, model, samples = refuted
    counts = []

    def count(outputs, _):
        counts.append(len(list(outputs)))
        return 1.0

    judges = [MetricJudge(count, "count", 0.0)]
    measured = measured_model(ranking, model, samples, judges=judges)
    kept = np.ones(len(ranking.layers), bool)

    for sets in (measured.to_choose_by(), measured.held_out(), measured.on_all()):
        assert sets.outcome(kept).passed

    assert sorted(set(counts)) == [2, 6, 8]
    assert measured.on_all().error(kept) == 0.0
