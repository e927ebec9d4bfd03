"""Sets of layers that share a beginning run it once, and give the same bits."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
import pytest

from polygraphy_layerprec.execution.comparison.set_measurement import SetMeasurement
from polygraphy_layerprec.execution.comparison.set_runs import MOST_CHECKPOINT_BYTES, SetRuns
from polygraphy_layerprec.execution.emulation.checkpoints import Checkpoint, Checkpoints
from polygraphy_layerprec.execution.kernels.node_session import NodeRunner, tensor_of
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.plan import KeptLayers, Planner, Target
from polygraphy_layerprec.precision import FP16
from tests.models import build_model, node, normal, tensor
from tests.planned_runs import run_lowered
from tests.random_graphs import random_model, random_sample

LENGTH = 40


class Held(NamedTuple):
    tensor: ort.OrtValue


@pytest.fixture
def graph():
    nodes = [node("Sin", [f"t{i}"], f"t{i + 1}", name=f"sin{i}") for i in range(LENGTH)]
    return load_graph(build_model(nodes, [tensor("t0", [8])], [tensor(f"t{LENGTH}", [8])]))


def measurement(graph, sample):
    return SetMeasurement(graph, [sample], precision=FP16, outputs=graph.outputs)


def runs_of(monkeypatch):
    runs = []
    plain = NodeRunner.run

    def counted(self, made, feeds):
        runs.append(made.name)
        return plain(self, made, feeds)

    monkeypatch.setattr(NodeRunner, "run", counted)
    return runs


def test_a_set_runs_from_the_first_node_that_differs(graph, monkeypatch):
    measured = measurement(graph, {"t0": normal(0, 8)})
    measured.divergence(KeptLayers())
    runs = runs_of(monkeypatch)

    measured.divergence(KeptLayers.of_outputs([f"t{LENGTH - 1}"]))

    assert 2 <= len(runs) <= LENGTH // 12 + 4
    assert runs[-1] == f"sin{LENGTH - 1}"


def test_a_set_that_differs_at_once_runs_whole(graph, monkeypatch):
    measured = measurement(graph, {"t0": normal(0, 8)})
    measured.divergence(KeptLayers())
    runs = runs_of(monkeypatch)

    measured.divergence(KeptLayers.of_outputs(["t1"]))

    assert len(runs) == LENGTH


def test_two_beginnings_are_remembered(graph, monkeypatch):
    measured = measurement(graph, {"t0": normal(0, 8)})
    for kept in (["t1"], ["t2"]):
        measured.divergence(KeptLayers.of_outputs(kept))
    runs = runs_of(monkeypatch)

    for kept in (["t1", f"t{LENGTH}"], ["t2", f"t{LENGTH}"]):
        measured.divergence(KeptLayers.of_outputs(kept))

    assert len(runs) < LENGTH // 3


def test_what_runs_on_exact_inputs_does_not_go_on_from_other_runs(graph, monkeypatch):
    measured = measurement(graph, {"t0": normal(0, 8)})
    measured.divergence(KeptLayers())
    runs = runs_of(monkeypatch)

    measured.divergence(KeptLayers(), exact_inputs=True)

    assert len(runs) == LENGTH


@pytest.mark.parametrize("seed", range(20))
def test_every_set_has_the_bits_of_a_run_from_the_start(seed):
    graph, sample = load_graph(random_model(seed)), random_sample(seed)
    runs, rng = SetRuns.of(graph, FP16, Target.STRONG), random.Random(seed)
    remembered = runs.remember(sample, most_bytes=MOST_CHECKPOINT_BYTES)
    for _ in range(6):
        kept = rng.sample(graph.layers, rng.randrange(len(graph.layers) + 1))
        names = KeptLayers.of_nodes(kept)

        candidate = runs.candidate(remembered, runs.plan(names))

        fresh = run_lowered(graph, sample, names.outputs)
        assert all(np.array_equal(candidate[name], fresh[name]) for name in fresh)


def test_nothing_is_kept_beyond_the_memory_there_is(graph):
    plan = Planner(graph, FP16).plan()
    small, large = (Checkpoints(LENGTH, most_bytes=size) for size in (63, 64))
    for checkpoints in (small, large):
        due = next(i for i in range(LENGTH) if checkpoints.is_due(i, after=0))
        checkpoints.keep(
            Checkpoint(
                due, plan, exact_inputs=False, held={"t": Held(tensor_of(np.zeros(8, np.float32)))}
            )
        )

    assert small.latest(plan, exact_inputs=False) is None
    assert large.latest(plan, exact_inputs=False) is not None
