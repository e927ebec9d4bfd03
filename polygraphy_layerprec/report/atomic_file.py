"""Files that are there completely or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_writable", "write_file", "write_text_file"]


def check_writable(path: str) -> None:
    """Checks, before work begins, that `path` can be written once it is done.

    Raises:
        ValueError: If it cannot; the text says why and what to do.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        raise ValueError(f"Cannot write {path!r}: it is a directory.\nGive the name of a file.")
    if not os.path.isdir(folder):
        raise ValueError(
            f"Cannot write {path!r}: the directory {folder!r} does not exist.\n"
            f"Create it first, or give another path."
        )
    if os.path.exists(target) and not stat.S_ISREG(os.stat(target).st_mode):
        raise ValueError(
            f"Cannot write {path!r}: it is not a regular file.\nGive the name of a file."
        )
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"Cannot write {path!r}: the directory {folder!r} is not writable.\n"
            f"Note: The system says: {error.strerror}.\n"
            f"Give a path in a directory of yours, or change its permissions."
        ) from error


def write_text_file(path: str, text: str) -> None:
    """Writes `text` to `path` as UTF-8, as `write_file` does."""
    write_file(path, lambda file: file.write(text.encode()))


def write_file(path: str, write: Callable[[BinaryIO], object]) -> None:
    """Lets `write` fill the file at `path`, by way of a temporary file beside it.

    An interrupt or a full disk leaves what was there before.

    Raises:
        ValueError: If `path` cannot be written.
        OSError: If writing fails half-way, for example on a full disk.
    """
    check_writable(path)
    target = os.path.realpath(path)  # a link stays, its target is replaced
    descriptor, temporary = tempfile.mkstemp(
        dir=os.path.dirname(target), prefix=".", suffix=".partial"
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
        os.chmod(temporary, _file_mode(target))
        os.replace(temporary, target)
    except BaseException:  # an interrupt too
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _file_mode(target: str) -> int:
    """Returns the permissions that opening `target` for writing would have left it with."""
    if os.path.exists(target):
        return stat.S_IMODE(os.stat(target).st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
