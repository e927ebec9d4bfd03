"""Reference activations between the forward and the backward sweep, within a memory budget."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.arrays import library_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.arrays import ArrayLibrary

__all__ = ["ActivationStore", "SpillError", "half_of_free_memory"]


def half_of_free_memory() -> int | None:
    """Returns half of the memory that is free, in bytes; None where nobody knows."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # not on every platform
        return None


class SpillError(OSError):
    """Activations beyond the budget cannot be kept on disk; the text says where and what to do."""


@dataclass(frozen=True, slots=True)
class _Spilled:
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class ActivationStore:
    """Keeps arrays by key; beyond the budget, the oldest go to a temporary file.

    Those of a device go to the host first, and to the file beyond half of what is free there.

    The backward sweep asks for the newest first, so the oldest are missed last.
    """

    def __init__(self, budget_bytes: int | None = None) -> None:
        self._budget_bytes = budget_bytes
        self._resident: OrderedDict[str, npt.NDArray[Any]] = OrderedDict()
        self._resident_bytes = 0
        self._spilled: dict[str, _Spilled] = {}
        self._file: IO[bytes] | None = None
        self._reading = threading.Lock()  # sweeps side by side read from one file
        self._moved: dict[str, ArrayLibrary] = {}
        self._host_store: ActivationStore | None = None

    @property
    def resident_bytes(self) -> int:
        """Memory that the kept arrays take."""
        return self._resident_bytes

    @property
    def spilled_count(self) -> int:
        """Arrays that are on disk."""
        return len(self._spilled)

    def __contains__(self, key: str) -> bool:
        """Whether an array is kept under `key`."""
        return key in self._resident or key in self._spilled or key in self._moved

    def put(self, key: str, values: npt.NDArray[Any]) -> bool:
        """Keeps `values`, which must not change any more, unless `key` is kept already.

        Returns:
            Whether they are kept from now on.

        Raises:
            SpillError: If what is beyond the budget cannot be kept on disk.
        """
        if key in self:
            return False
        self._resident[key] = values
        self._resident_bytes += values.nbytes
        while (
            self._budget_bytes is not None
            and self._resident_bytes > self._budget_bytes
            and self._resident
        ):
            self._spill()
        return True

    def get(self, key: str) -> npt.NDArray[Any]:
        """Returns the array kept under `key`.

        Raises:
            KeyError: If there is none.
        """
        if key in self._resident:
            return self._resident[key]
        if key in self._moved and self._host_store is not None:
            there: npt.NDArray[Any] = self._moved[key].namespace.asarray(self._host_store.get(key))
            return there
        entry = self._spilled[key]
        assert self._file is not None
        values = np.empty(entry.shape, entry.dtype)
        with self._reading:
            self._file.seek(entry.offset)
            self._file.readinto(memoryview(values.reshape(-1).view(np.uint8)))  # type: ignore[attr-defined]
        return values

    def drop(self, key: str) -> None:
        """Forgets the array kept under `key`; the file keeps its length until it is closed."""
        values = self._resident.pop(key, None)
        if self._moved.pop(key, None) is not None and self._host_store is not None:
            self._host_store.drop(key)
        elif values is None:
            del self._spilled[key]
        else:
            self._resident_bytes -= values.nbytes

    def close(self) -> None:
        """Forgets everything and removes the file."""
        self._resident.clear()
        self._resident_bytes = 0
        self._spilled.clear()
        self._moved.clear()
        if self._host_store is not None:
            self._host_store.close()
        if self._file is not None:
            with contextlib.suppress(OSError):  # of a full disk, which was told already
                self._file.close()
            self._file = None

    def _spill(self) -> None:
        key, values = self._resident.popitem(last=False)
        self._resident_bytes -= values.nbytes
        library = library_of(values)
        if library is not None:
            if self._host_store is None:
                self._host_store = ActivationStore(half_of_free_memory())
            self._host_store.put(key, library.to_host(values))
            self._moved[key] = library
            return
        try:
            offset = self._write(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
        except OSError as error:
            raise SpillError(
                f"Activations beyond `--max-memory` cannot be kept in {_folder()}: "
                f"{error.strerror}.\n"
                f"Make room there, name another folder in the environment variable TMPDIR, or "
                f"allow more memory with `--max-memory`."
            ) from error
        self._spilled[key] = _Spilled(offset, values.shape, values.dtype)

    def _write(self, content: npt.NDArray[np.uint8]) -> int:
        """Appends to the file and returns where."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="layerprec-")  # noqa: SIM115 - see `close`
        offset = self._file.seek(0, 2)
        self._file.write(memoryview(content))
        self._file.flush()  # a full disk is found out here, not when it is read
        return offset


def _folder() -> str:
    try:
        return repr(tempfile.gettempdir())
    except OSError:  # there is none that can be written
        return "a temporary folder"
