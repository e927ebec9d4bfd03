"""The work folder: every finished build and comparison, so that a second run goes on from there.

Names of files are digests of what decides their content, so that nothing of the model gets into a
path, and nothing that was made in another way is taken for what is asked.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.files.atomic_file import write_file
from polygraphy_layerprec.files.npz_file import NpzFile

if TYPE_CHECKING:
    from polygraphy_layerprec.backend.engines.specs import Sample

try:
    import fcntl
except ImportError:  # not on Windows, where two runs in one folder are the user's care
    fcntl = None  # type: ignore[assignment]

__all__ = ["EngineStore", "digest_of", "open_store"]

_FOLDERS: Final = ("engines", "results", "outputs")


@contextmanager
def open_store(folder: str | None) -> Iterator[EngineStore]:
    """Gives the store in `folder`, which is made if need be; without one, in a temporary folder.

    Raises:
        ExecutionError: If the folder cannot be used, or another process uses it. One that is raised
            meanwhile says in the end that what was finished is kept.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="layerprec_") as temporary:
            yield EngineStore(temporary, keeps_engines=False)
        return
    try:
        os.makedirs(folder, exist_ok=True)
        lock = open(os.path.join(folder, "lock"), "ab")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ExecutionError(
            f"Cannot use the work folder {folder!r}: {error.strerror}.\n"
            f"Give another one with `--work-dir`."
        ) from error
    with lock:
        _lock(lock.fileno(), folder)
        try:
            yield EngineStore(folder, keeps_engines=True)
        except ExecutionError as error:
            kept = f"What was finished is kept in {folder!r}: the same command goes on from there."
            raise ExecutionError(f"{error}\n{kept}") from error


def digest_of(value: Any) -> str:
    """Returns the SHA-256 of JSON values, in hex."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class EngineStore:
    """Engines, results and outputs by what decides them. Each is there completely or not at all."""

    def __init__(self, folder: str, *, keeps_engines: bool) -> None:
        """Prepares the folder, and removes what a run that was killed left half-written.

        Args:
            folder: Where everything is; must exist.
            keeps_engines: Whether engines are kept once they were built.
        """
        self.folder = folder
        self.keeps_engines = keeps_engines
        for name in ("", *_FOLDERS):  # the timing cache is in the folder itself
            os.makedirs(os.path.join(folder, name), exist_ok=True)
            for stale in glob.glob(os.path.join(glob.escape(folder), name, ".*.partial")):
                os.unlink(stale)

    @property
    def timing_cache_path(self) -> str:
        """The tactic timing cache of all builds."""
        return os.path.join(self.folder, "timing.cache")

    def engine(self, identity: Mapping[str, Any], build: Callable[[], bytes]) -> bytes:
        """Returns the engine of `identity`, built if it is not there yet."""
        key = digest_of(identity)
        path, note = self._path("engines", f"{key}.engine"), self._path("engines", f"{key}.json")
        kept = _read(path)
        record = _read_json(note)
        # The note comes last, so that an engine without one is not taken for complete.
        if kept is not None and record.get("sha256") == hashlib.sha256(kept).hexdigest():
            return kept
        plan = build()
        if self.keeps_engines:
            sha256 = hashlib.sha256(plan).hexdigest()
            self._keep(path, lambda file: file.write(plan))
            self._keep_text(note, {"sha256": sha256, "identity": identity})
        return plan

    def result(self, identity: Mapping[str, Any], measure: Callable[[], Any]) -> Any:
        """Returns the JSON values that `measure` gave for `identity`, now or in an earlier run."""
        path = self._path("results", f"{digest_of(identity)}.json")
        record = _read_json(path)
        if "result" in record:
            return record["result"]
        result = measure()
        self._keep_text(path, {"identity": identity, "result": result})
        # As read from the file, so that a run that goes on sees the same as one that began anew.
        return _read_json(path)["result"]

    def save_outputs(self, key: str, index: int, outputs: Sample) -> None:
        """Keeps the outputs of one sample; `key` is a digest."""
        names = list(outputs)
        arrays: dict[str, Any] = {f"array{i}": outputs[name] for i, name in enumerate(names)}
        path = self._outputs_path(key, index)
        self._keep(path, lambda file: np.savez(file, names=np.array(json.dumps(names)), **arrays))

    def load_outputs(self, key: str, index: int) -> dict[str, np.ndarray[Any, Any]]:
        """Returns the outputs that were kept of one sample.

        Raises:
            ExecutionError: If the file went away.
        """
        path = self._outputs_path(key, index)
        try:
            arrays = NpzFile(path)
            names = json.loads(str(np.asarray(arrays["names"])))
            return {name: np.asarray(arrays[f"array{i}"]) for i, name in enumerate(names)}
        except (OSError, ValueError, KeyError, RecursionError) as error:
            raise ExecutionError(
                f"The work folder {self.folder!r} is damaged: {path!r} cannot be read.\n"
                f"Remove the folder, or give another one with `--work-dir`."
            ) from error

    def _keep_text(self, path: str, value: Any) -> None:
        text = json.dumps(value, indent=1, allow_nan=False) + "\n"
        self._keep(path, lambda file: file.write(text.encode()))

    def _keep(self, path: str, write: Callable[[BinaryIO], object]) -> None:
        try:
            write_file(path, write)
        except (OSError, ValueError) as error:
            raise ExecutionError(
                f"Cannot keep what was finished in {self.folder!r}: {error}\n"
                f"Make room there, or give another folder with `--work-dir`; for a temporary one, "
                f"set TMPDIR in the environment."
            ) from error

    def _outputs_path(self, key: str, index: int) -> str:
        return self._path("outputs", f"{key}_{index:06}.npz")

    def _path(self, kind: str, name: str) -> str:
        return os.path.join(self.folder, kind, name)


def _lock(descriptor: int, folder: str) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ExecutionError(
            f"Another process is at work in {folder!r}.\n"
            f"Wait for it, or give another folder with `--work-dir`."
        ) from error


def _read(path: str) -> bytes | None:
    with suppress(FileNotFoundError), open(path, "rb") as file:
        return file.read()
    return None


def _read_json(path: str) -> dict[str, Any]:
    """Returns an object, empty where there is no file or it is damaged."""
    content = _read(path)
    try:
        record = json.loads(content) if content is not None else {}
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
