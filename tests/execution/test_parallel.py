"""Pieces of work side by side."""

from __future__ import annotations

import threading

import pytest

from polygraphy_layerprec.execution.kernels.sessions import session_threads, threads_per_session
from polygraphy_layerprec.execution.parallel import run_side_by_side


@pytest.mark.parametrize(
    ("threads", "pieces", "share"), [(1, 4, 1), (2, 4, 1), (4, 4, 1), (16, 4, 4), (8, 1, 8)]
)
def test_each_piece_has_its_share_of_the_threads(threads: int, pieces: int, share: int):
    shares = [0] * pieces

    def work(place: int) -> None:
        shares[place] = session_threads()

    with threads_per_session(threads):
        run_side_by_side([lambda n=n: work(n) for n in range(pieces)])
    assert shares == [share] * pieces


def test_as_many_run_at_a_time_as_there_are_threads():
    together, arrived, threads = threading.Barrier(2, timeout=60), [], set()

    def work() -> None:
        arrived.append(together.wait())
        threads.add(threading.get_ident())

    with threads_per_session(2):
        run_side_by_side([work] * 4)
    assert (sorted(arrived), len(threads)) == ([0, 0, 1, 1], 2)


def test_what_fails_is_raised_once_all_have_ended():
    ended = []

    def fail() -> None:
        raise OSError("no space")

    for works in ([fail, lambda: ended.append(1)], [lambda: ended.append(1), fail]):
        with threads_per_session(2), pytest.raises(OSError, match="no space"):
            run_side_by_side(works)
    assert ended == [1, 1]
