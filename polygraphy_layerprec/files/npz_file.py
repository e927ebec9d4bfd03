"""Files of arrays that anybody may have made: what an array is, is known before it is unpacked."""

from __future__ import annotations

import contextlib
import io
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
from numpy.lib import format as npy

from polygraphy_layerprec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

__all__ = ["NpzFile", "StoredArray", "open_npy"]

_LONGEST_HEADER: Final = 1 << 16
_ONE: Final = "an array"
_SEVERAL: Final = "a file of arrays"
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
    """The `.npz` or `.npy` file."""

    member: str | None
    """Name of the array's file in it; None where the file holds nothing else."""

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
            UserError: If the file is damaged.
        """
        del copy
        what = _ONE if self.member is None else _SEVERAL
        with _told_by_file(self.path, what), self._open() as file:
            values = np.asarray(npy.read_array(file, allow_pickle=False))
        return values if dtype is None else values.astype(dtype)

    @contextlib.contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        if self.member is None:
            with open(self.path, "rb") as file:
                yield file
            return
        with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
            yield member


class NpzFile(Mapping[str, StoredArray]):
    """The arrays of an `.npz` file by name, which are read when they are asked for.

    An array that claims to be small and is large, or the other way round, is never unpacked.
    """

    def __init__(self, path: str) -> None:
        """Reads the headers.

        Raises:
            UserError: If the file is none of arrays, or is damaged.
            OSError: If it cannot be read.
        """
        with _told_by_file(path), zipfile.ZipFile(path) as archive:
            self._arrays = {
                info.filename.removesuffix(".npy"): _stored_in(path, archive, info)
                for info in archive.infolist()
            }

    def __getitem__(self, name: str) -> StoredArray:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def open_npy(path: str) -> StoredArray:
    """Returns the array of an `.npy` file, which is read when it is asked for.

    Raises:
        UserError: If it is none of an array, or is damaged.
        OSError: If it cannot be read.
    """
    with _told_by_file(path, _ONE):
        with open(path, "rb") as file:
            shape, dtype = _read_header(file, os.path.getsize(path))
        return StoredArray(path, None, dtype, shape)


def _stored_in(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> StoredArray:
    with archive.open(info) as file:
        try:
            shape, dtype = _read_header(file, info.file_size)
        except ValueError as error:
            raise UserError(f"{info.filename!r}: {error}") from error
    return StoredArray(path, info.filename, dtype, shape)


def _read_header(file: IO[bytes], size_bytes: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    start = io.BytesIO(file.read(_LONGEST_HEADER))
    version = npy.read_magic(start)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise UserError(f"it is an array of format {version}, which has fields")
    shape, _, dtype = read(start)
    if dtype.hasobject:
        raise UserError("it holds Python objects, which are not read: they may run programs")
    claimed = start.tell() + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed != size_bytes:
        raise UserError(f"it says that it is {dtype} {list(shape)}, but has {size_bytes} bytes")
    return tuple(shape), dtype


@contextlib.contextmanager
def _told_by_file(path: str, what: str = _SEVERAL) -> Iterator[None]:
    try:
        yield
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # it cannot be opened; within, zipfile goes where damaged numbers lead it
        reason = str(error) or type(error).__name__
        raise UserError(f"{path!r} is not {what}: {reason:.300}") from error
