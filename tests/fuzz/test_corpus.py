"""Files on which a reader failed once, and a few that are changed at random."""

from __future__ import annotations

import traceback
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.targets import TARGETS, prepare

pytestmark = pytest.mark.onnxrt

CORPUS = Path(__file__).parent / "corpus"
KEPT = [path for path in sorted(CORPUS.rglob("*")) if path.is_file()]
LARGEST_BYTES = 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with the valid files that readers are given beside the one in question."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        prepare()
    return folder


def failure_on(target, path) -> str:
    """Returns the traceback of what no reader should raise; empty if it reads or refuses a file."""
    try:
        target.read(path)
    except Exception:  # noqa: BLE001 - this is what is looked for
        return traceback.format_exc()
    return ""


@pytest.mark.parametrize("path", KEPT, ids=lambda path: str(path.relative_to(CORPUS)))
def test_no_reader_fails_on_a_file_that_was_kept(folder, monkeypatch, path):
    monkeypatch.chdir(folder)
    target = TARGETS[path.parent.name]
    name = f"kept{target.suffix}"
    Path(name).write_bytes(path.read_bytes())

    assert not failure_on(target, name)


@pytest.mark.parametrize("name", TARGETS)
def test_valid_files_and_changed_ones_are_read_or_refused(folder, monkeypatch, name):
    monkeypatch.chdir(folder)
    target = TARGETS[name]
    path = Path(f"changed{target.suffix}")
    for seed, content in enumerate(target.seeds()):
        for changed in (content, target.mutate(content, Random(seed))):
            path.write_bytes(changed)

            assert not failure_on(target, str(path))


def test_the_corpus_is_small_and_belongs_to_readers():
    assert {path.parent.name for path in KEPT} <= {*TARGETS}
    assert sum(path.stat().st_size for path in KEPT) < LARGEST_BYTES * len(TARGETS)
