from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from polygraphy_layerprec.backend.engines.store import digest_of, open_store
from polygraphy_layerprec.execution import ExecutionError

IDENTITY = {"model": "ab", "marked": ["x", "\n/../y"]}


def never() -> bytes:
    raise AssertionError("nothing is to be done again")


def files_in(folder) -> list[str]:
    return sorted(os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)


def test_an_engine_is_built_once(tmp_path):
    with open_store(str(tmp_path)) as store:
        assert store.engine(IDENTITY, lambda: b"plan") == b"plan"
    with open_store(str(tmp_path)) as store:
        assert store.engine(IDENTITY, never) == b"plan"


def test_another_identity_is_another_engine(tmp_path):
    with open_store(str(tmp_path)) as store:
        store.engine(IDENTITY, lambda: b"plan")

        assert store.engine({**IDENTITY, "marked": []}, lambda: b"other") == b"other"


def test_an_engine_that_was_damaged_is_built_again(tmp_path):
    with open_store(str(tmp_path)) as store:
        store.engine(IDENTITY, lambda: b"plan")
        path = next((tmp_path / "engines").glob("*.engine"))
        path.write_bytes(b"plam")

        assert store.engine(IDENTITY, lambda: b"plan again") == b"plan again"


def test_an_engine_whose_note_is_missing_is_not_taken_for_complete(tmp_path):
    with open_store(str(tmp_path)) as store:
        store.engine(IDENTITY, lambda: b"plan")
        next((tmp_path / "engines").glob("*.json")).unlink()

        assert store.engine(IDENTITY, lambda: b"again") == b"again"


def test_a_result_is_measured_once_and_the_same_ever_after(tmp_path):
    result = {"values": [0.1, 1e-300, 3]}
    with open_store(str(tmp_path)) as store:
        first = store.result(IDENTITY, lambda: result)
    with open_store(str(tmp_path)) as store:
        second = store.result(IDENTITY, never)

    assert first == second == result


def test_a_result_that_was_damaged_is_measured_again(tmp_path):
    with open_store(str(tmp_path)) as store:
        store.result(IDENTITY, lambda: 1)
        path = next((tmp_path / "results").glob("*.json"))
        path.write_text(path.read_text()[:-10])

        assert store.result(IDENTITY, lambda: 2) == 2


def test_nothing_of_a_failed_measurement_is_kept(tmp_path):
    with open_store(str(tmp_path)) as store, pytest.raises(AssertionError):
        store.result(IDENTITY, never)

    assert [os.path.basename(path) for path in files_in(tmp_path)] == ["lock"]


def test_names_of_the_model_get_into_no_path(tmp_path):
    with open_store(str(tmp_path)) as store:
        store.engine(IDENTITY, lambda: b"plan")
        store.save_outputs(digest_of(IDENTITY), 0, {"../y": np.zeros(1)})

    names = {os.path.basename(path).split(".")[0].split("_")[0] for path in files_in(tmp_path)}
    assert names == {"lock", digest_of(IDENTITY)}


def test_an_engine_tells_what_it_is(tmp_path):
    with open_store(str(tmp_path)) as store:
        store.engine(IDENTITY, lambda: b"plan")

    note = json.loads(next((tmp_path / "engines").glob("*.json")).read_text())
    assert note["identity"] == IDENTITY


def test_outputs_come_back_as_they_were(tmp_path):
    outputs = {
        "file": np.float32([[1, np.nan], [np.inf, -0.0]]),
        "": np.int64([2**62]),
        "a/b\n'": np.float16(3),
    }
    with open_store(str(tmp_path)) as store:
        store.save_outputs("ab", 7, outputs)
        found = store.load_outputs("ab", 7)

    assert list(found) == list(outputs)
    for name, values in outputs.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def test_outputs_that_went_away_are_an_error_that_says_what_to_do(tmp_path):
    with open_store(str(tmp_path)) as store, pytest.raises(ExecutionError, match="--work-dir"):
        store.load_outputs("ab", 0)


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines" / ".abc.partial").write_bytes(b"half")
    (tmp_path / ".cache.partial").write_bytes(b"half of a timing cache")
    (tmp_path / "engines" / "abc.engine").write_bytes(b"whole")

    with open_store(str(tmp_path)):
        left = [path.name for path in (tmp_path / "engines").iterdir()]

    assert left == ["abc.engine"]
    assert not (tmp_path / ".cache.partial").exists()


@pytest.mark.parametrize("kind", ["engines", "results", "outputs"])
def test_what_cannot_be_kept_is_an_error_that_says_what_to_do(tmp_path, kind):
    keep = {
        "engines": lambda store: store.engine(IDENTITY, lambda: b"plan"),
        "results": lambda store: store.result(IDENTITY, lambda: 1),
        "outputs": lambda store: store.save_outputs("ab", 0, {"y": np.ones(1)}),
    }
    with open_store(str(tmp_path)) as store:
        (tmp_path / kind).rmdir()

        with pytest.raises(ExecutionError, match="--work-dir") as caught:
            keep[kind](store)

    assert str(tmp_path) in str(caught.value)


def test_two_processes_do_not_share_a_folder(tmp_path):
    code = (
        "import sys\n"
        "from polygraphy_layerprec.backend.engines.store import open_store\n"
        "with open_store(sys.argv[1]): print('open', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(ExecutionError, match="Another process"), open_store(str(tmp_path)):
            pass
        other.kill()
    with open_store(str(tmp_path)) as store:  # a lock dies with its process
        assert store.keeps_engines


def test_a_folder_that_cannot_be_made_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")

    with (
        pytest.raises(ExecutionError, match="--work-dir"),
        open_store(str(tmp_path / "file" / "below")),
    ):
        pass


def test_without_a_folder_nothing_is_left():
    with open_store(None) as store:
        folder = store.folder
        store.engine(IDENTITY, lambda: b"plan")
        store.result(IDENTITY, lambda: 1)
        sizes = [os.path.getsize(path) for path in files_in(folder)]

        assert sizes  # the result, but no engine, which would fill the disk
        assert not any(path.endswith(".engine") for path in files_in(folder))

    assert not os.path.exists(folder)


def test_a_work_folder_is_named_after_a_failure(tmp_path):
    with (
        pytest.raises(ExecutionError, match=r"^a reason\nWhat was finished is kept in") as caught,
        open_store(str(tmp_path)),
    ):
        raise ExecutionError("a reason")

    assert repr(str(tmp_path)) in str(caught.value)
    with pytest.raises(ExecutionError, match=r"^a reason$"), open_store(None):
        raise ExecutionError("a reason")


@pytest.mark.parametrize("position", range(0, 420, 7))
@pytest.mark.parametrize("damage", ["cut", "flip", "clear"])
def test_outputs_that_were_damaged_are_refused_or_read(tmp_path, damage, position):
    with open_store(str(tmp_path)) as store:
        store.save_outputs("ab", 0, {"y": np.ones(3, np.float32)})
        (path,) = (tmp_path / "outputs").iterdir()
        content = bytearray(path.read_bytes())
        if damage == "cut":
            del content[position:]
        else:
            content[position] = content[position] ^ 0xFF if damage == "flip" else 0
        path.write_bytes(content)

        with contextlib.suppress(ExecutionError):  # no other error; or nobody could tell
            assert all(isinstance(y, np.ndarray) for y in store.load_outputs("ab", 0).values())
