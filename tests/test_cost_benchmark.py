"""The parts of the benchmark of costs: profile, later samples, choices, goals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks import cost_tasks
from benchmarks.cost_goals import Figures, goal_table
from benchmarks.isolated import Measurement
from benchmarks.ranking_profile import PHASES, profile
from benchmarks.transformer import EncoderShape, encoder_inputs, write_encoder
from polygraphy_layerprec.execution.kernels.node_session import NodeRunner
from polygraphy_layerprec.execution.kernels.sessions import threads_per_session

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.onnxrt

TINY = EncoderShape(2, 32, 4, 64, 100, seq=8, batch=2)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("cost") / "encoder.onnx"
    write_encoder(path, TINY, external=False)
    sample = encoder_inputs(TINY, 0)
    np.savez(f"{path}.0.npz", **sample)
    return path


@pytest.mark.parametrize("threads", [2, 8])
def test_a_profile_has_time_for_what_every_ranking_does(encoder: Path, threads: int):
    run = NodeRunner.run
    with threads_per_session(threads):
        phases = profile(encoder, 1)
    assert phases.keys() == {label for _, _, label in PHASES}
    for label in ("running nodes", "sums of outputs", "sweep, rules", "sweep, weighing errors"):
        assert sum(phases[label]) > 0
    # On few cores they are made by the main thread.
    assert (phases["sums of outputs"][0] == 0) is (threads > 4)
    assert NodeRunner.run is run


def test_later_samples_are_timed_apart_from_the_first(encoder: Path):
    found = cost_tasks.rank_again(str(encoder), f"{encoder}.0.npz", 3)
    assert found.keys() == {"first_seconds", "later_seconds"}
    assert min(found.values()) > 0


def test_a_choice_counts_the_sets_that_it_measures(encoder: Path):
    found = cost_tasks.choose(str(encoder), f"{encoder}.0.npz")
    assert found["seconds"] > 0
    assert found["sets"] >= 1


@pytest.mark.parametrize(("cores", "goal"), [(2, "≤ 10 | 14.00 | no"), (16, "≤ 15 | 14.00 | yes")])
def test_many_cores_have_goals_of_their_own(cores: int, goal: str):
    ranking = Measurement(seconds=1.4, peak_bytes=10, result={})
    figures = Figures(
        name="bert-base",
        title="BERT",
        size_bytes=100,
        layers=3,
        forward_seconds=0.1,
        gain=ranking,
        adjoint=ranking,
        graph_seconds=0.1,
        marked=None,
        many_samples=None,
        first_seconds=1.0,
        later_seconds=0.5,
        choice_seconds=0.6,
        sets=4,
    )
    table = goal_table([figures], cores=cores)
    assert f"| BERT | forwards, adjoint | {goal} |" in table
    assert "| BERT | later sample / first | ≤ 0.6 | 0.50 | yes |" in table
    assert "| BERT | forwards of a measured set | ≤ 1.5 | 1.50 | yes |" in table
