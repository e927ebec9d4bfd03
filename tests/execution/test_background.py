"""Work on a thread beside the one that hands it over."""

from __future__ import annotations

import contextvars
import threading

import numpy as np
import pytest

from polygraphy_layerprec.execution.background import Background, background_for_host
from polygraphy_layerprec.execution.kernels.sessions import threads_per_session


def test_work_is_done_in_order_on_one_other_thread():
    done: list[tuple[int, int]] = []
    with Background() as background:
        for number in range(200):
            background.put(lambda n=number: done.append((n, threading.get_ident())))
    numbers, threads = zip(*done, strict=True)
    assert numbers == tuple(range(200))
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads


def test_whoever_hands_over_goes_on_meanwhile():
    may_end = threading.Event()
    done = []
    with Background() as background:
        background.put(may_end.wait)
        background.put(lambda: done.append("later"))
        assert not done
        may_end.set()
        background.catch_up()
        assert done == ["later"]


def test_large_arrays_are_waited_for_while_others_are_not_done():
    may_end = threading.Event()
    with Background() as background:
        background.put(may_end.wait, 3 << 20)
        background.put(lambda: None)
        handed_over = threading.Event()

        def hand_over_more() -> None:
            background.put(lambda: None, 3 << 20)
            handed_over.set()

        other = threading.Thread(target=hand_over_more)
        other.start()
        assert not handed_over.wait(0.05)
        may_end.set()
        assert handed_over.wait(60)
        other.join()


@pytest.mark.parametrize("waits_by", ["leaving", "catch_up", "put"])
def test_what_work_raises_is_raised_where_it_is_waited_for(waits_by: str):
    def fail() -> None:
        raise OSError("the disk is full")

    done = []
    failed = threading.Event()
    with pytest.raises(OSError, match="the disk is full"), Background() as background:  # noqa: PT012
        background.put(failed.wait)
        background.put(fail)
        background.put(lambda: done.append("after the error"))
        failed.set()
        if waits_by == "catch_up":
            background.catch_up()
        while waits_by == "put":
            background.put(lambda: None)
    assert not done


def test_after_an_error_in_the_block_what_waits_is_dropped():
    may_end, started = threading.Event(), threading.Event()
    done = []

    def begin() -> None:
        started.set()
        may_end.wait()
        done.append("begun")

    with pytest.raises(KeyboardInterrupt), Background() as background:  # noqa: PT012
        background.put(begin)
        background.put(lambda: done.append("waiting"))
        started.wait()
        threading.Timer(0.05, may_end.set).start()
        raise KeyboardInterrupt
    assert done == ["begun"]


def test_what_was_chosen_around_the_block_holds_for_the_work():
    chosen = contextvars.ContextVar("chosen", default="nothing")
    seen = []
    chosen.set("threads")
    with Background() as background, np.errstate(over="raise"):
        background.put(lambda: seen.append(chosen.get()))
    assert seen == ["threads"]


@pytest.mark.parametrize(("threads", "is_beside"), [(1, False), (2, False), (4, False), (8, True)])
def test_on_few_cores_nothing_works_beside_the_kernels(threads, is_beside):
    caller = threading.get_ident()
    done = []

    with threads_per_session(threads), background_for_host() as background:
        background.put(lambda: done.append(threading.get_ident()))

    assert (done[0] != caller) is is_beside
