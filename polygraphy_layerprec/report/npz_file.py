"""Files of arrays that anybody may have made: what an array is, is known before it is unpacked."""

from __future__ import annotations

import contextlib
import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.lib import format as npy

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

__all__ = ["NpzFile", "StoredArray"]

_LONGEST_HEADER: Final = 1 << 16
_DAMAGE: Final = (
    # What zipfile and numpy raise on bytes that are not what they should be.
    *(AttributeError, EOFError, KeyError, NotImplementedError, RuntimeError, SyntaxError),
    *(TypeError, ValueError, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error),
    tokenize.TokenError,
)


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array in a file: what its header says of it, and its elements when they are asked for."""

    path: str
    """The `.npz` file."""

    member: str
    """Name of the array's file in it."""

    dtype: np.dtype[Any]
    """Element type."""

    shape: tuple[int, ...]
    """Shape."""

    def __array__(
        self,
        dtype: np.dtype[Any] | None = None,
        copy: bool | None = None,  # noqa: FBT001 - as numpy calls it
    ) -> npt.NDArray[Any]:
        """Reads the elements, fresh memory each time.

        Raises:
            ValueError: If the file is damaged.
        """
        del copy
        with (
            _told_by_file(self.path),
            zipfile.ZipFile(self.path) as archive,
            archive.open(self.member) as file,
        ):
            values = np.asarray(npy.read_array(file, allow_pickle=False))
        return values if dtype is None else values.astype(dtype)


class NpzFile(Mapping[str, StoredArray]):
    """The arrays of an `.npz` file by name, which are read when they are asked for.

    An array that claims to be small and is large, or the other way round, is never unpacked.
    """

    def __init__(self, path: str) -> None:
        """Reads the headers.

        Raises:
            ValueError: If the file is none of arrays, or is damaged.
            OSError: If it cannot be read.
        """
        with _told_by_file(path), zipfile.ZipFile(path) as archive:
            self._arrays = {
                info.filename.removesuffix(".npy"): _read_header(path, archive, info)
                for info in archive.infolist()
            }

    def __getitem__(self, name: str) -> StoredArray:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _read_header(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> StoredArray:
    with archive.open(info) as file:
        start = io.BytesIO(file.read(_LONGEST_HEADER))
    version = npy.read_magic(start)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"{info.filename!r} is an array of format {version}, which has fields")
    shape, _, dtype = read(start)
    claimed = start.tell() + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or (dtype.kind != "O" and claimed != info.file_size):
        raise ValueError(
            f"{info.filename!r} says that it is {dtype} {list(shape)}, but has {info.file_size} "
            f"bytes"
        )
    return StoredArray(path, info.filename, dtype, tuple(shape))


@contextlib.contextmanager
def _told_by_file(path: str) -> Iterator[None]:
    try:
        yield
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # it cannot be opened; within, zipfile goes where damaged numbers lead it
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path!r} is not a file of arrays: {reason:.300}") from error
