"""Arrays kept in memory up to a budget, on disk beyond it."""

from __future__ import annotations

import os
import tempfile

import numpy as np
import pytest

from polygraphy_layerprec.divergence.activation_store import (
    ActivationStore,
    SpillError,
    half_of_free_memory,
)


def arrays():
    return {
        "scalar": np.array(2.5, np.float32),
        "empty": np.empty((0, 3), np.float32),
        "plain": np.arange(12, dtype=np.float64).reshape(3, 4),
        "turned": np.arange(12, dtype=np.int64).reshape(3, 4).T,
        "bool": np.array([True, False]),
    }


@pytest.mark.parametrize("budget", [None, 0, 100, 10_000])
def test_what_was_put_comes_back_bit_by_bit(budget):
    store = ActivationStore(budget)
    for key, values in arrays().items():
        store.put(key, values)
    for key, values in arrays().items():
        assert key in store
        found = store.get(key)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values, strict=True)
    store.close()


def test_the_budget_holds_and_the_oldest_go_first():
    store = ActivationStore(1000)
    for index in range(5):
        store.put(str(index), np.full(100, index, np.float32))
    assert store.resident_bytes == 800
    assert store.spilled_count == 3
    newest = store.get("4")
    assert store.get("4") is newest
    assert store.get("0") is not store.get("0")
    store.close()


def test_without_a_budget_nothing_leaves_memory():
    store = ActivationStore()
    store.put("a", np.zeros(1 << 16))
    assert (store.spilled_count, store.resident_bytes) == (0, 8 << 16)


def test_a_key_that_is_kept_is_not_put_again():
    store = ActivationStore(0)
    store.put("a", np.zeros(2))
    store.put("a", np.ones(2))
    assert store.get("a").tolist() == [0.0, 0.0]
    store.close()


def test_what_was_never_kept_is_an_error():
    with pytest.raises(KeyError):
        ActivationStore().get("a")


@pytest.mark.parametrize("budget", [None, 0])
def test_a_closed_store_is_empty_and_can_be_used_again(budget):
    store = ActivationStore(budget)
    store.put("a", np.zeros(2))
    store.close()
    assert "a" not in store
    assert store.resident_bytes == 0
    store.put("a", np.ones(2))
    assert store.get("a").tolist() == [1.0, 1.0]
    store.close()


@pytest.mark.parametrize("budget", [None, 0])
def test_what_is_dropped_is_gone_and_the_rest_stays(budget):
    store = ActivationStore(budget)
    assert store.put("a", np.zeros(2))
    assert store.put("b", np.arange(3))
    assert not store.put("b", np.arange(3))

    store.drop("a")

    assert "a" not in store
    assert store.get("b").tolist() == [0, 1, 2]
    assert store.resident_bytes == (24 if budget is None else 0)
    assert store.put("a", np.ones(2))
    store.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
@pytest.mark.parametrize("size", [10, 10_000_000])
def test_a_full_disk_names_the_folder_and_what_can_be_done(monkeypatch, size):
    full = open("/dev/full", "w+b")  # noqa: SIM115 - the store closes it
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
    store = ActivationStore(0)

    with pytest.raises(SpillError, match=r"(?s)No space left on device.*TMPDIR.*--max-memory") as e:
        store.put("x", np.zeros(size, np.uint8))

    assert tempfile.gettempdir() in str(e.value)
    assert "x" not in store
    store.close()


def test_no_folder_to_write_to_is_told_likewise(monkeypatch):
    def find_none():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/nowhere']")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", find_none)

    with pytest.raises(SpillError, match=r"(?s)a temporary folder: No usable.*'/nowhere'.*TMPDIR"):
        ActivationStore(0).put("x", np.zeros(1))


def test_half_of_what_is_free_is_there_to_be_used(monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_AVPHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)

    assert half_of_free_memory() == 500 * 4096


@pytest.mark.parametrize("kind", [AttributeError, ValueError, OSError])
def test_where_nobody_knows_what_is_free_there_is_no_figure(kind, monkeypatch):
    def refuse(_):
        raise kind

    monkeypatch.setattr(os, "sysconf", refuse)

    assert half_of_free_memory() is None
