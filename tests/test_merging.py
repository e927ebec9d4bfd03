"""What samples say merges: however they are split, the ranking is the same."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np
import pytest

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.execution.kernels.sessions import session_threads, threads_per_session
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.observing import Observer, RankRequest
from tests.models import small_transformer
from tests.split_cases import CASES, assert_equal_rankings, many_samples

SPLITS = {
    "one by one": lambda indices: [[index] for index in indices],
    "backwards": lambda indices: [[index] for index in reversed(indices)],
    "strides": lambda indices: [indices[first::3] for first in range(3)],
    "uneven": lambda indices: [indices[:1], indices[1:]],
}


def ranked_in_parts(model, samples, parts, **options):
    run = Observer(load_graph(model), RankRequest(**options))
    merged = run.comparer().nothing()
    for part in parts:
        # A process of its own has sessions, and a comparer, of its own.
        other = Observer(load_graph(model), RankRequest(**options))
        if part:
            observed = other.observe([(index, samples[index]) for index in part])
            merged.merge(observed.comparison)
    return run.observed(merged).ranking()


@pytest.mark.parametrize("impact", ["adjoint", "gain"])
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("case", CASES)
def test_any_split_gives_the_same_ranking(case, split, impact):
    model, samples = CASES[case]()
    parts = SPLITS[split](list(range(len(samples))))

    ranking = ranked_in_parts(model, samples, parts, impact=impact)

    assert_equal_rankings(ranking, rank_model(model, samples, impact=impact))


def test_the_samples_of_a_part_keep_their_own_probes():
    model = small_transformer()
    samples = many_samples(model, 2)
    run = Observer(load_graph(model), RankRequest())

    first, second = (
        run.observe([(index, samples[0])]).comparison.observations.sample_powers for index in (0, 1)
    )

    assert first != second
    assert first == run.observe([(0, samples[0])]).comparison.observations.sample_powers


def test_the_first_reason_to_fail_is_told_whichever_comes_last():
    model = small_transformer()
    run = Observer(load_graph(model), RankRequest())
    early, late = run.comparer().nothing(), run.comparer().nothing()
    early.first_failures = {3: (1, "early")}
    late.first_failures = {3: (7, "late"), 4: (7, "other")}

    late.merge(early)

    assert late.failures == {3: "early", 4: "other"}


def test_what_any_part_saw_is_known_of_the_whole():
    run = Observer(load_graph(small_transformer()), RankRequest())
    first, second = run.comparer().nothing(), run.comparer().nothing()
    kinds = ("flips", "ran", "nonfinite_from", "lowered_already")
    for kind in kinds:
        setattr(first, kind, {1, 2})
        setattr(second, kind, {2, 3})

    first.merge(second)

    assert [getattr(first, kind) for kind in kinds] == [{1, 2, 3}] * len(kinds)


def test_of_many_samples_with_lost_outputs_the_first_are_kept():
    run = Observer(load_graph(small_transformer()), RankRequest())
    merged = run.comparer().nothing()
    for index in reversed(range(20)):
        part = run.comparer().nothing()
        part.lost_samples = {index: {"x": np.zeros(1)}}
        merged.merge(part)

    assert list(merged.lost_samples) == list(range(8))


def test_progress_counts_all_samples_where_their_number_is_known():
    model = small_transformer()
    samples, told = many_samples(model, 3), []

    rank_model(
        model,
        samples,
        sample_count=3,
        progress=lambda done, total, what: told.append((done, total, what)),
    )

    assert {total for _, total, _ in told} == {3 * len(load_graph(model).nodes)}
    assert all(before[0] < after[0] for before, after in pairwise(told))
    assert told[-1][0] == told[-1][1]


def test_the_number_of_threads_is_chosen_and_recorded():
    model = small_transformer()
    samples = many_samples(model, 1)

    assert rank_model(model, samples, threads=3).conditions.threads == 3
    assert rank_model(model, samples).conditions.threads == min(len(os.sched_getaffinity(0)), 16)


def test_threads_are_those_of_the_innermost_block():
    outside = session_threads()

    with threads_per_session(5), threads_per_session(None):
        assert session_threads() == 5

    assert session_threads() == outside


def test_nothing_to_measure_is_an_error():
    with pytest.raises(ExecutionError, match="no input sample"):
        Observer(load_graph(small_transformer()), RankRequest()).observe([])
